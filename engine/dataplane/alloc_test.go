//go:build !race

package dataplane

import (
	"net/netip"
	"testing"

	"ifipsec/engine/sad"
)

// sink is a TUN device and a sender that forget everything.
type sink struct{ *fakeTUN }

func (s sink) Write(bufs [][]byte, offset int) (int, error) { return len(bufs), nil }

func (sink) send(packets []departure) error {
	for i := range packets {
		packets[i].sent = true
	}
	return nil
}

// steady is a way out and a way in that are warmed up, and what they carry.
func steady(t testing.TB, change func(*sad.Spec)) (out func(), in func()) {
	const batch = 128
	h := newHost(t, newFakeNet(), addrA)
	dev := sink{newFakeTUN()}
	tunnel := h.plane.Attach("ipsec1", dev)
	if err := tunnel.Configure(Settings{Src: addrA, Dst: addrC, ReqID: 7, Running: true, Up: true}); err != nil {
		t.Fatal(err)
	}
	send, receive := spec(1000, addrA, addrC, 7), spec(1001, addrC, addrA, 7)
	receive.Replay = 0
	change(&send)
	change(&receive)
	addSA(t, h.sad, send)
	addSA(t, h.sad, receive)

	o := newOutbound(tunnel)
	o.way, o.sender = path{kind: inIPv4, src: addrA, dst: addrC}, dev
	packet := ip4(1400)
	out = func() {
		for i := range batch {
			o.sizes[i] = copy(o.bufs[i][headroomOut:], packet)
		}
		o.process(batch)
	}

	i := newInbound(h.plane, inIPv4, nil)
	var sealed [batch][]byte
	arrivals := newArrivals()
	for n := range sealed {
		sealed[n] = seal(t, receive, uint64(n+1), packet, protoIPv4)
	}
	in = func() {
		for n := range arrivals {
			a := &arrivals[n]
			a.src, a.dst, a.off = netip.AddrPortFrom(addrC, 0), addrA, headroomIn
			a.end = headroomIn + copy(a.buf[headroomIn:], sealed[n])
		}
		i.process(arrivals)
	}
	out()
	in()
	if got := tunnel.Counters(); got[OutPackets] != batch || got[InPackets] != batch {
		t.Fatalf("packets do not pass: %v, %v", got, h.plane.Counters())
	}
	return out, in
}

func gcm(*sad.Spec) {}

// The race detector makes sync.Pool forget, so this test is not for it.
func TestNoAllocationPerPacket(t *testing.T) {
	for name, change := range map[string]func(*sad.Spec){"aes-gcm-16": gcm, "aes-cbc with hmac-sha2-256": cbc} {
		out, in := steady(t, change)
		// A garbage collection may empty the transforms' pools.
		if n := testing.AllocsPerRun(200, out); n >= 1 {
			t.Errorf("%s: %v allocations for a batch out", name, n)
		}
		if n := testing.AllocsPerRun(200, in); n >= 1 {
			t.Errorf("%s: %v allocations for a batch in", name, n)
		}
	}
}

func BenchmarkOutbound(b *testing.B) {
	out, _ := steady(b, gcm)
	b.SetBytes(128 * 1400)
	b.ReportAllocs()
	for b.Loop() {
		out()
	}
}

func BenchmarkInbound(b *testing.B) {
	_, in := steady(b, gcm)
	b.SetBytes(128 * 1400)
	b.ReportAllocs()
	for b.Loop() {
		in()
	}
}
