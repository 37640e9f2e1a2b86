package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
	"ifipsec/engine/control"
)

// rekeyEvery is how often the SAs of both directions are replaced.
const rekeyEvery = 200 * time.Millisecond

// rekeyRetired is how long old SAs are kept for what is under way. A busy machine
// has some hundred milliseconds of TCP's packets in the queues between its hosts.
const rekeyRetired = time.Second

// rekeyDuration is for how long each kind of traffic must bear that. The
// environment's IFIPSEC_REKEY has another, such as 60s.
func rekeyDuration(t *testing.T) time.Duration {
	t.Helper()
	text, ok := os.LookupEnv("IFIPSEC_REKEY")
	if !ok {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("IFIPSEC_REKEY:", err)
	}
	return d
}

// New keys for old, five times a second, while the tunnel is busy: no packet is
// lost, and nothing arrives that can't be opened.
//
// This test has the machine for itself: a packet that is lost because a host got
// no time to read it would say nothing about keys.
func TestRekeyUnderLoad(t *testing.T) {
	lab.RequireProgram(t, "iperf3", "iperf3")
	duration := rekeyDuration(t)
	a, b := newPair(t)
	r := rekeying{tunnel: newTunnel(0), a: a, b: b}
	r.options = "-r 32"
	r.setUp(t, a, b)
	for name, load := range map[string]func(*testing.T, *lab.Host, *lab.Host, tunnel, time.Duration) (lost uint64){
		"UDP": loadUDP, "TCP": loadTCP,
	} {
		t.Run(name, func(t *testing.T) {
			hosts := []*lab.Host{a, b}
			var before, room []map[string]uint64
			for _, h := range hosts {
				before, room = append(before, errorsCounted(t, h)), append(room, dropped(t, h))
			}
			stop := r.start(t)
			lost := load(t, a, b, r.tunnel, duration)
			rounds, took := stop()
			t.Logf("SAs were replaced %d times in %v", rounds, took.Round(time.Millisecond))
			if rounds < 2 {
				t.Errorf("SAs were replaced %d times, want more", rounds)
			}
			var noRoom uint64
			for i, h := range hosts {
				if diff := cmp.Diff(before[i], errorsCounted(t, h)); diff != "" {
					t.Errorf("%s has counted errors (-before +after):\n%s", h.Name, diff)
				}
				for queue, n := range dropped(t, h) {
					if n -= room[i][queue]; n > 0 {
						t.Logf("%s: the kernel had no room for %d packets: %s", h.Name, n, queue)
						noRoom += n
					}
				}
			}
			if lost > noRoom {
				t.Errorf("%d datagrams were lost, of which the kernel had no room for %d; want none otherwise", lost, noRoom)
			}
		})
	}
}

// errorsCounted returns what the daemon has counted that is not traffic.
func errorsCounted(t *testing.T, h *lab.Host) map[string]uint64 {
	t.Helper()
	var statistics control.StatisticsResult
	if err := json.Unmarshal([]byte(output(t, h, "ipsecd -status -json")), &statistics); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]uint64)
	add := func(prefix string, counters []control.Counter) {
		for _, c := range counters {
			switch c.Name {
			case "input", "output", "ibytes", "obytes", "ipackets", "opackets":
			default:
				all[prefix+c.Name] = c.Value
			}
		}
	}
	add("", statistics.ESP)
	for _, i := range statistics.Interfaces {
		add(i.Name+" ", i.Counters)
	}
	return all
}

