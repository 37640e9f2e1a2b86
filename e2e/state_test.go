package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
)

// silent checks that traffic puts nothing on the wire that comes from A.
func silent(t *testing.T, a *lab.Host, wire func() (map[uint32]int, []lab.Packet)) {
	t.Helper()
	esp, others := wire()
	if len(esp) > 0 || len(others) > 0 {
		t.Errorf("on the wire were ESP packets %v and %d others (%v), want nothing", esp, len(others), others)
	}
}

// Without an SA nothing leaves the host, least of all in clear.
func TestWithoutSA(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	wire := capture(t, a, "eth0")
	for _, to := range tn.innerB {
		reachesNot(t, a, to)
	}
	silent(t, a, wire)

	quiet(t, a, setkey(tn.keys(tn.reqidA())))
	quiet(t, b, setkey(tn.keys(tn.reqidB())))
	for _, to := range tn.innerB {
		reaches(t, a, to)
	}

	quiet(t, a, "setkey -F")
	wire = capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
}

// An outbound SA that does not belong to the interface does not serve it.
func TestOutboundSAOfAnother(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	quiet(t, b, setkey(tn.keys(tn.reqidB())))
	for what, statement := range map[string]string{
		"reqid":          tn.add(outerA, outerB, 10000, 999),
		"no reqid":       tn.add(outerA, outerB, 10000, 0),
		"source":         tn.add(netip.MustParseAddr("192.168.0.13"), outerB, 10000, tn.reqidA()),
		"destination":    tn.add(outerA, netip.MustParseAddr("192.168.0.15"), 10000, tn.reqidA()),
		"transport mode": strings.Replace(tn.add(outerA, outerB, 10000, tn.reqidA()), "tunnel", "transport", 1),
		"protocol":       `add 192.168.0.3 192.168.0.5 ah 10000 -m tunnel -u 100 -A hmac-sha1 "VerySecureMacKey!!!1";`,
	} {
		quiet(t, a, setkey("flush;\n"+statement))
		wire := capture(t, a, "eth0")
		reachesNot(t, a, tn.innerB[0])
		t.Run(what, func(t *testing.T) { silent(t, a, wire) })
	}
	quiet(t, a, setkey("flush;\n"+tn.keys(tn.reqidA())))
	reaches(t, a, tn.innerB[0])
}

// An inbound SA that does not belong to the interface opens packets for nobody.
func TestInboundSAOfAnother(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	out := tn.add(outerB, outerA, tn.spiBA, tn.reqidB())
	for what, in := range map[string]string{
		"reqid":  tn.add(outerA, outerB, 10000, 999),
		"source": tn.add(netip.MustParseAddr("192.168.0.13"), outerB, 10000, tn.reqidB()),
	} {
		quiet(t, b, setkey("flush;\n"+in+out))
		wire := capture(t, b, "eth0")
		reachesNot(t, a, tn.innerB[0])
		esp, others := wire()
		if want := map[uint32]int{tn.spiAB: 3}; !cmp.Equal(want, esp) || len(others) > 0 {
			t.Errorf("%s: on the wire were ESP %v and %d others, want ESP %v: B must not answer", what, esp, len(others), want)
		}
	}
	quiet(t, b, setkey("flush;\n"+tn.keys(tn.reqidB())))
	reaches(t, a, tn.innerB[0])
}

// running says whether ifconfig shows RUNNING.
func running(t *testing.T, h *lab.Host, name string) bool {
	t.Helper()
	flags, _, _ := strings.Cut(output(t, h, "ifconfig "+name), "\n")
	return strings.Contains(flags, ",RUNNING,")
}

