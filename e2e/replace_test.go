package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
	"ifipsec/engine/handover"
)

// A daemon takes over from another while the tunnel is up: hardly a packet is
// lost, and none comes out of order or twice.
func TestReplaceUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.options = "-r 128"
	tn.setUp(t, a, b)
	before := stateOf(t, a)
	wire, err := a.Capture("eth0", 96)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := lab.StartConnection(a, b, tn.innerB[0], 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Stop()
	// A host that is no real root has little room for packets that wait: hardly
	// more than a hundred.
	const rate = 200
	udp := map[string]*lab.Datagrams{
		"A to B": startDatagrams(t, a, b, tn.innerB[0], rate),
		"B to A": startDatagrams(t, b, a, tn.innerA[0], rate),
	}
	const replacements = 5
	for range replacements {
		time.Sleep(100 * time.Millisecond)
		pid := daemon(t, a)
		quiet(t, a, "ipsecd -replace")
		if now := daemon(t, a); now == pid {
			t.Fatalf("process %d is still the daemon", pid)
		}
		if diff := cmp.Diff(before, stateOf(t, a)); diff != "" {
			t.Errorf("the state (-before +after):\n%s", diff)
		}
	}
	if _, err := tcp.Stop(); err != nil {
		t.Errorf("the TCP connection: %v", err)
	}
	for way, u := range udp {
		got := u.Stop()
		t.Logf("%s: %+v", way, got)
		// What arrives in the meantime waits.
		if lost := got.Sent - got.Received; lost > 5*replacements || got.Late > 0 || got.Twice > 0 || got.Damaged > 0 {
			t.Errorf("%s: of %d datagrams %d were lost in %d replacements, %d came late, %d twice, %d damaged",
				way, got.Sent, lost, replacements, got.Late, got.Twice, got.Damaged)
		}
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	unrepeated(t, packets, map[uint32]int{tn.spiAB: 8, tn.spiBA: 8})
	if all, err := a.Processes(); err != nil {
		t.Error(err)
	} else if n := parents(all); n != 1 {
		t.Errorf("%d parents of daemons are left, want 1", n)
	}
	quiet(t, a, "ipsecd -stop")
	if got := footprintOf(t, a).Files; got != nil {
		t.Errorf("left in /run: %v", got)
	}
}

func parents(all []lab.Process) (n int) {
	for _, p := range all {
		if strings.HasPrefix(p.Name, "ipsecd-") {
			n++
		}
	}
	return n
}

// If the new daemon fails, the old one goes on.
func TestReplacementFails(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	before := stateOf(t, a)
	socket := filepath.Join(a.Path("/run/ifipsec"), runDir(a), "handover")
	pid := daemon(t, a)
	var successor *handover.Successor
	var files *handover.Descriptors
	err := a.Do(func() (err error) {
		successor, files, err = handover.Take(socket)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files.Close()
	successor.Abandon()
	restarted(t, a, pid)
	if diff := cmp.Diff(before, stateOf(t, a)); diff != "" {
		t.Errorf("the state (-before +after):\n%s", diff)
	}
	reaches(t, a, tn.innerB[0])
	reaches(t, b, tn.innerA[0])
}

func TestReplaceWithoutDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	got := shell(t, h, "ipsecd -replace")
	want := "ipsecd: ipsecd did not start: no ipsecd runs in this network namespace\n"
	if got.Exit != 1 || got.Stderr != want {
		t.Errorf("ipsecd -replace: %+v, want exit status 1 and %q", got, want)
	}
}
