package key

import (
	"fmt"
	"syscall"

	"ifipsec/engine/pfkey"
)

// check finds fault with what all requests have in common, as FreeBSD's
// key_parse does. Lengths, doublets and address families are the codec's.
func check(m *pfkey.Message) error {
	if err := checkSAType(m); err != nil {
		return err
	}
	for _, e := range m.Exts {
		if u, ok := e.(*pfkey.Unknown); ok && u.Kind != pfkey.ExtSensitivity {
			return invalid("%v message with a %v extension, which is not known here", m.Type, u.Kind)
		}
	}
	src, dst := m.Src(), m.Dst()
	if src == nil || dst == nil {
		return nil
	}
	if src.Proto != dst.Proto {
		return invalid("upper-layer protocols %d of the source and %d of the destination, want the same", src.Proto, dst.Proto)
	}
	return checkFamily(src, dst)
}

func checkFamily(src, dst *pfkey.Address) error {
	if src.Addr.Addr().Is4() != dst.Addr.Addr().Is4() {
		return invalid("source %v and destination %v are of different families", src.Addr.Addr(), dst.Addr.Addr())
	}
	return nil
}

func checkSAType(m *pfkey.Message) error {
	if m.Type == pfkey.TypeSPDDump {
		const scopes = pfkey.ScopeGlobal | pfkey.ScopeIfnet | pfkey.ScopePCB
		if pfkey.Scope(m.SAType)&^scopes != 0 {
			return invalid("policy scopes %#x, want 0 for all, or a sum of %d, %d and %d",
				uint8(m.SAType), pfkey.ScopeGlobal, pfkey.ScopeIfnet, pfkey.ScopePCB)
		}
		return nil
	}
	switch m.SAType {
	case pfkey.SATypeUnspec:
		switch m.Type {
		case pfkey.TypeGetSPI, pfkey.TypeUpdate, pfkey.TypeAdd, pfkey.TypeDelete, pfkey.TypeGet, pfkey.TypeAcquire:
			return invalid("%v message without an SA type", m.Type)
		}
		return nil
	case pfkey.SATypeAH, pfkey.SATypeESP, pfkey.SATypeIPComp, pfkey.SATypeTCPSignature:
		switch m.Type {
		case pfkey.TypeSPDAdd, pfkey.TypeSPDDelete, pfkey.TypeSPDGet, pfkey.TypeSPDFlush,
			pfkey.TypeSPDSetIdx, pfkey.TypeSPDUpdate, pfkey.TypeSPDDelete2:
			return invalid("%v message with SA type %v, want none", m.Type, m.SAType)
		}
		return nil
	case rsvp, ospfv2, ripv2, mip:
		return fmt.Errorf("SA type %v: %w", m.SAType, syscall.EOPNOTSUPP)
	case promiscOn:
		if m.Type == pfkey.TypePromisc {
			return nil
		}
	}
	return invalid("SA type %v, want esp, ah, ipcomp or tcp", m.SAType)
}

// SA types of RFC 2367 that no kernel ever had.
const (
	rsvp   pfkey.SAType = 5
	ospfv2 pfkey.SAType = 6
	ripv2  pfkey.SAType = 7
	mip    pfkey.SAType = 8
)

// need finds fault with a message that lacks an extension.
func need(m *pfkey.Message, kinds ...pfkey.ExtType) error {
	for _, k := range kinds {
		if m.Get(k) == nil {
			return invalid("%v message without %v extension", m.Type, k)
		}
	}
	return nil
}

// both finds fault with a message that has one of two extensions, and says
// whether it has them.
func both(m *pfkey.Message, a, b pfkey.ExtType) (bool, error) {
	hasA, hasB := m.Get(a) != nil, m.Get(b) != nil
	if hasA != hasB {
		return false, invalid("%v message with one of %v and %v extension, want both or none", m.Type, a, b)
	}
	return hasA, nil
}

// echo is the header of a request with those of its extensions that are named,
// in the order in which they are, and that it has.
func echo(m *pfkey.Message, kinds ...pfkey.ExtType) *pfkey.Message {
	e := &pfkey.Message{Type: m.Type, SAType: m.SAType, Seq: m.Seq, PID: m.PID}
	for _, k := range kinds {
		if x := m.Get(k); x != nil {
			e.Exts = append(e.Exts, x)
		}
	}
	return e
}

// invalid is an EINVAL that says what is wrong.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}
