package pfkey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Encode writes the message as it stands on the wire. What Decode would refuse
// is refused here too, with an error that wraps [syscall.EINVAL]: extensions
// that stand twice, addresses that are not valid, a key that is not as long as
// its bits, anything too long for its length field.
func (m *Message) Encode() ([]byte, error) {
	return m.appendTo(make([]byte, 0, 512))
}

// appendTo appends the message to b.
func (m *Message) appendTo(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, version, byte(m.Type), m.Errno, byte(m.SAType), 0, 0)
	b = host.AppendUint16(b, m.Reserved)
	b = host.AppendUint32(b, m.Seq)
	b = host.AppendUint32(b, m.PID)

	var err error
	if m.Inner != nil {
		b, err = m.appendInner(b)
	} else {
		b, err = appendExtensions(b, m.Exts)
	}
	if err != nil {
		return nil, fmt.Errorf("%s message: %w", m.Type, err)
	}
	units := (len(b) - start) / unit
	if units > maxUnits {
		return nil, invalid("%s message of %d bytes, the most is %d", m.Type, units*unit, maxUnits*unit)
	}
	host.PutUint16(b[start+4:], uint16(units))
	return b, nil
}

func (m *Message) appendInner(b []byte) ([]byte, error) {
	switch {
	case m.Type != TypePromisc:
		return nil, invalid("only %s carries another message", TypePromisc)
	case len(m.Exts) > 0:
		return nil, invalid("extensions beside the message within")
	case m.Inner.Inner != nil:
		return nil, invalid("a message within another's")
	}
	return m.Inner.appendTo(b)
}

func appendExtensions(b []byte, exts []Extension) ([]byte, error) {
	if len(exts) > maxExtensions {
		return nil, invalid("%d extensions, the most is %d", len(exts), maxExtensions)
	}
	for i, e := range exts {
		kind := e.ExtType()
		for _, before := range exts[:i] {
			if before.ExtType() == kind {
				return nil, invalid("%s extension stands twice", kind)
			}
		}
		start := len(b)
		b = host.AppendUint16(b, 0)
		b = host.AppendUint16(b, uint16(kind))
		var err error
		if b, err = appendBody(b, e); err != nil {
			return nil, fmt.Errorf("%s extension: %w", kind, err)
		}
		n := len(b) - start
		b = appendZeros(b, align(n)-n)
		if align(n)/unit > maxUnits {
			return nil, invalid("%s extension of %d bytes, the most is %d", kind, align(n), maxUnits*unit)
		}
		host.PutUint16(b[start:], uint16(align(n)/unit))
	}
	return b, nil
}

// appendBody appends what follows the length and type of an extension, without
// the padding to the next unit.
func appendBody(b []byte, e Extension) ([]byte, error) {
	want := layoutUnknown
	var err error
	switch e := e.(type) {
	case *SA:
		want = layoutSA
		b = binary.BigEndian.AppendUint32(b, e.SPI)
		b = append(b, e.Replay, byte(e.State), e.Auth, e.Encrypt)
		b = host.AppendUint32(b, uint32(e.Flags))
	case *Lifetime:
		want = layoutLifetime
		b = host.AppendUint32(b, e.Allocations)
		b = host.AppendUint64(b, e.Bytes)
		b = host.AppendUint64(b, e.AddTime)
		b = host.AppendUint64(b, e.UseTime)
	case *Address:
		want = layoutAddress
		if int(e.PrefixLen) > e.Addr.Addr().BitLen() {
			return nil, invalid("prefix of %d bits, %s has %d", e.PrefixLen, e.Addr.Addr(), e.Addr.Addr().BitLen())
		}
		b = append(b, e.Proto, e.PrefixLen, 0, 0)
		b, err = appendSockaddr(b, e.Addr)
	case *Key:
		want = layoutKey
		b, err = appendKey(b, e)
	case *Identity:
		want = layoutIdentity
		b = host.AppendUint16(b, e.Type)
		b = append(b, 0, 0)
		b = host.AppendUint64(b, e.ID)
		if e.Name != "" {
			b = append(append(b, e.Name...), 0)
		}
	case *Proposal:
		want = layoutProposal
		b = append(b, e.Replay, 0, 0, 0)
		for i := range e.Combs {
			b = appendComb(b, &e.Combs[i])
		}
	case *Supported:
		want = layoutSupported
		b = appendZeros(b, 4)
		for _, a := range e.Algorithms {
			b = append(b, a.ID, a.IVLen)
			b = host.AppendUint16(b, a.MinBits)
			b = host.AppendUint16(b, a.MaxBits)
			b = append(b, 0, 0)
		}
	case *SPIRange:
		want = layoutSPIRange
		b = host.AppendUint32(b, e.Min)
		b = host.AppendUint32(b, e.Max)
		b = appendZeros(b, 4)
	case *SA2:
		want = layoutSA2
		b = append(b, byte(e.Mode), 0, 0, 0)
		b = host.AppendUint32(b, e.Sequence)
		b = host.AppendUint32(b, e.ReqID)
	case *Policy:
		want = layoutPolicy
		b, err = appendPolicy(b, e)
	case *NATTType:
		want = layoutNATTType
		b = append(b, e.Type, 0, 0, 0)
	case *NATTPort:
		want = layoutNATTPort
		b = binary.BigEndian.AppendUint16(b, e.Port)
		b = append(b, 0, 0)
	case *NATTFrag:
		want = layoutNATTFrag
		b = host.AppendUint16(b, e.Size)
		b = append(b, 0, 0)
	case *SAReplay:
		want = layoutSAReplay
		b = host.AppendUint32(b, e.Packets)
	case *HWIF:
		want = layoutHWIF
		b, err = appendHWIF(b, e)
	case *Unknown:
		if (extHeaderLen+len(e.Body))%unit != 0 || e.Kind == 0 {
			return nil, invalid("body of %d bytes, want a multiple of %d and %d", len(e.Body), unit, unit-extHeaderLen)
		}
		b = append(b, e.Body...)
	}
	if err == nil && e.ExtType().layout() != want {
		err = invalid("%T is not what it holds", e)
	}
	return b, err
}

