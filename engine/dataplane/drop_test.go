package dataplane

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/sysctl"

	"github.com/google/go-cmp/cmp"
)

// seal makes an ESP packet that a peer with the SA's keys would send.
func seal(t testing.TB, s sad.Spec, seq uint64, payload []byte, next uint8) []byte {
	t.Helper()
	peer, err := esp.New(esp.Config{SPI: s.SPI, Encryption: s.Encrypt, EncryptionKey: s.EncryptKey,
		Authentication: s.Auth, AuthenticationKey: s.AuthKey})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, headroomOut+len(payload), headroomOut+len(payload)+tailroomOut)
	copy(buf[headroomOut:], payload)
	start, end, err := peer.Seal(seq, buf, headroomOut, len(payload), next)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(buf[start:end])
}

func TestInboundDrops(t *testing.T) {
	t.Parallel()
	sa := spec(10000, addrB, addrA, 100)
	sealed := func(payload []byte, next uint8) arrival {
		return arrive(seal(t, sa, 1, payload, next), addrB, addrA)
	}
	with := func(p []byte, change func([]byte)) []byte { change(p); return p }
	otherSPI := func(spi uint32) arrival {
		a := sealed(ip4(100), protoIPv4)
		binary.BigEndian.PutUint32(a.buf[a.off:], spi)
		return a
	}
	ce := sealed(ip4(100), protoIPv4)
	ce.class = ecnCE
	stranger, notHere := sealed(ip4(100), protoIPv4), sealed(ip4(100), protoIPv4)
	stranger.src, notHere.dst = netip.AddrPortFrom(addrC, 0), addrC

	for name, c := range map[string]struct {
		packets []arrival
		change  func(*sad.Spec)
		want    Counter
	}{
		"empty":           {packets: []arrival{arrive(nil, addrB, addrA)}, want: HeaderDrops},
		"no header":       {packets: []arrival{arrive(make([]byte, 7), addrB, addrA)}, want: HeaderDrops},
		"SPI 0":           {packets: []arrival{otherSPI(0)}, want: NoSA},
		"reserved SPI":    {packets: []arrival{otherSPI(255)}, want: NoSA},
		"unknown SPI":     {packets: []arrival{otherSPI(10001)}, want: NoSA},
		"other host's":    {packets: []arrival{notHere}, want: NoSA},
		"stranger":        {packets: []arrival{stranger}, want: PolicyDrops},
		"transport mode":  {packets: []arrival{sealed(ip4(100), protoIPv4)}, want: PolicyDrops, change: func(s *sad.Spec) { s.Mode = pfkey.ModeTransport }},
		"other reqid":     {packets: []arrival{sealed(ip4(100), protoIPv4)}, want: PolicyDrops, change: func(s *sad.Spec) { s.ReqID = 101 }},
		"UDP wanted":      {packets: []arrival{sealed(ip4(100), protoIPv4)}, want: PolicyDrops, change: func(s *sad.Spec) { s.NATT = &sad.NATT{SrcPort: 4500, DstPort: 4500} }},
		"too short":       {packets: []arrival{arrive(seal(t, sa, 1, ip4(100), 4)[:20], addrB, addrA)}, want: BadLength},
		"not whole":       {packets: []arrival{arrive(seal(t, sa, 1, ip4(100), 4)[:121], addrB, addrA)}, want: BadLength},
		"truncated":       {packets: []arrival{arrive(seal(t, sa, 1, ip4(100), 4)[:120], addrB, addrA)}, want: BadAuth},
		"other key":       {packets: []arrival{sealed(ip4(100), protoIPv4)}, want: BadAuth, change: func(s *sad.Spec) { s.EncryptKey = []byte("another key, 20 byte") }},
		"dummy":           {packets: []arrival{sealed(make([]byte, 30), protoNoNextHead)}, want: Dummies},
		"transport's":     {packets: []arrival{sealed(ip4(100), 6)}, want: NoFamily},
		"family mismatch": {packets: []arrival{sealed(ip4(100), protoIPv6)}, want: TunnelSanity},
		"no packet":       {packets: []arrival{sealed(nil, protoIPv4)}, want: TunnelSanity},
		"half a header":   {packets: []arrival{sealed(ip4(100)[:19], protoIPv4)}, want: TunnelSanity},
		"IPv4 cut off":    {packets: []arrival{sealed(ip4(100)[:99], protoIPv4)}, want: TunnelSanity},
		"IPv6 cut off":    {packets: []arrival{sealed(ip6(100)[:99], protoIPv6)}, want: TunnelSanity},
		"header length":   {packets: []arrival{sealed(with(ip4(100), func(p []byte) { p[0] = 0x44 }), protoIPv4)}, want: TunnelSanity},
		"total length":    {packets: []arrival{sealed(with(ip4(100), func(p []byte) { p[3] = 19 }), protoIPv4)}, want: TunnelSanity},
		"congestion":      {packets: []arrival{ce}, want: Congestion},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, newFakeNet(), addrA)
			s := sa
			if c.change != nil {
				c.change(&s)
			}
			addSA(t, h.sad, s)
			h.configure(t, addrA, addrB, 100)
			if _, err := h.plane.sysctl.Set(sysctl.ECN, sysctl.ECNAllowed); err != nil {
				t.Fatal(err)
			}
			newInbound(h.plane, inIPv4, nil).process(c.packets)
			got := h.plane.Counters()
			want := Counters{Input: 1, InputBytes: got[InputBytes]}
			want[c.want] = 1
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			if n := len(h.tun.in); n != 0 {
				t.Errorf("%d packets arrive", n)
			}
		})
	}
}

