package icmp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	src4, dst4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// packet4 is an IPv4 packet of size bytes with DF.
func packet4(size int, proto uint8, payload ...byte) []byte {
	p := make([]byte, size)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	copy(p[12:], src4.AsSlice())
	copy(p[16:], dst4.AsSlice())
	copy(p[ipLen4:], payload)
	return p
}

func packet6(size int, next uint8, payload ...byte) []byte {
	p := make([]byte, size)
	p[0], p[6], p[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(size-ipLen6))
	copy(p[8:], src6.AsSlice())
	copy(p[24:], dst6.AsSlice())
	copy(p[ipLen6:], payload)
	return p
}

func with(p []byte, at int, octets ...byte) []byte {
	p = slices.Clone(p)
	copy(p[at:], octets)
	return p
}

// An independent decoder reads the answers, and finds their checksums right.
func TestAppendTooBig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		packet      []byte
		mtu         int
		size        int // of the answer
		announced   int
		first, from gopacket.LayerType
	}{
		"IPv4":               {packet4(1400, 17), 1300, 576, 1300, layers.LayerTypeIPv4, layers.LayerTypeICMPv4},
		"IPv4, short":        {packet4(100, 17), 90, 128, 90, layers.LayerTypeIPv4, layers.LayerTypeICMPv4},
		"IPv4, odd":          {packet4(101, 17), 90, 129, 90, layers.LayerTypeIPv4, layers.LayerTypeICMPv4},
		"IPv4, MTU too low":  {packet4(100, 17), 8, 128, MinMTU4, layers.LayerTypeIPv4, layers.LayerTypeICMPv4},
		"IPv4, negative MTU": {packet4(100, 17), -8, 128, MinMTU4, layers.LayerTypeIPv4, layers.LayerTypeICMPv4},
		"IPv6":               {packet6(1400, 17), 1300, 1280, 1300, layers.LayerTypeIPv6, layers.LayerTypeICMPv6},
		"IPv6, odd":          {packet6(1101, 17), 1300, 1149, 1300, layers.LayerTypeIPv6, layers.LayerTypeICMPv6},
		"IPv6, MTU too low":  {packet6(1400, 17), 1279, 1280, MinMTU6, layers.LayerTypeIPv6, layers.LayerTypeICMPv6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := []byte("before")
			b, ok := AppendTooBig(before, c.packet, c.mtu)
			if !ok || !bytes.HasPrefix(b, before) {
				t.Fatalf("answer %v, %q", ok, b)
			}
			answer := b[len(before):]
			if len(answer) != c.size {
				t.Errorf("%d bytes, want %d", len(answer), c.size)
			}
			decoded := gopacket.NewPacket(answer, c.first, gopacket.Default)
			if decoded.ErrorLayer() != nil || decoded.Layer(c.from) == nil {
				t.Fatalf("not an answer: %v", decoded)
			}
			if l, ok := decoded.Layer(c.from).(*layers.ICMPv6); ok {
				if err := l.SetNetworkLayerForChecksum(decoded.NetworkLayer()); err != nil {
					t.Fatal(err)
				}
			}
			if err, mismatches := decoded.VerifyChecksums(); err != nil || len(mismatches) > 0 {
				t.Errorf("checksums: %v, %v", err, mismatches)
			}
			var quote []byte
			var announced int
			switch l := decoded.Layer(c.from).(type) {
			case *layers.ICMPv4:
				quote, announced = l.Payload, int(l.Seq)
				if l.TypeCode != layers.CreateICMPv4TypeCode(3, 4) {
					t.Errorf("says %v", l.TypeCode)
				}
			case *layers.ICMPv6:
				quote, announced = l.Payload[4:], int(binary.BigEndian.Uint32(l.Payload))
				if l.TypeCode != layers.CreateICMPv6TypeCode(2, 0) {
					t.Errorf("says %v", l.TypeCode)
				}
			}
			if announced != c.announced {
				t.Errorf("announces %d, want %d", announced, c.announced)
			}
			if !bytes.HasPrefix(c.packet, quote) {
				t.Error("quotes another packet")
			}
			from, to := decoded.NetworkLayer().NetworkFlow().Endpoints()
			flow := gopacket.NewPacket(c.packet, c.first, gopacket.Default).NetworkLayer().NetworkFlow()
			if from != flow.Dst() || to != flow.Src() {
				t.Errorf("goes from %v to %v", from, to)
			}
		})
	}
}

