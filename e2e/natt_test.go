package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// natt is setkey's option for ESP in UDP between two hosts' ports.
func natt(src, dst netip.AddrPort) string {
	return fmt.Sprintf("-r 8 -natt %v[%d] %v[%d]", src.Addr(), src.Port(), dst.Addr(), dst.Port())
}

// countUDP counts the datagrams of a capture by their ports; others is what is
// neither that nor chatter.
func countUDP(packets []lab.Packet) (byPorts map[[2]int]int, others []lab.Packet) {
	byPorts = make(map[[2]int]int)
	for _, p := range packets {
		if udp, ok := p.Decode().Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			byPorts[[2]int{int(udp.SrcPort), int(udp.DstPort)}]++
		} else if !p.Chatter() {
			others = append(others, p)
		}
	}
	return byPorts, others
}

func TestESPInUDP(t *testing.T) {
	t.Parallel()
	for name, addrs := range map[string][2]netip.Addr{
		"IPv4":            {outerA, outerB},
		"IPv6":            {netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")},
		"IPv6 link-local": {netip.MustParseAddr("fe80::3%eth0"), netip.MustParseAddr("fe80::5%eth0")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t)
			for h, address := range map[*lab.Host]string{a: "fe80::3/64", b: "fe80::5/64"} {
				if err := h.AddAddr("eth0", netip.MustParsePrefix(address)); err != nil {
					t.Fatal(err)
				}
			}
			tn := newTunnel(0)
			tn.outerA, tn.outerB = addrs[0], addrs[1]
			quiet(t, a, tn.interfaceA())
			quiet(t, b, tn.interfaceB())
			atA, atB := netip.AddrPortFrom(addrs[0], 4501), netip.AddrPortFrom(addrs[1], 4500)
			for h, reqid := range map[*lab.Host]int{a: tn.reqidA(), b: tn.reqidB()} {
				out, in := tn, tn
				out.options, in.options = natt(atA, atB), natt(atB, atA)
				quiet(t, h, setkey(out.add(addrs[0], addrs[1], tn.spiAB, reqid)+in.add(addrs[1], addrs[0], tn.spiBA, reqid)))
			}
			wire, err := b.Capture("eth0", 96)
			if err != nil {
				t.Fatal(err)
			}
			for i := range tn.innerB {
				sizes(t, a, tn.innerB[i])
				reaches(t, b, tn.innerA[i])
			}
			got, err := wire.Stop()
			if err != nil {
				t.Fatal(err)
			}
			datagrams, others := countUDP(got)
			if len(others) > 0 {
				t.Errorf("%d packets on the wire are not UDP, first %v", len(others), others[0])
			}
			// 11 sizes and 3 pings, and as many answers, of two families; three of the
			// sizes are more than the MTU with an IPv6 header.
			want := map[[2]int]int{{4501, 4500}: 31, {4500, 4501}: 31}
			if fmt.Sprint(datagrams) != fmt.Sprint(want) {
				t.Errorf("datagrams by ports: %v, want %v", datagrams, want)
			}
			// Large messages that the kernel cuts and joins.
			for i := range tn.innerB {
				if _, err := lab.Stream(t.Context(), a, b, tn.innerB[i], 20<<20); err != nil {
					t.Error(err)
				}
				if _, err := lab.Stream(t.Context(), b, a, tn.innerA[i], 20<<20); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A key daemon that has the port open keeps it, and what is for it.
func TestPortIsShared(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	ike, err := b.ListenUDP(netip.MustParseAddrPort("0.0.0.0:4500"))
	if err != nil {
		t.Fatal(err)
	}
	defer ike.Close()
	message := append(make([]byte, 4), "IKE"...)
	got := make(chan struct{})
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := ike.Read(buf)
			if err != nil {
				return
			}
			if bytes.Equal(buf[:n], message) {
				close(got)
			} // the others are copies of the tunnel's packets
		}
	}()
	atA, atB := netip.AddrPortFrom(outerA, 4500), netip.AddrPortFrom(outerB, 4500)
	tn := newTunnel(0)
	tn.options = natt(atA, atB)
	tn.setUp(t, a, b)
	for i := range tn.innerB {
		sizes(t, a, tn.innerB[i])
		reaches(t, b, tn.innerA[i])
	}
	if _, err := lab.Stream(t.Context(), a, b, tn.innerB[0], 5<<20); err != nil {
		t.Error(err)
	}
	if err := a.SendUDP(atB, message); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(patience):
		t.Error("the key daemon does not get its message")
	}
	if status := output(t, b, "ipsecd -status"); strings.Contains(status, "non-ESP") {
		t.Errorf("the key daemon's messages are looked at:\n%s", status)
	}
	// On A nobody has the port, so the daemon gets the message, and drops it.
	if err := b.SendUDP(atA, message); err != nil {
		t.Fatal(err)
	}
	err = lab.Until(patience, func() error {
		if status := output(t, a, "ipsecd -status"); !strings.Contains(status, "1 packets dropped; non-ESP marker") {
			return fmt.Errorf("the message is not counted:\n%s", status)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A port below 1024 is not for the daemon to open, and can be shared.
func TestPrivilegedPort(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	for _, h := range []*lab.Host{a, b} {
		ike, err := h.ListenUDP(netip.MustParseAddrPort("0.0.0.0:500"))
		if err != nil {
			t.Fatal(err)
		}
		defer ike.Close()
	}
	tn := newTunnel(0)
	tn.options = natt(netip.AddrPortFrom(outerA, 500), netip.AddrPortFrom(outerB, 500))
	tn.setUp(t, a, b)
	for i := range tn.innerB {
		reaches(t, a, tn.innerB[i])
		reaches(t, b, tn.innerA[i])
	}
}

// nat is a host between a client and a server that passes datagrams on, with
// addresses and a port of its own towards the server.
type nat struct {
	inside, outside *net.UDPConn
}

// translate starts to pass datagrams on, with another port from now on, until
// the next call.
func (n *nat) translate(t *testing.T, middle *lab.Host, inside, outside, server netip.AddrPort) {
	t.Helper()
	if n.outside != nil {
		n.outside.Close()
	}
	if n.inside == nil {
		var err error
		if n.inside, err = middle.ListenUDP(inside); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.inside.Close() })
	}
	out, err := middle.ListenUDP(outside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	n.outside = out
	in := n.inside
	var client netip.AddrPort
	known := make(chan struct{})
	go func() {
		buf := make([]byte, 1<<16)
		for first := true; ; first = false {
			size, from, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if first {
				client = from
				close(known)
			}
			if _, err := out.WriteToUDPAddrPort(buf[:size], server); err != nil {
				return
			}
		}
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			size, err := out.Read(buf)
			if err != nil {
				return
			}
			<-known
			if _, err := in.WriteToUDPAddrPort(buf[:size], client); err != nil {
				return
			}
		}
	}()
}

// A NAT that gives the client another port, as NATs do when they were restarted
// or the client moved, costs the tunnel nothing.
func TestNATChangesThePort(t *testing.T) {
	t.Parallel()
	client, middle, server := newHost(t, "client"), newHost(t, "nat"), newHost(t, "server")
	for _, l := range []struct {
		host *lab.Host
		net  string
	}{{client, "10.1.0"}, {server, "203.0.113"}} {
		err := lab.Connect(
			lab.Port{Host: l.host, Name: "eth0", Addrs: prefixes(l.net + ".2/24")},
			lab.Port{Host: middle, Name: l.host.Name, Addrs: prefixes(l.net + ".1/24")}, 1500)
		if err != nil {
			t.Fatal(err)
		}
	}
	atClient, atServer := netip.MustParseAddrPort("10.1.0.2:4500"), netip.MustParseAddrPort("203.0.113.2:4500")
	inside, outside := netip.MustParseAddrPort("10.1.0.1:4500"), netip.MustParseAddrPort("203.0.113.1:61000")
	var n nat
	n.translate(t, middle, inside, outside, atServer)

	tn := newTunnel(0)
	set := func(h *lab.Host, script string, local, remote netip.AddrPort, reqid int, out, in uint32) {
		t.Helper()
		quiet(t, h, script)
		to, from := tn, tn
		to.options, from.options = natt(local, remote), natt(remote, local)
		quiet(t, h, setkey(to.add(local.Addr(), remote.Addr(), out, reqid)+from.add(remote.Addr(), local.Addr(), in, reqid)))
	}
	set(client, interfaceScript("ipsec0", 100, atClient.Addr(), inside.Addr(), tn.innerA, tn.innerB),
		atClient, inside, 100, tn.spiAB, tn.spiBA)
	set(server, interfaceScript("ipsec0", 200, atServer.Addr(), outside.Addr(), tn.innerB, tn.innerA),
		atServer, outside, 200, tn.spiBA, tn.spiAB)
	reaches(t, client, tn.innerB[0])
	reaches(t, server, tn.innerA[0])

	n.inside.Close()
	n.inside = nil
	n.translate(t, middle, inside, netip.MustParseAddrPort("203.0.113.1:61001"), atServer)
	reachesNot(t, server, tn.innerA[0])
	reaches(t, client, tn.innerB[0])
	reaches(t, server, tn.innerA[0])

	// A daemon that comes back still knows.
	pid := daemon(t, server)
	signal(t, pid, unix.SIGKILL)
	restarted(t, server, pid)
	reaches(t, server, tn.innerA[0])
}