func TestInboundReplay(t *testing.T) {
	t.Parallel()
	h := newHost(t, newFakeNet(), addrA)
	s := spec(10000, addrB, addrA, 100)
	addSA(t, h.sad, s)
	h.configure(t, addrA, addrB, 100)
	packet := seal(t, s, 5, ip4(100), protoIPv4)
	in := newInbound(h.plane, inIPv4, nil)
	in.process([]arrival{arrive(packet, addrB, addrA), arrive(packet, addrB, addrA)})
	in.process([]arrival{arrive(packet, addrB, addrA)})
	if got := h.plane.Counters()[Replay]; got != 2 || len(h.tun.in) != 1 {
		t.Errorf("%d replays are counted, %d packets arrive; want 2 and 1", got, len(h.tun.in))
	}
}

// What comes after the inner packet is padding against traffic analysis.
func TestInboundPaddingIsRemoved(t *testing.T) {
	t.Parallel()
	h := newHost(t, newFakeNet(), addrA)
	s := spec(10000, addrB, addrA, 100)
	addSA(t, h.sad, s)
	h.configure(t, addrA, addrB, 100)
	newInbound(h.plane, inIPv4, nil).process([]arrival{
		arrive(seal(t, s, 1, append(ip4(100), make([]byte, 50)...), protoIPv4), addrB, addrA),
		arrive(seal(t, s, 2, append(ip6(100), make([]byte, 50)...), protoIPv6), addrB, addrA),
	})
	for _, want := range [][]byte{ip4(100), ip6(100)} {
		if diff := cmp.Diff(want, recv(t, h.tun)); diff != "" {
			t.Errorf("packet (-want +got):\n%s", diff)
		}
	}
}

// Packets for several tunnels, mixed in one batch.
func TestInboundTunnelsGetTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHost(t, newFakeNet(), addrA)
	second := newFakeTUN()
	other := h.plane.Attach("ipsec1", second)
	h.configure(t, addrA, addrB, 100)
	if err := other.Configure(Settings{Src: addrA, Dst: addrC, ReqID: 101, Running: true, Up: true}); err != nil {
		t.Fatal(err)
	}
	fromB, fromC := spec(10000, addrB, addrA, 100), spec(10001, addrC, addrA, 101)
	addSA(t, h.sad, fromB)
	addSA(t, h.sad, fromC)
	in := newInbound(h.plane, inIPv4, nil)
	for round := range uint64(3) {
		var batch []arrival
		for i := range uint64(10) {
			seq := 10*round + i + 1
			batch = append(batch,
				arrive(seal(t, fromB, seq, ip4(100+int(i)), protoIPv4), addrB, addrA),
				arrive(seal(t, fromC, seq, ip6(200+int(i)), protoIPv6), addrC, addrA))
		}
		in.process(batch)
		for i := range 10 {
			if n := len(recv(t, h.tun)); n != 100+i {
				t.Errorf("packet %d of the first tunnel has %d octets", i, n)
			}
			if n := len(recv(t, second)); n != 200+i {
				t.Errorf("packet %d of the second tunnel has %d octets", i, n)
			}
		}
	}
}

// load puts packets where the TUN device would.
func (o *outbound) load(packets ...[]byte) int {
	for i, p := range packets {
		o.sizes[i] = copy(o.bufs[i][headroomOut:], p)
	}
	return len(packets)
}

