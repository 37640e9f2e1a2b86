package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// stateDir is a host's directory of what outlives the daemon.
func stateDir(h *lab.Host) string {
	return filepath.Join(h.Path("/run/ifipsec"), runDir(h), "state")
}

// stateDirInside is that directory as the host's commands have it.
func stateDirInside(h *lab.Host) string { return "/run/ifipsec/" + runDir(h) + "/state" }

// logOf is what the daemon of a host has logged.
func logOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.Path("/run/ifipsec"), runDir(h), "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// smallRun gives a host a /run of some size, before it has a daemon.
func smallRun(t *testing.T, h *lab.Host, size string) {
	t.Helper()
	quiet(t, h, "mount -t tmpfs -o mode=755,size="+size+" run /run")
}

// On a full disk nothing is done that could not be kept, and everything else
// goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	smallRun(t, a, "2m")
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	quiet(t, a, "dd if=/dev/zero of=/run/full bs=4k count=1000 2>/dev/null || true")
	// The rest of the last page may still take some.
	script, failed := "", 0
	for i := range 100 {
		script += tn.add(outerA, outerB, uint32(20000+i), 900)
	}
	for line := range strings.Lines(output(t, a, setkey(script))) {
		if !strings.HasSuffix(line, ": No space left on device.\n") {
			t.Errorf("setkey says %q", line)
		}
		failed++
	}
	kept := strings.Count(output(t, a, "setkey -D"), "reqid=900(")
	if failed == 0 || failed+kept != 100 {
		t.Errorf("of 100 SAs %d were refused and %d are there", failed, kept)
	}
	// An interface takes less room than an SA.
	for _, command := range []string{
		"for i in $(seq 10 99); do ifconfig ipsec$i create || exit; done",
		"ifconfig ipsec0 description " + strings.Repeat("long", 200),
	} {
		if got := shell(t, a, command); got.Exit != 1 || !strings.Contains(strings.ToLower(got.Stderr), "no space left on device") {
			t.Errorf("%.30s: %+v, want that there is no space left", command, got)
		}
	}
	if links, ours := output(t, a, "ip -br link | grep -c ipsec"), output(t, a, "ifconfig -l | tr ' ' '\n' | grep -c ipsec"); links != ours {
		t.Errorf("there are %s links of ours and %s interfaces", links, ours)
	}
	quiet(t, a, setkey("deleteall 192.168.0.3 192.168.0.5 esp;"))
	reachesNot(t, a, tn.innerB[0])
	quiet(t, a, "rm /run/full; "+setkey(tn.add(outerA, outerB, tn.spiAB, tn.reqidA())))
	reaches(t, a, tn.innerB[0])
	pid := daemon(t, a)
	state := stateOf(t, a)
	signal(t, pid, unix.SIGKILL)
	restarted(t, a, pid)
	if diff := cmp.Diff(state, stateOf(t, a)); diff != "" {
		t.Errorf("the state (-before +after):\n%s", diff)
	}
}

// Without file descriptors, nothing new can be made; what there is goes on.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	pid := daemon(t, a)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	// One is for the command's connection.
	limit := unix.Rlimit{Cur: uint64(len(open) + 1), Max: 1024}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	before := output(t, a, "ip -br link")
	if got := shell(t, a, "ifconfig ipsec1 create"); got.Exit != 1 || !strings.Contains(strings.ToLower(got.Stderr), "too many open files") {
		t.Errorf("ifconfig ipsec1 create: %+v, want that too many files are open", got)
	}
	if after := output(t, a, "ip -br link"); after != before {
		t.Errorf("links before:\n%safter:\n%s", before, after)
	}
	reaches(t, a, tn.innerB[0])
	limit.Cur = 1024
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	quiet(t, a, "ifconfig ipsec1 create")
}

// An SA with a replay window that there is no memory for is refused.
func TestNoMemoryForAnSA(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	smallRun(t, h, "8m")
	tn := newTunnel(0)
	tn.options = "-r 2000000" // 2 MB
	script := ""
	for i := range 6 {
		script += tn.add(outerA, outerB, uint32(1000+i), 1)
	}
	out := output(t, h, setkey(script))
	if !strings.Contains(out, ": No space left on device.\n") {
		t.Errorf("setkey says %q, want that there is no space", out)
	}
	kept := strings.Count(output(t, h, "setkey -D"), "reqid=1(")
	if failed := strings.Count(out, "\n"); kept == 0 || kept+failed != 6 {
		t.Errorf("of 6 SAs %d are there and %d were refused", kept, failed)
	}
}

// An SA for whose replay window the daemon gets no memory is refused, and nothing
// else has changed.
func TestNoMemoryToMap(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	pid := daemon(t, a)
	var pages uint64
	if statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(string(statm), &pages); err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	// Less than the window, more than what all else takes.
	limit := unix.Rlimit{Cur: pages*uint64(os.Getpagesize()) + 2<<20, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_AS, &limit, &before); err != nil {
		t.Fatal(err)
	}
	state := output(t, a, "setkey -D | grep spi=; du -b "+stateDirInside(a)+"/memory")
	large := tn
	large.options = "-r 2000000" // 2 MB
	for range 3 {
		if got := output(t, a, setkey(large.add(outerA, outerB, 2000, 900))); !strings.HasSuffix(got, ": Cannot allocate memory.\n") {
			t.Errorf("setkey says %q, want that memory can't be allocated", got)
		}
	}
	if after := output(t, a, "setkey -D | grep spi=; du -b "+stateDirInside(a)+"/memory"); after != state {
		t.Errorf("before:\n%safter:\n%s", state, after)
	}
	reaches(t, a, tn.innerB[0])
	if err := unix.Prlimit(pid, unix.RLIMIT_AS, &before, nil); err != nil {
		t.Fatal(err)
	}
	quiet(t, a, setkey(large.add(outerA, outerB, 2000, 900)))
	if now := daemon(t, a); now != pid {
		t.Errorf("the daemon is %d, was %d", now, pid)
	}
}

