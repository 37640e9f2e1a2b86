package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// floodTime is how long a daemon is flooded: IFIPSEC_FLOOD, or a little.
func floodTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("IFIPSEC_FLOOD")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("IFIPSEC_FLOOD: %v", err)
	}
	return d
}

// TestFlood gives a daemon what no peer would send, as fast as it can be sent:
// packets of its tunnels that were sent before, and changed in every way, in
// IPv4, IPv6 and UDP. It must live, not grow, and count each of them under a
// name; and what was sent before must not come out again.
func TestFlood(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tunnels := []tunnel{newTunnel(0), newTunnel(1), newTunnel(2)}
	tunnels[0].options = "-r 64"
	tunnels[1].outerA, tunnels[1].outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
	tunnels[1].algorithms = `-E rijndael-cbc "VerySecureKey!!1" -A hmac-sha2-256 "VerySecureMacKeyVerySecureMacKey"`
	tunnels[1].options = "-r 64"
	tunnels[2].options = natt(netip.AddrPortFrom(outerA, 4500), netip.AddrPortFrom(outerB, 4500))
	for _, tn := range tunnels {
		tn.setUp(t, a, b)
	}
	wire, err := b.Capture("eth0", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tn := range tunnels {
		for i := range tn.innerB {
			for _, size := range []int{1, 100, 1300} {
				// One after the other: several at once may leave as one message in UDP.
				for range 5 {
					r, err := a.Ping(t.Context(), lab.Ping{To: tn.innerB[i], Size: size, Timeout: patience})
					if err != nil || r.Received != 1 {
						t.Fatalf("%s: a ping was not answered (%v)", tn.name(), err)
					}
				}
			}
		}
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	frames := framesTo(packets, tunnels)
	if len(frames) != 3*2*3*5 {
		t.Fatalf("%d packets to B were captured, want 90", len(frames))
	}

	// First the capture as it is: all of it has been seen.
	before := received(t, b)
	if err := a.Inject("eth0", frames...); err != nil {
		t.Fatal(err)
	}
	err = lab.Until(patience, func() error {
		if got := received(t, b); got.esp["replay"] != before.esp["replay"]+len(frames) || got.delivered != before.delivered {
			return fmt.Errorf("of %d packets sent again %d are counted as replayed, and %d came out",
				len(frames), got.esp["replay"]-before.esp["replay"], got.delivered-before.delivered)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	random := rand.New(rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(time.Now().UnixNano())))))
	flood := func(d time.Duration) (sent int) {
		spoiled := make([][]byte, 1000)
		for end := time.Now().Add(d); time.Now().Before(end); sent += len(spoiled) {
			for i := range spoiled {
				spoiled[i] = spoil(random, slices.Clone(frames[random.IntN(len(frames))]))
			}
			if err := a.Inject("eth0", spoiled...); err != nil {
				t.Fatal(err)
			}
		}
		return sent
	}
	// What a daemon under load needs, it has after a while.
	flood(time.Second)
	memory := residentKB(t, b)
	before = received(t, b)
	sent := flood(floodTime(t))
	got := settled(t, b)
	grown := residentKB(t, b) - memory
	t.Logf("%d packets in %v; %d reached the daemon; it has %d kB more than the %d before", sent, floodTime(t), got.esp["input"]-before.esp["input"], grown, memory)
	t.Logf("counted: %v", got.esp)
	if got.esp["input"]-before.esp["input"] < 1000 {
		t.Error("hardly a packet has reached the daemon")
	}
	const growth = 16 << 10 // kB; the race detector remembers more
	if grown > growth && !programs.Race {
		t.Errorf("the daemon has grown by %d kB, from %d", grown, memory)
	}
	if got.delivered != before.delivered {
		t.Errorf("%d packets that nobody sealed came out", got.delivered-before.delivered)
	}
	if unnamed := got.esp["input"] - got.named(); unnamed != 0 {
		t.Errorf("%d packets of %d are counted under no name: %v", unnamed, got.esp["input"], got.esp)
	}
	for _, tn := range tunnels {
		for i := range tn.innerB {
			reaches(t, a, tn.innerB[i])
			reaches(t, b, tn.innerA[i])
		}
	}
}

// framesTo are the captured packets that A has sealed for B.
func framesTo(packets []lab.Packet, tunnels []tunnel) (frames [][]byte) {
	var marks [][]byte
	for _, tn := range tunnels {
		marks = append(marks, binary.BigEndian.AppendUint32(nil, tn.spiAB))
	}
	for _, p := range packets {
		// After Ethernet and IPv4, IPv4 and UDP, or IPv6.
		for _, at := range []int{14 + 20, 14 + 20 + 8, 14 + 40} {
			if len(p.Data) >= at+4 && slices.ContainsFunc(marks, func(m []byte) bool { return slices.Equal(m, p.Data[at:][:4]) }) {
				if at == 14+20+8 {
					// The sender left the checksum to its device. UDP in IPv4
					// can do without.
					p.Data[14+20+6], p.Data[14+20+7] = 0, 0
				}
				frames = append(frames, p.Data)
			}
		}
	}
	return frames
}

// spoil changes a frame in one of many ways, so that it is no valid packet that
// the daemon has not seen.
func spoil(r *rand.Rand, frame []byte) []byte {
	const ethernet = 14
	six := frame[12] == 0x86
	payload := ethernet + 20
	if six {
		payload = ethernet + 40
	}
	inUDP := !six && frame[ethernet+9] == 17
	switch r.IntN(10) {
	case 0: // sent again
	case 1, 2: // some bits after the IP header
		for range 1 + r.IntN(8) {
			frame[payload+r.IntN(len(frame)-payload)] ^= 1 << r.IntN(8)
		}
	case 3: // some bits anywhere
		for range 1 + r.IntN(4) {
			frame[ethernet+r.IntN(len(frame)-ethernet)] ^= 1 << r.IntN(8)
		}
	case 4: // cut off, and IP says so
		frame = frame[:payload+r.IntN(len(frame)-payload)]
		setLength(frame[ethernet:], six, len(frame)-ethernet)
	case 5: // cut off, and IP does not say so
		frame = frame[:ethernet+r.IntN(len(frame)-ethernet)]
	case 6: // longer than it was
		frame = append(frame, make([]byte, r.IntN(1500-len(frame)+ethernet+1))...)
		setLength(frame[ethernet:], six, len(frame)-ethernet)
	case 7: // another sequence number
		at := payload + 4
		if inUDP {
			at += 8
		}
		binary.BigEndian.PutUint32(frame[at:], r.Uint32())
	case 8: // noise with an SPI that there is
		for i := payload + 8; i < len(frame); i++ {
			frame[i] = byte(r.Uint32())
		}
	case 9: // another sender, or a fragment
		if six {
			frame[ethernet+8+r.IntN(16)] ^= 1 << r.IntN(8)
		} else if r.IntN(2) == 0 {
			frame[ethernet+12+r.IntN(4)] ^= 1 << r.IntN(8)
		} else {
			binary.BigEndian.PutUint16(frame[ethernet+6:], uint16(r.Uint32()))
		}
	}
	if !six && len(frame) >= payload && r.IntN(8) != 0 {
		fixChecksum(frame[ethernet:payload])
	}
	return frame
}

func setLength(ip []byte, six bool, n int) {
	if six {
		binary.BigEndian.PutUint16(ip[4:], uint16(n-40))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(n))
	}
}

// fixChecksum makes an IPv4 header's checksum right, so that Linux passes the
// packet on.
func fixChecksum(header []byte) {
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
}

// tally is what a daemon has counted of what came in.
type tally struct {
	esp       map[string]int
	delivered int // to the kernel, by all interfaces
	refused   int // by the kernel
}

// named is the packets that are counted under a name.
func (c tally) named() (n int) {
	for name, value := range c.esp {
		switch name {
		case "input", "output", "ibytes", "obytes", "wrap", "toobig":
		default:
			n += value
		}
	}
	return n + c.delivered + c.refused
}

func received(t *testing.T, h *lab.Host) (c tally) {
	t.Helper()
	type counter struct {
		Name  string
		Value int
	}
	var status struct {
		ESP        []counter
		Interfaces []struct{ Counters []counter }
	}
	if err := json.Unmarshal([]byte(output(t, h, "ipsecd -status -json")), &status); err != nil {
		t.Fatal(err)
	}
	c.esp = map[string]int{}
	for _, counter := range status.ESP {
		c.esp[counter.Name] = counter.Value
	}
	for _, ifp := range status.Interfaces {
		for _, counter := range ifp.Counters {
			switch counter.Name {
			case "ipackets":
				c.delivered += counter.Value
			case "ierrors":
				c.refused += counter.Value
			}
		}
	}
	return c
}

// settled is what a daemon has counted when nothing comes any more.
func settled(t *testing.T, h *lab.Host) (c tally) {
	t.Helper()
	err := lab.Until(patience, func() error {
		before := c.esp["input"]
		time.Sleep(50 * time.Millisecond)
		if c = received(t, h); c.esp["input"] != before {
			return errors.New("packets are still coming")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// residentKB is the memory that a host's daemon has.
func residentKB(t *testing.T, h *lab.Host) int {
	t.Helper()
	kB := 0
	for line := range strings.Lines(output(t, h, "cat /proc/$(pidof -s ipsecd)/status")) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			kB = max(kB, n)
		}
	}
	return kB
}
