package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"ifipsec/engine/icmp"
	"ifipsec/engine/sysctl"
)

// report is a router's word about the last packet that an SA of h has sent.
func report(t *testing.T, h *testHost, mtu int) icmp.Report {
	t.Helper()
	sa := h.sad.Inbound(10000, addrB)
	return icmp.Report{
		MTU: mtu, Length: 1456, Src: netip.AddrPortFrom(addrA, 0), Dst: netip.AddrPortFrom(addrB, 0),
		SPI: 10000, Sequence: uint32(sa.ESP.Sequence()),
	}
}

func set(t *testing.T, h *testHost, v sysctl.Variable, n int64) {
	t.Helper()
	if _, err := h.plane.sysctl.Set(v, n); err != nil {
		t.Fatal(err)
	}
}

func TestReportsAreBelievedOrNot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*icmp.Report)
		want   int // the path's MTU, 0 for none
	}{
		"of the last packet":   {func(*icmp.Report) {}, 1300},
		"of the first packet":  {func(r *icmp.Report) { r.Sequence = 1 }, 1300},
		"of one not sent":      {func(r *icmp.Report) { r.Sequence++ }, 0},
		"of packet 0":          {func(r *icmp.Report) { r.Sequence = 0 }, 0},
		"of another SPI":       {func(r *icmp.Report) { r.SPI++ }, 0},
		"from another source":  {func(r *icmp.Report) { r.Src = netip.AddrPortFrom(addrC, 0) }, 0},
		"to another peer":      {func(r *icmp.Report) { r.Dst = netip.AddrPortFrom(addrC, 0) }, 0},
		"in UDP":               {func(r *icmp.Report) { r.Src = netip.AddrPortFrom(addrA, 4500) }, 0},
		"larger than it was":   {func(r *icmp.Report) { r.MTU = 1456 }, 0},
		"far too small":        {func(r *icmp.Report) { r.MTU = 68 }, minPathMTU4},
		"of a router long ago": {func(r *icmp.Report) { r.MTU = 0 }, 1006},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := pair(t, newFakeNet())
			o := newOutbound(h.tunnel)
			o.process(o.load(ip4(100), ip4(100), ip4(100)))
			r := report(t, h, 1300)
			c.change(&r)
			h.plane.reported(r)
			if got := h.tunnel.pathMTU(o.way); got != c.want {
				t.Errorf("the path's MTU is %d, want %d", got, c.want)
			}
			counts := h.plane.Counters()
			if believed := counts[Reports] == 1; believed != (c.want != 0) || counts[Reports]+counts[BadReports] != 1 {
				t.Errorf("%d reports and %d bad ones are counted", counts[Reports], counts[BadReports])
			}
		})
	}
}

