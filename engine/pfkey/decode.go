package pfkey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Decode reads one whole message. Nothing in it is trusted: a length that is
// not exactly what the contents need, an extension that stands twice, an
// address of another family than IPv4 and IPv6 and the like are refused with an
// error that wraps [syscall.EINVAL]. What the values mean is not judged here.
//
// When the header is whole and the rest is not, the message returned beside the
// error holds the header, so that the sender can be told; otherwise it is nil.
//
// The message keeps no part of b.
func Decode(b []byte) (*Message, error) {
	if len(b) < headerLen {
		return nil, invalid("message of %d bytes, a header has %d", len(b), headerLen)
	}
	m := &Message{
		Type:     MsgType(b[1]),
		Errno:    b[2],
		SAType:   SAType(b[3]),
		Reserved: host.Uint16(b[6:]),
		Seq:      host.Uint32(b[8:]),
		PID:      host.Uint32(b[12:]),
	}
	if b[0] != version {
		return m, invalid("message of version %d, want %d", b[0], version)
	}
	if n := int(host.Uint16(b[4:])) * unit; n != len(b) {
		return m, invalid("message of %d bytes says that it has %d", len(b), n)
	}
	body := b[headerLen:]
	if m.Type == TypePromisc && len(body) > 0 {
		return m, m.decodeInner(body)
	}
	exts, err := decodeExtensions(body)
	if err != nil {
		return m, fmt.Errorf("%s message: %w", m.Type, err)
	}
	m.Exts = exts
	return m, nil
}

func (m *Message) decodeInner(b []byte) error {
	inner, err := Decode(b)
	if err != nil {
		return fmt.Errorf("%s message: %w", m.Type, err)
	}
	if inner.Inner != nil {
		return invalid("%s message within another's", m.Type)
	}
	m.Inner = inner
	return nil
}

func decodeExtensions(b []byte) ([]Extension, error) {
	if len(b) == 0 {
		return nil, nil
	}
	exts := make([]Extension, 0, 12)
	var kinds [maxExtensions]ExtType
	for len(b) > 0 {
		if len(exts) == maxExtensions {
			return nil, invalid("more than %d extensions", maxExtensions)
		}
		// What is left is a multiple of the unit, so an extension's header fits.
		n := int(host.Uint16(b)) * unit
		kind := ExtType(host.Uint16(b[2:]))
		switch {
		case n == 0:
			return nil, invalid("%s extension of no length", kind)
		case n > len(b):
			return nil, invalid("%s extension of %d bytes where %d are left", kind, n, len(b))
		case kind == 0:
			return nil, invalid("extension of the reserved type 0")
		case slices.Contains(kinds[:len(exts)], kind):
			return nil, invalid("%s extension stands twice", kind)
		}
		e, err := decodeExtension(kind, b[:n])
		if err != nil {
			return nil, fmt.Errorf("%s extension: %w", kind, err)
		}
		kinds[len(exts)] = kind
		exts = append(exts, e)
		b = b[n:]
	}
	return exts, nil
}

