package key

import (
	"net/netip"
	"syscall"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// knownFlags are FreeBSD's SADB_KEY_FLAGS_MAX.
const knownFlags pfkey.SAFlags = 0x0fff

// linuxFlags are those of linux/pfkeyv2.h that say how headers are copied,
// which here is not for an SA to say.
const linuxFlags pfkey.SAFlags = 0xf0000000

// getSPI reserves an SPI for an SA to be (SADB_GETSPI).
func (h *Handler) getSPI(_ *Session, m *pfkey.Message) (answer, error) {
	if err := need(m, pfkey.ExtAddressSrc, pfkey.ExtAddressDst); err != nil {
		return answer{}, err
	}
	var low, high uint32
	if r := pfkey.Find[*pfkey.SPIRange](m); r != nil {
		low, high = r.Min, r.Max
	}
	sa, err := h.sad.GetSPI(index(m), low, high)
	if err != nil {
		return answer{}, err
	}
	h.acquires.done(m.Seq)
	reply := echo(m)
	reply.Exts = []pfkey.Extension{&pfkey.SA{SPI: sa.SPI}, m.Src(), m.Dst()}
	return answer{message: reply}, nil
}

// add puts a complete SA into the database (SADB_ADD).
func (h *Handler) add(_ *Session, m *pfkey.Message) (answer, error) {
	if err := needKey(m); err != nil {
		return answer{}, err
	}
	spec, err := specification(m)
	if err != nil {
		return answer{}, err
	}
	sa, err := h.sad.Add(spec)
	if err != nil {
		return answer{}, err
	}
	h.added(sa)
	h.acquires.done(m.Seq)
	return answer{message: described(m, sa), others: everybody}, nil
}

// needKey finds fault with a message that makes an SA and has no key for it. A
// key of no bits is one.
func needKey(m *pfkey.Message) error {
	switch m.SAType {
	case pfkey.SATypeESP:
		return need(m, pfkey.ExtKeyEncrypt)
	case pfkey.SATypeAH:
		return need(m, pfkey.ExtKeyAuth)
	}
	return nil
}

// update completes a larval SA, or changes lifetimes and addresses of another
// (SADB_UPDATE).
func (h *Handler) update(_ *Session, m *pfkey.Message) (answer, error) {
	spec, err := specification(m)
	if err != nil {
		return answer{}, err
	}
	src, dst, err := newAddresses(m)
	if err != nil {
		return answer{}, err
	}
	sa, err := h.sad.Move(spec, src, dst)
	if err != nil {
		return answer{}, err
	}
	h.added(sa)
	return answer{message: described(m, sa), others: everybody}, nil
}

// newAddresses are where an SA is to be moved to, invalid where it stays.
func newAddresses(m *pfkey.Message) (src, dst netip.Addr, err error) {
	from, _ := m.Get(pfkey.ExtNewAddressSrc).(*pfkey.Address)
	to, _ := m.Get(pfkey.ExtNewAddressDst).(*pfkey.Address)
	if from != nil {
		src = from.Addr.Addr()
	}
	if to != nil {
		dst = to.Addr.Addr()
	}
	if from != nil && to != nil {
		err = checkFamily(from, to)
	}
	return src, dst, err
}

// added warns of an SA that should not have been added.
func (h *Handler) added(sa *sad.SA) {
	if sa.KeyReused {
		h.log.Warn("this key was used before: the algorithm is broken if its IVs repeat, so use another key",
			"spi", sa.SPI, "src", sa.Src, "dst", sa.Dst, "reqid", sa.ReqID)
	}
}

// described is the answer to ADD and UPDATE, which everybody hears: the request
// without its keys.
func described(m *pfkey.Message, sa *sad.SA) *pfkey.Message {
	reply := echo(m,
		pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtAddressSrc, pfkey.ExtAddressDst,
		pfkey.ExtLifetimeHard, pfkey.ExtLifetimeSoft, pfkey.ExtIdentitySrc, pfkey.ExtIdentityDst,
		pfkey.ExtNATTType, pfkey.ExtNATTSport, pfkey.ExtNATTDport, pfkey.ExtNATTOAI, pfkey.ExtNATTOAR,
		pfkey.ExtNewAddressSrc, pfkey.ExtNewAddressDst)
	x := *pfkey.Find[*pfkey.SA](m)
	x.SPI = sa.SPI // a TCP-MD5 SA gets another if its own is taken
	reply.Exts[0] = &x
	return reply
}

// delete removes one SA, or without an SA extension all between two addresses
// (SADB_DELETE). The latter never fails.
func (h *Handler) delete(_ *Session, m *pfkey.Message) (answer, error) {
	if err := need(m, pfkey.ExtAddressSrc, pfkey.ExtAddressDst); err != nil {
		return answer{}, err
	}
	i := index(m)
	if x := pfkey.Find[*pfkey.SA](m); x == nil {
		h.sad.DeleteAll(i.SAType, i.Src, i.Dst)
	} else if err := h.sad.Delete(i.SAType, i.Src, i.Dst, x.SPI); err != nil {
		return answer{}, err
	}
	return answer{message: echo(m, pfkey.ExtSA, pfkey.ExtAddressSrc, pfkey.ExtAddressDst), others: everybody}, nil
}

// get answers with an SA (SADB_GET).
func (h *Handler) get(_ *Session, m *pfkey.Message) (answer, error) {
	if err := need(m, pfkey.ExtSA, pfkey.ExtAddressSrc, pfkey.ExtAddressDst); err != nil {
		return answer{}, err
	}
	i := index(m)
	sa, err := h.sad.Get(i.SAType, i.Src, i.Dst, pfkey.Find[*pfkey.SA](m).SPI)
	if err != nil {
		return answer{}, err
	}
	reply := h.entry(sa)
	if reply == nil {
		return answer{}, syscall.ENOENT
	}
	reply.Type, reply.Seq, reply.PID = m.Type, m.Seq, m.PID
	return answer{message: reply}, nil
}

// flush removes all SAs of a type, or all (SADB_FLUSH).
func (h *Handler) flush(_ *Session, m *pfkey.Message) (answer, error) {
	h.sad.Flush(m.SAType)
	return answer{message: echo(m), others: everybody}, nil
}

// index is what a message with addresses says of the group of an SA. Ports,
// prefixes and upper-layer protocols mean nothing in an SA's addresses.
func index(m *pfkey.Message) sad.Spec {
	s := sad.Spec{
		Src: m.Src().Addr.Addr(), Dst: m.Dst().Addr.Addr(), SAType: m.SAType, Seq: m.Seq, PID: m.PID,
	}
	if x := pfkey.Find[*pfkey.SA2](m); x != nil {
		s.Mode, s.ReqID = x.Mode, x.ReqID
	}
	return s
}

// specification is the SA that an ADD or UPDATE message describes. What the
// values may be is the database's to say.
func specification(m *pfkey.Message) (sad.Spec, error) {
	if err := need(m, pfkey.ExtSA, pfkey.ExtAddressSrc, pfkey.ExtAddressDst); err != nil {
		return sad.Spec{}, err
	}
	s, x := index(m), pfkey.Find[*pfkey.SA](m)
	s.SPI, s.Auth, s.Encrypt = x.SPI, x.Auth, x.Encrypt
	s.Flags = x.Flags &^ linuxFlags
	if unknown := s.Flags &^ knownFlags; unknown != 0 {
		return sad.Spec{}, invalid("unknown SA flags 0x%08x", uint32(unknown))
	}
	if m.Get(pfkey.ExtSAReplay) != nil || s.Flags&pfkey.SAFlagOld == 0 {
		s.Replay = m.ReplayPackets()
	}
	if err := setKeys(&s, m); err != nil {
		return sad.Spec{}, err
	}
	limited, err := both(m, pfkey.ExtLifetimeHard, pfkey.ExtLifetimeSoft)
	if err != nil {
		return sad.Spec{}, err
	}
	if limited {
		s.Hard, s.Soft = lifetime(m.Hard()), lifetime(m.Soft())
	}
	if err := checkIdentities(m); err != nil {
		return sad.Spec{}, err
	}
	return s, setNATT(&s, m)
}

func setKeys(s *sad.Spec, m *pfkey.Message) error {
	if k := m.KeyAuth(); k != nil {
		if s.SAType == pfkey.SATypeIPComp {
			return invalid("an authentication key in an ipcomp SA")
		}
		s.AuthKey = k.Key
	}
	if k := m.KeyEncrypt(); k != nil {
		switch s.SAType {
		case pfkey.SATypeAH, pfkey.SATypeTCPSignature:
			return invalid("an encryption key in an SA of type %v", s.SAType)
		}
		s.EncryptKey = k.Key
	}
	for _, k := range []*pfkey.Key{m.KeyAuth(), m.KeyEncrypt()} {
		if k != nil && k.Bits%8 != 0 {
			return invalid("%v of %d bits, want whole bytes", k.Kind, k.Bits)
		}
	}
	return nil
}

func lifetime(l *pfkey.Lifetime) sad.Lifetime {
	return sad.Lifetime{Allocations: l.Allocations, Bytes: l.Bytes, AddTime: l.AddTime, UseTime: l.UseTime}
}

// checkIdentities finds fault with the identities of an SA, which are not kept.
func checkIdentities(m *pfkey.Message) error {
	given, err := both(m, pfkey.ExtIdentitySrc, pfkey.ExtIdentityDst)
	if err != nil || !given {
		return err
	}
	src, _ := m.Get(pfkey.ExtIdentitySrc).(*pfkey.Identity)
	dst, _ := m.Get(pfkey.ExtIdentityDst).(*pfkey.Identity)
	if src.Type != dst.Type {
		return invalid("identities of types %d and %d, want the same", src.Type, dst.Type)
	}
	return nil
}

// setNATT takes over how ESP is to be encapsulated. That takes a type and both
// ports; with less, nothing is, as on FreeBSD.
func setNATT(s *sad.Spec, m *pfkey.Message) error {
	kind, from, to := pfkey.Find[*pfkey.NATTType](m), m.NATTSport(), m.NATTDport()
	if s.SAType != pfkey.SATypeESP || kind == nil || from == nil || to == nil {
		return nil
	}
	if kind.Type != pfkey.EncapESPInUDP {
		return invalid("encapsulation of type %d, want %d, ESP in UDP", kind.Type, pfkey.EncapESPInUDP)
	}
	s.NATT = &sad.NATT{SrcPort: from.Port, DstPort: to.Port}
	if f := pfkey.Find[*pfkey.NATTFrag](m); f != nil {
		s.NATT.Fragment = f.Size
	}
	// Only transport mode has checksums that depend on the addresses.
	if s.Mode == pfkey.ModeTunnel {
		return nil
	}
	var err error
	if s.NATT.OAI, err = original(m.NATTOAI(), s.Src); err != nil {
		return err
	}
	s.NATT.OAR, err = original(m.NATTOAR(), s.Dst)
	return err
}

// original is an address before its translation, invalid if it was not
// translated.
func original(a *pfkey.Address, now netip.Addr) (netip.Addr, error) {
	if a == nil || a.Addr.Addr() == now {
		return netip.Addr{}, nil
	}
	if !a.Addr.Addr().Is4() {
		return netip.Addr{}, invalid("%v %v, want an IPv4 address", a.Kind, a.Addr.Addr())
	}
	return a.Addr.Addr(), nil
}
