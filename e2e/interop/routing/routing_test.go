// Package routing runs routing daemons over ipsec interfaces, which is what
// route-based tunnels are for: BIRD on both ends, with OSPF and BGP.
package routing

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }

// patience is how long a daemon may take to learn something. OSPF sends hellos
// every second here.
const patience = 20 * time.Second

// end is one of the two routers, and a host on the network behind it.
type end struct {
	host, behind *lab.Host
	outer        []netip.Addr // of which the tunnel uses the first at first
	inner        netip.Addr   // and inner6 on ipsec0
	inner6       netip.Addr
	lan, lan6    netip.Prefix // of the network behind it; the host there is the next address
	as           int
	reqid        int
}

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

// newEnds makes two routers and their networks.
func newEnds(t *testing.T) (a, b *end) {
	t.Helper()
	a = &end{
		outer: []netip.Addr{address("192.168.0.3"), address("192.168.0.13")},
		inner: address("172.16.0.3"), inner6: address("fe80::3"),
		lan: netip.MustParsePrefix("10.3.0.1/24"), lan6: netip.MustParsePrefix("fd03::1/64"), as: 65003, reqid: 100,
	}
	b = &end{
		outer: []netip.Addr{address("192.168.0.5"), address("192.168.0.15")},
		inner: address("172.16.0.5"), inner6: address("fe80::5"),
		lan: netip.MustParsePrefix("10.5.0.1/24"), lan6: netip.MustParsePrefix("fd05::1/64"), as: 65005, reqid: 200,
	}
	for name, e := range map[string]*end{"routerA": a, "routerB": b} {
		e.host, e.behind = programs.NewHost(t, name), programs.NewHost(t, "behind "+name)
		host := lab.Port{Host: e.behind, Name: "eth0", Addrs: []netip.Prefix{
			netip.PrefixFrom(e.lan.Addr().Next(), 24), netip.PrefixFrom(e.lan6.Addr().Next(), 64),
		}}
		if err := lab.Connect(lab.Port{Host: e.host, Name: "lan0", Addrs: []netip.Prefix{e.lan, e.lan6}}, host, 1500); err != nil {
			t.Fatal(err)
		}
		for dst, via := range map[string]netip.Addr{"0.0.0.0/0": e.lan.Addr(), "::/0": e.lan6.Addr()} {
			if err := e.behind.AddRoute(netip.MustParsePrefix(dst), via, "eth0"); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := e.host.Sysctl(name, "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	ports := [2]lab.Port{}
	for i, e := range []*end{a, b} {
		ports[i] = lab.Port{Host: e.host, Name: "eth0"}
		for _, outer := range e.outer {
			ports[i].Addrs = append(ports[i].Addrs, netip.PrefixFrom(outer, 24))
		}
	}
	if err := lab.Connect(ports[0], ports[1], 1500); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// tunnel makes the interface of e towards its peer.
func (e *end) tunnel(t *testing.T, peer *end) {
	t.Helper()
	programs.Quiet(t, e.host, fmt.Sprintf(`set -e
ifconfig ipsec0 create reqid %d
ifconfig ipsec0 inet tunnel %v %v
ifconfig ipsec0 inet %v/32 %v
ifconfig ipsec0 inet6 %v/64
`, e.reqid, e.outer[0], peer.outer[0], e.inner, peer.inner, e.inner6))
}

// key gives both ends SAs for a pair of outer addresses, with the reqids that
// they have, and SPIs and keys of a generation. Each end can receive before the
// other sends.
func key(t *testing.T, a, b *end, pair, generation int) {
	t.Helper()
	add := func(on, from, to *end) {
		t.Helper()
		spi := 10000 + 10*generation
		if from == b {
			spi++
		}
		programs.Quiet(t, on.host, programs.Setkey(fmt.Sprintf("add %v %v esp %d -m tunnel -u %d -r 8 -E aes-gcm-16 0x%040x;\n",
			from.outer[pair], to.outer[pair], spi, on.reqid, spi)))
	}
	add(a, b, a)
	add(b, a, b)
	add(a, a, b)
	add(b, b, a)
}

// unkey takes a generation of SAs away.
func unkey(t *testing.T, a, b *end, pair, generation int) {
	t.Helper()
	for _, e := range []*end{a, b} {
		programs.Quiet(t, e.host, programs.Setkey(fmt.Sprintf("delete %[1]v %[2]v esp %[3]d;\ndelete %[2]v %[1]v esp %[4]d;\n",
			a.outer[pair], b.outer[pair], 10000+10*generation, 10001+10*generation)))
	}
}

// bird starts BIRD with protocols.
func (e *end) bird(t *testing.T, protocols string) {
	t.Helper()
	config := fmt.Sprintf(`router id %v;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface "lan0"; }
protocol kernel { ipv4 { export all; import none; }; }
protocol kernel { ipv6 { export all; import none; }; }
%s`, e.inner, protocols)
	programs.Quiet(t, e.host, "cat > /run/bird.conf <<'END'\n"+config+"END\n")
	bird, err := e.host.Background(context.Background(), "bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bird.Signal(os.Kill); err == nil {
			bird.Wait()
		}
	})
}

// ask is what birdc answers.
func (e *end) ask(t *testing.T, question string) string {
	t.Helper()
	return programs.Shell(t, e.host, "birdc -s /run/bird.ctl "+question).Stdout
}

// learns waits until e has a route to a network, and hosts behind both ends reach
// one another by it.
func (e *end) learns(t *testing.T, peer *end, to netip.Prefix) {
	t.Helper()
	route := to.Masked().String()
	err := lab.Until(patience, func() error {
		routes := programs.Shell(t, e.host, "ip route; ip -6 route").Stdout
		for line := range strings.Lines(routes) {
			if strings.HasPrefix(line, route+" ") && strings.Contains(line, "dev ipsec0") && strings.Contains(line, "proto bird") {
				return nil
			}
		}
		return fmt.Errorf("%s has no route to %s:\n%s%s", e.host.Name, route, routes, e.ask(t, "show protocols all"))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reaches waits until a host behind e gets answers from the one behind the peer,
// in both protocols that are asked for.
func (e *end) reaches(t *testing.T, networks ...netip.Prefix) {
	t.Helper()
	for _, n := range networks {
		err := lab.Until(patience, func() error {
			r, err := e.behind.Ping(t.Context(), lab.Ping{To: n.Addr().Next(), Count: 3, Interval: 5 * time.Millisecond, Timeout: time.Second})
			if err != nil {
				return err
			}
			if r.Received != 3 {
				return fmt.Errorf("from %s %d of 3 pings to %v were answered", e.behind.Name, r.Received, n.Addr().Next())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// since is when a protocol of BIRD's came into the state in which it is, and the
// state.
func (e *end) since(t *testing.T, protocol string) (at time.Time, state string) {
	t.Helper()
	for line := range strings.Lines(e.ask(t, "show protocols "+protocol)) {
		// Name, protocol, table, state, since, and what the protocol says.
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != protocol {
			continue
		}
		at, err := time.Parse("15:04:05.000", f[4])
		if err != nil {
			t.Fatalf("%s: BIRD says %q: %v", e.host.Name, line, err)
		}
		return at, strings.Join(append(f[3:4], f[5:]...), " ")
	}
	t.Fatalf("%s: BIRD has no protocol %s", e.host.Name, protocol)
	return at, ""
}

// losses records which routes a router loses, until the function that it returns
// is called.
func (e *end) losses(t *testing.T) func() (lost []string) {
	t.Helper()
	monitor, err := e.host.Background(context.Background(), "ip", "monitor", "route")
	if err != nil {
		t.Fatal(err)
	}
	return func() (lost []string) {
		t.Helper()
		if err := monitor.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		output, _ := monitor.Wait()
		for line := range strings.Lines(output) {
			if strings.HasPrefix(line, "Deleted") && strings.Contains(line, "proto bird") {
				lost = append(lost, line)
			}
		}
		return lost
	}
}

// changes puts the tunnel through what an administrator or a key daemon does to
// it: new keys, another reqid, other endpoints. check is called after each.
func changes(t *testing.T, a, b *end, check func(after string)) {
	t.Helper()
	losses := []func() []string{a.losses(t), b.losses(t)}
	for generation := 1; generation <= 10; generation++ {
		key(t, a, b, 0, generation)
		unkey(t, a, b, 0, generation-1)
	}
	check("rekeying ten times")

	b.reqid = 300
	programs.Quiet(t, b.host, "ifconfig ipsec0 reqid 300")
	unkey(t, a, b, 0, 10)
	key(t, a, b, 0, 11)
	check("another reqid")

	key(t, a, b, 1, 12)
	programs.Quiet(t, a.host, fmt.Sprintf("ifconfig ipsec0 inet tunnel %v %v", a.outer[1], b.outer[1]))
	programs.Quiet(t, b.host, fmt.Sprintf("ifconfig ipsec0 inet tunnel %v %v", b.outer[1], a.outer[1]))
	unkey(t, a, b, 0, 11)
	check("other endpoints")
	for _, lost := range losses {
		if lost := lost(); len(lost) > 0 {
			t.Errorf("routes were lost for a time: %q", lost)
		}
	}

	// And what must not survive: without keys the neighbour is lost.
	losses = []func() []string{a.losses(t), b.losses(t)}
	unkey(t, a, b, 1, 12)
	for i, e := range []*end{a, b} {
		err := lab.Until(patience, func() error {
			if routes := programs.Shell(t, e.host, "ip route; ip -6 route").Stdout; strings.Contains(routes, "dev ipsec0 proto bird") {
				return fmt.Errorf("%s still has routes through a tunnel without keys:\n%s", e.host.Name, routes)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if lost := losses[i](); len(lost) == 0 {
			t.Errorf("%s: no loss of a route was seen, though there was one", e.host.Name)
		}
	}
}

// stays is a check that nothing that BIRD learnt went away, not even for a
// moment.
func stays(t *testing.T, a, b *end, protocol string, networks func(*end) []netip.Prefix) func(after string) {
	t.Helper()
	type state struct {
		at    time.Time
		state string
	}
	before := map[*end]state{}
	for _, e := range []*end{a, b} {
		at, now := e.since(t, protocol)
		before[e] = state{at, now}
	}
	return func(after string) {
		t.Helper()
		a.reaches(t, networks(b)...)
		b.reaches(t, networks(a)...)
		// Longer than a neighbour may be silent.
		time.Sleep(dead + time.Second)
		for _, e := range []*end{a, b} {
			at, now := e.since(t, protocol)
			// BIRD keeps how long ago it was, and is a millisecond off now and then.
			if now != before[e].state || at.Sub(before[e].at).Abs() > time.Second {
				t.Errorf("after %s, BIRD's protocol on %s is %q since %v, was %q since %v",
					after, e.host.Name, now, at, before[e].state, before[e].at)
			}
			if text := e.ask(t, "show ospf neighbors "+protocol); strings.HasPrefix(protocol, "ospf") && !strings.Contains(text, "Full/PtP") {
				t.Errorf("after %s, %s has no neighbour:\n%s", after, e.host.Name, text)
			}
		}
	}
}

// dead is how long OSPF may hear nothing of a neighbour, as ospfArea says. On a busy
// machine BIRD itself may be silent for seconds.
const dead = 5 * time.Second

func four(e *end) []netip.Prefix { return []netip.Prefix{e.lan} }
func six(e *end) []netip.Prefix  { return []netip.Prefix{e.lan6} }

// setUp makes the tunnel between two new routers, with BIRD on both.
func setUp(t *testing.T, protocols func(e, peer *end) string) (a, b *end) {
	t.Helper()
	a, b = newEnds(t)
	a.tunnel(t, b)
	b.tunnel(t, a)
	key(t, a, b, 0, 0)
	a.bird(t, protocols(a, b))
	b.bird(t, protocols(b, a))
	return a, b
}

const ospfArea = `area 0 { interface "ipsec0" { type ptp; hello 1; dead 5; }; interface "lan0" { stub; }; };`

func TestOSPFv2(t *testing.T) {
	t.Parallel()
	a, b := setUp(t, func(e, peer *end) string {
		return "protocol ospf v2 ospf1 { ipv4 { import all; }; " + ospfArea + " }\n"
	})
	a.learns(t, b, b.lan)
	b.learns(t, a, a.lan)
	changes(t, a, b, stays(t, a, b, "ospf1", four))
}

func TestOSPFv3(t *testing.T) {
	t.Parallel()
	a, b := setUp(t, func(e, peer *end) string {
		return "protocol ospf v3 ospf1 { ipv6 { import all; }; " + ospfArea + " }\n"
	})
	a.learns(t, b, b.lan6)
	b.learns(t, a, a.lan6)
	changes(t, a, b, stays(t, a, b, "ospf1", six))
}

func TestBGP(t *testing.T) {
	t.Parallel()
	a, b := setUp(t, func(e, peer *end) string {
		return fmt.Sprintf(`protocol bgp bgp1 {
	local %v as %d; neighbor %v as %d; connect retry time 1; connect delay time 1; error wait time 1, 2; hold time 6; keepalive time 1;
	ipv4 { import all; export where source = RTS_DEVICE; };
}
`, e.inner, e.as, peer.inner, peer.as)
	})
	a.learns(t, b, b.lan)
	b.learns(t, a, a.lan)
	changes(t, a, b, stays(t, a, b, "bgp1", four))
}
