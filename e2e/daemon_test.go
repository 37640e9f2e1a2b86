package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// daemons returns the process IDs of a host's daemons.
func daemons(t *testing.T, h *lab.Host) (pids []int) {
	t.Helper()
	all, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Name == "ipsecd" {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// daemon returns the process ID of a host's only daemon. One that found out that
// there is another may still be about to end.
func daemon(t *testing.T, h *lab.Host) (pid int) {
	t.Helper()
	err := lab.Until(patience, func() error {
		pids := daemons(t, h)
		if len(pids) != 1 {
			return fmt.Errorf("%s has %d daemons, want 1", h.Name, len(pids))
		}
		pid = pids[0]
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// ended waits until a host has no daemon.
func ended(t *testing.T, h *lab.Host) {
	t.Helper()
	err := lab.Until(2*patience, func() error {
		if pids := daemons(t, h); len(pids) > 0 {
			return fmt.Errorf("%s has daemons %v, want none", h.Name, pids)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// footprint is what a host has of links, routes and files in /run.
type footprint struct {
	Links, Routes, Files []string
}

func footprintOf(t *testing.T, h *lab.Host) (f footprint) {
	t.Helper()
	var err error
	if f.Links, err = h.Links(); err != nil {
		t.Fatal(err)
	}
	if f.Routes, err = h.Routes(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(f.Routes)
	err = fs.WalkDir(os.DirFS(h.Path("/run")), ".", func(path string, d fs.DirEntry, err error) error {
		// The directory that daemons of all namespaces share may stay.
		if err == nil && path != "." && path != "ifipsec" {
			f.Files = append(f.Files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Each host has its daemon, which knows nothing of the other's.
func TestOneDaemonAHost(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, a, setkey(tn.keys(100)))
	daemon(t, a)
	if pids := daemons(t, b); len(pids) > 0 {
		t.Errorf("hostB has daemons %v, and needs none yet", pids)
	}
	if got := output(t, b, "setkey -D"); got != "No SAD entries.\n" {
		t.Errorf("hostB's SAD: %q", got)
	}
	daemon(t, b)
}

// Two network namespaces of one host share /run, and have a daemon each.
func TestOneDaemonANamespace(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	quiet(t, h, "ifconfig ipsec0 create reqid 100")
	got := output(t, h, "unshare -n sh -c 'ifconfig ipsec0 create reqid 200; ifconfig ipsec0; ls /run/ifipsec | wc -l'")
	if !strings.Contains(got, "\treqid: 200\n") || !strings.HasSuffix(got, "\n2\n") {
		t.Errorf("the second namespace has\n%s\nwant an ipsec0 with reqid 200, and two daemons' directories", got)
	}
	if got := output(t, h, "ifconfig ipsec0"); !strings.Contains(got, "\treqid: 100\n") {
		t.Errorf("the first namespace has\n%s", got)
	}
	if pids := daemons(t, h); len(pids) != 2 {
		t.Errorf("there are daemons %v, want 2", pids)
	}
}

// Many commands that need the daemon at once start one.
func TestOneDaemonOfManyCommands(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	output(t, h, "for i in 0 1 2 3 4 5 6 7; do ifconfig ipsec$i create & done; wait")
	daemon(t, h)
	links, err := h.Links()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(links)
	want := []string{"ipsec0", "ipsec1", "ipsec2", "ipsec3", "ipsec4", "ipsec5", "ipsec6", "ipsec7", "lo"}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

// However the daemon is told to end, it leaves the host as it was.
func TestDaemonEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *lab.Host){
		"stop":    func(t *testing.T, h *lab.Host) { quiet(t, h, "ipsecd -stop") },
		"SIGTERM": func(t *testing.T, h *lab.Host) { signal(t, daemon(t, h), unix.SIGTERM) },
		"SIGINT":  func(t *testing.T, h *lab.Host) { signal(t, daemon(t, h), unix.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t)
			before := footprintOf(t, a)
			for _, tn := range fourTunnels() {
				tn.setUp(t, a, b)
				reaches(t, a, tn.innerB[0])
			}
			stop := background(t, a, newTunnel(0).innerB[0])
			end(t, a)
			ended(t, a)
			stop()
			if diff := cmp.Diff(before, footprintOf(t, a)); diff != "" {
				t.Errorf("what the daemon left (-before +after):\n%s", diff)
			}
		})
	}
}

func signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// stateOf is what people see of a daemon's state: all but what counts packets or
// says who asked.
func stateOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	all := output(t, h, "setkey -D; setkey -DP; ifconfig; ip address show; ip route show table all; ip -6 route show table all")
	for _, varies := range []*regexp.Regexp{
		regexp.MustCompile(`pid=\d+`),                              // of the setkey that asks
		regexp.MustCompile(`diff: \d+\(s\)`),                       // since the SA was added
		regexp.MustCompile(`current: .*`),                          // time, bytes and packets
		regexp.MustCompile(`seq=0x[0-9a-f]+`),                      // of packets
		regexp.MustCompile(`state (UNKNOWN|UP)`),                   // a TUN that was opened again has had a carrier before
		regexp.MustCompile(`last: .*|allocated: \d+|\d+\(bytes\)`), // use
	} {
		all = varies.ReplaceAllString(all, "*")
	}
	return all
}

// A daemon that is killed is back by itself, and nothing of what it had is
// lost.
func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	a, b := example(t)
	quiet(t, a, "ifconfig ipsec0 description 'to B' group vpn mtu 1300")
	reaches(t, a, innerB)
	before := stateOf(t, a)
	for range 3 {
		pid := daemon(t, a)
		signal(t, pid, unix.SIGKILL)
		restarted(t, a, pid)
		if diff := cmp.Diff(before, stateOf(t, a)); diff != "" {
			t.Errorf("the state (-before +after):\n%s", diff)
		}
		reaches(t, a, innerB)
		reaches(t, b, innerA)
	}
	quiet(t, a, "ipsecd -stop")
	if got := footprintOf(t, a).Files; got != nil {
		t.Errorf("left in /run: %v", got)
	}
}

// restarted waits until another process than pid is the daemon and serves.
func restarted(t *testing.T, h *lab.Host, pid int) {
	t.Helper()
	err := lab.Until(2*patience, func() error {
		if pids := daemons(t, h); len(pids) != 1 || pids[0] == pid {
			return fmt.Errorf("%s has daemons %v, want another than %d", h.Name, pids, pid)
		}
		if r := shell(t, h, "ipsecd -status"); r.Exit != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without the parent that starts it again, a daemon that is killed leaves its
// interfaces to the next one, which a command starts.
func TestDaemonKilledWithItsParent(t *testing.T) {
	t.Parallel()
	a, b := example(t)
	reaches(t, a, innerB)
	before := stateOf(t, a)
	killAll(t, a)
	if got := output(t, a, "ip -br link show ipsec0"); !strings.HasPrefix(got, "ipsec0 ") {
		t.Errorf("links after the end: %q", got)
	}
	if diff := cmp.Diff(before, stateOf(t, a)); diff != "" {
		t.Errorf("the state (-before +after):\n%s", diff)
	}
	reaches(t, a, innerB)
	reaches(t, b, innerA)
	killAll(t, a)
	quiet(t, a, "ipsecd -stop")
	if got := footprintOf(t, a); got.Files != nil || slices.Contains(got.Links, "ipsec0") {
		t.Errorf("left: %+v", got)
	}
}

// killAll kills a host's daemon and its parent.
func killAll(t *testing.T, h *lab.Host) {
	t.Helper()
	all, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Name == "ipsecd-parent" {
			signal(t, p.PID, unix.SIGKILL)
		}
	}
	signal(t, daemon(t, h), unix.SIGKILL)
	ended(t, h)
}

func TestSecondDaemonRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	quiet(t, h, "ifconfig ipsec0 create")
	pid := daemon(t, h)
	want := lab.Result{Stderr: "ipsecd: another ipsecd runs in this network namespace\n", Exit: 1}
	if got := shell(t, h, "ipsecd"); got != want {
		t.Errorf("a second daemon: %+v, want %+v", got, want)
	}
	if got := daemon(t, h); got != pid {
		t.Errorf("the daemon is process %d, want still %d", got, pid)
	}
	output(t, h, "ifconfig ipsec0")
}

// A daemon that nobody can reach any more is still the namespace's only one.
func TestSecondDaemonElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	quiet(t, h, "ifconfig ipsec0 create")
	pid := daemon(t, h)
	const want = "another ipsecd runs in this network namespace, and its sockets are elsewhere (process "
	if got := shell(t, h, "IFIPSEC_RUN_DIR=/run/other ipsecd"); got.Exit != 1 || !strings.HasPrefix(got.Stderr, "ipsecd: "+want) {
		t.Errorf("a second daemon: %+v, want %q", got, want)
	}
	quiet(t, h, "rm -r /run/ifipsec")
	if got := shell(t, h, "ifconfig ipsec1 create"); got.Exit != 1 || !strings.Contains(got.Stderr, "ipsecd did not start: "+want) {
		t.Errorf("ifconfig: %+v, want %q", got, want)
	}
	err := lab.Until(patience, func() error {
		if got := daemons(t, h); !slices.Equal(got, []int{pid}) {
			return fmt.Errorf("there are daemons %v, want still %d", got, pid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStopWithoutDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	got := shell(t, h, "ipsecd -stop")
	if got.Exit != 1 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, "ipsecd: no ipsecd runs in this network namespace") {
		t.Errorf("ipsecd -stop: %+v", got)
	}
}

// Who is not root is told so in one line, whether a daemon runs or not, and
// changes nothing.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	const nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups "
	for _, state := range []string{"no daemon", "daemon"} {
		for _, command := range []string{
			"ifconfig ipsec0 create",
			"ifconfig ipsec9 destroy",
			"setkey -D",
			"setkey -F",
			`setkey -c`,
			"ipsecd",
			"ipsecd -stop",
		} {
			if command == "ipsecd -stop" && state == "no daemon" {
				continue
			}
			got := shell(t, h, "echo 'flush;' | "+nobody+command)
			if got.Exit == 0 || got.Stdout != "" || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("%s, as nobody: %s\nexit %d, stdout %q, stderr %q; want an error in one line",
					state, command, got.Exit, got.Stdout, got.Stderr)
			}
			program, _, _ := strings.Cut(command, " ")
			if !strings.HasPrefix(got.Stderr, program+": ") {
				t.Errorf("%s, as nobody: %s\nsays %q, want that it is %s who says it", state, command, got.Stderr, program)
			}
		}
		if state == "no daemon" {
			if pids := daemons(t, h); len(pids) > 0 {
				t.Errorf("nobody started daemons %v", pids)
			}
			quiet(t, h, "ifconfig ipsec9 create")
		}
	}
	if links, err := h.Links(); err != nil || !slices.Equal(links, []string{"lo", "ipsec9"}) {
		t.Errorf("links %v (%v), want lo and ipsec9", links, err)
	}
	if _, err := os.Stat(h.Path("/run/ifipsec")); errors.Is(err, fs.ErrNotExist) {
		t.Error("the daemon's directory is gone")
	}
}

// A TUN that somebody else deletes takes its interface along, and no other.
func TestLinkDeletedByAnother(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	first, second := newTunnel(0), newTunnel(1)
	first.setUp(t, a, b)
	second.setUp(t, a, b)
	if err := a.DelLink("ipsec1"); err != nil {
		t.Fatal(err)
	}
	err := lab.Until(patience, func() error {
		if got := shell(t, a, "ifconfig ipsec1"); got.Exit == 0 {
			return fmt.Errorf("ifconfig still shows %q", got.Stdout)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	reaches(t, a, first.innerB[0])
	quiet(t, a, second.interfaceA())
	reaches(t, a, second.innerB[0])
}