func TestOutboundDrops(t *testing.T) {
	t.Parallel()
	loop4 := ip4(100)
	loop4[9] = protoESP
	copy(loop4[12:], addrA.AsSlice())
	copy(loop4[16:], addrB.AsSlice())
	passing := slices.Clone(loop4)
	passing[19]++
	for name, c := range map[string]struct {
		packet []byte
		want   TunnelCounter
	}{
		"passes":            {ip4(100), OutPackets},
		"largest":           {ip4(MaxPacket), OutPackets},
		"other host's ESP":  {passing, OutPackets},
		"empty":             {nil, OutFamily},
		"ARP":               {make([]byte, 28), OutFamily},
		"half a header":     {ip4(100)[:19], OutFamily},
		"half a header, v6": {ip6(100)[:39], OutFamily},
		"own outer packet":  {loop4, OutLoop},
		"too big":           {ip4(MaxPacket + 1), OutTooBig},
		"far too big":       {ip4(65535), OutTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := pair(t, newFakeNet())
			o := newOutbound(a.tunnel)
			// Those before and after it pass whatever it is.
			o.process(o.load(ip4(50), c.packet))
			o.process(o.load(ip4(50)))
			got := a.tunnel.Counters()
			want := TunnelCounters{OutPackets: 2, OutBytes: got[OutBytes]}
			want[c.want]++
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutboundSequenceOverflow(t *testing.T) {
	t.Parallel()
	a, _ := pair(t, newFakeNet())
	sa := a.sad.Inbound(10000, addrB)
	for left := uint64(math.MaxUint32 - 1); left > 0; {
		n := min(left, math.MaxInt32)
		if _, err := sa.ESP.Reserve(int(n)); err != nil {
			t.Fatal(err)
		}
		left -= n
	}
	o := newOutbound(a.tunnel)
	o.process(o.load(ip4(100)))
	o.process(o.load(ip4(100), ip4(100)))
	if c := a.tunnel.Counters(); c[OutPackets] != 1 || c[OutSequence] != 2 || a.plane.Counters()[Wrap] != 2 {
		t.Errorf("%d packets pass, %d are dropped", c[OutPackets], c[OutSequence])
	}
}

// Above the bounds of an SA nothing is sent, and nothing received, until they are
// moved.
func TestBounds(t *testing.T) {
	t.Parallel()
	h := newHostWith(t, newFakeNet(), addrA, sad.Config{Bounds: &esp.Bounds{Sent: 2, Received: 2}})
	addSA(t, h.sad, spec(10000, addrA, addrB, 100))
	s := spec(10001, addrB, addrA, 100)
	addSA(t, h.sad, s)
	h.configure(t, addrA, addrB, 100)
	o, in := newOutbound(h.tunnel), newInbound(h.plane, inIPv4, nil)
	send := func() {
		o.process(o.load(ip4(100)))
		o.process(o.load(ip4(100), ip4(100)))
		in.process([]arrival{arrive(seal(t, s, 2, ip4(100), protoIPv4), addrB, addrA), arrive(seal(t, s, 3, ip4(100), protoIPv4), addrB, addrA)})
	}
	send()
	if c := h.tunnel.Counters(); c[OutPackets] != 1 || c[OutNotKept] != 2 || h.plane.Counters()[InNotKept] != 1 || len(h.tun.in) != 1 {
		t.Errorf("of 3 packets out %d pass and %d wait for the disk, of 2 packets in %d and %d",
			c[OutPackets], c[OutNotKept], len(h.tun.in), h.plane.Counters()[InNotKept])
	}
	for _, spi := range []uint32{10000, 10001} {
		dst := map[uint32]netip.Addr{10000: addrB, 10001: addrA}[spi]
		h.sad.Inbound(spi, dst).ESP.SetBounds(esp.Bounds{Sent: 100, Received: 100})
	}
	send()
	if c := h.tunnel.Counters(); c[OutPackets] != 4 || len(h.tun.in) != 2 || h.plane.Counters()[Replay] != 1 {
		t.Errorf("then %d packets out pass, want 4, and %d in, want 2", c[OutPackets], len(h.tun.in))
	}
}

// FreeBSD copies the DS field and clears ECN.
func TestTrafficClassOutside(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	a, b := pair(t, n)
	classes := make(chan uint8, 2)
	o := newOutbound(a.tunnel)
	four, six := ip4(100), ip6(100)
	four[1] = 0xb8 | ecnECT0
	setTrafficClass(six, 0x28|ecnCE)
	o.process(o.load(four, six))
	go func() {
		for i := range o.batch {
			classes <- o.batch[i].class
		}
	}()
	if c := <-classes; c != 0xb8 {
		t.Errorf("class of IPv4 %#x, want 0xb8", c)
	}
	if c := <-classes; c != 0x28 {
		t.Errorf("class of IPv6 %#x, want 0x28", c)
	}
	if got := trafficClass(recv(t, b.tun)); got != 0xb8|ecnECT0 {
		t.Errorf("inner class %#x", got)
	}
}

func TestBuffersHoldEveryAlgorithm(t *testing.T) {
	t.Parallel()
	for _, enc := range algorithm.Encryptions() {
		if enc.IVLen+8 > headroomOut {
			t.Errorf("%s needs %d octets of header", enc.Name, enc.IVLen+8)
		}
		if enc.Align+2+64 > tailroomOut {
			t.Errorf("%s needs %d octets of trailer", enc.Name, enc.Align+2+64)
		}
	}
}
