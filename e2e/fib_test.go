package e2e

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// routeIn adds a route to a routing table of a host.
func routeIn(t *testing.T, h *lab.Host, table int, dst string, via string, ifname string) {
	t.Helper()
	err := h.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		_, to, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Table: table, Dst: to, Gw: net.ParseIP(via)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rulesOf counts the rules of routing that Linux does not have by itself.
func rulesOf(t *testing.T, h *lab.Host) (n int) {
	t.Helper()
	err := h.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		for _, r := range rules {
			if r.Mark != 0 || r.IifName != "" {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Outer packets take the way that the table of the tunnelfib has.
func TestTunnelFIB(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	err := lab.Connect(
		lab.Port{Host: a, Name: "eth1", Addrs: prefixes("10.9.0.3/24")},
		lab.Port{Host: b, Name: "eth1", Addrs: prefixes("10.9.0.5/24")}, 1500)
	if err != nil {
		t.Fatal(err)
	}
	routeIn(t, a, 7, "192.168.0.5/32", "10.9.0.5", "eth1")
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	byEach := func(eth0, eth1 int) {
		t.Helper()
		first, second := capture(t, a, "eth0"), capture(t, a, "eth1")
		reaches(t, a, tn.innerB[0])
		for name, want := range map[string]int{"eth0": eth0, "eth1": eth1} {
			wire := first
			if name == "eth1" {
				wire = second
			}
			esp, _ := wire()
			if esp[tn.spiAB] != want {
				t.Errorf("%d packets left by %s, want %d", esp[tn.spiAB], name, want)
			}
		}
	}
	byEach(3, 0)
	quiet(t, a, "ifconfig ipsec0 tunnelfib 7")
	byEach(0, 3)
	// It is kept when the daemon is killed.
	signal(t, daemon(t, a), unix.SIGKILL)
	reachesSoon(t, a, tn.innerB[0])
	byEach(0, 3)
	quiet(t, a, "ifconfig ipsec0 tunnelfib 0")
	byEach(3, 0)
	quiet(t, a, "ifconfig ipsec0 tunnelfib 7")
	quiet(t, a, "ipsecd -stop")
	if n := rulesOf(t, a); n != 0 {
		t.Errorf("%d rules of routing outlive the daemon", n)
	}
}

// What comes out of the tunnel takes the way that the table of the fib has.
func TestInterfaceFIB(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	inside := newHost(t, "inside")
	err := lab.Connect(
		lab.Port{Host: b, Name: "eth1", Addrs: prefixes("10.9.0.1/24")},
		lab.Port{Host: inside, Name: "eth0", Addrs: prefixes("10.9.0.2/24", "10.2.0.2/32")}, 1500)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	if err := inside.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.9.0.1"), "eth0"); err != nil {
		t.Fatal(err)
	}
	routeIn(t, b, 8, "10.2.0.0/16", "10.9.0.2", "eth1")
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	if err := a.AddRoute(netip.MustParsePrefix("10.2.0.0/16"), netip.Addr{}, "ipsec0"); err != nil {
		t.Fatal(err)
	}
	behind := netip.MustParseAddr("10.2.0.2")
	reachesNot(t, a, behind)
	quiet(t, b, "ifconfig ipsec0 fib 8")
	reaches(t, a, behind)
	if got := output(t, b, "ifconfig ipsec0 name office"); got != "office\n" {
		t.Errorf("ifconfig name prints %q", got)
	}
	reaches(t, a, behind)
	quiet(t, b, "ifconfig office destroy")
	if n := rulesOf(t, b); n != 0 {
		t.Errorf("%d rules of routing outlive the interface", n)
	}
	r := shell(t, b, "ifconfig ipsec create fib 254")
	if want := "ifconfig: ioctl (SIOCSIFFIB): Invalid argument [routing table 254 is one of Linux's own; fib 0 stands for them]\n"; r.Stderr != want {
		t.Errorf("fib 254: %q, want %q", r.Stderr, want)
	}
}
