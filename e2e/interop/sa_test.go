package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// gcm and sha are protections with keys of their own for each number.
func gcm(number uint32) protection {
	enc := key(number, 160)
	return protection{"-E aes-gcm-16 " + enc, "aead 'rfc4106(gcm(aes))' " + enc + " 128"}
}

func sha(number uint32) protection {
	enc, auth := key(number, 128), key(number+1, 256)
	return protection{
		"-E aes-cbc " + enc + " -A hmac-sha2-256 " + auth,
		"enc 'cbc(aes)' " + enc + " auth-trunc 'hmac(sha256)' " + auth + " 128",
	}
}

func chacha(number uint32) protection {
	enc := key(number, 288)
	return protection{"-E chacha20-poly1305 " + enc, "aead 'rfc7539esp(chacha20,poly1305)' " + enc + " 128"}
}

// with adds options to a protection. Those of Linux come first, because some are
// flags.
func (p protection) with(setkey, linux string) protection {
	return protection{setkey + " " + p.setkey, linux + " " + p.linux}
}

// TestSA has one tunnel with one Linux, and one case after the other of what SAs
// do.
func TestSA(t *testing.T) {
	t.Parallel()
	for _, outer := range families {
		t.Run(outer, func(t *testing.T) {
			t.Parallel()
			a, l := newLinux(t)
			tn := newTunnel(0, outer)
			tn.setUp(t, a, l)
			for name, test := range map[string]func(*testing.T, *lab.Host, *uml.Kernel, tunnel){
				"TCP": testTCP, "ESN": testESN, "ESN wraps": testESNWraps,
				"duplicates": testDuplicates, "disorder": testDisorder,
				"newest": testNewest, "wrong": testWrong,
			} {
				if !t.Run(name, func(t *testing.T) { test(t, a, l, tn) }) {
					t.Log(shown(t, l, "ip -s xfrm state; ip xfrm policy"))
					t.Log(programs.Output(t, a, "setkey -D"))
				}
			}
		})
	}
}

// keyed gives the tunnel its only two SAs, with one protection on both sides.
func keyed(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel, there, back protection) {
	t.Helper()
	keyedA(t, a, tn.keysA(there, back))
	keyedL(t, l, tn.keysL(there, back))
}

func keyedA(t *testing.T, a *lab.Host, statements string) {
	t.Helper()
	programs.Quiet(t, a, programs.Setkey("flush;\n"+statements))
}

func keyedL(t *testing.T, l *uml.Kernel, commands string) {
	t.Helper()
	typed(t, l, "set -e\nip xfrm state flush\n"+commands)
}

// pings sends a few pings and returns how many were answered.
func pings(t *testing.T, from pinger, to netip.Addr, count int) int {
	t.Helper()
	r, err := from.Ping(t.Context(), lab.Ping{To: to, Count: count, Interval: 2 * time.Millisecond, Timeout: impatience})
	if err != nil {
		t.Fatal(err)
	}
	return r.Received
}

// reaches checks that A and Linux reach each other, over both inner protocols.
func reaches(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	t.Helper()
	for _, inner := range families {
		if err := answered(t.Context(), a, tn.innerL[inner], 56); err != nil {
			t.Errorf("A: %v", err)
		}
		if err := answered(t.Context(), l, tn.innerA[inner], 56); err != nil {
			t.Errorf("Linux: %v", err)
		}
	}
}

// A stream there and back, in packets as large as the tunnel takes.
func testTCP(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	keyed(t, a, l, tn, gcm(1), gcm(2))
	streams(t, a, l, tn)
}

// streams sends a stream there and back over both inner protocols.
func streams(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	t.Helper()
	for _, inner := range families {
		addr := netip.AddrPortFrom(tn.innerL[inner], 7)
		if err := l.Echo(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		if err := echoes(t.Context(), a, addr, 4<<20); err != nil {
			t.Errorf("%s: %v", inner, err)
		}
	}
}

// echoes sends n bytes from a host to an address that must send them back.
func echoes(ctx context.Context, h *lab.Host, addr netip.AddrPort, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, 6*patience)
	defer cancel()
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent, received := sha256.New(), sha256.New()
	result := make(chan error, 1)
	go func() {
		got, err := io.Copy(received, conn)
		if err == nil && got != n {
			err = fmt.Errorf("%d of %d bytes came back", got, n)
		}
		result <- err
	}()
	source := io.LimitReader(rand.NewChaCha8([32]byte{}), n)
	if _, err := io.Copy(io.MultiWriter(conn, sent), source); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if err := <-result; err != nil {
		return err
	}
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return errors.New("other bytes came back than were sent")
	}
	return nil
}

