// Package key is what PF_KEY messages mean: the requests of RFC 2367 and KAME's
// SADB_X_*, done to the two databases and answered as FreeBSD's
// sys/netipsec/key.c does. It does no I/O. Whoever owns the sockets opens a
// [Session] for each and carries its messages.
package key

import (
	"errors"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
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
	Now func() time.Time // for the rate of ACQUIRE; nil: time.Now

	// Wall makes what the databases' clock shows a time for people; nil: it is
	// one.
	Wall func(time.Time) time.Time

	Log *slog.Logger // nil discards
}

// Handler answers requests and tells the sessions what they should hear. It
// must be made with [New]; its methods may be called concurrently.
type Handler struct {
	sad       *sad.DB
	spd       *spd.DB
	log       *slog.Logger
	wall      func(time.Time) time.Time
	supported []pfkey.Extension // of the answer to REGISTER
	acquires  acquires

	// mu is held while a request is done and told, so that everybody hears of
	// the changes in the order in which they are made.
	mu       sync.Mutex
	sessions []*Session // in the order in which they were opened

	registered  atomic.Int32 // sessions that registered for anything
	promiscuous atomic.Int32 // sessions that hear everything
}

// New returns a Handler without sessions.
func New(c Config) *Handler {
	h := &Handler{sad: c.SAD, spd: c.SPD, log: c.Log, supported: supported()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.wall = c.Wall; h.wall == nil {
		h.wall = func(t time.Time) time.Time { return t }
	}
	h.acquires.now, h.acquires.interval = c.Now, DefaultAcquireInterval
	if h.acquires.now == nil {
		h.acquires.now = time.Now
	}
	return h
}

// answer is what comes of a request that did not fail.
type answer struct {
	message *pfkey.Message           // nil if there is none
	others  audience                 // who hears it beside the sender
	dump    iter.Seq[*pfkey.Message] // in place of message
}

// perform does what each type of message asks for, with the lock held.
var perform = map[pfkey.MsgType]func(*Handler, *Session, *pfkey.Message) (answer, error){
	pfkey.TypeGetSPI:     (*Handler).getSPI,
	pfkey.TypeUpdate:     (*Handler).update,
	pfkey.TypeAdd:        (*Handler).add,
	pfkey.TypeDelete:     (*Handler).delete,
	pfkey.TypeGet:        (*Handler).get,
	pfkey.TypeAcquire:    (*Handler).acquire,
	pfkey.TypeRegister:   (*Handler).register,
	pfkey.TypeFlush:      (*Handler).flush,
	pfkey.TypeDump:       (*Handler).dump,
	pfkey.TypePromisc:    (*Handler).promisc,
	pfkey.TypeSPDUpdate:  (*Handler).spdUpdate,
	pfkey.TypeSPDAdd:     (*Handler).spdAdd,
	pfkey.TypeSPDDelete:  (*Handler).spdDelete,
	pfkey.TypeSPDGet:     (*Handler).spdGet,
	pfkey.TypeSPDDump:    (*Handler).spdDump,
	pfkey.TypeSPDFlush:   (*Handler).spdFlush,
	pfkey.TypeSPDSetIdx:  (*Handler).spdAdd,
	pfkey.TypeSPDDelete2: (*Handler).spdDelete2,
}

// Handle does what a message asks for and returns the answers for the sender:
// none, one, or those of a dump. All is done when it returns, except that a
// dump's answers are made while they are taken, which holds up nobody.
func (s *Session) Handle(m *pfkey.Message) iter.Seq[*pfkey.Message] {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	a, err := h.request(s, m)
	if err != nil {
		h.log.Debug("PF_KEY request failed", "type", m.Type.String(), "pid", m.PID, "error", err)
		a = answer{message: Failure(m, err)}
	}
	switch {
	case a.dump != nil:
		return h.overheard(a.dump)
	case a.message == nil:
		return func(func(*pfkey.Message) bool) {}
	default:
		h.tell(a.message, a.others, s)
		return func(yield func(*pfkey.Message) bool) { yield(a.message) }
	}
}

func (h *Handler) request(s *Session, m *pfkey.Message) (answer, error) {
	if err := check(m); err != nil {
		return answer{}, err
	}
	do, ok := perform[m.Type]
	if !ok {
		return answer{}, invalid("%v is not a request", m.Type)
	}
	return do(h, s, m)
}

// Failure is the answer to a request that failed: its header with the errno
// that err wraps, EINVAL if none, and no extensions.
func Failure(request *pfkey.Message, err error) *pfkey.Message {
	errno := syscall.EINVAL
	errors.As(err, &errno)
	m := echo(request)
	m.Errno = uint8(errno)
	return m
}
