package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// frameOf is a frame of Ethernet with an IP packet.
func frameOf(packet []byte) []byte { return append(make([]byte, etherLen), packet...) }

// What a frame says of itself is believed only as far as it has it.
func TestTakeFrame(t *testing.T) {
	t.Parallel()
	four, six := ip4(100), ip6(100)
	four[9], six[6] = protoESP, protoESP
	copy(four[12:], append(addrA.AsSlice(), addrB.AsSlice()...))
	setSum := func(p []byte) []byte {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], headerChecksum(p[:headerLen4]))
		return p
	}
	with := func(p []byte, at int, to byte) []byte {
		p = slices.Clone(p)
		p[at] = to
		return p
	}
	setSum(four)
	src6, dst6 := netip.AddrFrom16([16]byte(six[8:])), netip.AddrFrom16([16]byte(six[24:]))
	for name, c := range map[string]struct {
		frame    []byte
		src, dst netip.Addr // invalid: it is no packet
		class    uint8
		esp      []byte
	}{
		"IPv4":            {frameOf(four), addrA, addrB, 0, four[headerLen4:]},
		"IPv4, class":     {frameOf(setSum(with(four, 1, 0xba))), addrA, addrB, 0xba, four[headerLen4:]},
		"IPv4, padded":    {append(frameOf(four), 1, 2, 3), addrA, addrB, 0, four[headerLen4:]},
		"IPv4, empty":     {frameOf(setSum(with(four, 3, headerLen4))), addrA, addrB, 0, nil},
		"IPv4, cut off":   {frameOf(four[:99]), netip.Addr{}, netip.Addr{}, 0, nil},
		"IPv4, too short": {frameOf(setSum(with(four, 3, headerLen4-1))), netip.Addr{}, netip.Addr{}, 0, nil},
		"IPv4, damaged":   {frameOf(with(four, 8, 63)), netip.Addr{}, netip.Addr{}, 0, nil},
		"IPv6":            {frameOf(six), src6, dst6, 0, six[headerLen6:]},
		"IPv6, class":     {frameOf(with(with(six, 0, 0x6b), 1, 0xa0)), src6, dst6, 0xba, six[headerLen6:]},
		"IPv6, padded":    {append(frameOf(six), 1), src6, dst6, 0, six[headerLen6:]},
		"IPv6, empty":     {frameOf(with(six, 5, 0)), src6, dst6, 0, nil},
		"IPv6, cut off":   {frameOf(six[:99]), netip.Addr{}, netip.Addr{}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newXDPReceiver(nil, nil)
			if !r.takeFrame(c.frame) {
				t.Fatal("there is no room")
			}
			if !c.src.IsValid() {
				if r.n != 0 {
					t.Errorf("it is taken: %v", r.arrivals[0].buf[:100])
				}
				return
			}
			if r.n != 1 {
				t.Fatal("it is not taken")
			}
			a := &r.arrivals[0]
			if a.src != netip.AddrPortFrom(c.src, 0) || a.dst != c.dst || a.class != c.class || !bytes.Equal(a.buf[a.off:a.end], c.esp) {
				t.Errorf("from %v to %v, class %#x: %x; want from %v to %v, class %#x: %x",
					a.src, a.dst, a.class, a.buf[a.off:a.end], c.src, c.dst, c.class, c.esp)
			}
			r.n = len(r.arrivals)
			if r.takeFrame(c.frame) {
				t.Error("more is taken than there is room for")
			}
		})
	}
}
