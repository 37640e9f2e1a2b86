package interop

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// The two hosts on the link: A has the programs under test, L is a Linux kernel.
var (
	outerA = map[string]netip.Addr{"IPv4": netip.MustParseAddr("192.168.0.3"), "IPv6": netip.MustParseAddr("fd00::3")}
	outerL = map[string]netip.Addr{"IPv4": netip.MustParseAddr("192.168.0.5"), "IPv6": netip.MustParseAddr("fd00::5")}
)

// linkMTU is the link's, in bytes.
const linkMTU = 1500

// families are the protocols, outside and inside.
var families = []string{"IPv4", "IPv6"}

// An answer that is to come is waited for as long as a busy machine may need,
// one that is not to come as long as is reasonable.
const (
	patience   = 10 * time.Second
	impatience = 300 * time.Millisecond
)

// buildInit builds the kernel's init once.
var buildInit = sync.OnceValue(func() error { return uml.Build(bin) })

// newLinux makes a host A and a kernel L on one link. If the test
// fails, it shows the end of the kernel's console.
func newLinux(t *testing.T) (*lab.Host, *uml.Kernel) {
	t.Helper()
	uml.Require(t)
	lab.RequireProgram(t, "ip", "iproute2")
	lab.RequireProgram(t, "ethtool", "ethtool")
	if err := buildInit(); err != nil {
		t.Fatal(err)
	}
	a, shell := programs.NewHost(t, "hostA"), programs.NewHost(t, "linux")
	err := lab.Connect(
		lab.Port{Host: a, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(outerA["IPv4"], 24), netip.PrefixFrom(outerA["IPv6"], 64)}},
		lab.Port{Host: shell, Name: "eth0"},
		linkMTU,
	)
	if err != nil {
		t.Fatal(err)
	}
	// On a veth, a run of UDP packets is one frame. The kernel that is to receive
	// it is too old for that.
	programs.Quiet(t, a, "ethtool -K eth0 tx-udp-segmentation off")
	l, err := uml.Boot(shell, "eth0", bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			console := l.Console()
			t.Logf("the end of the kernel's console:\n%s", console[max(0, len(console)-2000):])
		}
	})
	typed(t, l, fmt.Sprintf("set -e\nip address add %v/24 dev %s\nip address add %v/64 dev %[2]s\n"+
		// Its own packets can be cut into pieces.
		"echo 1 >/proc/sys/net/ipv4/ip_no_pmtu_disc",
		outerL["IPv4"], uml.Interface, outerL["IPv6"]))
	return a, l
}

// typed runs a script on the kernel that must succeed and print nothing.
func typed(t *testing.T, l *uml.Kernel, script string) {
	t.Helper()
	if r := shown(t, l, script); r != "" {
		t.Fatalf("%s\nprints %q, want nothing", script, r)
	}
}