// appendSockaddr appends a sockaddr_in or sockaddr_in6.
func appendSockaddr(b []byte, ap netip.AddrPort) ([]byte, error) {
	addr := ap.Addr()
	switch {
	case addr.Is4():
		b = host.AppendUint16(b, afInet)
		b = binary.BigEndian.AppendUint16(b, ap.Port())
		a := addr.As4()
		b = append(b, a[:]...)
		return appendZeros(b, 8), nil
	case addr.Is6():
		var scope uint64
		if zone := addr.Zone(); zone != "" {
			var err error
			if scope, err = strconv.ParseUint(zone, 10, 32); err != nil || scope == 0 || !scoped(addr) {
				return nil, invalid("zone of %s is not the number of an interface", addr)
			}
		}
		b = host.AppendUint16(b, afInet6)
		b = binary.BigEndian.AppendUint16(b, ap.Port())
		b = appendZeros(b, 4)
		a := addr.As16()
		b = append(b, a[:]...)
		return host.AppendUint32(b, uint32(scope)), nil
	default:
		return nil, invalid("no address")
	}
}

func appendKey(b []byte, k *Key) ([]byte, error) {
	if k.Bits < 0 || k.Bits > 1<<16-1 || len(k.Key) != (k.Bits+7)/8 {
		return nil, invalid("key of %d bytes for %d bits", len(k.Key), k.Bits)
	}
	b = host.AppendUint16(b, uint16(k.Bits))
	b = append(b, 0, 0)
	return append(b, k.Key...), nil
}

func appendComb(b []byte, c *Comb) []byte {
	b = append(b, c.Auth, c.Encrypt)
	b = host.AppendUint16(b, c.Flags)
	b = host.AppendUint16(b, c.AuthMinBits)
	b = host.AppendUint16(b, c.AuthMaxBits)
	b = host.AppendUint16(b, c.EncryptMinBits)
	b = host.AppendUint16(b, c.EncryptMaxBits)
	b = appendZeros(b, 4)
	b = host.AppendUint32(b, c.SoftAllocations)
	b = host.AppendUint32(b, c.HardAllocations)
	b = host.AppendUint64(b, c.SoftBytes)
	b = host.AppendUint64(b, c.HardBytes)
	b = host.AppendUint64(b, c.SoftAddTime)
	b = host.AppendUint64(b, c.HardAddTime)
	b = host.AppendUint64(b, c.SoftUseTime)
	return host.AppendUint64(b, c.HardUseTime)
}

func appendPolicy(b []byte, p *Policy) ([]byte, error) {
	b = host.AppendUint16(b, uint16(p.Type))
	b = append(b, byte(p.Dir), byte(p.Scope))
	b = host.AppendUint32(b, p.ID)
	b = host.AppendUint32(b, p.Priority)
	for i := range p.Requests {
		var err error
		if b, err = appendRequest(b, &p.Requests[i]); err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
	}
	return b, nil
}

func appendRequest(b []byte, r *Request) ([]byte, error) {
	start := len(b)
	b = host.AppendUint16(b, 0)
	b = host.AppendUint16(b, r.Proto)
	b = append(b, byte(r.Mode), byte(r.Level), 0, 0)
	b = host.AppendUint32(b, r.ReqID)
	b = appendZeros(b, 4)
	src, dst := r.Src.Addr(), r.Dst.Addr()
	if src.Is4() != dst.Is4() || src.Is6() != dst.Is6() {
		return nil, invalid("%s and %s are of two families", src, dst)
	}
	if src.IsValid() {
		var err error
		if b, err = appendSockaddr(b, r.Src); err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		if b, err = appendSockaddr(b, r.Dst); err != nil {
			return nil, fmt.Errorf("destination: %w", err)
		}
	}
	host.PutUint16(b[start:], uint16(len(b)-start))
	return b, nil
}

func appendHWIF(b []byte, e *HWIF) ([]byte, error) {
	if len(e.Name) >= ifNameLen || strings.Contains(e.Name, "\x00") {
		return nil, invalid("interface name %q, want at most %d bytes and no NUL", e.Name, ifNameLen-1)
	}
	b = appendZeros(b, 4) // flags
	b = append(b, e.Name...)
	return appendZeros(b, ifNameLen-len(e.Name)), nil
}

func appendZeros(b []byte, n int) []byte {
	for range n {
		b = append(b, 0)
	}
	return b
}