// dropped returns how many packets a host's kernel had no room for, by queue. On
// a machine that is too busy that happens, and nobody's keys are to blame.
func dropped(t *testing.T, h *lab.Host) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	add := func(queue, number string) {
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all[queue] += n
	}
	for line := range strings.Lines(output(t, h, "cat /proc/net/dev")) {
		// NAME: received bytes, packets, errors, dropped, 4 others; the same sent.
		if name, numbers, ok := strings.Cut(line, ":"); ok {
			fields := strings.Fields(numbers)
			add(strings.TrimSpace(name)+" received", fields[3])
			add(strings.TrimSpace(name)+" sent", fields[11])
		}
	}
	// What there was no room for in sockets that are closed by now is counted here.
	for line := range strings.Lines(output(t, h, "cat /proc/net/snmp6; awk '/^Udp:/ { if (split(names, n)) print \"Udp\" n[6], $6; names = $0 }' /proc/net/snmp")) {
		if name, number, ok := strings.Cut(line, " "); ok && strings.HasSuffix(name, "RcvbufErrors") {
			add(name, strings.TrimSpace(number))
		}
	}
	for _, file := range []string{"raw", "raw6", "udp", "udp6"} {
		for line := range strings.Lines(output(t, h, "tail -n +2 /proc/net/"+file)) {
			fields := strings.Fields(line)
			add(file+" sockets", fields[len(fields)-1])
		}
	}
	return all
}

// rekeying is a tunnel whose SAs are replaced.
type rekeying struct {
	tunnel            // with the SAs that both ends send with
	retired []retired // those before that are still there, the oldest first
	a, b    *lab.Host
}

// retired is a tunnel with the SAs that nobody has sent with since.
type retired struct {
	tunnel
	at time.Time
}

// start replaces the SAs again and again until stop is called, which returns how
// often that was.
func (r *rekeying) start(t *testing.T) (stop func() (rounds int, took time.Duration)) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan error, 1)
	rounds, start := 0, time.Now()
	go func() {
		tick := time.NewTicker(rekeyEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				done <- nil
				return
			case <-tick.C:
			}
			if err := r.replace(t); err != nil {
				done <- err
				return
			}
			rounds++
		}
	}()
	return func() (int, time.Duration) {
		close(quit)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return rounds, time.Since(start)
	}
}

// replace does what a key daemon does: both ends learn to receive with the new
// keys before either sends with them, and old ones are forgotten when what was
// under way has arrived.
func (r *rekeying) replace(t *testing.T) error {
	next := r.tunnel
	next.spiAB, next.spiBA = r.spiAB+2, r.spiBA+2
	gone := ""
	if len(r.retired) > 0 && time.Since(r.retired[0].at) > rekeyRetired {
		old := r.retired[0].tunnel
		r.retired = r.retired[1:]
		gone = fmt.Sprintf("delete %v %v esp %d;\ndelete %v %v esp %d;\n", r.outerA, r.outerB, old.spiAB, r.outerB, r.outerA, old.spiBA)
	}
	for _, step := range []struct {
		h          *lab.Host
		statements string
	}{
		{r.a, gone + next.add(r.outerB, r.outerA, next.spiBA, r.reqidA())},
		{r.b, gone + next.add(r.outerA, r.outerB, next.spiAB, r.reqidB())},
		{r.a, next.add(r.outerA, r.outerB, next.spiAB, r.reqidA())},
		{r.b, next.add(r.outerB, r.outerA, next.spiBA, r.reqidB())},
	} {
		got, err := step.h.Shell(t.Context(), setkey(step.statements))
		if err == nil && got != (lab.Result{}) {
			err = fmt.Errorf("%s: %s\n%+v, want silence and 0", step.h.Name, step.statements, got)
		}
		if err != nil {
			return err
		}
	}
	r.retired = append(r.retired, retired{r.tunnel, time.Now()})
	r.tunnel = next
	return nil
}

