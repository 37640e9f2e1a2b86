package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ifipsec/engine/sysctl"
)

func TestNesting(t *testing.T) {
	t.Parallel()
	tunnel := func(name byte) ends {
		return ends{netip.AddrFrom4([4]byte{10, 0, 0, name}), netip.AddrFrom4([4]byte{10, 0, 1, name})}
	}
	type step struct {
		passenger, carrier byte
		want               bool
		wait               time.Duration // before it
	}
	for name, steps := range map[string][]step{
		"one in the other":       {{'a', 'b', true, 0}, {'a', 'b', true, 0}},
		"in itself":              {{'a', 'a', false, 0}},
		"in one another":         {{'a', 'b', true, 0}, {'b', 'a', false, 0}, {'a', 'b', true, 0}},
		"three in a circle":      {{'a', 'b', true, 0}, {'b', 'c', true, 0}, {'c', 'a', false, 0}, {'c', 'b', false, 0}},
		"two in one":             {{'a', 'c', true, 0}, {'b', 'c', true, 0}, {'c', 'a', false, 0}, {'a', 'b', true, 0}},
		"too deep":               {{'a', 'b', true, 0}, {'b', 'c', true, 0}, {'c', 'd', false, 0}, {'x', 'd', true, 0}},
		"routes change":          {{'a', 'b', true, 0}, {'b', 'a', false, routeMemory}, {'b', 'a', true, 2}},
		"a refusal is forgotten": {{'a', 'a', false, 0}, {'a', 'b', true, 0}},
	} {
		n, now := new(nesting), time.Unix(1_700_000_000, 0)
		for _, s := range steps {
			now = now.Add(s.wait)
			if got := n.admit(carriage{tunnel(s.passenger), tunnel(s.carrier)}, 3, now); got != s.want {
				t.Errorf("%s: %c in %c: %v, want %v", name, s.passenger, s.carrier, got, s.want)
			}
		}
	}
}

func TestNestingIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	n, now := new(nesting), time.Unix(1_700_000_000, 0)
	for i, want := range []bool{true, false, false, true} {
		if got := n.due(now.Add(time.Duration(i) * complaintInterval / 3)); got != want {
			t.Errorf("after %d thirds of a minute: %v, want %v", i, got, want)
		}
	}
}

// Which packets are outer packets of a tunnel, and of which.
func TestOuterOf(t *testing.T) {
	t.Parallel()
	h := newHost(t, newFakeNet(), addrA)
	h.configure(t, addrA, addrB, 100)
	other := h.plane.Attach("ipsec1", newFakeTUN())
	ends6 := Settings{Src: linkLocal[0], Dst: linkLocal[1], ReqID: 101, Running: true, Up: true}
	if err := other.Configure(ends6); err != nil {
		t.Fatal(err)
	}
	change := func(p []byte, octets ...int) []byte {
		p = slices.Clone(p)
		for i := 0; i < len(octets); i += 2 {
			p[octets[i]] = uint8(octets[i+1])
		}
		return p
	}
	whole := change(ip6(100), 6, protoESP)
	copy(whole[8:], ends6.Src.AsSlice())
	copy(whole[24:], ends6.Dst.AsSlice())
	fragment := change(whole, 6, protoFragment, headerLen6, protoESP)
	esp4 := change(ip4(100), 9, protoESP)
	copy(esp4[12:], addrA.AsSlice())
	copy(esp4[16:], addrB.AsSlice())
	udp4 := change(esp4, 9, protoUDP)
	binary.BigEndian.PutUint32(udp4[headerLen4+udpHeaderLen:], 4711)
	for name, c := range map[string]struct {
		packet []byte
		want   bool
	}{
		"IPv4":                   {esp4, true},
		"IPv4, later fragment":   {change(esp4, 7, 8), true},
		"IPv6":                   {whole, true},
		"fragment":               {fragment, true},
		"fragment of other":      {change(fragment, headerLen6, 17), false},
		"UDP, no port open":      {udp4, false},
		"other peer":             {change(whole, 39, 9), false},
		"other source":           {change(whole, 23, 9), false},
		"header longer than all": {change(udp4[:headerLen4], 0, 0x4f), false},
	} {
		if _, got := h.plane.outerOf(h.plane.serving.Load(), c.packet); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}

	h.plane.encap.open.Store(true)
	if _, got := h.plane.outerOf(h.plane.serving.Load(), udp4); got {
		t.Error("UDP without an SA's SPI is taken for ESP")
	}
	if _, got := h.plane.outerOf(h.plane.serving.Load(), change(udp4, 7, 8)); !got {
		t.Error("a later fragment of UDP between the ends is let through")
	}
	if _, got := h.plane.outerOf(h.plane.serving.Load(), udp4[:headerLen4+udpHeaderLen]); got {
		t.Error("a short UDP datagram is taken for ESP")
	}
	ends6.Up = false
	if err := other.Configure(ends6); err != nil {
		t.Fatal(err)
	}
	if _, got := h.plane.outerOf(h.plane.serving.Load(), whole); got {
		t.Error("a tunnel that is down sends nothing")
	}
}

// What another tunnel has sealed passes, until the depth is used up.
func TestOutboundCarriesAnotherTunnel(t *testing.T) {
	t.Parallel()
	h, _ := pair(t, newFakeNet())
	variables := h.plane.sysctl
	other := h.plane.Attach("ipsec1", newFakeTUN())
	if err := other.Configure(Settings{Src: addrA, Dst: addrC, ReqID: 101, Running: true, Up: true}); err != nil {
		t.Fatal(err)
	}
	packet := ip4(100)
	packet[9] = protoESP
	copy(packet[12:], addrA.AsSlice())
	copy(packet[16:], addrC.AsSlice())
	o := newOutbound(h.tunnel)
	o.process(o.load(packet, packet))
	if _, err := variables.Set(sysctl.MaxNesting, 1); err != nil {
		t.Fatal(err)
	}
	o.process(o.load(packet, packet, ip4(50)))
	got := h.tunnel.Counters()
	if got[OutPackets] != 3 || got[OutLoop] != 2 {
		t.Errorf("%d packets were sent and %d dropped, want 3 and 2", got[OutPackets], got[OutLoop])
	}
}
