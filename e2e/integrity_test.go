package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"ifipsec/e2e/lab"
	"ifipsec/engine/control"
)

// Where things are in a frame with an ESP packet of rijndael-cbc over IPv4.
const (
	atSPI     = 14 + 20
	atSeq     = atSPI + 4
	atIV      = atSeq + 4
	atPayload = atIV + 16
	icvLen    = 12 // of hmac-sha1
)

// authenticated is a tunnel whose packets no one can change.
func authenticated() tunnel {
	tn := newTunnel(0)
	tn.algorithms = `-E rijndael-cbc "VerySecureKey!!1" -A hmac-sha1 "VerySecureMacKey!!!1"`
	return tn
}

// sniff returns the frame of one ESP packet from A to B: a ping that was
// answered.
func sniff(t *testing.T, a, b *lab.Host, tn tunnel) []byte {
	t.Helper()
	c, err := b.Capture("eth0", 0)
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, a, tn.innerB[0])
	packets, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if esp, ok := p.Decode().Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP); ok && esp.SPI == tn.spiAB {
			return p.Data
		}
	}
	t.Fatalf("no packet of SPI %d on the wire", tn.spiAB)
	return nil
}

// answers returns how many packets B sends through the tunnel because A puts a
// frame on the wire. A ping after it tells when B has dealt with the frame.
func answers(t *testing.T, a, b *lab.Host, tn tunnel, frame []byte) int {
	t.Helper()
	wire := capture(t, a, "eth0")
	if err := a.Inject("eth0", frame); err != nil {
		t.Fatal(err)
	}
	if got := pings(t, a, tn.innerB[0], 1, patience); got != 1 {
		t.Error("the tunnel does not work any more")
	}
	esp, _ := wire()
	return esp[tn.spiBA] - 1
}

// counted returns what the daemon has counted under a name.
func counted(t *testing.T, h *lab.Host, name string) uint64 {
	t.Helper()
	var statistics control.StatisticsResult
	if err := json.Unmarshal([]byte(output(t, h, "ipsecd -status -json")), &statistics); err != nil {
		t.Fatal(err)
	}
	for _, c := range statistics.ESP {
		if c.Name == name {
			return c.Value
		}
	}
	t.Fatalf("ipsecd -status has no counter %s", name)
	return 0
}

// packets returns how many packets an SA has carried, as setkey -D shows.
func packets(t *testing.T, h *lab.Host, spi uint32) int {
	t.Helper()
	return shown(t, h, spi, `\tallocated: (\d+)`)
}

// shown returns a number that setkey -D shows of an SA.
func shown(t *testing.T, h *lab.Host, spi uint32, pattern string) int {
	t.Helper()
	all := output(t, h, "setkey -D")
	re := regexp.MustCompile(fmt.Sprintf(`(?s)spi=%d\(.*?%s`, spi, pattern))
	found := re.FindStringSubmatch(all)
	if found == nil {
		t.Fatalf("setkey -D shows no %s for SPI %d:\n%s", pattern, spi, all)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Without a replay window a packet may come twice: this shows that the frames
// that the next tests put on the wire would be taken if they were right.
func TestRepeatedPacketWithoutReplayWindow(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := authenticated()
	tn.setUp(t, a, b)
	if got := answers(t, a, b, tn, sniff(t, a, b, tn)); got != 1 {
		t.Errorf("%d answers, want 1", got)
	}
}

func TestReplayedPacket(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := authenticated()
	tn.options = "-r 4"
	tn.setUp(t, a, b)
	frame := sniff(t, a, b, tn)
	before := packets(t, b, tn.spiAB)
	if got := answers(t, a, b, tn, frame); got != 0 {
		t.Errorf("%d answers to a replayed packet, want none", got)
	}
	if got := packets(t, b, tn.spiAB); got != before+1 {
		t.Errorf("the SA counts %d packets, want %d: not the replayed one", got, before+1)
	}

	if got := counted(t, b, "replay"); got != 1 {
		t.Errorf("ipsecd -status counts %d replayed packets, want 1", got)
	}

	// So far behind that the window has forgotten it.
	if got := pings(t, a, tn.innerB[0], 40, patience); got != 40 {
		t.Errorf("%d of 40 pings were answered", got)
	}
	if got := answers(t, a, b, tn, frame); got != 0 {
		t.Errorf("%d answers to a packet older than the window, want none", got)
	}
}

func TestChangedPacket(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := authenticated()
	tn.setUp(t, a, b)
	frame := sniff(t, a, b, tn)
	for what, at := range map[string]int{
		"SPI":             atSPI,
		"sequence number": atSeq + 3,
		"IV":              atIV,
		"payload":         atPayload + 20,
		"padding":         len(frame) - icvLen - 3,
		"pad length":      len(frame) - icvLen - 2,
		"next header":     len(frame) - icvLen - 1,
		"ICV":             len(frame) - icvLen,
		"end of the ICV":  len(frame) - 1,
	} {
		changed := slices.Clone(frame)
		changed[at] ^= 1
		cause := "badauth"
		if what == "SPI" {
			cause = "notdb"
		}
		before, drops := packets(t, b, tn.spiAB), counted(t, b, cause)
		if got := answers(t, a, b, tn, changed); got != 0 {
			t.Errorf("%s changed: %d answers, want none", what, got)
		}
		if got := packets(t, b, tn.spiAB); got != before+1 {
			t.Errorf("%s changed: the SA counts %d packets, want %d: not the changed one", what, got, before+1)
		}
		if got := counted(t, b, cause) - drops; got != 1 {
			t.Errorf("%s changed: %s went up by %d, want 1", what, cause, got)
		}
	}
}

// Packets that end too early, at any byte, and packets of zeros.
func TestMangledPackets(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := authenticated()
	tn.options = "-r 4"
	tn.setUp(t, a, b)
	frame := sniff(t, a, b, tn)
	wire := capture(t, a, "eth0")
	for n := atSPI; n < len(frame); n++ {
		if err := a.Inject("eth0", reframe(frame[:n])); err != nil {
			t.Fatal(err)
		}
		zeros := slices.Clone(frame[:n])
		clear(zeros[min(n, atSeq):])
		if err := a.Inject("eth0", reframe(zeros)); err != nil {
			t.Fatal(err)
		}
	}
	reaches(t, a, tn.innerB[0])
	if esp, _ := wire(); esp[tn.spiBA] != 3 {
		t.Errorf("B sent %d packets, want the 3 answers to pings", esp[tn.spiBA])
	}
}

// reframe returns a frame with the length and the checksum of its IPv4 header
// put right.
func reframe(frame []byte) []byte {
	frame = slices.Clone(frame)
	ip := frame[14:34]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(frame)-14))
	binary.BigEndian.PutUint16(ip[10:], 0)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return frame
}
