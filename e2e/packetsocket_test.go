package e2e

import (
	"fmt"
	"net/netip"
	"strings"
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

// outRequests is how many packets the host's IPv4 was asked to send.
func outRequests(t *testing.T, h *lab.Host) (n int) {
	t.Helper()
	var lines [][]string
	for line := range strings.Lines(output(t, h, "cat /proc/self/net/snmp")) {
		if strings.HasPrefix(line, "Ip:") {
			lines = append(lines, strings.Fields(line))
		}
	}
	for i, name := range lines[0] {
		if name == "OutRequests" {
			if _, err := fmt.Sscan(lines[1][i], &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// Packets that go right to the link go past the host's IP, and follow what the
// host knows of neighbours, links and routes.
func TestPacketSocket(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	serves(t, a, "-packet-socket")
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	reachesSoon(t, a, tn.innerB[0])
	sizes(t, a, tn.innerB[0])
	reaches(t, a, tn.innerB[1])

	const count = 500
	before, start := outRequests(t, a), time.Now()
	r, err := a.Ping(t.Context(), lab.Ping{To: tn.innerB[0], Count: count, Interval: time.Millisecond, Timeout: patience})
	if err != nil || r.Received != count {
		t.Fatalf("%d of %d pings were answered (%v)", r.Received, count, err)
	}
	// The pings themselves; a packet a second; the neighbour's coming and going.
	asked := outRequests(t, a) - before
	if most := count + 10*(2+int(time.Since(start)/time.Second)); asked < count || asked > most {
		t.Errorf("the host's IP was asked to send %d packets for %d pings, want at most %d", asked, count, most)
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

	for _, h := range []*lab.Host{a, b} {
		quiet(t, h, "ip link set eth0 mtu 1300")
	}
	sizes(t, a, tn.innerB[0])

	pid := daemon(t, a)
	signal(t, pid, unix.SIGKILL)
	restarted(t, a, pid)
	reachesSoon(t, a, tn.innerB[0])
	quiet(t, a, "ipsecd -stop")
}

// On a cable of IPv6 it is the same.
func TestPacketSocketOverIPv6(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	serves(t, a, "-packet-socket")
	serves(t, b, "-packet-socket")
	tn := newTunnel(0)
	tn.outerA, tn.outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
	tn.setUp(t, a, b)
	reachesSoon(t, a, tn.innerB[0])
	sizes(t, a, tn.innerB[0])
	sizes(t, b, tn.innerA[0])
	if _, err := lab.Stream(t.Context(), a, b, tn.innerB[0], 4<<20); err != nil {
		t.Error(err)
	}
}
