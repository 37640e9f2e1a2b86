package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// The client's port is 4501, the server's 4500.
var atA, atB = netip.AddrPortFrom(addrA, 4501), netip.AddrPortFrom(addrB, 4500)

// inUDP makes an SA one for ESP in UDP.
func inUDP(s sad.Spec, src, dst uint16) sad.Spec {
	s.NATT = &sad.NATT{SrcPort: src, DstPort: dst}
	return s
}

// udpPair is two hosts, of which A is a client with ESP in UDP. The server knows
// the client as known.
func udpPair(t testing.TB, n *fakeNet, known netip.AddrPort, change func(*sad.Spec)) (a, b *testHost) {
	t.Helper()
	a, b = newHost(t, n, addrA), newHost(t, n, addrB)
	add := func(h *testHost, s sad.Spec) {
		change(&s)
		addSA(t, h.sad, s)
	}
	add(a, inUDP(spec(10000, addrA, addrB, 100), atA.Port(), atB.Port()))
	add(a, inUDP(spec(10001, addrB, addrA, 100), atB.Port(), atA.Port()))
	a.configure(t, addrA, addrB, 100)
	add(b, inUDP(spec(10000, known.Addr(), addrB, 200), known.Port(), atB.Port()))
	add(b, inUDP(spec(10001, addrB, known.Addr(), 200), atB.Port(), known.Port()))
	b.configure(t, addrB, known.Addr(), 200)
	return a, b
}

// passes sends a packet from one host to another and says whether it arrived.
func passes(t *testing.T, from, to *testHost) {
	t.Helper()
	packet := ip4(100)
	from.tun.out <- packet
	if got := recv(t, to.tun); !bytes.Equal(got, packet) {
		t.Fatalf("%x arrives, want %x", got, packet)
	}
}

func same(*sad.Spec) {}

func (n *fakeNet) isOpen(at netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sockets[at] != nil
}

func (n *fakeNet) translate(inside, outside netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nat[inside] = outside
}

func TestESPInUDP(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	a, b := udpPair(t, n, atA, same)
	passes(t, a, b)
	passes(t, b, a)
	if b.tunnel.moved.Load() != nil {
		t.Error("a peer that is where its SA says is taken to have moved")
	}
}