func TestNothingIsSaid(t *testing.T) {
	t.Parallel()
	good4, good6 := packet4(1400, 17), packet6(1400, 17)
	for name, packet := range map[string][]byte{
		"nothing":               nil,
		"no IP":                 make([]byte, 100),
		"half a header":         good4[:19],
		"no DF":                 with(good4, 6, 0),
		"later fragment":        with(good4, 7, 1),
		"header too long":       with(good4[:30], 0, 0x4f),
		"header too short":      with(good4, 0, 0x44),
		"from nobody":           with(good4, 12, 0, 0, 0, 0),
		"from multicast":        with(good4, 12, 224, 0, 0, 1),
		"from broadcast":        with(good4, 12, 255, 255, 255, 255),
		"from class E":          with(good4, 12, 240, 0, 0, 1),
		"from loopback":         with(good4, 12, 127, 0, 0, 1),
		"to multicast":          with(good4, 16, 224, 0, 0, 5),
		"to broadcast":          with(good4, 16, 255, 255, 255, 255),
		"unreachable":           packet4(1400, protoICMP, 3),
		"redirect":              packet4(1400, protoICMP, 5),
		"time exceeded":         packet4(1400, protoICMP, 11),
		"ICMP without a type":   packet4(ipLen4, protoICMP),
		"half a header, v6":     good6[:39],
		"from nobody, v6":       with(good6, 8, make([]byte, 16)...),
		"from multicast, v6":    with(good6, 8, 0xff),
		"to multicast, v6":      with(good6, 24, 0xff),
		"ICMPv6 error":          packet6(1400, protoICMPv6, 2),
		"ICMPv6 redirect":       packet6(1400, protoICMPv6, 137),
		"ICMPv6 without a type": packet6(ipLen6, protoICMPv6),
		"error after options":   packet6(1400, 60, protoICMPv6, 0, 0, 0, 0, 0, 0, 0, 1),
		"error in a fragment":   packet6(1400, 44, protoICMPv6, 0, 0, 1, 0, 0, 0, 1, 3),
		"fragment of ICMPv6":    packet6(1400, 44, protoICMPv6, 0, 0, 8, 0, 0, 0, 1, 128),
		"cut options":           packet6(47, 60, protoICMPv6),
	} {
		if b, ok := AppendTooBig([]byte("b"), packet, 1300); ok || string(b) != "b" {
			t.Errorf("%s: something is said", name)
		}
	}
	for name, packet := range map[string][]byte{
		"echo":                packet4(1400, protoICMP, 8),
		"first fragment":      with(good4, 6, 0x60),
		"echo, v6":            packet6(1400, protoICMPv6, 128),
		"echo after options":  packet6(1400, 0, protoICMPv6, 0, 0, 0, 0, 0, 0, 0, 128),
		"fragment, v6":        packet6(1400, 44, 17, 0, 0, 8),
		"first fragment, v6":  packet6(1400, 44, 17, 0, 0, 1),
		"to link-local, v6":   with(good6, 24, 0xfe, 0x80),
		"no next header":      packet6(1400, 59),
		"ESP":                 packet6(1400, protoESP),
		"ESP, nested tunnels": packet4(1400, protoESP),
	} {
		if _, ok := AppendTooBig(nil, packet, 1300); !ok {
			t.Errorf("%s: nothing is said", name)
		}
	}
}

// report4 is what a router would say of a packet.
func report4(packet []byte, quoted, mtu int) []byte {
	m := make([]byte, icmpLen, icmpLen+quoted)
	m[0], m[1] = 3, 4
	binary.BigEndian.PutUint16(m[6:], uint16(mtu))
	m = append(m, packet[:quoted]...)
	binary.BigEndian.PutUint16(m[2:], ^sum(0, m))
	return m
}

func report6(packet []byte, quoted, mtu int) []byte {
	m := make([]byte, icmpLen, icmpLen+quoted)
	m[0] = 2
	binary.BigEndian.PutUint32(m[4:], uint32(mtu))
	return append(m, packet[:quoted]...)
}

var (
	espHeader = []byte{0, 0, 0x27, 0x10, 0, 0, 0, 5}
	udpHeader = []byte{0x11, 0x94, 0x11, 0x95, 0, 0, 0, 0}
)

