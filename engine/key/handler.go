// Package key is what PF_KEY messages mean: the requests of RFC 2367 and KAME's
// SADB_X_*, done to the two databases and answered as FreeBSD's
// sys/netipsec/key.c does. It does no I/O. Whoever owns the sockets opens a
// [Session] for each and carries its messages.
package key

import (
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// Config is what a Handler takes from outside.
type Config struct {
	SAD *sad.DB
	SPD *spd.DB
	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: none
}

// Handler knows the open sessions. It must be made with [New]; its methods may
// be called concurrently.
type Handler struct {
	sad *sad.DB
	spd *spd.DB
	now func() time.Time
	log *slog.Logger

	// mu is held while a request is done and told, so that everybody hears of
	// changes in the order in which they are made.
	mu       sync.Mutex
	sessions map[*Session]struct{}
	opened   uint64
}

// New returns a Handler without sessions.
func New(c Config) *Handler {
	h := &Handler{sad: c.SAD, spd: c.SPD, now: c.Now, log: c.Log, sessions: map[*Session]struct{}{}}
	if h.now == nil {
		h.now = time.Now
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

// Session is one open PF_KEY socket.
type Session struct {
	h      *Handler
	tell   func(*pfkey.Message)
	number uint64 // sessions are told things in the order in which they were opened
}

// Open begins a session. tell is called with each message for the session that
// is not an answer to a request of its own; it must neither wait nor change or
// keep the message, and must not call the Handler.
func (h *Handler) Open(tell func(*pfkey.Message)) *Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	s := &Session{h: h, tell: tell, number: h.opened}
	h.sessions[s] = struct{}{}
	return s
}

// Close ends the session, which is told nothing more.
func (s *Session) Close() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	delete(s.h.sessions, s)
}

// Failure is the answer to a request that failed: its header with the errno
// that err wraps, and none of its extensions.
func Failure(request *pfkey.Message, err error) *pfkey.Message {
	errno := syscall.EINVAL
	errors.As(err, &errno)
	return &pfkey.Message{
		Type: request.Type, Errno: uint8(errno), SAType: request.SAType,
		Seq: request.Seq, PID: request.PID,
	}
}

// Handle does what a message asks for and returns the answers to it, which
// usually is one. Those of a dump are made while they are taken, without
// holding up anybody else.
func (s *Session) Handle(m *pfkey.Message) iter.Seq[*pfkey.Message] {
	return func(yield func(*pfkey.Message) bool) {
		yield(Failure(m, syscall.EOPNOTSUPP))
	}
}

// all returns the sessions in the order in which they were opened.
func (h *Handler) all() []*Session {
	return slices.SortedFunc(maps.Keys(h.sessions), func(a, b *Session) int { return int(a.number) - int(b.number) })
}