// A port is open while an SA wants it and its tunnel serves, whichever comes
// first, so that others can have it at other times.
func TestPortsAreOpenWhileNeeded(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	h := newHost(t, n, addrA)
	in, out := inUDP(spec(1001, addrB, addrA, 100), 4500, 4501), inUDP(spec(1000, addrA, addrB, 100), 4501, 4500)
	remove := func(s sad.Spec) {
		t.Helper()
		if err := h.sad.Delete(pfkey.SATypeESP, s.Src, s.Dst, s.SPI); err != nil {
			t.Fatal(err)
		}
	}
	stop := func() {
		t.Helper()
		if err := h.tunnel.Configure(Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(open bool, when string) {
		t.Helper()
		if got := n.isOpen(atA); got != open {
			t.Errorf("%s: open is %v, want %v", when, got, open)
		}
		if n.isOpen(netip.AddrPortFrom(addrA, 4500)) {
			t.Errorf("%s: the peer's port is open here", when)
		}
	}
	addSA(t, h.sad, in)
	want(false, "without a tunnel")
	h.configure(t, addrA, addrB, 99)
	want(false, "with another's tunnel")
	h.configure(t, addrA, addrB, 100)
	want(true, "with the tunnel")
	addSA(t, h.sad, out)
	remove(in)
	want(true, "with one SA of two")
	stop()
	want(false, "with a tunnel that does not run")
	h.configure(t, addrA, addrB, 100)
	want(true, "with a tunnel that runs again")
	remove(out)
	want(false, "without SAs")
	addSA(t, h.sad, out)
	want(true, "with an SA again")
	h.sad.Flush(pfkey.SATypeESP)
	want(false, "after a flush")
	if p := h.plane; len(p.encap.ports) != 0 || len(p.encap.needs) != 0 {
		t.Errorf("left behind: %v, %v", p.encap.ports, p.encap.needs)
	}
}

// The sender's socket may be another than last time.
func TestPortIsOpenedAgain(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	a, b := udpPair(t, n, atA, same)
	passes(t, a, b)
	if err := a.tunnel.Configure(Settings{}); err != nil {
		t.Fatal(err)
	}
	a.configure(t, addrA, addrB, 100)
	passes(t, a, b)
	passes(t, b, a)
}

// A peer behind a NAT is followed when a packet proves that it is there, and
// found again when it comes back.
func TestFollowsThePeer(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	a, b := udpPair(t, n, atA, same)
	passes(t, a, b)
	for _, outside := range []string{"203.0.113.9:61000", "203.0.113.10:61001"} {
		n.translate(atA, netip.MustParseAddrPort(outside))
		passes(t, a, b)
		passes(t, b, a)
	}
	n.translate(atA, atA)
	passes(t, a, b)
	passes(t, b, a)
	if moved := b.tunnel.moved.Load(); moved != nil {
		t.Errorf("the peer is believed at %v after it came back", moved.Now)
	}
}

// Who can't prove it is not followed: packets that anybody can make or repeat
// change nothing.
func TestFollowsNobodyElse(t *testing.T) {
	t.Parallel()
	stranger := netip.MustParseAddrPort("203.0.113.66:61066")
	for name, c := range map[string]struct {
		change func(*sad.Spec)
		spoil  bool // the packet on its way
		twice  bool // the packet was seen before
		want   Counter
	}{
		"changed":           {same, true, false, BadAuth},
		"repeated":          {same, false, true, Replay},
		"no replay window":  {func(s *sad.Spec) { s.Replay = 0 }, false, false, PolicyDrops},
		"no authentication": {func(s *sad.Spec) { cbc(s); s.Auth, s.AuthKey = 0, nil }, false, false, PolicyDrops},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNet()
			a, b := udpPair(t, n, atA, c.change)
			var seen []byte
			n.alter = func(p []byte) []byte { seen = bytes.Clone(p); return p }
			passes(t, a, b)
			n.mu.Lock()
			n.alter = func(p []byte) []byte {
				if c.twice {
					return seen
				}
				if c.spoil {
					p[len(p)-1]++
				}
				return p
			}
			n.mu.Unlock()
			n.translate(atA, stranger)
			a.tun.out <- ip4(100)
			eventually(t, c.want.String(), b.counter(c.want), 1)
			if moved := b.tunnel.moved.Load(); moved != nil {
				t.Errorf("followed to %v", moved.Now)
			}
		})
	}
}

// Two clients behind one NAT differ in their ports only.
func TestTwoClientsBehindOneNAT(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	nat := netip.MustParseAddr("203.0.113.1")
	clients := []netip.Addr{addrA, addrC}
	server := newHost(t, n, addrB)
	second := newFakeTUN()
	tunnels := []*Tunnel{server.tunnel, server.plane.Attach("ipsec1", second)}
	devices := []*fakeTUN{server.tun, second}
	for i, addr := range clients {
		outside := netip.AddrPortFrom(nat, 61000+uint16(i))
		n.translate(netip.AddrPortFrom(addr, 4500), outside)
		reqid, spi := uint32(200+i), uint32(10000+10*i)
		c := newHost(t, n, addr)
		addSA(t, c.sad, inUDP(spec(spi, addr, addrB, 100), 4500, 4500))
		addSA(t, c.sad, inUDP(spec(spi+1, addrB, addr, 100), 4500, 4500))
		c.configure(t, addr, addrB, 100)
		addSA(t, server.sad, inUDP(spec(spi, nat, addrB, reqid), outside.Port(), 4500))
		addSA(t, server.sad, inUDP(spec(spi+1, addrB, nat, reqid), 4500, outside.Port()))
		if err := tunnels[i].Configure(Settings{Src: addrB, Dst: nat, ReqID: reqid, Running: true, Up: true}); err != nil {
			t.Fatal(err)
		}
		passes(t, c, &testHost{tun: devices[i]})
		passes(t, &testHost{tun: devices[i]}, c)
	}
}

