package key

import (
	"iter"
	"slices"

	"ifipsec/engine/pfkey"
)

// Session is one open PF_KEY socket.
type Session struct {
	h    *Handler
	hear func(*pfkey.Message)

	// What follows is guarded by the Handler's lock.
	registered  map[pfkey.SAType]bool
	promiscuous bool
}

// Open begins a session. hear is called with each message for the session that
// is not an answer to a request of its own. It must neither wait nor change or
// keep the message, and must not call the Handler.
func (h *Handler) Open(hear func(*pfkey.Message)) *Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Session{h: h, hear: hear, registered: map[pfkey.SAType]bool{}}
	h.sessions = append(h.sessions, s)
	return s
}

// Close ends the session, which hears nothing more and must not be used again.
func (s *Session) Close() {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(s.registered) > 0 {
		h.registered.Add(-1)
	}
	clear(s.registered)
	s.setPromiscuous(false)
	h.sessions = slices.DeleteFunc(h.sessions, func(o *Session) bool { return o == s })
}

// audience is who hears a message beside the one who asked for it (RFC 2367,
// section 3.1, and FreeBSD's key_sendup_mbuf).
type audience int

const (
	nobody     audience = iota
	registered          // whoever registered, for whatever type
	everybody
)

// tell lets the audience hear a message. Who is promiscuous hears every
// message within another's, the sender also, and what is told to all once
// more as it is (RFC 2367, section 3.1.11). h.mu is held.
func (h *Handler) tell(m *pfkey.Message, to audience, sender *Session) {
	if h.promiscuous.Load() > 0 {
		within := &pfkey.Message{Type: pfkey.TypePromisc, Inner: m}
		for _, s := range h.sessions {
			if s.promiscuous {
				s.hear(within)
			}
		}
	}
	if to == nobody {
		return
	}
	for _, s := range h.sessions {
		if s != sender && (to == everybody || len(s.registered) > 0) {
			s.hear(m)
		}
	}
}

// overheard lets promiscuous sessions hear what a dump answers.
func (h *Handler) overheard(dump iter.Seq[*pfkey.Message]) iter.Seq[*pfkey.Message] {
	return func(yield func(*pfkey.Message) bool) {
		for m := range dump {
			if h.promiscuous.Load() > 0 {
				h.mu.Lock()
				h.tell(m, nobody, nil)
				h.mu.Unlock()
			}
			if !yield(m) {
				return
			}
		}
	}
}

// promisc makes a session promiscuous, or no longer; or sends a message from
// one program to all (SADB_X_PROMISC).
func (h *Handler) promisc(s *Session, m *pfkey.Message) (answer, error) {
	if m.Inner != nil {
		return answer{message: m.Inner, others: everybody}, nil
	}
	switch m.SAType {
	case promiscOff, promiscOn:
		s.setPromiscuous(m.SAType == promiscOn)
	default:
		return answer{}, invalid("SA type %d, want %d or %d, for off or on", m.SAType, promiscOff, promiscOn)
	}
	return answer{message: echo(m), others: everybody}, nil
}

// What stands in the place of the SA type in SADB_X_PROMISC.
const (
	promiscOff pfkey.SAType = 0
	promiscOn  pfkey.SAType = 1
)

func (s *Session) setPromiscuous(on bool) {
	if on == s.promiscuous {
		return
	}
	s.promiscuous = on
	if on {
		s.h.promiscuous.Add(1)
	} else {
		s.h.promiscuous.Add(-1)
	}
}