// Sequence numbers of 64 bits, of which the upper half is authenticated and not
// sent.
func testESN(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	for name, protect := range map[string]func(uint32) protection{"aes-gcm-16": gcm, "aes-cbc hmac-sha2-256": sha, "chacha20-poly1305": chacha} {
		t.Run(name, func(t *testing.T) {
			keyed(t, a, l, tn, protect(1).with("-esn -r 8", "esn replay-window 64"), protect(3).with("-esn -r 8", "esn replay-window 64"))
			for _, inner := range families {
				err := carries(t, a, l, []tunnel{tn}, inner)
				cells.Set(name+", ESN", column(tn.outer, inner), err == nil)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What Linux sends has sequence numbers from just below 2^32 to just above: A
// must add one to the upper half, which it is not sent.
func testESNWraps(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	there := gcm(1).with("-esn -r 8", "esn replay-window 64")
	// Below A's first window, which would otherwise take it for an old packet.
	back := gcm(2).with("-esn -r 8", "esn replay-window 64 replay-oseq 0xffffff80")
	keyed(t, a, l, tn, there, back)
	if got := pings(t, a, tn.innerL["IPv4"], 300); got != 300 {
		t.Errorf("%d of 300 pings were answered", got)
	}
	states := shown(t, l, "ip -s xfrm state get src "+tn.outerL.String()+" dst "+tn.outerA.String()+fmt.Sprintf(" proto esp spi %d", tn.spiLA()))
	if !strings.Contains(states, "oseq-hi 0x1,") {
		t.Errorf("Linux has not come to the upper half:\n%s", states)
	}
}

// Linux sends every packet twice. With a replay window A takes it once.
func testDuplicates(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	netem(t, l, "duplicate 100%")
	const count = 20
	for _, c := range []struct {
		options string
		arrive  int
		counted map[string]uint64
	}{{"", 2 * count, nil}, {"-r 4", count, map[string]uint64{"replay": count}}} {
		keyed(t, a, l, tn, gcm(1), gcm(2).with(c.options, ""))
		before := counters(t, a)
		in, err := a.Capture("ipsec0", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := pings(t, a, tn.innerL["IPv4"], count); got != count {
			t.Errorf("%q: %d of %d pings were answered", c.options, got, count)
		}
		// The last answer's twin is on its way.
		err = lab.Until(patience, func() error {
			if got := countFrom(in.Packets(), tn.innerL["IPv4"]); got < c.arrive {
				return fmt.Errorf("%q: %d packets came out of the tunnel, want %d", c.options, got, c.arrive)
			}
			if got, want := grown(before, counters(t, a))["replay"], c.counted["replay"]; got != want {
				return fmt.Errorf("%q: %d packets were counted as replayed, want %d", c.options, got, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		packets, err := in.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if got := countFrom(packets, tn.innerL["IPv4"]); got != c.arrive {
			t.Errorf("%q: %d packets came out of the tunnel, want %d", c.options, got, c.arrive)
		}
	}
}

// Linux sends its packets in disorder. A window that is as wide as the disorder
// lets all of them pass.
func testDisorder(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	netem(t, l, "delay 20ms reorder 50%")
	keyed(t, a, l, tn, gcm(1), gcm(2).with("-r 32", ""))
	before := counters(t, a)
	wire, err := a.Capture("eth0", 96)
	if err != nil {
		t.Fatal(err)
	}
	if got := pings(t, a, tn.innerL["IPv4"], 200); got != 200 {
		t.Errorf("%d of 200 pings were answered", got)
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if !disorder(packets, tn.spiLA()) {
		t.Error("Linux has sent all packets in order, so nothing was tried")
	}
	if replayed := grown(before, counters(t, a))["replay"]; replayed != 0 {
		t.Errorf("%d packets were counted as replayed, want none", replayed)
	}
}

// disorder says whether an SA's packets came in another order than that of their
// sequence numbers.
func disorder(packets []lab.Packet, spi uint32) bool {
	var last uint32
	for _, p := range packets {
		esp, ok := p.Decode().Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP)
		if !ok || esp.SPI != spi {
			continue
		}
		if esp.Seq < last {
			return true
		}
		last = esp.Seq
	}
	return false
}

// netem has Linux treat what it sends, as long as the test lasts.
func netem(t *testing.T, l *uml.Kernel, how string) {
	t.Helper()
	typed(t, l, "tc qdisc add dev "+uml.Interface+" root netem "+how)
	t.Cleanup(func() {
		if _, err := l.Shell(context.Background(), "tc qdisc del dev "+uml.Interface+" root"); err != nil {
			t.Error(err)
		}
	})
}

// countFrom counts the IPv4 packets from an address that a TUN device carried;
// they have no Ethernet header.
func countFrom(packets []lab.Packet, addr netip.Addr) (n int) {
	for _, p := range packets {
		if len(p.Data) >= 20 && bytes.Equal(p.Data[12:16], addr.AsSlice()) {
			n++
		}
	}
	return n
}

// Several SAs serve one tunnel: A sends with the newest that is left, and takes
// what comes with any.
func testNewest(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	const spis = 3
	var keysA, keysL strings.Builder
	for i := range uint32(spis) {
		keysA.WriteString(tn.addA(tn.outerA, tn.outerL, 2000+i, gcm(2000+i)) + tn.addA(tn.outerL, tn.outerA, 3000+i, gcm(3000+i)))
		keysL.WriteString(tn.addL(tn.outerA, tn.outerL, 2000+i, gcm(2000+i)))
	}
	keyedA(t, a, keysA.String())
	// Linux has only one to send with, another each time.
	keyedL(t, l, keysL.String())
	for i := range uint32(spis) {
		typed(t, l, tn.addL(tn.outerL, tn.outerA, 3000+i, gcm(3000+i)))
		newest := 2000 + spis - 1 - i
		wire, err := a.Capture("eth0", 96)
		if err != nil {
			t.Fatal(err)
		}
		reaches(t, a, l, tn)
		packets, err := wire.Stop()
		if err != nil {
			t.Fatal(err)
		}
		got, others := lab.CountESP(packets)
		// Two requests and two answers each way.
		if want := map[uint32]int{newest: 4, 3000 + i: 4}; !cmp.Equal(want, got) || len(others) > 0 {
			t.Errorf("packets by SPI %v and %d others, want %v", got, len(others), want)
		}
		typed(t, l, fmt.Sprintf("ip xfrm state delete src %v dst %v proto esp spi %d", tn.outerL, tn.outerA, 3000+i))
		programs.Quiet(t, a, programs.Setkey(fmt.Sprintf("delete %v %v esp %d;\n", tn.outerA, tn.outerL, newest)))
	}
	if got := pings(t, a, tn.innerL["IPv4"], 1); got != 0 {
		t.Error("A sends without an SA")
	}
}

// What one side has is not what the other has: nothing gets through, each side
// counts it under its cause, and what is right again works again.
func testWrong(t *testing.T, a *lab.Host, l *uml.Kernel, tn tunnel) {
	right := tn.keysA(gcm(1), gcm(2))
	other := tn
	other.unit = 99
	for what, c := range map[string]struct {
		keysA, keysL           string
		countedByA, countedByL string // the cause under which either counts the other's packet
	}{
		"no SA at Linux": {right, "", "", "XfrmInNoStates"},
		"no SA at A":     {"", tn.keysL(gcm(1), gcm(2)), "notdb", ""},
		"no SA for what A gets": {
			tn.addA(tn.outerA, tn.outerL, tn.spiAL(), gcm(1)), tn.keysL(gcm(1), gcm(2)), "notdb", "",
		},
		"another key": {right, tn.keysL(gcm(3), gcm(4)), "badauth", "XfrmInStateProtoError"},
		"another key for HMAC": {
			tn.keysA(sha(1), sha(3)), tn.keysL(sha(5), sha(7)), "badauth", "XfrmInStateProtoError",
		},
		"another algorithm": {right, tn.keysL(sha(1), sha(3)), "badauth", "XfrmInStateProtoError"},
		"another SPI": {
			right, tn.addL(tn.outerA, tn.outerL, 777, gcm(1)) + tn.addL(tn.outerL, tn.outerA, 778, gcm(2)),
			"notdb", "XfrmInNoStates",
		},
		// What arrives is authentic, but nobody's.
		"another reqid at A": {other.addA(tn.outerL, tn.outerA, tn.spiLA(), gcm(2)), tn.keysL(gcm(1), gcm(2)), "pdrops", ""},
		"ESN at one end":     {right, tn.keysL(gcm(1).with("", "esn replay-window 64"), gcm(2).with("", "esn replay-window 64")), "badauth", "XfrmInStateProtoError"},
	} {
		t.Run(what, func(t *testing.T) {
			keyedA(t, a, c.keysA)
			keyedL(t, l, c.keysL)
			beforeA, beforeL := counters(t, a), linuxCounters(t, l)
			if got := pings(t, a, tn.innerL["IPv4"], 1); got != 0 {
				t.Error("a ping from A was answered")
			}
			if got := pings(t, l, tn.innerA["IPv4"], 1); got != 0 {
				t.Error("a ping from Linux was answered")
			}
			if by := grown(beforeA, counters(t, a)); c.countedByA != "" && by[c.countedByA] == 0 {
				t.Errorf("A has counted %v, want %s", by, c.countedByA)
			}
			if by := grown(beforeL, linuxCounters(t, l)); c.countedByL != "" && by[c.countedByL] == 0 {
				t.Errorf("Linux has counted %v, want %s", by, c.countedByL)
			}
		})
	}
	keyed(t, a, l, tn, gcm(1), gcm(2))
	reaches(t, a, l, tn)
}