// ESP in UDP is not taken for an SA of ESP right in IP, nor the other way round,
// nor by another port.
func TestWayMustBeTheSAs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sad.Spec){
		"right in IP":  func(s *sad.Spec) { s.NATT = nil },
		"another port": func(s *sad.Spec) { s.NATT.DstPort = 4999 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNet()
			a, b := newHost(t, n, addrA), newHost(t, n, addrB)
			s := inUDP(spec(10000, addrA, addrB, 100), 4501, 4500)
			addSA(t, a.sad, s)
			a.configure(t, addrA, addrB, 100)
			s = inUDP(s, 4501, 4500)
			change(&s)
			addSA(t, b.sad, s)
			// Somebody else's SA has the port open.
			addSA(t, b.sad, inUDP(spec(10002, addrA, addrB, 100), 4501, 4500))
			b.configure(t, addrB, addrA, 100)
			a.tun.out <- ip4(100)
			eventually(t, PolicyDrops.String(), b.counter(PolicyDrops), 1)
		})
	}
}

// Datagrams that are not ESP are told apart by their beginning.
func TestNotESP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		datagram []byte
		want     Counters
	}{
		"keepalive":     {[]byte{0xff}, Counters{Keepalives: 1}},
		"IKE":           {make([]byte, 28), Counters{NonESP: 1}},
		"one octet":     {[]byte{0xfe}, Counters{Input: 1, HeaderDrops: 1}},
		"nothing":       {nil, Counters{Input: 1, HeaderDrops: 1}},
		"half a marker": {make([]byte, 3), Counters{Input: 1, HeaderDrops: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, newFakeNet(), addrB)
			in := newInbound(h.plane, kind{port: 4500}, nil)
			in.process([]arrival{arrive(c.datagram, addrA, addrB)})
			if got := h.plane.Counters(); got != c.want {
				t.Errorf("counters are %v, want %v", got, c.want)
			}
		})
	}
}

// A NAT is reminded of a tunnel that is silent, and of no other.
func TestKeepalives(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	a, b := udpPair(t, n, atA, same)
	passes(t, a, b)
	eventually(t, "packets sent", a.tunnelCounter(OutPackets), 1)
	a.plane.keepalive() // it was not silent
	eventually(t, "keepalives", b.counter(Keepalives), 0)
	a.plane.keepalive()
	eventually(t, "keepalives", b.counter(Keepalives), 1)
	if a.plane.encap.keepalive == nil {
		t.Error("no keepalive is due although a port is open")
	}
	a.sad.Flush(pfkey.SATypeESP)
	a.plane.keepalive()
	if a.plane.encap.keepalive != nil {
		t.Error("the daemon wakes up for keepalives although no port is open")
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sizes   []int
		classes []uint8
		want    int
	}{
		"one":             {sizes: []int{100}, want: 1},
		"equal":           {sizes: []int{100, 100, 100}, want: 3},
		"shorter at last": {sizes: []int{100, 100, 50, 50}, want: 3},
		"longer":          {sizes: []int{100, 101}, want: 1},
		"other class":     {sizes: []int{100, 100, 100}, classes: []uint8{0, 0, 1}, want: 2},
		"too many":        {sizes: sizes(200, 100), want: maxSegments},
		"too large":       {sizes: sizes(64, 1400), want: maxSegmented / 1400},
		"enormous":        {sizes: []int{1 << 17, 1 << 17}, want: 1},
	} {
		packets := make([]departure, len(c.sizes))
		for i, size := range c.sizes {
			packets[i].packet = make([]byte, size)
			if c.classes != nil {
				packets[i].class = c.classes[i]
			}
		}
		if got := runLength(packets); got != c.want {
			t.Errorf("%s: run of %d, want %d", name, got, c.want)
		}
	}
}

func sizes(n, size int) (all []int) {
	for range n {
		all = append(all, size)
	}
	return all
}