// A link that is deleted while no daemon runs is not there for the next one, and
// what belongs to the others is.
func TestLinkDeletedBetweenDaemons(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	first, second := newTunnel(0), newTunnel(1)
	first.setUp(t, a, b)
	second.setUp(t, a, b)
	killAll(t, a)
	if err := a.DelLink("ipsec1"); err != nil {
		t.Fatal(err)
	}
	quiet(t, a, "ip link set ipsec0 down; ip link set ipsec0 name office; ip link set office up")
	output(t, a, "setkey -D") // starts the next one
	if got := output(t, a, "ifconfig -l"); !strings.Contains(got, "office") || strings.Contains(got, "ipsec1") {
		t.Errorf("interfaces %q, want office and not ipsec1", got)
	}
	if got := output(t, a, "setkey -DP -t"); strings.Count(got, "ifname=office\n") != 4 || strings.Contains(got, "ifname=ipsec") {
		t.Errorf("the policies are not those of office:\n%s", got)
	}
	reaches(t, a, first.innerB[0])
	quiet(t, a, second.interfaceA())
	reaches(t, a, second.innerB[0])
}

// What an earlier daemon left and what can't be used is kept aside, and the
// daemon begins with nothing and says so.
func TestJournalRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		damage func(t *testing.T, state string)
		says   string
	}{
		"corrupt": {func(t *testing.T, state string) { overwrite(t, state+"/journal", 200, "?") }, "the journal is corrupt"},
		"truncated": {func(t *testing.T, state string) {
			if err := os.Truncate(state+"/journal", 300); err != nil {
				t.Fatal(err)
			}
		}, "the journal is corrupt: it has 300 octets"},
		"another boot's": {func(t *testing.T, state string) { otherOwner(t, state, 16) }, "it was written before the machine was started"},
		"another namespace's": {func(t *testing.T, state string) { otherOwner(t, state, 40) },
			"the journal is not of this namespace and boot: it is of network namespace"},
		"a newer version's": {func(t *testing.T, state string) { overwrite(t, state+"/journal", 8, "\x00\x00\x00\x02") },
			"the journal is of a newer version: 2, want at most 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "host")
			quiet(t, h, "ifconfig ipsec0 create reqid 100; "+setkey(newTunnel(0).keys(100)))
			killAll(t, h)
			tc.damage(t, stateDir(h))
			if got := output(t, h, "setkey -D"); got != "No SAD entries.\n" {
				t.Errorf("setkey -D shows %q", got)
			}
			if log := logOf(t, h); !strings.Contains(log, tc.says) || !strings.Contains(log, "begins with nothing") {
				t.Errorf("the log does not say %q:\n%s", tc.says, log)
			}
			if _, err := os.Stat(stateDir(h) + ".refused/journal"); err != nil {
				t.Error(err)
			}
			// As the manual page says.
			if got := shell(t, h, "ifconfig ipsec0 create"); got.Exit != 1 || !strings.Contains(got.Stderr, "already exists") {
				t.Errorf("ifconfig ipsec0 create: %+v, want that it exists", got)
			}
			quiet(t, h, "ip link delete ipsec0; ifconfig ipsec0 create")
		})
	}
}

// otherOwner changes an octet of the header, which says whose the journal is.
func otherOwner(t *testing.T, state string, at int) {
	t.Helper()
	b, err := os.ReadFile(state + "/journal")
	if err != nil {
		t.Fatal(err)
	}
	b[at+7] ^= 1
	sum := crc32.Checksum(b[:64], crc32.MakeTable(crc32.Castagnoli))
	overwrite(t, state+"/journal", 0, string(binary.BigEndian.AppendUint32(b[:64:64], sum)))
}

func overwrite(t *testing.T, path string, at int64, with string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(with), at); err != nil {
		t.Fatal(err)
	}
}

// Lifetimes go on while the machine sleeps: for the next daemon two hours have
// passed that its clock alone has counted.
func TestLifetimeAfterSleep(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	tn := newTunnel(0)
	quiet(t, h, "ifconfig ipsec0 create")
	tn.options = "-ls 3000 -lh 4000"
	quiet(t, h, setkey(tn.add(outerA, outerB, 1000, 1)))
	tn.options = "-ls 8000 -lh 9000"
	quiet(t, h, setkey(tn.add(outerA, outerB, 1001, 1)))
	tn.options = "-ls 4000 -lh 9000"
	quiet(t, h, setkey(tn.add(outerA, outerB, 1002, 1)))
	killAll(t, h)
	output(t, h, "unshare --time --boottime 7200 --fork setkey -D")
	err := lab.Until(patience, func() error {
		got := output(t, h, "setkey -D")
		if strings.Contains(got, "spi=1000(") || strings.Count(got, "state=mature") != 1 || strings.Count(got, "state=dying") != 1 {
			return fmt.Errorf("after two hours there are\n%s", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