// loadUDP sends numbered datagrams both ways, at a pace that both ends can keep,
// and counts those that are lost.
func loadUDP(t *testing.T, a, b *lab.Host, tn tunnel, duration time.Duration) (lost uint64) {
	flows := []*flow{
		{from: a, to: b, addr: netip.AddrPortFrom(tn.innerB[0], 5000)},
		{from: b, to: a, addr: netip.AddrPortFrom(tn.innerA[1], 5000)},
	}
	results := make(chan error, len(flows))
	for _, f := range flows {
		go func() { results <- f.run(t.Context(), duration) }()
	}
	for range flows {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for _, f := range flows {
		t.Logf("%s to %s: sent %d datagrams, received %d", f.from.Name, f.to.Name, f.sent, f.received)
		if len(f.gaps) > 0 {
			t.Logf("missing: %s", strings.Join(f.gaps, ", "))
		}
		if f.disorder > 0 {
			t.Errorf("%s to %s: %d of %d datagrams came twice or out of order", f.from.Name, f.to.Name, f.disorder, f.sent)
		}
		lost += f.sent - min(f.sent, f.received)
	}
	return lost
}

// flow is numbered datagrams that go one way.
type flow struct {
	from, to *lab.Host
	addr     netip.AddrPort // of to

	sent, received uint64
	disorder       int // how many came after one with a greater number, or with the same
	gaps           []string
}

// Each burst of datagrams has pause to be dealt with.
const (
	pause         = time.Millisecond
	burst         = 2
	datagramBytes = 500
)

func (f *flow) run(ctx context.Context, duration time.Duration) error {
	conn, err := f.to.ListenUDP(f.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		return err
	}
	var out *net.UDPConn
	err = f.from.Do(func() (err error) {
		out, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.addr))
		return err
	})
	if err != nil {
		return err
	}
	defer out.Close()

	arrived := make(chan error, 1)
	go func() { arrived <- f.receive(conn) }()
	datagram := make([]byte, datagramBytes)
	start := time.Now()
	for ; time.Since(start) < duration; time.Sleep(pause) {
		for range burst {
			binary.BigEndian.PutUint64(datagram, f.sent)
			if _, err := out.Write(datagram); err != nil {
				return err
			}
			f.sent++
		}
	}
	// The last that is on its way.
	time.Sleep(impatience)
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	return <-arrived
}

// receive counts until the connection's deadline.
func (f *flow) receive(conn *net.UDPConn) error {
	buf := make([]byte, 2*datagramBytes)
	for next := uint64(0); ; {
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err == nil && n != datagramBytes {
			err = fmt.Errorf("a datagram of %d bytes, want %d", n, datagramBytes)
		}
		if err != nil {
			return err
		}
		number := binary.BigEndian.Uint64(buf)
		switch {
		case number < next:
			f.disorder++
		case number > next:
			f.gaps = append(f.gaps, fmt.Sprintf("%d after %d of them", number-next, next))
		}
		next = max(next, number+1)
		f.received++
	}
}

// loadTCP has iperf3 send as much as gets through. What is lost is sent again.
func loadTCP(t *testing.T, a, b *lab.Host, tn tunnel, duration time.Duration) (lost uint64) {
	// It outlives clients that give up before it listens.
	if _, err := b.Background(t.Context(), "iperf3", "--server", "--bind", tn.innerB[0].String()); err != nil {
		t.Fatal(err)
	}
	seconds := max(1, int(duration.Seconds()))
	client := fmt.Sprintf("timeout %d iperf3 --client %v --time %d --json --connect-timeout 100",
		seconds+int(patience.Seconds()), tn.innerB[0], seconds)
	var r lab.Result
	err := lab.Until(patience, func() error {
		if r = shell(t, a, client); r.Exit != 0 {
			return fmt.Errorf("%s: %+v", client, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Intervals []struct {
			Sum struct {
				Bytes int64
			}
		}
		End struct {
			Sent struct {
				Retransmits int
			} `json:"sum_sent"`
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("iperf3's report: %v\n%s", err, r.Stdout)
	}
	t.Logf("TCP: %.2f Gbit/s, %d segments sent again", report.End.Received.BitsPerSecond/1e9, report.End.Sent.Retransmits)
	if len(report.Intervals) < seconds {
		t.Errorf("iperf3 reports %d seconds, want %d", len(report.Intervals), seconds)
	}
	for i, interval := range report.Intervals {
		if interval.Sum.Bytes == 0 {
			t.Errorf("the stream stood still in second %d", i+1)
		}
	}
	return 0
}
