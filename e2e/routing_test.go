package e2e

import (
	"net/netip"
	"testing"

	"ifipsec/e2e/lab"
)

// What route-based tunnels are for: hosts of two sites reach one another
// through their gateways' tunnel, and don't know of it. The sites' links take
// larger packets than the tunnel does.
func TestSiteToSite(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	insideA, insideB := newHost(t, "insideA"), newHost(t, "insideB")
	for _, site := range []struct {
		gateway, inside           *lab.Host
		gatewayAddrs, insideAddrs []netip.Prefix
	}{
		{a, insideA, prefixes("10.1.0.1/16", "fd10:1::1/64"), prefixes("10.1.0.2/16", "fd10:1::2/64")},
		{b, insideB, prefixes("10.2.0.1/16", "fd10:2::1/64"), prefixes("10.2.0.2/16", "fd10:2::2/64")},
	} {
		err := lab.Connect(
			lab.Port{Host: site.gateway, Name: "eth1", Addrs: site.gatewayAddrs},
			lab.Port{Host: site.inside, Name: "eth0", Addrs: site.insideAddrs}, 1500)
		if err != nil {
			t.Fatal(err)
		}
		for i, everywhere := range prefixes("0.0.0.0/0", "::/0") {
			if err := site.inside.AddRoute(everywhere, site.gatewayAddrs[i].Addr(), "eth0"); err != nil {
				t.Fatal(err)
			}
		}
		for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := site.gateway.Sysctl(setting, "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	for gateway, far := range map[*lab.Host][]netip.Prefix{
		a: prefixes("10.2.0.0/16", "fd10:2::/64"),
		b: prefixes("10.1.0.0/16", "fd10:1::/64"),
	} {
		for _, site := range far {
			if err := gateway.AddRoute(site, netip.Addr{}, "ipsec0"); err != nil {
				t.Fatal(err)
			}
		}
	}

	wire := capture(t, a, "eth0")
	for _, addr := range []string{"10.2.0.2", "fd10:2::2"} {
		reaches(t, insideA, netip.MustParseAddr(addr))
		if _, err := lab.Stream(t.Context(), insideA, insideB, netip.MustParseAddr(addr), 5<<20); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []string{"10.1.0.2", "fd10:1::2"} {
		reaches(t, insideB, netip.MustParseAddr(addr))
	}
	esp, others := wire()
	exampleESP(t, esp, others)
}
