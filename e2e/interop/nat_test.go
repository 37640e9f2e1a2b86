package interop

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// gateway is a host with Linux's NAT between clients and a server: what leaves
// towards the server has the gateway's address, and a port of its choice.
type gateway struct{ *lab.Host }

var (
	publicGateway = netip.MustParseAddr("203.0.113.1")
	publicServer  = netip.MustParseAddr("203.0.113.2")
)

func newGateway(t *testing.T) gateway {
	t.Helper()
	lab.RequireProgram(t, "nft", "nftables")
	g := gateway{programs.NewHost(t, "gateway")}
	if err := g.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	// Without "random" the first client would keep its port.
	programs.Quiet(t, g.Host, `nft -f - <<'END'
table ip nat {
	chain postrouting {
		type nat hook postrouting priority 100;
		oifname "public" meta l4proto udp masquerade to :61000-62000 random
	}
}
END`)
	return g
}

// forget has the gateway forget who is who, as when it is started again.
func (g gateway) forget(t *testing.T) {
	t.Helper()
	err := g.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		t.Fatal(err)
	}
}

// client is a host behind a gateway, with a tunnel to the server.
type client struct {
	*lab.Host
	number       int
	addr         netip.Addr // its own
	inner, there netip.Addr // its own in the tunnel, and the server's
}

func newClient(t *testing.T, number int, g gateway) client {
	t.Helper()
	c := client{
		Host:   programs.NewHost(t, fmt.Sprintf("client%d", number)),
		number: number,
		addr:   netip.AddrFrom4([4]byte{10, 1, byte(number), 2}),
		inner:  netip.AddrFrom4([4]byte{172, 16, byte(number), 3}),
		there:  netip.AddrFrom4([4]byte{172, 16, byte(number), 5}),
	}
	err := lab.Connect(
		lab.Port{Host: c.Host, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(c.addr, 24)}},
		lab.Port{Host: g.Host, Name: c.Name, Addrs: []netip.Prefix{netip.PrefixFrom(c.addr.Prev(), 24)}}, linkMTU)
	if err == nil {
		err = c.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), c.addr.Prev(), "eth0")
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keys are setkey's statements for the client's SAs, which has this address as
// the host has it that gets the statements.
func (c client) keys(addr netip.Addr) string {
	const statement = "add %v %v esp %d -m tunnel -u %d -r 32 -natt %[1]v[4500] %[2]v[4500] %[5]s;\n"
	spi := uint32(5000 + 10*c.number)
	return fmt.Sprintf(statement, addr, publicServer, spi, 100+c.number, gcm(spi).setkey) +
		fmt.Sprintf(statement, publicServer, addr, spi+1, 100+c.number, gcm(spi+1).setkey)
}

// Two clients behind one NAT have the same address for the server, and one port
// each that the server learns from what they send.
func TestTwoClientsBehindOneNAT(t *testing.T) {
	t.Parallel()
	g, server := newGateway(t), programs.NewHost(t, "server")
	err := lab.Connect(
		lab.Port{Host: g.Host, Name: "public", Addrs: []netip.Prefix{netip.PrefixFrom(publicGateway, 24)}},
		lab.Port{Host: server, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(publicServer, 24)}}, linkMTU)
	if err != nil {
		t.Fatal(err)
	}
	const script = `set -e
		ifconfig ipsec%d create reqid %d
		ifconfig ipsec%[1]d inet tunnel %[3]v %[4]v
		ifconfig ipsec%[1]d inet %[5]v/32 %[6]v`
	clients := []client{newClient(t, 1, g), newClient(t, 2, g)}
	for _, c := range clients {
		programs.Quiet(t, c.Host, fmt.Sprintf(script, c.number, 100+c.number, c.addr, publicServer, c.inner, c.there))
		programs.Quiet(t, c.Host, programs.Setkey(c.keys(c.addr)))
		programs.Quiet(t, server, fmt.Sprintf(script, c.number, 100+c.number, publicServer, publicGateway, c.there, c.inner))
		programs.Quiet(t, server, programs.Setkey(c.keys(publicGateway)))
	}
	for _, c := range clients {
		if got := pings(t, server, c.inner, 1); got != 0 {
			t.Errorf("the server reached %s, of which it had not heard", c.Name)
		}
	}
	// What the gateway has forgotten, it gives other ports the next time.
	for range 2 {
		for _, c := range clients {
			if err := answered(t.Context(), c, c.there, 56); err != nil {
				t.Error(c.Name, err)
			}
		}
		for _, c := range clients {
			for _, size := range []int{1, 1372, 4000} {
				if err := answered(t.Context(), server, c.inner, size); err != nil {
					t.Error("the server:", err)
				}
			}
		}
		// All at once.
		results := make(chan error)
		for _, c := range clients {
			go func() { results <- streamed(t.Context(), c.Host, server, c.there) }()
			go func() { results <- streamed(t.Context(), server, c.Host, c.inner) }()
		}
		for range 2 * len(clients) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		g.forget(t)
	}
}

// streamed sends a stream from one host to an address of another.
func streamed(ctx context.Context, from, to *lab.Host, addr netip.Addr) error {
	_, err := lab.Stream(ctx, from, to, addr, 5<<20)
	return err
}