// decodeExtension reads one extension from b, which is exactly as long as the
// extension says.
func decodeExtension(kind ExtType, b []byte) (Extension, error) {
	switch kind.layout() {
	case layoutSA:
		if err := exactly(b, saLen); err != nil {
			return nil, err
		}
		return &SA{
			SPI:     binary.BigEndian.Uint32(b[4:]),
			Replay:  b[8],
			State:   SAState(b[9]),
			Auth:    b[10],
			Encrypt: b[11],
			Flags:   SAFlags(host.Uint32(b[12:])),
		}, nil
	case layoutLifetime:
		if err := exactly(b, lifetimeLen); err != nil {
			return nil, err
		}
		return &Lifetime{
			Kind:        kind,
			Allocations: host.Uint32(b[4:]),
			Bytes:       host.Uint64(b[8:]),
			AddTime:     host.Uint64(b[16:]),
			UseTime:     host.Uint64(b[24:]),
		}, nil
	case layoutAddress:
		return decodeAddress(kind, b)
	case layoutKey:
		return decodeKey(kind, b)
	case layoutIdentity:
		if err := atLeast(b, identityLen); err != nil {
			return nil, err
		}
		return &Identity{
			Kind: kind,
			Type: host.Uint16(b[4:]),
			ID:   host.Uint64(b[8:]),
			Name: string(bytes.TrimRight(b[identityLen:], "\x00")),
		}, nil
	case layoutProposal:
		return decodeProposal(b)
	case layoutSupported:
		return decodeSupported(kind, b)
	case layoutSPIRange:
		if err := exactly(b, spiRangeLen); err != nil {
			return nil, err
		}
		return &SPIRange{Min: host.Uint32(b[4:]), Max: host.Uint32(b[8:])}, nil
	case layoutSA2:
		if err := exactly(b, sa2Len); err != nil {
			return nil, err
		}
		return &SA2{Mode: Mode(b[4]), Sequence: host.Uint32(b[8:]), ReqID: host.Uint32(b[12:])}, nil
	case layoutPolicy:
		return decodePolicy(b)
	case layoutNATTType:
		if err := exactly(b, natTLen); err != nil {
			return nil, err
		}
		return &NATTType{Type: b[4]}, nil
	case layoutNATTPort:
		if err := exactly(b, natTLen); err != nil {
			return nil, err
		}
		return &NATTPort{Kind: kind, Port: binary.BigEndian.Uint16(b[4:])}, nil
	case layoutNATTFrag:
		if err := exactly(b, natTLen); err != nil {
			return nil, err
		}
		return &NATTFrag{Size: host.Uint16(b[4:])}, nil
	case layoutSAReplay:
		if err := exactly(b, saReplayLen); err != nil {
			return nil, err
		}
		return &SAReplay{Packets: host.Uint32(b[4:])}, nil
	case layoutHWIF:
		return decodeHWIF(b)
	default:
		return &Unknown{Kind: kind, Body: bytes.Clone(b[extHeaderLen:])}, nil
	}
}

func decodeAddress(kind ExtType, b []byte) (*Address, error) {
	if err := atLeast(b, addressLen); err != nil {
		return nil, err
	}
	addr, n, err := decodeSockaddr(b[addressLen:])
	if err != nil {
		return nil, err
	}
	if err := exactly(b, align(addressLen+n)); err != nil {
		return nil, err
	}
	a := &Address{Kind: kind, Proto: b[4], PrefixLen: b[5], Addr: addr}
	if int(a.PrefixLen) > addr.Addr().BitLen() {
		return nil, invalid("prefix of %d bits, %s has %d", a.PrefixLen, addr.Addr(), addr.Addr().BitLen())
	}
	return a, nil
}

// decodeSockaddr reads a sockaddr_in or sockaddr_in6 from the start of b, and
// says how many bytes it takes.
func decodeSockaddr(b []byte) (netip.AddrPort, int, error) {
	if len(b) < 2 {
		return netip.AddrPort{}, 0, invalid("no address")
	}
	family := host.Uint16(b)
	switch {
	case family == afInet && len(b) >= sockaddrInLen:
		addr := netip.AddrFrom4([4]byte(b[4:8]))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), sockaddrInLen, nil
	case family == afInet6 && len(b) >= sockaddrIn6Len:
		addr := netip.AddrFrom16([16]byte(b[8:24]))
		// Elsewhere a scope means nothing, and would make two of one address.
		if scope := host.Uint32(b[24:]); scope != 0 && scoped(addr) {
			addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), sockaddrIn6Len, nil
	case family == afInet || family == afInet6:
		return netip.AddrPort{}, 0, invalid("%d bytes are too few for an address of family %d", len(b), family)
	default:
		return netip.AddrPort{}, 0, invalid("address of family %d, want %d or %d", family, afInet, afInet6)
	}
}

// scoped says whether the address is unique within a scope only (RFC 4007).
func scoped(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast()
}

func decodeKey(kind ExtType, b []byte) (*Key, error) {
	if err := atLeast(b, keyLen); err != nil {
		return nil, err
	}
	bits := int(host.Uint16(b[4:]))
	n := (bits + 7) / 8
	if len(b) != align(keyLen+n) {
		return nil, invalid("%d bytes for a key of %d bits, want %d", len(b), bits, align(keyLen+n))
	}
	return &Key{Kind: kind, Bits: bits, Key: bytes.Clone(b[keyLen : keyLen+n])}, nil
}