// becomes waits until an interface is RUNNING, or is not.
func becomes(t *testing.T, h *lab.Host, name string, want bool) {
	t.Helper()
	err := lab.Until(patience, func() error {
		if got := running(t, h, name); got != want {
			return fmt.Errorf("%s: RUNNING is %v, want %v", name, got, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLocalEndpointGoesAndComes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	for _, tn := range fourTunnels()[2:] {
		bits := 24
		if tn.outerA.Is6() {
			bits = 64
		}
		endpoint := netip.PrefixFrom(tn.outerA, bits)
		tn.setUp(t, a, b)
		reaches(t, a, tn.innerB[0])
		if err := a.DelAddr("eth0", endpoint); err != nil {
			t.Fatal(err)
		}
		becomes(t, a, tn.name(), false)
		wire := capture(t, a, "eth0")
		reachesNot(t, a, tn.innerB[0])
		silent(t, a, wire)
		if err := a.AddAddr("eth0", endpoint); err != nil {
			t.Fatal(err)
		}
		becomes(t, a, tn.name(), true)
		reachesSoon(t, a, tn.innerB[0])
	}
}

// A tunnel to be may be set up before its endpoint is there.
func TestLocalEndpointComesLate(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.outerA = netip.MustParseAddr("192.168.0.77")
	tn.setUp(t, a, b)
	if running(t, a, "ipsec0") {
		t.Error("the interface is RUNNING without its local endpoint")
	}
	wire := capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
	if err := a.AddAddr("eth0", netip.MustParsePrefix("192.168.0.77/24")); err != nil {
		t.Fatal(err)
	}
	becomes(t, a, "ipsec0", true)
	reachesSoon(t, a, tn.innerB[0])
}

// New keys for old, in the order that loses nothing: first who receives, then
// who sends.
func TestRekeyUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	stop := background(t, a, tn.innerB[0])
	old := tn
	for range 5 {
		tn.spiAB, tn.spiBA = old.spiAB+2, old.spiBA+2
		quiet(t, a, setkey(tn.add(outerB, outerA, tn.spiBA, tn.reqidA())))
		quiet(t, b, setkey(tn.keys(tn.reqidB())))
		quiet(t, a, setkey(tn.add(outerA, outerB, tn.spiAB, tn.reqidA())))
		gone := fmt.Sprintf("delete %s %s esp %d;\ndelete %s %s esp %d;\n", outerA, outerB, old.spiAB, outerB, outerA, old.spiBA)
		// What was sent with the old keys has arrived.
		time.Sleep(20 * time.Millisecond)
		quiet(t, a, setkey(gone))
		quiet(t, b, setkey(gone))
		old = tn
	}
	if sent, lost := stop(); lost > 0 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}
	wire := capture(t, a, "eth0")
	reaches(t, a, tn.innerB[0])
	esp, _ := wire()
	if want := map[uint32]int{tn.spiAB: 3, tn.spiBA: 3}; !cmp.Equal(want, esp) {
		t.Errorf("packets by SPI %v, want only the newest %v", esp, want)
	}
}

// What has nothing to do with a tunnel's way does not disturb it, and what has
// takes effect at once.
func TestReconfigurationUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	stop := background(t, a, tn.innerB[0])
	for i := range 5 {
		quiet(t, a, fmt.Sprintf("ifconfig ipsec0 mtu %d description 'change %d'", 1280+i, i))
		quiet(t, a, "ifconfig ipsec0 inet tunnel 192.168.0.3 192.168.0.5")
		quiet(t, a, "ifconfig ipsec0 reqid 100")
		quiet(t, a, "ifconfig ipsec1 create; ifconfig ipsec1 destroy")
	}
	if sent, lost := stop(); lost > 0 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}

	quiet(t, a, "ifconfig ipsec0 reqid 300")
	wire := capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
	quiet(t, a, "ifconfig ipsec0 reqid 100")
	reaches(t, a, tn.innerB[0])

	quiet(t, a, "ifconfig ipsec0 inet tunnel 192.168.0.13 192.168.0.5")
	wire = capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
	quiet(t, a, "ifconfig ipsec0 inet tunnel 192.168.0.3 192.168.0.5")
	reaches(t, a, tn.innerB[0])

	quiet(t, a, "ifconfig ipsec0 down")
	reachesNot(t, a, tn.innerB[0])
	quiet(t, a, "ifconfig ipsec0 up")
	reaches(t, a, tn.innerB[0])
}

// The tunnel's own packets, routed into the tunnel, go nowhere, and the daemon
// lives on.
func TestTunnelIntoItself(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	if err := a.AddRoute(netip.PrefixFrom(outerB, 32), netip.Addr{}, "ipsec0"); err != nil {
		t.Fatal(err)
	}
	wire := capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
	quiet(t, a, "ifconfig ipsec0 destroy")
	quiet(t, a, tn.interfaceA())
	reaches(t, a, tn.innerB[0])
}

// An SA that has served its time serves no longer, and nothing takes its place.
func TestLifetimeEnds(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.options = "-ls 1 -lh 2"
	tn.setUp(t, a, b)
	reaches(t, a, tn.innerB[0])
	err := lab.Until(2*patience, func() error {
		if all := output(t, a, "setkey -D"); all != "No SAD entries.\n" {
			return fmt.Errorf("setkey -D still shows\n%s", all)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	wire := capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
}

// An interface goes on under a new name.
func TestRenameUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	stop := background(t, a, tn.innerB[0])
	for range 3 {
		if got := output(t, a, "ifconfig ipsec0 name office"); got != "office\n" {
			t.Errorf("ifconfig name prints %q, want the new name", got)
		}
		if got := output(t, a, "setkey -DP -t"); strings.Count(got, "ifname=office\n") != 4 {
			t.Errorf("the policies are not those of office:\n%s", got)
		}
		output(t, a, "ifconfig office name ipsec0")
	}
	if sent, lost := stop(); lost > 0 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}
}

// A tunnel may take larger packets than the link below it: the outer packets
// are fragmented.
func TestTunnelMTUOverLinkMTU(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	for _, tn := range []tunnel{fourTunnels()[0], fourTunnels()[3]} {
		tn.setUp(t, a, b)
		for _, h := range []*lab.Host{a, b} {
			quiet(t, h, "ifconfig "+tn.name()+" mtu 8192")
		}
		for i, to := range tn.innerB {
			for _, size := range []int{1372, 1500, 4000, 8192 - 40 - 8} {
				r, err := a.Ping(t.Context(), lab.Ping{To: to, Size: size, Timeout: patience})
				if err != nil {
					t.Fatal(err)
				}
				if r.Received != 1 {
					t.Errorf("%s: a ping of %d bytes to %v was not answered", tn.name(), size, to)
				}
			}
			if _, err := lab.Stream(t.Context(), b, a, tn.innerA[i], 5<<20); err != nil {
				t.Error(err)
			}
		}
	}
}
