package e2e

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// The outer addresses of the two hosts that most tests have.
var (
	outerA = netip.MustParseAddr("192.168.0.3")
	outerB = netip.MustParseAddr("192.168.0.5")
)

// What most tests do with a host.
var (
	newHost = programs.NewHost
	shell   = programs.Shell
	quiet   = programs.Quiet
	output  = programs.Output
	setkey  = programs.Setkey
	runDir  = programs.RunDir
)

// newPair makes two hosts on one link, hostA with outerA and hostB with outerB,
// and with another IPv4 and an IPv6 address each.
func newPair(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	a, b = newHost(t, "hostA"), newHost(t, "hostB")
	err := lab.Connect(
		lab.Port{Host: a, Name: "eth0", Addrs: prefixes("192.168.0.3/24", "192.168.0.13/24", "fd00::3/64")},
		lab.Port{Host: b, Name: "eth0", Addrs: prefixes("192.168.0.5/24", "192.168.0.15/24", "fd00::5/64")},
		1500,
	)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func prefixes(all ...string) (ps []netip.Prefix) {
	for _, p := range all {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// An answer that is to come is waited for as long as a busy machine may need,
// one that is not to come as long as is reasonable.
const (
	patience   = 5 * time.Second
	impatience = 300 * time.Millisecond
)

// pings sends a few pings, quickly, and returns how many were answered before
// the time was up.
func pings(t *testing.T, h *lab.Host, to netip.Addr, count int, timeout time.Duration) int {
	t.Helper()
	r, err := h.Ping(t.Context(), lab.Ping{To: to, Count: count, Interval: 5 * time.Millisecond, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return r.Received
}

// reaches checks that every one of a few pings is answered.
func reaches(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	if got := pings(t, h, to, 3, patience); got != 3 {
		t.Errorf("%s: %d of 3 pings to %v were answered, want all", h.Name, got, to)
	}
}

// sizes pings with data of various sizes up to what the interface's MTU of 1400
// takes: 20 bytes are the IPv4 header and 8 ICMP's.
func sizes(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	for _, size := range []int{1, 2, 3, 15, 16, 17, 100, 1000, 1370, 1371, 1372} {
		r, err := h.Ping(t.Context(), lab.Ping{To: to, Size: size, Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		if r.Received != 1 {
			t.Errorf("%s: a ping of %d bytes to %v was not answered", h.Name, size, to)
		}
	}
}

// reachesSoon waits until a ping is answered.
func reachesSoon(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	err := lab.Until(patience, func() error {
		if pings(t, h, to, 1, impatience) != 1 {
			return fmt.Errorf("%s: no ping to %v was answered", h.Name, to)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// reachesNot checks that no ping is answered.
func reachesNot(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	if got := pings(t, h, to, 3, impatience); got != 0 {
		t.Errorf("%s: %d of 3 pings to %v were answered, want none", h.Name, got, to)
	}
}

// capture records an interface, and returns a function that ends that and
// returns the ESP packets by SPI and whatever else was there. If the test fails,
// go test's -artifacts keeps what was recorded.
func capture(t *testing.T, h *lab.Host, ifname string) func() (esp map[uint32]int, others []lab.Packet) {
	t.Helper()
	start := time.Now()
	c, err := h.Capture(ifname, 96)
	if err != nil {
		t.Fatal(err)
	}
	return func() (map[uint32]int, []lab.Packet) {
		t.Helper()
		packets, err := c.Stop()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if !t.Failed() {
				return
			}
			path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%s-%s-%d.pcap", h.Name, ifname, start.UnixMicro()))
			if err := lab.WritePCAP(path, packets); err != nil {
				t.Error(err)
			}
		})
		return lab.CountESP(packets)
	}
}

// background pings until stop is called, which returns how many pings were not
// answered.
func background(t *testing.T, h *lab.Host, to netip.Addr) (stop func() (sent, lost int)) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan lab.PingResult, 1)
	go func() {
		var sum lab.PingResult
		defer func() { done <- sum }()
		for {
			r, err := h.Ping(t.Context(), lab.Ping{To: to, Count: 20, Interval: 2 * time.Millisecond, Timeout: time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			sum.Sent += r.Sent
			sum.Received += r.Received
			select {
			case <-quit:
				return
			default:
			}
		}
	}()
	return func() (int, int) {
		close(quit)
		sum := <-done
		return sum.Sent, sum.Sent - sum.Received
	}
}

// tunnel is an interface on both of two hosts, and the SAs for it.
type tunnel struct {
	unit           int
	outerA, outerB netip.Addr
	innerA, innerB []netip.Addr // of either family; an address of A goes with the one of B
	spiAB, spiBA   uint32       // of what goes from A to B, and from B to A
	algorithms     string       // setkey's -E and -A; empty: aes-gcm-16
	options        string       // setkey's other options
}

// newTunnel is the tunnel with a number: it has inner addresses and SPIs of its
// own.
func newTunnel(n int) tunnel {
	return tunnel{
		unit: n, outerA: outerA, outerB: outerB,
		innerA: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(n), 3}), netip.MustParseAddr(fmt.Sprintf("fd01:%d::3", n))},
		innerB: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(n), 5}), netip.MustParseAddr(fmt.Sprintf("fd01:%d::5", n))},
		spiAB:  uint32(10000 + 10*n), spiBA: uint32(10001 + 10*n),
	}
}

// The reqids differ between the hosts, as they may.
func (tn tunnel) reqidA() int { return 100 + tn.unit }
func (tn tunnel) reqidB() int { return 200 + tn.unit }

func (tn tunnel) name() string { return fmt.Sprintf("ipsec%d", tn.unit) }

// setUp makes the interface and the SAs on both hosts.
func (tn tunnel) setUp(t *testing.T, a, b *lab.Host) {
	t.Helper()
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	quiet(t, a, setkey(tn.keys(tn.reqidA())))
	quiet(t, b, setkey(tn.keys(tn.reqidB())))
}

// interfaceA is the script that makes the interface on host A.
func (tn tunnel) interfaceA() string {
	return interfaceScript(tn.name(), tn.reqidA(), tn.outerA, tn.outerB, tn.innerA, tn.innerB)
}

// interfaceB is the script that makes the interface on host B.
func (tn tunnel) interfaceB() string {
	return interfaceScript(tn.name(), tn.reqidB(), tn.outerB, tn.outerA, tn.innerB, tn.innerA)
}

func interfaceScript(name string, reqid int, src, dst netip.Addr, local, remote []netip.Addr) string {
	var s strings.Builder
	fmt.Fprintf(&s, "set -e\nifconfig %s create reqid %d\n", name, reqid)
	fmt.Fprintf(&s, "ifconfig %s %s tunnel %s %s\n", name, family(src), src, dst)
	for i := range local {
		if local[i].Is4() {
			fmt.Fprintf(&s, "ifconfig %s inet %s/32 %s\n", name, local[i], remote[i])
		} else {
			fmt.Fprintf(&s, "ifconfig %s inet6 %s %s prefixlen 128\n", name, local[i], remote[i])
		}
	}
	return s.String()
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "inet"
	}
	return "inet6"
}

// keys are the statements that add the SAs with a reqid.
func (tn tunnel) keys(reqid int) string {
	return tn.add(tn.outerA, tn.outerB, tn.spiAB, reqid) + tn.add(tn.outerB, tn.outerA, tn.spiBA, reqid)
}

// add is the statement that adds one SA.
func (tn tunnel) add(src, dst netip.Addr, spi uint32, reqid int) string {
	algorithms := tn.algorithms
	if algorithms == "" {
		// No two SAs have one key.
		algorithms = fmt.Sprintf("-E aes-gcm-16 0x%040x", spi)
	}
	return fmt.Sprintf("add %s %s esp %d -m tunnel -u %d %s %s;\n", src, dst, spi, reqid, tn.options, algorithms)
}