// shown runs a script on the kernel that must succeed, and returns what it prints.
func shown(t *testing.T, l *uml.Kernel, script string) string {
	t.Helper()
	r, err := l.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != 0 || r.Stderr != "" {
		t.Fatalf("%s\nexit %d, stdout %q, stderr %q; want 0 and nothing on stderr", script, r.Exit, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// tunnel is an interface on A, and a VTI on L.
type tunnel struct {
	unit           int
	outer          string // protocol
	outerA, outerL netip.Addr
	innerA, innerL map[string]netip.Addr // by protocol
	mtu            int
}

// newTunnel is the tunnel with a number, over one of the outer protocols. Each
// has inner addresses and SPIs of its own, and the tunnels of one outer protocol
// with other numbers must be given other outer addresses.
func newTunnel(n int, outer string) tunnel {
	return tunnel{
		unit: n, outer: outer, outerA: outerA[outer], outerL: outerL[outer], mtu: 1400,
		innerA: map[string]netip.Addr{"IPv4": netip.AddrFrom4([4]byte{172, 16, byte(n), 3}), "IPv6": netip.MustParseAddr(fmt.Sprintf("fd01:%d::3", n))},
		innerL: map[string]netip.Addr{"IPv4": netip.AddrFrom4([4]byte{172, 16, byte(n), 5}), "IPv6": netip.MustParseAddr(fmt.Sprintf("fd01:%d::5", n))},
	}
}

func (tn tunnel) spiAL() uint32 { return uint32(10000 + 10*tn.unit) }
func (tn tunnel) spiLA() uint32 { return uint32(10001 + 10*tn.unit) }

// The reqids differ, as they may.
func (tn tunnel) reqidA() int { return 100 + tn.unit }
func (tn tunnel) reqidL() int { return 200 + tn.unit }

// vti is the name of the kernel's interface; its number is its mark, too.
func (tn tunnel) vti() string { return fmt.Sprintf("vti%d", tn.unit+1) }

// setUp makes the interface on A and on L. There is no SA yet.
func (tn tunnel) setUp(t *testing.T, a *lab.Host, l *uml.Kernel) {
	t.Helper()
	family, kind := "inet", "vti"
	if tn.outer == "IPv6" {
		family, kind = "inet6", "vti6"
	}
	programs.Quiet(t, a, fmt.Sprintf(`set -e
		ifconfig ipsec%d create reqid %d mtu %d
		ifconfig ipsec%[1]d %[4]s tunnel %[5]v %[6]v
		ifconfig ipsec%[1]d inet %[7]v/32 %[8]v
		ifconfig ipsec%[1]d inet6 %[9]v %[10]v prefixlen 128`,
		tn.unit, tn.reqidA(), tn.mtu, family, tn.outerA, tn.outerL,
		tn.innerA["IPv4"], tn.innerL["IPv4"], tn.innerA["IPv6"], tn.innerL["IPv6"]))
	var policies strings.Builder
	for _, any := range []string{"0.0.0.0/0", "::/0"} {
		fmt.Fprintf(&policies, "ip xfrm policy add src %[1]s dst %[1]s dir out mark %[2]d tmpl src %[3]v dst %[4]v proto esp reqid %[5]d mode tunnel\n"+
			"ip xfrm policy add src %[1]s dst %[1]s dir in mark %[2]d tmpl src %[4]v dst %[3]v proto esp reqid %[5]d mode tunnel\n",
			any, tn.unit+1, tn.outerL, tn.outerA, tn.reqidL())
	}
	typed(t, l, fmt.Sprintf(`set -e
		ip link add %s type %s local %v remote %v key %d
		ip link set %[1]s up mtu %[6]d
		ip address add %[7]v peer %[8]v dev %[1]s
		ip address add %[9]v peer %[10]v dev %[1]s
		%[11]s`,
		tn.vti(), kind, tn.outerL, tn.outerA, tn.unit+1, tn.mtu,
		tn.innerL["IPv4"], tn.innerA["IPv4"], tn.innerL["IPv6"], tn.innerA["IPv6"], policies.String()))
}

// protection is how SAs protect packets, in the words of both sides.
type protection struct {
	setkey string // setkey's -E and -A, and the other options
	linux  string // ip-xfrm's algorithms and flags
}

// addA is setkey's statement for one SA of A's.
func (tn tunnel) addA(src, dst netip.Addr, spi uint32, p protection) string {
	return fmt.Sprintf("add %v %v esp %d -m tunnel -u %d %s;\n", src, dst, spi, tn.reqidA(), p.setkey)
}

// addL is the command of ip(8) for one SA of L's.
func (tn tunnel) addL(src, dst netip.Addr, spi uint32, p protection) string {
	return fmt.Sprintf("ip xfrm state add src %v dst %v proto esp spi %d reqid %d mode tunnel flag af-unspec %s\n",
		src, dst, spi, tn.reqidL(), p.linux)
}

// keysA are setkey's statements for both SAs, and keysL are the commands of L.
func (tn tunnel) keysA(there, back protection) string {
	return tn.addA(tn.outerA, tn.outerL, tn.spiAL(), there) + tn.addA(tn.outerL, tn.outerA, tn.spiLA(), back)
}

func (tn tunnel) keysL(there, back protection) string {
	return tn.addL(tn.outerA, tn.outerL, tn.spiAL(), there) + tn.addL(tn.outerL, tn.outerA, tn.spiLA(), back)
}

// pinger is what pings.
type pinger interface {
	Ping(context.Context, lab.Ping) (lab.PingResult, error)
}

// answered returns an error unless a ping with so many bytes of data is answered.
func answered(ctx context.Context, from pinger, to netip.Addr, size int) error {
	return answeredWithin(ctx, from, to, size, patience)
}

func answeredWithin(ctx context.Context, from pinger, to netip.Addr, size int, timeout time.Duration) error {
	r, err := from.Ping(ctx, lab.Ping{To: to, Size: size, Timeout: timeout})
	if err == nil && r.Received != 1 {
		err = fmt.Errorf("a ping of %d bytes to %v was not answered", size, to)
	}
	return err
}
