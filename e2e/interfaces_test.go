package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"ifipsec/e2e/lab"
)

// Multicast goes through a tunnel as through any link that has it.
func TestMulticast(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	wire := capture(t, a, "eth0")
	for network, group := range map[string]string{"udp4": "239.1.2.3:5000", "udp6": "[ff15::1:2:3]:5000"} {
		to, err := net.ResolveUDPAddr(network, group)
		if err != nil {
			t.Fatal(err)
		}
		var listener, sender *net.UDPConn
		err = b.Do(func() error {
			link, err := net.InterfaceByName("ipsec0")
			if err == nil {
				listener, err = net.ListenMulticastUDP(network, link, to)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		err = a.Do(func() error {
			link, err := net.InterfaceByName("ipsec0")
			if err != nil {
				return err
			}
			if sender, err = net.ListenUDP(network, nil); err != nil {
				return err
			}
			if network == "udp4" {
				return ipv4.NewPacketConn(sender).SetMulticastInterface(link)
			}
			return ipv6.NewPacketConn(sender).SetMulticastInterface(link)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		text := "to all of " + group
		if _, err := sender.WriteToUDP([]byte(text), to); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if err := listener.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, _, err := listener.ReadFromUDP(buf)
		if err != nil || string(buf[:n]) != text {
			t.Errorf("%s: received %q, %v, want %q", group, buf[:n], err, text)
		}
	}
	if _, others := wire(); len(others) > 0 {
		t.Errorf("%d packets on the wire are not ESP, first %v", len(others), others[0])
	}
}

// A tunnel needs no inner addresses: the hosts' others will do.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.innerA, tn.innerB = nil, nil
	tn.setUp(t, a, b)
	here, there := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	for _, end := range []struct {
		host      *lab.Host
		own, peer netip.Addr
	}{{a, here, there}, {b, there, here}} {
		quiet(t, end.host, "ifconfig ipsec0 up")
		if err := end.host.AddAddr("lo", netip.PrefixFrom(end.own, 32)); err != nil {
			t.Fatal(err)
		}
		err := end.host.Do(func() error {
			link, err := netlink.LinkByName("ipsec0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Src: end.own.AsSlice(),
				Dst: &net.IPNet{IP: end.peer.AsSlice(), Mask: net.CIDRMask(32, 32)}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wire := capture(t, a, "eth0")
	reaches(t, a, there)
	esp, others := wire()
	if esp[tn.spiAB] != 3 || esp[tn.spiBA] != 3 || len(others) > 0 {
		t.Errorf("on the wire were %v and %v, want 3 packets of ESP each way", esp, others)
	}
}

// What the user routes into the interface stays there, whatever becomes of its
// tunnel.
func TestRoutesStay(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	for _, route := range prefixes("10.5.0.0/16", "fd05::/64") {
		if err := a.AddRoute(route, netip.Addr{}, "ipsec0"); err != nil {
			t.Fatal(err)
		}
	}
	// Linux adds some of its own to a link that has just come up.
	ours := func() (all []string) {
		t.Helper()
		routes, err := a.Routes()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if strings.Contains(r, "10.5.0.0/16") || strings.Contains(r, "fd05::/64") {
				all = append(all, r)
			}
		}
		return all
	}
	before := ours()
	if len(before) != 2 {
		t.Fatalf("the routes are %q, want two", before)
	}
	for _, command := range []string{
		"ifconfig ipsec0 mtu 1300", "ifconfig ipsec0 reqid 7", "ifconfig ipsec0 tunnel 192.168.0.13 192.168.0.5",
		"ifconfig ipsec0 deletetunnel", "ifconfig ipsec0 inet6 tunnel fd00::3 fd00::5", "ifconfig ipsec0 tunnelfib 7",
		"ifconfig ipsec0 tunnel 192.168.0.3 192.168.0.5 reqid 100 tunnelfib 0",
	} {
		quiet(t, a, command)
		if after := ours(); !slices.Equal(after, before) {
			t.Errorf("after %s the routes are %q, want %q", command, after, before)
		}
	}
	reaches(t, a, tn.innerB[0])
}

// Many interfaces are made in no more time each than few, and listed at once.
func TestManyInterfaces(t *testing.T) {
	t.Parallel()
	const part, parts, slack = 200, 5, 8 // other tests run meanwhile
	h := newHost(t, "hostA")
	if err := h.AddAddr("lo", netip.MustParsePrefix("10.0.0.1/32")); err != nil {
		t.Fatal(err)
	}
	var times []time.Duration
	for n := range parts {
		begin := time.Now()
		quiet(t, h, fmt.Sprintf("for i in $(seq %d %d); do ifconfig ipsec$i create reqid $((i + 1)) tunnel 10.0.0.1 10.1.$((i / 250)).$((i %% 250 + 1)) 10.2.$((i / 250)).$((i %% 250 + 1)) 10.3.$((i / 250)).$((i %% 250 + 1)); done",
			part*n, part*(n+1)-1))
		times = append(times, time.Since(begin))
	}
	begin := time.Now()
	list := output(t, h, "ifconfig")
	listed := time.Since(begin)
	t.Logf("%d interfaces each in %v; all listed in %v", part, times, listed)
	if n := strings.Count(list, "flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST>"); n != part*parts {
		t.Errorf("%d interfaces are shown as running, want %d", n, part*parts)
	}
	if times[parts-1] > slack*times[0] {
		t.Errorf("the last %d interfaces took %v, and the first %v", part, times[parts-1], times[0])
	}
	if listed > times[0] {
		t.Errorf("to list %d interfaces took %v, longer than to make %d", part*parts, listed, part)
	}
}
