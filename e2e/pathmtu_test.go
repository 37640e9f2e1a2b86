package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"

	"golang.org/x/sys/unix"
)

// narrowMTU is the MTU of the link behind the router: less than a full packet of
// the tunnel has outside.
const narrowMTU = 1320

// newNarrow makes two hosts with a router between them, whose link to B is
// narrow, and a tunnel from one to the other: of IPv6 outside if six says so, and
// of ESP in UDP if there is a port.
func newNarrow(t *testing.T, six bool, port uint16) (a, r, b *lab.Host, tn tunnel) {
	t.Helper()
	a, r, b = newHost(t, "hostA"), newHost(t, "router"), newHost(t, "hostB")
	for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := r.Sysctl(setting, "1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []struct {
		host         *lab.Host
		router       string
		addrs, gates []netip.Prefix
		mtu          int
	}{
		{a, "eth0", prefixes("192.168.0.3/24", "fd00::3/64"), prefixes("192.168.0.1/24", "fd00::1/64"), 1500},
		{b, "eth1", prefixes("192.168.1.5/24", "fd00:1::5/64"), prefixes("192.168.1.1/24", "fd00:1::1/64"), narrowMTU},
	} {
		err := lab.Connect(lab.Port{Host: link.host, Name: "eth0", Addrs: link.addrs},
			lab.Port{Host: r, Name: link.router, Addrs: link.gates}, link.mtu)
		if err != nil {
			t.Fatal(err)
		}
		for i, everywhere := range prefixes("0.0.0.0/0", "::/0") {
			if err := link.host.AddRoute(everywhere, link.gates[i].Addr(), "eth0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	tn = newTunnel(0)
	tn.outerA, tn.outerB = outerA, netip.MustParseAddr("192.168.1.5")
	if six {
		tn.outerA, tn.outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00:1::5")
	}
	if port == 0 {
		tn.setUp(t, a, b)
		return a, r, b, tn
	}
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	atA, atB := netip.AddrPortFrom(tn.outerA, port), netip.AddrPortFrom(tn.outerB, port)
	for h, reqid := range map[*lab.Host]int{a: tn.reqidA(), b: tn.reqidB()} {
		out, in := tn, tn
		out.options, in.options = natt(atA, atB), natt(atB, atA)
		quiet(t, h, setkey(out.add(tn.outerA, tn.outerB, tn.spiAB, reqid)+in.add(tn.outerB, tn.outerA, tn.spiBA, reqid)))
	}
	return a, r, b, tn
}

// fullSize pings with all that the tunnel's MTU takes until there is an answer.
func fullSize(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	size := 1400 - 28
	if to.Is6() {
		size = 1400 - 48
	}
	err := lab.Until(patience, func() error {
		r, err := h.Ping(t.Context(), lab.Ping{To: to, Size: size, Timeout: impatience})
		if err == nil && r.Received != 1 {
			err = fmt.Errorf("%s: no ping of %d bytes to %v was answered", h.Name, size, to)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// streamSoon sends a stream, and gives up if it gets stuck.
func streamSoon(t *testing.T, from, to *lab.Host, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	_, err := lab.Stream(ctx, from, to, addr, 1<<20)
	return err
}

// statusLine is a number of ipsecd -status, 0 if it isn't there.
func statusLine(t *testing.T, h *lab.Host, text string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\t(\d+) ` + regexp.QuoteMeta(text) + `$`).FindStringSubmatch(output(t, h, "ipsecd -status"))
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dfBits counts the large IPv4 packets of ESP with and without DF, and pieces of
// packets.
func dfBits(packets []lab.Packet) (set, clear, pieces int) {
	for _, p := range packets {
		if len(p.Data) < 34 || binary.BigEndian.Uint16(p.Data[12:]) != 0x0800 || p.Data[23] != 50 {
			continue
		}
		flags := binary.BigEndian.Uint16(p.Data[20:])
		switch {
		case flags&0x3fff != 0:
			pieces++
		case p.Length < 1000:
		case flags&0x4000 != 0:
			set++
		default:
			clear++
		}
	}
	return set, clear, pieces
}

// TCP and large datagrams find their way through a narrow link in the middle (on
// the way to B) and at the beginning (from B), whatever the DF bit is outside.
func TestNarrowLink(t *testing.T) {
	t.Parallel()
	for _, six := range []bool{false, true} {
		for dfbit := range 3 {
			t.Run(fmt.Sprintf("six=%v,dfbit=%d", six, dfbit), func(t *testing.T) {
				t.Parallel()
				a, _, b, tn := newNarrow(t, six, 0)
				for _, h := range []*lab.Host{a, b} {
					if got, want := output(t, h, fmt.Sprintf("ipsecd -sysctl net.inet.ipsec.dfbit=%d", dfbit)),
						fmt.Sprintf("net.inet.ipsec.dfbit: 0 -> %d\n", dfbit); got != want {
						t.Errorf("printed %q, want %q", got, want)
					}
				}
				wire, err := a.Capture("eth0", 96)
				if err != nil {
					t.Fatal(err)
				}
				for i := range tn.innerA {
					if err := streamSoon(t, a, b, tn.innerB[i]); err != nil {
						t.Error(err)
					}
					if err := streamSoon(t, b, a, tn.innerA[i]); err != nil {
						t.Error(err)
					}
					fullSize(t, a, tn.innerB[i])
					fullSize(t, b, tn.innerA[i])
				}
				if t.Failed() {
					t.Log(output(t, a, "ipsecd -status; nstat -a 2>/dev/null | grep -i -E 'frag|too|reasm'"))
				}
				packets, err := wire.Stop()
				if err != nil {
					t.Fatal(err)
				}
				set, clear, _ := dfBits(packets)
				switch {
				case six:
				case dfbit == 0 && (set != 0 || clear == 0):
					t.Errorf("%d large packets with DF and %d without, want none with it", set, clear)
				case dfbit != 0 && set < 100:
					t.Errorf("%d large packets with DF and %d without, want most with it", set, clear)
				}
				if told := statusLine(t, a, "output dropped; too big for the path, and the sender was told"); (told != 0) != (dfbit != 0) {
					t.Errorf("%d packets were too big and answered, with dfbit %d", told, dfbit)
				}
				want := "\tpath mtu: 1500, as the first link has it\n"
				if six || dfbit != 0 {
					want = fmt.Sprintf("\tpath mtu: %d, as a router on the way says\n", narrowMTU)
				}
				if got := output(t, a, "ifconfig -v ipsec0"); !strings.Contains(got, want) {
					t.Errorf("ifconfig -v ipsec0 printed\n%swithout %q", got, want)
				}
				// A packet that may be cut is, and arrives.
				if err := a.Sysctl("net/ipv4/ip_no_pmtu_disc", "1"); err != nil {
					t.Fatal(err)
				}
				fullSize(t, a, tn.innerB[0])
			})
		}
	}
}

// So do those of ESP in UDP.
func TestNarrowLinkInUDP(t *testing.T) {
	t.Parallel()
	for _, six := range []bool{false, true} {
		for dfbit := range 3 {
			t.Run(fmt.Sprintf("six=%v,dfbit=%d", six, dfbit), func(t *testing.T) {
				t.Parallel()
				a, _, b, tn := newNarrow(t, six, 4500)
				for _, h := range []*lab.Host{a, b} {
					quiet(t, h, fmt.Sprintf("ipsecd -sysctl net.inet.ipsec.dfbit=%d >/dev/null", dfbit))
				}
				for i := range tn.innerA {
					if err := streamSoon(t, a, b, tn.innerB[i]); err != nil {
						t.Error(err)
					}
					if err := streamSoon(t, b, a, tn.innerA[i]); err != nil {
						t.Error(err)
					}
					fullSize(t, a, tn.innerB[i])
					fullSize(t, b, tn.innerA[i])
				}
				if told := statusLine(t, a, "output dropped; too big for the path, and the sender was told"); (told != 0) != (dfbit != 0) {
					t.Errorf("%d packets were too big and answered, with dfbit %d", told, dfbit)
				}
			})
		}
	}
}

// reportTooBig sends A an ICMP error about a packet of ESP.
func reportTooBig(t *testing.T, from *lab.Host, src, dst netip.Addr, spi, seq uint32, mtu uint16) {
	t.Helper()
	m := make([]byte, 8+20+8)
	m[0], m[1] = 3, 4
	binary.BigEndian.PutUint16(m[6:], mtu)
	quote := m[8:]
	quote[0], quote[6], quote[9] = 0x45, 0x40, 50
	binary.BigEndian.PutUint16(quote[2:], 1456)
	copy(quote[12:], src.AsSlice())
	copy(quote[16:], dst.AsSlice())
	binary.BigEndian.PutUint32(quote[20:], spi)
	binary.BigEndian.PutUint32(quote[24:], seq)
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum>>16+sum))
	err := from.Do(func() error {
		conn, err := net.Dial("ip4:icmp", src.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(m)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who does not know what was sent can't make a tunnel send small packets.
func TestForgedTooBig(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	quiet(t, a, "ipsecd -sysctl net.inet.ipsec.dfbit=2 >/dev/null")
	reaches(t, a, tn.innerB[0])
	const believed, refused = "ICMP errors about packets too big for the path", "ICMP errors ignored; about packets that were not sent"
	wait := func(text string, want int) {
		t.Helper()
		err := lab.Until(patience, func() error {
			if got := statusLine(t, a, text); got != want {
				return fmt.Errorf("%d %s, want %d", got, text, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	reportTooBig(t, b, outerA, outerB, tn.spiAB+1, 1, 1000)
	reportTooBig(t, b, outerA, outerB, tn.spiAB, 1_000_000, 1000)
	reportTooBig(t, b, outerA, netip.MustParseAddr("192.168.0.15"), tn.spiAB, 1, 1000)
	wait(refused, 3)
	wire, err := a.Capture("eth0", 96)
	if err != nil {
		t.Fatal(err)
	}
	fullSize(t, a, tn.innerB[0])
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if set, _, pieces := dfBits(packets); set < 1 || pieces != 0 {
		t.Errorf("%d large packets were sent with DF, and %d pieces, want some and none", set, pieces)
	}

	quiet(t, a, "ipsecd -sysctl net.inet.ipsec.path_mtu_discovery=0 >/dev/null")
	reportTooBig(t, b, outerA, outerB, tn.spiAB, 1, 1000)
	quiet(t, a, "ipsecd -sysctl net.inet.ipsec.path_mtu_discovery=1 >/dev/null")
	wait(believed, 0)
	reportTooBig(t, b, outerA, outerB, tn.spiAB, 1, 1000)
	wait(believed, 1)
	fullSize(t, a, tn.innerB[0])
	if told := statusLine(t, a, "output dropped; too big for the path, and the sender was told"); told == 0 {
		t.Error("no packet was too big for a path of 1000 bytes")
	}
}

// A tunnel whose ends are inside another one.
func TestTunnelInTunnel(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	outer, inner := newTunnel(0), newTunnel(1)
	inner.outerA, inner.outerB = outer.innerA[0], outer.innerB[0]
	outer.setUp(t, a, b)
	inner.setUp(t, a, b)
	wire := capture(t, a, "eth0")
	for i := range inner.innerA {
		reaches(t, a, inner.innerB[i])
		reaches(t, b, inner.innerA[i])
		sizes(t, a, inner.innerB[i])
		if _, err := lab.Stream(t.Context(), a, b, inner.innerB[i], 1<<20); err != nil {
			t.Error(err)
		}
	}
	esp, others := wire()
	if len(others) > 0 || esp[inner.spiAB] > 0 || esp[outer.spiAB] == 0 {
		t.Errorf("on the wire: ESP packets %v, and %d others", esp, len(others))
	}
	quiet(t, a, "ipsecd -sysctl net.link.ipsec.max_nesting=1 >/dev/null")
	reachesNot(t, a, inner.innerB[0])
	reaches(t, a, outer.innerB[0])
}

// Tunnels that are routed into themselves, right or by way of one another, drop
// what they would carry round.
func TestTunnelsInCircles(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	all := fourTunnels()
	first, second := all[0], all[2]
	first.setUp(t, a, b)
	second.setUp(t, a, b)
	const dropped = "output dropped; outer packet routed in circles, or through too many tunnels"
	route := func(change string, to netip.Addr, dev string) {
		t.Helper()
		quiet(t, a, fmt.Sprintf("ip route %s %v/32 dev %s", change, to, dev))
	}
	reaches(t, a, first.innerB[0])
	route("add", first.outerB, first.name())
	reachesNot(t, a, first.innerB[0])
	if n := statusLine(t, a, dropped); n != 3 {
		t.Errorf("%d packets were dropped, want each of 3 pings once", n)
	}
	route("del", first.outerB, first.name())
	reaches(t, a, first.innerB[0])

	route("add", first.outerB, second.name())
	route("add", second.outerB, first.name())
	before := statusLine(t, a, "packets out")
	reachesNot(t, a, first.innerB[0])
	if n := statusLine(t, a, "packets out") - before; n > 6 {
		t.Errorf("3 pings made %d packets", n)
	}
	route("del", first.outerB, second.name())
	route("del", second.outerB, first.name())
	reaches(t, a, first.innerB[0])
	reaches(t, a, second.innerB[0])
}

// What a router marks outside is seen inside, if both ends carry ECN.
func TestECN(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	const ect0, ce = 2, 3
	for _, ecn := range []int{0, 1} {
		for _, h := range []*lab.Host{a, b} {
			quiet(t, h, fmt.Sprintf("ipsecd -sysctl net.inet.ipsec.ecn=%d >/dev/null", ecn))
		}
		conn, err := b.ListenUDP(netip.AddrPortFrom(tn.innerB[0], 0))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVTOS, 1)
		}); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		wire, err := a.Capture("eth0", 0)
		if err != nil {
			t.Fatal(err)
		}
		sendECT(t, a, conn.LocalAddr().(*net.UDPAddr).AddrPort(), ect0)
		if got := receivedECN(t, conn); got != ect0 {
			t.Errorf("ecn=%d: ECN field %d arrives, want %d", ecn, got, ect0)
		}
		packets, err := wire.Stop()
		if err != nil {
			t.Fatal(err)
		}
		marked := false
		for _, p := range packets {
			if len(p.Data) < 34 || binary.BigEndian.Uint16(p.Data[12:]) != 0x0800 || p.Data[23] != 50 || marked {
				continue
			}
			if got, want := p.Data[15]&3, byte(ecn*ect0); got != want {
				t.Errorf("ecn=%d: ECN field %d outside, want %d", ecn, got, want)
			}
			// A congested router, which need not know about tunnels.
			frame := append([]byte{}, p.Data...)
			sum := uint32(^binary.BigEndian.Uint16(frame[24:])) + uint32(ce-frame[15]&3)
			frame[15] |= ce
			binary.BigEndian.PutUint16(frame[24:], ^uint16(sum>>16+sum))
			if err := a.Inject("eth0", frame); err != nil {
				t.Fatal(err)
			}
			marked = true
		}
		if !marked {
			t.Fatal("no ESP packet was on the wire")
		}
		want := byte(ce)
		if ecn == 0 {
			want = ect0
		}
		if got := receivedECN(t, conn); got != want {
			t.Errorf("ecn=%d: ECN field %d arrives after congestion, want %d", ecn, got, want)
		}
	}
}

func sendECT(t *testing.T, h *lab.Host, to netip.AddrPort, ecn int) {
	t.Helper()
	err := h.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TOS, ecn)
		}); err != nil || failed != nil {
			return fmt.Errorf("IP_TOS: %v, %v", err, failed)
		}
		_, err = conn.Write([]byte("ecn"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// receivedECN waits for a datagram and returns its ECN field.
func receivedECN(t *testing.T, conn *net.UDPConn) byte {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 100), make([]byte, 100)
	_, n, _, _, err := conn.ReadMsgUDP(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 || len(messages[0].Data) < 1 {
		t.Fatalf("ancillary data %v, %v", messages, err)
	}
	return messages[0].Data[0] & 3
}