func TestPathMTULives(t *testing.T) {
	t.Parallel()
	h, _ := pair(t, newFakeNet())
	now := time.Unix(1_700_000_000, 0)
	h.plane.now = func() time.Time { return now }
	o := newOutbound(h.tunnel)
	o.process(o.load(ip4(100)))
	check := func(what string, want int) {
		t.Helper()
		if got := h.tunnel.pathMTU(o.way); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	set(t, h, sysctl.PathMTUDiscovery, 0)
	h.plane.reported(report(t, h, 1300))
	check("when errors are ignored", 0)
	set(t, h, sysctl.PathMTUDiscovery, 1)
	h.plane.reported(report(t, h, 1300))
	check("at first", 1300)
	h.plane.reported(report(t, h, 1400))
	check("after a larger one", 1300)
	now = now.Add(time.Minute)
	h.plane.reported(report(t, h, 1200))
	check("after a smaller one", 1200)
	now = now.Add(pathMTULife)
	check("at the end", 1200)
	now = now.Add(time.Second)
	check("after the end", 0)
	h.plane.reported(report(t, h, 1300))
	elsewhere := o.way
	elsewhere.dst = addrC
	if got := h.tunnel.pathMTU(elsewhere); got != 0 {
		t.Errorf("another path has an MTU of %d", got)
	}
}

// withDF is an IPv4 packet that says where it comes from and must not be cut.
func withDF(size int) []byte {
	p := ip4(size)
	p[6] |= dontFragment
	copy(p[12:], []byte{172, 16, 0, 3})
	copy(p[16:], []byte{172, 16, 0, 5})
	return p
}

func global6(size int) []byte {
	p := ip6(size)
	copy(p[8:], netip.MustParseAddr("fd01::3").AsSlice())
	copy(p[24:], netip.MustParseAddr("fd01::5").AsSlice())
	return p
}

// What doesn't fit is answered, or carried in pieces if it can't be answered.
func TestFit(t *testing.T) {
	t.Parallel()
	h, _ := pair(t, newFakeNet())
	o := newOutbound(h.tunnel)
	o.process(o.load(ip4(100)))
	sa := h.sad.Inbound(10000, addrB)
	limit := sa.ESP.MaxPayload(1300 - headerLen4)
	h.tunnel.learn(o.way, 1300)
	noDF := withDF(limit + 1)
	noDF[6] = 0
	for name, c := range map[string]struct {
		dfbit    int64
		packet   []byte
		answered int // the MTU that the sender is told, 0 if it is told none
		df       bool
	}{
		"clear":              {sysctl.DFClear, withDF(limit + 1), 0, false},
		"set, fits":          {sysctl.DFSet, ip4(limit), 0, true},
		"set, too large":     {sysctl.DFSet, withDF(limit + 1), limit, false},
		"set, cuttable":      {sysctl.DFSet, noDF, 0, false},
		"copied, fits":       {sysctl.DFCopy, withDF(limit), 0, true},
		"copied, without DF": {sysctl.DFCopy, ip4(limit), 0, false},
		"copied, too large":  {sysctl.DFCopy, withDF(limit + 1), limit, false},
		"copied, cuttable":   {sysctl.DFCopy, noDF, 0, false},
		"IPv6 fits":          {sysctl.DFCopy, global6(limit), 0, true},
		"IPv6, the least":    {sysctl.DFCopy, global6(1280), 0, false},
		"IPv6, too large":    {sysctl.DFCopy, global6(1281), 1280, false},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, h, sysctl.DFBit, c.dfbit)
			o.load(c.packet)
			var counts TunnelCounters
			o.check(1, &counts)
			o.fit(sa, &counts)
			if c.answered != 0 {
				if counts[OutPathMTU] != 1 || len(o.valid) != 0 {
					t.Errorf("%d packets were answered, and %d are to be sent", counts[OutPathMTU], len(o.valid))
				}
				answer := recv(t, h.tun)
				told := int(binary.BigEndian.Uint16(answer[headerLen4+6:]))
				if c.packet[0]>>4 == 6 {
					told = int(binary.BigEndian.Uint32(answer[headerLen6+4:]))
				}
				if told != c.answered {
					t.Errorf("the sender is told %d, want %d", told, c.answered)
				}
				return
			}
			o.seal(sa, &counts)
			if len(o.batch) != 1 || o.batch[0].df != c.df {
				t.Errorf("%d packets are to be sent, want one with DF %v", len(o.batch), c.df)
			}
		})
	}
	// Nobody is flooded with answers.
	set(t, h, sysctl.DFBit, sysctl.DFCopy)
	var many [][]byte
	for range 3 * maxAnswers {
		many = append(many, withDF(limit+1))
	}
	before := h.tunnel.Counters()[OutPathMTU]
	o.process(o.load(many...))
	if got := h.tunnel.Counters()[OutPathMTU] - before; got != uint64(len(many)) || len(h.tun.in) != maxAnswers {
		t.Errorf("%d packets were dropped with %d answers, want %d and %d", got, len(h.tun.in), len(many), maxAnswers)
	}
}

func TestOuterClass(t *testing.T) {
	t.Parallel()
	for inner := range uint8(4) {
		for mode, want := range map[int64]uint8{
			sysctl.ECNForbidden: 0xb8, sysctl.ECNAllowed: 0xb8 | inner, sysctl.ECNIgnore: 0xb8 | inner,
		} {
			if got := outerClass(0xb8|inner, mode); got != want {
				t.Errorf("class %#x with ecn=%d: %#x, want %#x", 0xb8|inner, mode, got, want)
			}
		}
	}
}