func decodeProposal(b []byte) (*Proposal, error) {
	if err := array(b, proposalLen, combLen); err != nil {
		return nil, err
	}
	p := &Proposal{Replay: b[4]}
	for c := range slices.Chunk(b[proposalLen:], combLen) {
		p.Combs = append(p.Combs, Comb{
			Auth:            c[0],
			Encrypt:         c[1],
			Flags:           host.Uint16(c[2:]),
			AuthMinBits:     host.Uint16(c[4:]),
			AuthMaxBits:     host.Uint16(c[6:]),
			EncryptMinBits:  host.Uint16(c[8:]),
			EncryptMaxBits:  host.Uint16(c[10:]),
			SoftAllocations: host.Uint32(c[16:]),
			HardAllocations: host.Uint32(c[20:]),
			SoftBytes:       host.Uint64(c[24:]),
			HardBytes:       host.Uint64(c[32:]),
			SoftAddTime:     host.Uint64(c[40:]),
			HardAddTime:     host.Uint64(c[48:]),
			SoftUseTime:     host.Uint64(c[56:]),
			HardUseTime:     host.Uint64(c[64:]),
		})
	}
	return p, nil
}

func decodeSupported(kind ExtType, b []byte) (*Supported, error) {
	if err := array(b, supportedLen, algorithmLen); err != nil {
		return nil, err
	}
	s := &Supported{Kind: kind}
	for a := range slices.Chunk(b[supportedLen:], algorithmLen) {
		s.Algorithms = append(s.Algorithms, SupportedAlgorithm{
			ID: a[0], IVLen: a[1], MinBits: host.Uint16(a[2:]), MaxBits: host.Uint16(a[4:]),
		})
	}
	return s, nil
}

func decodePolicy(b []byte) (*Policy, error) {
	if err := atLeast(b, policyLen); err != nil {
		return nil, err
	}
	p := &Policy{
		Type:     PolicyType(host.Uint16(b[4:])),
		Dir:      Direction(b[6]),
		Scope:    Scope(b[7]),
		ID:       host.Uint32(b[8:]),
		Priority: host.Uint32(b[12:]),
	}
	for rest := b[policyLen:]; len(rest) > 0; {
		r, n, err := decodeRequest(rest)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", len(p.Requests)+1, err)
		}
		p.Requests = append(p.Requests, r)
		rest = rest[n:]
	}
	return p, nil
}

// decodeRequest reads a request from the start of b, and says how many bytes it
// takes. Unlike all others, its length field counts bytes.
func decodeRequest(b []byte) (Request, int, error) {
	if len(b) < requestLen {
		return Request{}, 0, invalid("%d bytes are left, a request has %d", len(b), requestLen)
	}
	n := int(host.Uint16(b))
	if n < requestLen || n > len(b) {
		return Request{}, 0, invalid("length of %d bytes, want %d to %d", n, requestLen, len(b))
	}
	r := Request{
		Proto: host.Uint16(b[2:]),
		Mode:  Mode(b[4]),
		Level: Level(b[5]),
		ReqID: host.Uint32(b[8:]),
	}
	if n == requestLen {
		return r, n, nil
	}
	src, srcLen, err := decodeSockaddr(b[requestLen:n])
	if err != nil {
		return Request{}, 0, fmt.Errorf("source: %w", err)
	}
	dst, dstLen, err := decodeSockaddr(b[requestLen+srcLen : n])
	if err != nil {
		return Request{}, 0, fmt.Errorf("destination: %w", err)
	}
	if srcLen != dstLen {
		return Request{}, 0, invalid("%s and %s are of two families", src.Addr(), dst.Addr())
	}
	if want := requestLen + srcLen + dstLen; n != want {
		return Request{}, 0, invalid("length of %d bytes, want %d", n, want)
	}
	r.Src, r.Dst = src, dst
	return r, n, nil
}

func decodeHWIF(b []byte) (*HWIF, error) {
	if err := exactly(b, hwifLen); err != nil {
		return nil, err
	}
	name, _, terminated := bytes.Cut(b[hwifLen-ifNameLen:], []byte{0})
	if !terminated {
		return nil, invalid("interface name without an end")
	}
	return &HWIF{Name: string(name)}, nil
}

func exactly(b []byte, want int) error {
	if len(b) != want {
		return invalid("%d bytes, want %d", len(b), want)
	}
	return nil
}

func atLeast(b []byte, want int) error {
	if len(b) < want {
		return invalid("%d bytes, want %d or more", len(b), want)
	}
	return nil
}

// array checks that b is a head and any number of elements.
func array(b []byte, head, element int) error {
	if err := atLeast(b, head); err != nil {
		return err
	}
	if rest := (len(b) - head) % element; rest != 0 {
		return invalid("%d bytes left after the last of %d", rest, (len(b)-head)/element)
	}
	return nil
}
