package diagnosis

import (
	"net/netip"
	"testing"
	"time"
)

var (
	a, b, c = netip.MustParseAddr("192.168.0.3"), netip.MustParseAddr("192.168.0.5"), netip.MustParseAddr("192.168.0.7")
	now     = time.Unix(1_800_000_000, 0)
)

// good is an interface that works.
func good() (Interface, []SA) {
	sa := func(spi uint32, src, dst netip.Addr) SA {
		return SA{SPI: spi, Src: src, Dst: dst, ReqID: 100, Usable: true, Packets: 10, LastUsed: now.Add(-time.Second)}
	}
	return Interface{Name: "ipsec0", Up: true, Running: true, Src: a, Dst: b, ReqID: 100, Sent: 10},
		[]SA{sa(10000, a, b), sa(10001, b, a)}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(ifp *Interface, sas *[]SA)
		want   string
	}{
		"works":      {func(*Interface, *[]SA) {}, ""},
		"no tunnel":  {func(i *Interface, _ *[]SA) { i.Src, i.Dst, i.Running = netip.Addr{}, netip.Addr{}, false }, "no tunnel is set"},
		"not here":   {func(i *Interface, _ *[]SA) { i.Running = false }, "192.168.0.3 is not an address of this host"},
		"down":       {func(i *Interface, _ *[]SA) { i.Up = false }, "the interface is down"},
		"no SA":      {func(_ *Interface, s *[]SA) { *s = nil }, "nothing is sent: no SA from 192.168.0.3 to 192.168.0.5 has reqid 100"},
		"no SA back": {func(_ *Interface, s *[]SA) { *s = (*s)[:1] }, "nothing is received: no SA from 192.168.0.5 to 192.168.0.3 has reqid 100"},
		"another reqid": {func(_ *Interface, s *[]SA) { (*s)[0].ReqID, (*s)[1].ReqID = 200, 200 },
			"nothing is sent: no SA from 192.168.0.3 to 192.168.0.5 has reqid 100; SPI 10000 has reqid 200, and the interface wants 100"},
		"no reqid": {func(_ *Interface, s *[]SA) { (*s)[1].ReqID = 0 },
			"nothing is received: no SA from 192.168.0.5 to 192.168.0.3 has reqid 100; SPI 10001 has no reqid, and the interface wants 100"},
		"other endpoints": {func(_ *Interface, s *[]SA) { (*s)[0].Dst = c },
			"nothing is sent: no SA from 192.168.0.3 to 192.168.0.5 has reqid 100; SPI 10000 with reqid 100 is from 192.168.0.3 to 192.168.0.7"},
		"transport mode": {func(_ *Interface, s *[]SA) { (*s)[0].Transport = true },
			"nothing is sent: no SA from 192.168.0.3 to 192.168.0.5 has reqid 100; SPI 10000 is of transport mode, and the interface wants tunnel mode"},
		"larval": {func(_ *Interface, s *[]SA) { (*s)[1].Usable = false },
			"nothing is received: no SA from 192.168.0.5 to 192.168.0.3 has reqid 100; SPI 10001 is not complete yet"},
		"refused by the kernel": {func(i *Interface, _ *[]SA) { i.Sent, i.Refused = 0, 3 },
			"this host does not send the outer packets to 192.168.0.5: 3 were refused; the daemon's log says why"},
		"refused once, and sent since": {func(i *Interface, _ *[]SA) { i.Refused = 3 }, ""},
		"nothing from the peer": {func(_ *Interface, s *[]SA) { (*s)[1].Packets, (*s)[1].LastUsed = 0, time.Time{} },
			"the peer 192.168.0.5 has sent nothing that has an SA here"},
		"nothing either way": {func(i *Interface, s *[]SA) {
			for n := range *s {
				(*s)[n].Packets, (*s)[n].LastUsed = 0, time.Time{}
			}
		}, ""},
		"another key": {func(_ *Interface, s *[]SA) { (*s)[1].Packets, (*s)[1].LastUsed, (*s)[1].BadICVs = 0, time.Time{}, 7 },
			"packets with SPI 10001 do not authenticate (7 so far): the peer has another key or algorithm, or somebody changes them"},
		"another key without authentication": {func(_ *Interface, s *[]SA) { (*s)[1].Packets, (*s)[1].LastUsed, (*s)[1].Malformed = 0, time.Time{}, 7 },
			"packets with SPI 10001 make no sense when decrypted (7 so far): the peer has another key or algorithm"},
		"into itself": {func(i *Interface, _ *[]SA) { i.Sent, i.Looped = 0, 3 },
			"outer packets of this host's tunnels are routed into ipsec0 (3 so far), and dropped: the route to 192.168.0.5 leads into a tunnel"},
		"used up": {func(i *Interface, _ *[]SA) { i.Sent, i.UsedUp = 0, 3 },
			"nothing is sent: the sequence numbers of the SA are used up (3 packets so far), so it needs new keys"},
		"some that were changed": {func(_ *Interface, s *[]SA) { (*s)[1].BadICVs = 7 }, ""},
		"counts anew": {func(_ *Interface, s *[]SA) { (*s)[1].LastUsed, (*s)[1].Replays = now.Add(-2*Silence), 7 },
			"the replay window refuses the packets with SPI 10001 (7 so far): the peer has begun to count anew, so both need new SAs"},
		"silent": {func(_ *Interface, s *[]SA) { (*s)[1].LastUsed = now.Add(-90 * time.Second) },
			"the peer 192.168.0.5 has been silent for 1m30s"},
		"both silent": {func(_ *Interface, s *[]SA) {
			(*s)[0].LastUsed, (*s)[1].LastUsed = now.Add(-90*time.Second), now.Add(-90*time.Second)
		}, ""},
		"rekeyed": {func(_ *Interface, s *[]SA) {
			fresh := (*s)[1]
			fresh.SPI, (*s)[1].LastUsed = 10003, now.Add(-90*time.Second)
			*s = append(*s, fresh)
		}, ""},
	} {
		ifp, sas := good()
		test.change(&ifp, &sas)
		if got := Explain(ifp, sas, now); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
