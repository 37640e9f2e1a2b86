package e2e

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// killsEnv names how many times TestKilledUnderLoad kills.
const killsEnv = "IFIPSEC_KILLS"

// replayedTTL marks the packets that a test puts on the wire again, which the
// tunnels don't look at.
const replayedTTL = 42

// A daemon that is killed at any moment, under load, and with it sometimes its
// parent: nothing is sent twice under one sequence number or IV, nothing that
// was accepted is accepted again, a TCP connection goes on, and what is
// configured is what was configured.
func TestKilledUnderLoad(t *testing.T) { killUnderLoad(t, false) }

// With the state on a disk that is no other.
func TestKilledUnderLoadWithDisk(t *testing.T) { killUnderLoad(t, true) }

func killUnderLoad(t *testing.T, disk bool) {
	kills := 8
	if text := os.Getenv(killsEnv); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", killsEnv, err)
		}
	} else {
		t.Parallel()
	}
	a, b := newPair(t)
	if disk {
		for _, h := range []*lab.Host{a, b} {
			newDisk(t, h, "64m")
			startPermanent(t, h)
		}
	}
	gcm, cbc := newTunnel(0), newTunnel(1)
	gcm.options, cbc.options = "-r 128", "-r 128"
	cbc.algorithms = `-E rijndael-cbc "VerySecureKey!!1" -A hmac-sha1 "VerySecureMacKey!!!1"`
	gcm.setUp(t, a, b)
	cbc.setUp(t, a, b)
	ivLens := map[uint32]int{gcm.spiAB: 8, gcm.spiBA: 8, cbc.spiAB: 16, cbc.spiBA: 16}
	hosts := []*lab.Host{a, b}
	before := []string{stateOf(t, a), stateOf(t, b)}

	wire, err := a.Capture("eth0", 96)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := lab.StartConnection(a, b, gcm.innerB[0], 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Stop()
	udp := map[string]*lab.Datagrams{
		"A to B, aes-gcm-16":   startDatagrams(t, a, b, gcm.innerB[0], 500),
		"B to A, aes-gcm-16":   startDatagrams(t, b, a, gcm.innerA[0], 500),
		"A to B, rijndael-cbc": startDatagrams(t, a, b, cbc.innerB[0], 500),
		"B to A, rijndael-cbc": startDatagrams(t, b, a, cbc.innerA[0], 500),
	}
	var replayed int
	start := time.Now()
	for kill := range kills {
		recent, err := a.Capture("eth0", 1600)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50*time.Millisecond + rand.N(300*time.Millisecond))
		victim := rand.IntN(2)
		h := hosts[victim]
		pid := daemon(t, h)
		if kill%5 == 4 {
			killAll(t, h)
			output(t, h, "setkey -DP") // starts another
			daemon(t, h)
		} else {
			signal(t, pid, unix.SIGKILL)
			restarted(t, h, pid)
		}
		if diff := cmp.Diff(before[victim], stateOf(t, h)); diff != "" {
			t.Errorf("kill %d of %s: the state (-before +after):\n%s", kill, h.Name, diff)
		}
		// What the victim was sent until it died, and a little longer. It need
		// not be all.
		packets, _ := recent.Stop()
		replayed += replay(t, hosts, victim, packets)
	}
	time.Sleep(300 * time.Millisecond)
	for way, u := range udp {
		got := u.Stop()
		if got.Twice > 0 || got.Damaged > 0 || got.Received < got.Sent/4 {
			t.Errorf("%s: of %d datagrams %d arrived, %d of them twice, %d damaged", way, got.Sent, got.Received, got.Twice, got.Damaged)
		}
		t.Logf("%s: %+v", way, got)
	}
	sent, err := tcp.Stop()
	if err != nil {
		t.Errorf("the TCP connection: %v", err)
	}
	// The counters, too, are those of all processes.
	if refused := counted(t, a, "replay") + counted(t, b, "replay"); refused < uint64(replayed/2) {
		t.Errorf("%d packets were put on the wire again, and %d refused as such", replayed, refused)
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	n := unrepeated(t, packets, ivLens)
	t.Logf("%d kills in %v, %d packets, %d of them put on the wire again, %d bytes in one TCP connection", kills, time.Since(start), n, replayed, sent)
	if n == 0 || replayed == 0 || sent == 0 {
		t.Error("there was no traffic")
	}
}

func startDatagrams(t *testing.T, from, to *lab.Host, addr netip.Addr, rate int) *lab.Datagrams {
	t.Helper()
	d, err := lab.StartDatagrams(from, to, addr, rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop() })
	return d
}

// espHeader is what a frame of a capture has of ESP in IPv4.
type espHeader struct {
	spi, seq uint32
	iv       string
}

// parseESP reads a frame; false if it is not ESP in IPv4, or one that a test put
// on the wire.
func parseESP(frame []byte, ivLens map[uint32]int) (espHeader, bool) {
	const ip, esp = 14, 14 + 20
	if len(frame) < esp+8 || frame[ip] != 0x45 || frame[ip+9] != 50 || frame[ip+8] == replayedTTL {
		return espHeader{}, false
	}
	h := espHeader{spi: binary.BigEndian.Uint32(frame[esp:]), seq: binary.BigEndian.Uint32(frame[esp+4:])}
	if n := ivLens[h.spi]; len(frame) >= esp+8+n {
		h.iv = string(frame[esp+8:][:n])
	}
	return h, true
}

// unrepeated checks that no sequence number and no IV of an SA was on the wire
// twice, and returns how many packets there were.
func unrepeated(t *testing.T, packets []lab.Packet, ivLens map[uint32]int) (n int) {
	t.Helper()
	type number struct{ spi, seq uint32 }
	type vector struct {
		spi uint32
		iv  string
	}
	numbers, vectors := map[number]int{}, map[vector]int{}
	for i, p := range packets {
		h, ok := parseESP(p.Data, ivLens)
		if !ok {
			continue
		}
		n++
		if j, again := numbers[number{h.spi, h.seq}]; again {
			t.Errorf("SPI %d, sequence number %d was sent at %v and at %v", h.spi, h.seq, packets[j].Timestamp, p.Timestamp)
		}
		if j, again := vectors[vector{h.spi, h.iv}]; again {
			t.Errorf("SPI %d, IV %x was sent at %v and at %v", h.spi, h.iv, packets[j].Timestamp, p.Timestamp)
		}
		numbers[number{h.spi, h.seq}], vectors[vector{h.spi, h.iv}] = i, i
	}
	return n
}

// replay puts the last of the packets for one host on the wire again.
func replay(t *testing.T, hosts []*lab.Host, victim int, packets []lab.Packet) int {
	t.Helper()
	var frames [][]byte
	to := []netip.Addr{outerA, outerB}[victim].As4()
	for i := len(packets) - 1; i >= 0 && len(frames) < 300; i-- {
		frame := packets[i].Data
		if _, ok := parseESP(frame, nil); !ok || [4]byte(frame[14+16:]) != to {
			continue
		}
		frame[14+8] = replayedTTL
		binary.BigEndian.PutUint16(frame[14+10:], 0)
		binary.BigEndian.PutUint16(frame[14+10:], ^checksum(frame[14:14+20]))
		frames = append(frames, frame)
	}
	if err := hosts[1-victim].Inject("eth0", frames...); err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
	return len(frames)
}

// checksum is the sum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