func TestParseTooBig(t *testing.T) {
	t.Parallel()
	espIn4 := packet4(1456, protoESP, espHeader...)
	inUDP := append(slices.Clone(udpHeader), espHeader...)
	espIn6 := packet6(1456, protoESP, espHeader...)
	fragment := append([]byte{protoESP, 0, 0, 1, 0, 0, 0, 1}, espHeader...)
	report := func(src, dst netip.Addr, srcPort, dstPort uint16) *Report {
		return &Report{1400, netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort), 1456, 10000, 5}
	}
	for name, c := range map[string]struct {
		parse   func([]byte) (Report, bool)
		message []byte
		want    *Report
	}{
		"ESP":                  {ParseTooBig4, report4(espIn4, 28, 1400), report(src4, dst4, 0, 0)},
		"ESP, all of it":       {ParseTooBig4, report4(espIn4, 1456, 1400), report(src4, dst4, 0, 0)},
		"UDP":                  {ParseTooBig4, report4(packet4(1456, 17, inUDP...), 36, 1400), report(src4, dst4, 4500, 4501)},
		"first fragment":       {ParseTooBig4, report4(with(espIn4, 6, 0x20), 28, 1400), report(src4, dst4, 0, 0)},
		"UDP header only":      {ParseTooBig4, report4(packet4(1456, 17, inUDP...), 28, 1400), nil},
		"half an ESP header":   {ParseTooBig4, report4(espIn4, 27, 1400), nil},
		"later fragment":       {ParseTooBig4, report4(with(espIn4, 7, 1), 28, 1400), nil},
		"TCP":                  {ParseTooBig4, report4(packet4(1456, 6), 28, 1400), nil},
		"port unreachable":     {ParseTooBig4, with(report4(espIn4, 28, 1400), 1, 3), nil},
		"checksum":             {ParseTooBig4, with(report4(espIn4, 28, 1400), 2, 1), nil},
		"cut":                  {ParseTooBig4, report4(espIn4, 19, 1400), nil},
		"options beyond end":   {ParseTooBig4, report4(with(espIn4, 0, 0x4f), 28, 1400), nil},
		"IPv6 in IPv4":         {ParseTooBig4, report4(espIn6, 48, 1400), nil},
		"v6":                   {ParseTooBig6, report6(espIn6, 48, 1400), report(src6, dst6, 0, 0)},
		"v6, UDP":              {ParseTooBig6, report6(packet6(1456, 17, inUDP...), 56, 1400), report(src6, dst6, 4500, 4501)},
		"v6, fragment":         {ParseTooBig6, report6(packet6(1456, protoFragment, fragment...), 56, 1400), report(src6, dst6, 0, 0)},
		"v6, later fragment":   {ParseTooBig6, report6(with(packet6(1456, protoFragment, fragment...), 43, 9), 56, 1400), nil},
		"v6, cut":              {ParseTooBig6, report6(espIn6, 47, 1400), nil},
		"v6, code":             {ParseTooBig6, with(report6(espIn6, 48, 1400), 1, 1), nil},
		"v6, other type":       {ParseTooBig6, with(report6(espIn6, 48, 1400), 0, 1), nil},
		"v6, no packet":        {ParseTooBig6, []byte{2, 0, 0, 0, 0, 0, 5, 0}, nil},
		"v6, about IPv4":       {ParseTooBig6, report6(espIn4, 100, 1400), nil},
		"nothing":              {ParseTooBig4, nil, nil},
		"v6, fragment of none": {ParseTooBig6, report6(packet6(1456, protoFragment), 44, 1400), nil},
	} {
		got, ok := c.parse(c.message)
		if ok != (c.want != nil) {
			t.Errorf("%s: %v, %+v", name, ok, got)
			continue
		}
		if ok {
			if diff := cmp.Diff(*c.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestPathMTU(t *testing.T) {
	t.Parallel()
	dst, dst6 := netip.AddrPortFrom(dst4, 0), netip.AddrPortFrom(dst6, 0)
	for _, c := range []struct {
		r    Report
		want int // 0 for none
	}{
		{Report{MTU: 1400, Length: 1500, Dst: dst}, 1400},
		{Report{MTU: 1500, Length: 1500, Dst: dst}, 0},
		{Report{MTU: 9000, Length: 1500, Dst: dst}, 0},
		{Report{Length: 1500, Dst: dst}, 1492},
		{Report{Length: 1492, Dst: dst}, 1006},
		{Report{Length: 60, Dst: dst}, 0},
		{Report{Length: 1500, Dst: dst6}, 0},
	} {
		if got, ok := c.r.PathMTU(); ok != (c.want != 0) || ok && got != c.want {
			t.Errorf("%+v: %d, %v, want %d", c.r, got, ok, c.want)
		}
	}
}

// Whatever is parsed, the answer about it is a packet of its own length, and an
// answer is never answered.
func FuzzAppendTooBig(f *testing.F) {
	f.Add(packet4(100, 17), 50)
	f.Add(packet6(100, 44, 17, 0, 0, 1), 1300)
	f.Add(packet6(100, 60, 58), 1300)
	f.Fuzz(func(t *testing.T, packet []byte, mtu int) {
		answer, ok := AppendTooBig(nil, packet, mtu)
		if !ok {
			return
		}
		if len(answer) > MaxAnswer {
			t.Errorf("an answer of %d bytes", len(answer))
		}
		if _, again := AppendTooBig(nil, answer, mtu); again {
			t.Error("an answer is answered")
		}
	})
}

func FuzzParseTooBig(f *testing.F) {
	f.Add(report4(packet4(100, protoESP, espHeader...), 28, 50))
	f.Add(report6(packet6(100, 44, 50, 0, 0, 1), 60, 1300))
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, parse := range []func([]byte) (Report, bool){ParseTooBig4, ParseTooBig6} {
			r, ok := parse(message)
			if !ok {
				continue
			}
			if mtu, ok := r.PathMTU(); ok && (mtu <= 0 || mtu >= r.Length) {
				t.Errorf("%+v proves an MTU of %d", r, mtu)
			}
		}
	})
}
