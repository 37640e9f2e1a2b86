package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// serves starts a daemon with options.
func serves(t *testing.T, h *lab.Host, options string) {
	t.Helper()
	if _, err := h.Background(t.Context(), "sh", "-c", "exec ipsecd "+options); err != nil {
		t.Fatal(err)
	}
	err := lab.Until(patience, func() error {
		if r := shell(t, h, "ipsecd -status"); r.Exit != 0 {
			return fmt.Errorf("%s: %s", h.Name, strings.TrimSpace(r.Stderr))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// snmp is what the host's IPv4 has counted, by name.
func snmp(t *testing.T, h *lab.Host) map[string]int {
	t.Helper()
	var lines [][]string
	for line := range strings.Lines(output(t, h, "cat /proc/self/net/snmp")) {
		if strings.HasPrefix(line, "Ip:") {
			lines = append(lines, strings.Fields(line))
		}
	}
	all := make(map[string]int)
	for i, name := range lines[0][1:] {
		n, err := strconv.Atoi(lines[1][i+1])
		if err != nil {
			t.Fatal(err)
		}
		all[name] = n
	}
	return all
}

// The ways right to the link. A host that is no real root has little memory to lock,
// so that only few daemons at a time can have AF_XDP.
var toLink = []string{"-packet-socket", "-xdp"}

var haveXDP sync.Mutex

// newPairToLink is a pair with daemons that have an option.
func newPairToLink(t *testing.T, optionA, optionB string) (a, b *lab.Host) {
	t.Helper()
	if optionA == "-xdp" {
		lab.RequireXDP(t)
		haveXDP.Lock()
		t.Cleanup(haveXDP.Unlock) // after the hosts' end
	}
	a, b = newPair(t)
	serves(t, a, optionA+" 2>/run/ipsecd.log")
	serves(t, b, optionB+" 2>/run/ipsecd.log")
	return a, b
}

// byXDP waits until the eth0 of hosts have the program, or not. A host finds out when
// it sends, so that one is pinged meanwhile.
func byXDP(t *testing.T, want bool, ping netip.Addr, hosts ...*lab.Host) {
	t.Helper()
	for _, h := range hosts {
		err := lab.Until(patience, func() error {
			if want {
				pings(t, hosts[0], ping, 1, impatience)
			}
			if has := strings.Contains(output(t, h, "ip link show dev eth0"), "xdpgeneric"); has != want {
				return fmt.Errorf("%s: eth0 has a program is %v, want %v; %s", h.Name, has, want, readLog(h))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readLog is what the host's daemon has logged.
func readLog(h *lab.Host) string {
	log, err := os.ReadFile(h.Path("/run/ipsecd.log"))
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// Packets that go right to the link go past the host's IP, and follow what the
// host knows of neighbours, links and routes.
func TestToLink(t *testing.T) {
	t.Parallel()
	for _, option := range toLink {
		t.Run(option[1:], func(t *testing.T) {
			t.Parallel()
			a, b := newPairToLink(t, option, "")
			tn := newTunnel(0)
			tn.setUp(t, a, b)
			reachesSoon(t, a, tn.innerB[0])
			byXDP(t, option == "-xdp", tn.innerB[0], a)
			sizes(t, a, tn.innerB[0])
			reaches(t, a, tn.innerB[1])

			const count = 500
			before, start := snmp(t, a), time.Now()
			r, err := a.Ping(t.Context(), lab.Ping{To: tn.innerB[0], Count: count, Interval: time.Millisecond, Timeout: patience})
			if err != nil || r.Received != count {
				t.Fatalf("%d of %d pings were answered (%v)", r.Received, count, err)
			}
			// The pings themselves; a packet a second; the neighbour's coming and going.
			after := snmp(t, a)
			most := count + 10*(2+int(time.Since(start)/time.Second))
			if asked := after["OutRequests"] - before["OutRequests"]; asked < count || asked > most {
				t.Errorf("the host's IP was asked to send %d packets for %d pings, want at most %d", asked, count, most)
			}
			// The answers inside, and outside.
			if option != "-xdp" {
				most += count
			}
			if got := after["InReceives"] - before["InReceives"]; got < count || got > most {
				t.Errorf("the host's IP received %d packets for %d pings, want at most %d", got, count, most)
			}

			mac := strings.TrimSpace(output(t, b, "ip -o link show dev eth0 | sed 's/.*ether \\([0-9a-f:]*\\).*/\\1/'"))
			quiet(t, a, "ip neigh replace 192.168.0.5 lladdr 02:00:00:00:00:09 nud permanent dev eth0")
			reachesNot(t, a, tn.innerB[0])
			quiet(t, a, "ip neigh replace 192.168.0.5 lladdr "+mac+" nud permanent dev eth0")
			reachesSoon(t, a, tn.innerB[0])

			quiet(t, a, "ip route add prohibit 192.168.0.5/32")
			reachesNot(t, a, tn.innerB[0])
			quiet(t, a, "ip route delete prohibit 192.168.0.5/32")
			reachesSoon(t, a, tn.innerB[0])

			// Now there are fragments.
			for _, h := range []*lab.Host{a, b} {
				quiet(t, h, "ip link set eth0 mtu 1300")
			}
			sizes(t, a, tn.innerB[0])
			for _, h := range []*lab.Host{a, b} {
				quiet(t, h, "ip link set eth0 mtu 1500")
			}

			pid := daemon(t, a)
			signal(t, pid, unix.SIGKILL)
			restarted(t, a, pid)
			reachesSoon(t, a, tn.innerB[0])
			byXDP(t, option == "-xdp", tn.innerB[0], a)
			quiet(t, a, "ipsecd -stop")
			byXDP(t, false, tn.innerB[0], a)
		})
	}
}

// On a cable of IPv6 it is the same.
func TestToLinkOverIPv6(t *testing.T) {
	t.Parallel()
	for _, option := range toLink {
		t.Run(option[1:], func(t *testing.T) {
			t.Parallel()
			a, b := newPairToLink(t, option, option)
			tn := newTunnel(0)
			tn.outerA, tn.outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
			tn.setUp(t, a, b)
			reachesSoon(t, a, tn.innerB[0])
			byXDP(t, option == "-xdp", tn.innerB[0], a, b)
			sizes(t, a, tn.innerB[0])
			sizes(t, b, tn.innerA[0])
			if _, err := lab.Stream(t.Context(), a, b, tn.innerB[0], 4<<20); err != nil {
				t.Error(err)
			}
		})
	}
}

// AF_XDP goes over from one daemon to the next: what comes while neither has it takes
// the ordinary way. A link that is made anew has it again, and tunnels that end leave
// the packets between their ends to the host.
func TestXDPChangesHands(t *testing.T) {
	t.Parallel()
	a, b := newPairToLink(t, "-xdp", "-xdp")
	tn := newTunnel(0)
	tn.options = "-r 128"
	tn.setUp(t, a, b)
	reachesSoon(t, a, tn.innerB[0])
	byXDP(t, true, tn.innerB[0], a, b)

	const rate, replacements = 200, 3
	udp := map[string]*lab.Datagrams{
		"A to B": startDatagrams(t, a, b, tn.innerB[0], rate),
		"B to A": startDatagrams(t, b, a, tn.innerA[0], rate),
	}
	for range replacements {
		quiet(t, a, "ipsecd -replace -xdp")
		byXDP(t, true, tn.innerB[0], a)
		time.Sleep(100 * time.Millisecond)
	}
	for way, u := range udp {
		got := u.Stop()
		t.Logf("%s: %+v", way, got)
		// What comes by the new way may overtake what waited on the old one.
		if lost := got.Sent - got.Received; lost > 5*replacements || got.Twice > 0 || got.Damaged > 0 {
			t.Errorf("%s: of %d datagrams %d were lost in %d replacements, %d came twice, %d damaged",
				way, got.Sent, lost, replacements, got.Twice, got.Damaged)
		}
	}

	// The other end of the cable goes with it.
	quiet(t, a, "ip link delete eth0")
	err := lab.Connect(
		lab.Port{Host: a, Name: "eth0", Addrs: prefixes("192.168.0.3/24")},
		lab.Port{Host: b, Name: "eth0", Addrs: prefixes("192.168.0.5/24")},
		1500)
	if err != nil {
		t.Fatal(err)
	}
	reachesSoon(t, a, tn.innerB[0])
	byXDP(t, true, tn.innerB[0], a, b)
	reaches(t, b, tn.innerA[0])

	// The host gets what nobody wants, and says so to who sends it.
	quiet(t, b, "ifconfig ipsec0 destroy")
	before := snmp(t, b)
	for range 10 {
		reachesNot(t, a, tn.innerB[0])
		if snmp(t, b)["InReceives"] > before["InReceives"] {
			return
		}
	}
	t.Error("packets for a tunnel that is gone do not come to the host")
}
