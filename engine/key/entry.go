package key

import (
	"net/netip"
	"slices"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// references is FreeBSD's reference count of an entry that nobody is using.
const references = 1

// dump answers with all SAs of a type, or with all (SADB_DUMP). The sequence
// number of an answer says how many are still to come. ENOENT if there is none.
func (h *Handler) dump(_ *Session, m *pfkey.Message) (answer, error) {
	sas := slices.Collect(h.sad.All(m.SAType))
	if len(sas) == 0 {
		return answer{}, syscall.ENOENT
	}
	return answer{dump: func(yield func(*pfkey.Message) bool) {
		// SAs may go while the reader takes his time, also the last one. So each
		// answer waits until it is known whether another follows it.
		var waiting *pfkey.Message
		for i, sa := range sas {
			next := h.entry(sa)
			if next == nil {
				continue
			}
			if waiting != nil && !yield(waiting) {
				return
			}
			next.Type, next.Seq, next.PID = m.Type, uint32(len(sas)-1-i), m.PID
			waiting = next
		}
		if waiting == nil {
			yield(Failure(m, syscall.ENOENT))
			return
		}
		waiting.Seq = 0
		yield(waiting)
	}}, nil
}

// entry is what GET and DUMP answer of an SA, keys and all, but for the type,
// the sequence number and the PID. It is nil if the SA is gone.
func (h *Handler) entry(sa *sad.SA) *pfkey.Message {
	if sa.State() == pfkey.StateDead {
		// An update may have put another in its place.
		var err error
		if sa, err = h.sad.Get(sa.SAType, sa.Src, sa.Dst, sa.SPI); err != nil {
			return nil
		}
	}
	auth, encrypt := sa.Keys()
	// In this order: keys are wiped once an SA is dead.
	if sa.State() == pfkey.StateDead {
		return nil
	}
	m := association(sa)
	if sa.Hard != (sad.Lifetime{}) || sa.Soft != (sad.Lifetime{}) {
		m.Exts = append(m.Exts, limit(pfkey.ExtLifetimeHard, sa.Hard), limit(pfkey.ExtLifetimeSoft, sa.Soft))
	}
	m.Exts = append(m.Exts, h.current(sa), host(pfkey.ExtAddressSrc, sa.Src), host(pfkey.ExtAddressDst, sa.Dst))
	if auth != nil {
		m.Exts = append(m.Exts, &pfkey.Key{Kind: pfkey.ExtKeyAuth, Bits: 8 * len(auth), Key: auth})
	}
	if encrypt != nil {
		m.Exts = append(m.Exts, &pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 8 * len(encrypt), Key: encrypt})
	}
	if n := sa.NATT; n != nil {
		m.Exts = append(m.Exts, &pfkey.NATTType{Type: pfkey.EncapESPInUDP},
			&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: n.SrcPort},
			&pfkey.NATTPort{Kind: pfkey.ExtNATTDport, Port: n.DstPort})
		if n.OAI.IsValid() {
			m.Exts = append(m.Exts, host(pfkey.ExtNATTOAI, n.OAI))
		}
		if n.OAR.IsValid() {
			m.Exts = append(m.Exts, host(pfkey.ExtNATTOAR, n.OAR))
		}
	}
	return m
}

// association is how all messages about an SA begin that are not answers to a
// change of it: a header and the extensions SA, SA2 and, for a large window,
// SA_REPLAY.
func association(sa *sad.SA) *pfkey.Message {
	window, large := pfkey.ReplayWindow(sa.Replay)
	m := &pfkey.Message{
		SAType: sa.SAType, Reserved: references,
		Exts: append(make([]pfkey.Extension, 0, 12),
			&pfkey.SA{SPI: sa.SPI, Replay: window, State: sa.State(), Auth: sa.Auth, Encrypt: sa.Encrypt, Flags: sa.Flags},
			&pfkey.SA2{Mode: sa.Mode, Sequence: sequence(sa), ReqID: sa.ReqID}),
	}
	if large != nil {
		m.Exts = append(m.Exts, large)
	}
	return m
}

// sequence is the low half of the sequence number last sent or received. An SA
// is used for one of the two.
func sequence(sa *sad.SA) uint32 {
	if sa.ESP == nil {
		return 0
	}
	return uint32(max(sa.ESP.Sequence(), sa.ESP.ReplayState().Highest))
}

func limit(kind pfkey.ExtType, l sad.Lifetime) *pfkey.Lifetime {
	return &pfkey.Lifetime{Kind: kind, Allocations: l.Allocations, Bytes: l.Bytes, AddTime: l.AddTime, UseTime: l.UseTime}
}

func (h *Handler) current(sa *sad.SA) *pfkey.Lifetime {
	c := sa.Current()
	return &pfkey.Lifetime{
		Kind: pfkey.ExtLifetimeCurrent, Allocations: uint32(c.Packets), Bytes: c.Bytes,
		AddTime: h.seconds(sa.Created), UseTime: h.seconds(c.FirstUsed),
	}
}

// seconds is a time as current lifetimes have it: since the epoch, 0 for never.
func (h *Handler) seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(h.wall(t).Unix())
}

// host is an address extension without port, prefix and protocol.
func host(kind pfkey.ExtType, a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Kind: kind, Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
}
