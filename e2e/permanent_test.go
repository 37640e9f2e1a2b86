package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// permanentDir is what is a disk's on the hosts.
const permanentDir = "/var/lib/ipsecd-test"

// startPermanent starts a host's daemon with its state on a disk.
func startPermanent(t *testing.T, h *lab.Host) {
	t.Helper()
	quiet(t, h, "setsid ipsecd -state-dir "+permanentDir+" >>/run/daemon-log 2>&1 &")
	// No command that would start another one.
	err := lab.Until(patience, func() error {
		if got := shell(t, h, "ipsecd -status"); got.Exit != 0 {
			return fmt.Errorf("%s; its log: %s", got.Stderr, output(t, h, "cat /run/daemon-log"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// newDisk gives a host a disk.
func newDisk(t *testing.T, h *lab.Host, size string) {
	t.Helper()
	quiet(t, h, "mount -t tmpfs -o mode=755,size="+size+" disk /var/lib")
}

// powerFails ends all that ends with the machine: processes, links and /run. The
// journal says that it was another boot.
func powerFails(t *testing.T, h *lab.Host) {
	t.Helper()
	killAll(t, h)
	quiet(t, h, "for i in $(ip -br link | sed -n 's/^\\(ipsec[0-9]*\\).*/\\1/p'); do ip link delete $i; done; rm -r /run/ifipsec")
	otherOwner(t, h.Path(permanentDir+"/state"), 16)
}

// keptOf is the part of a host's state that outlives the machine.
func keptOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	all := output(t, h, "setkey -D; setkey -DP; for i in $(ifconfig -l); do ifconfig $i | grep -v -e inet -e flags=; done")
	for _, varies := range []*regexp.Regexp{
		regexp.MustCompile(`pid=\d+`), regexp.MustCompile(`diff: \d+\(s\)`), regexp.MustCompile(`current: .*`),
		regexp.MustCompile(`seq=0x[0-9a-f]+`), regexp.MustCompile(`created: .*`),
		regexp.MustCompile(`spid=\d+`), // of an interface's policies, which name its link
		regexp.MustCompile(`last: .*|allocated: \d+|\d+\(bytes\)`),
	} {
		all = varies.ReplaceAllString(all, "*")
	}
	return all
}

// A host loses its power under traffic, again and again: what is on its disk makes
// it what it was, no sequence number and no IV comes again, and nothing that was
// accepted is accepted again.
func TestPowerFails(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	newDisk(t, a, "64m")
	startPermanent(t, a)
	gcm, cbc := newTunnel(0), newTunnel(1)
	gcm.options, cbc.options = "-r 128", "-r 1024"
	cbc.algorithms = `-E rijndael-cbc "VerySecureKey!!1" -A hmac-sha1 "VerySecureMacKey!!!1"`
	gcm.setUp(t, a, b)
	cbc.setUp(t, a, b)
	quiet(t, a, "ifconfig ipsec0 description 'to B' group vpn")
	ivLens := map[uint32]int{gcm.spiAB: 8, gcm.spiBA: 8, cbc.spiAB: 16, cbc.spiBA: 16}
	before := keptOf(t, a)
	wire, err := a.Capture("eth0", 96)
	if err != nil {
		t.Fatal(err)
	}
	streams := map[string]*lab.Datagrams{
		"A to B":               startDatagrams(t, a, b, gcm.innerB[0], 500),
		"B to A":               startDatagrams(t, b, a, gcm.innerA[0], 500),
		"A to B, rijndael-cbc": startDatagrams(t, a, b, cbc.innerB[0], 500),
		"B to A, rijndael-cbc": startDatagrams(t, b, a, cbc.innerA[0], 500),
	}
	replayed, refused := 0, uint64(0)
	for failure := range 4 {
		recent, err := a.Capture("eth0", 1600)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
		pid := daemon(t, a)
		if failure == 1 {
			// This one goes on after another that was killed.
			signal(t, pid, unix.SIGKILL)
			restarted(t, a, pid)
			time.Sleep(100 * time.Millisecond)
		}
		powerFails(t, a)
		startPermanent(t, a)
		if diff := cmp.Diff(before, keptOf(t, a)); diff != "" {
			t.Errorf("failure %d: what is kept (-before +after):\n%s", failure, diff)
		}
		// As at every boot, somebody configures the links.
		quiet(t, a, links(gcm, cbc))
		packets, _ := recent.Stop()
		replayed += replay(t, []*lab.Host{a, b}, 0, packets)
		reachesSoon(t, a, gcm.innerB[0])
		reachesSoon(t, b, cbc.innerA[0])
		refused += counted(t, a, "replay") + counted(t, a, "badauth")
	}
	for way, s := range streams {
		got := s.Stop()
		if got.Twice > 0 || got.Damaged > 0 || got.Received == 0 {
			t.Errorf("%s: of %d datagrams %d arrived, %d of them twice, %d damaged", way, got.Sent, got.Received, got.Twice, got.Damaged)
		}
		t.Logf("%s: %+v", way, got)
	}
	if refused < uint64(replayed/2) {
		t.Errorf("%d packets were put on the wire again, and %d refused", replayed, refused)
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	n := unrepeated(t, packets, ivLens)
	t.Logf("%d packets, %d of them put on the wire again", n, replayed)
	if n == 0 || replayed == 0 {
		t.Error("there was no traffic")
	}
}

// links is the script that configures the links of tunnels whose interfaces are
// there on host A.
func links(tunnels ...tunnel) string {
	var s strings.Builder
	for _, tn := range tunnels {
		for i, local := range tn.innerA {
			if local.Is4() {
				fmt.Fprintf(&s, "ifconfig %s inet %s/32 %s\n", tn.name(), local, tn.innerB[i])
			} else {
				fmt.Fprintf(&s, "ifconfig %s inet6 %s %s prefixlen 128\n", tn.name(), local, tn.innerB[i])
			}
		}
	}
	return s.String()
}

// An end in order leaves on the disk what there was, exactly, and nothing else.
func TestPermanentEndsInOrder(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	newDisk(t, a, "64m")
	startPermanent(t, a)
	tn := newTunnel(0)
	tn.options, tn.algorithms = "-r 32", `-E rijndael-cbc "VerySecureKey!!1"`
	tn.setUp(t, a, b)
	reaches(t, a, tn.innerB[0])
	before := keptOf(t, a)
	rc := fmt.Sprintf("cloned_interfaces=\"ipsec0\"\ncreate_args_ipsec0=\"reqid %d\"\nifconfig_ipsec0=\"inet %s/32 %s tunnel %s %s\"\n",
		tn.reqidA(), tn.innerA[0], tn.innerB[0], tn.outerA, tn.outerB)
	if err := os.WriteFile(a.Path("/var/lib/rc.conf"), []byte(rc), 0o644); err != nil {
		t.Fatal(err)
	}
	for end, do := range map[string]func(){
		"ipsecd -stop": func() { quiet(t, a, "ipsecd -stop") },
		"SIGTERM":      func() { signal(t, daemon(t, a), unix.SIGTERM) },
	} {
		sequence := output(t, a, "setkey -D | grep -o 'seq=0x[0-9a-f]*'")
		do()
		ended(t, a)
		if links := output(t, a, "ip -br link | grep -c ipsec || true"); links != "0\n" {
			t.Errorf("%s: %s links are left", end, links)
		}
		startPermanent(t, a)
		if diff := cmp.Diff(before, keptOf(t, a)); diff != "" {
			t.Errorf("%s: what is kept (-before +after):\n%s", end, diff)
		}
		if again := output(t, a, "setkey -D | grep -o 'seq=0x[0-9a-f]*'"); again != sequence {
			t.Errorf("%s: the sequence numbers are %q, were %q", end, again, sequence)
		}
		// What configures a host at boot finds the interface there.
		quiet(t, a, "ipsecd -rc /var/lib/rc.conf")
		reaches(t, a, tn.innerB[0])
		reaches(t, b, tn.innerA[0])
	}
	// A daemon that takes over, or that a command starts, has it too.
	quiet(t, a, "ipsecd -replace")
	reaches(t, a, tn.innerB[0])
	killAll(t, a)
	if diff := cmp.Diff(before, keptOf(t, a)); diff != "" {
		t.Errorf("after its death, what is kept (-before +after):\n%s", diff)
	}
	reaches(t, a, tn.innerB[0])
	keys := func() string { return output(t, a, "grep -a -o VerySecure -r "+permanentDir+" || true") }
	if keys() == "" {
		t.Error("the keys are not on the disk")
	}
	quiet(t, a, setkey("flush; spdflush;"))
	quiet(t, a, "ifconfig ipsec0 destroy; ipsecd -stop")
	if got := keys(); got != "" {
		t.Errorf("keys that were removed are on the disk:\n%s", got)
	}
}

// What is not for the daemon alone is refused, and so is what another has.
func TestPermanentRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	newDisk(t, h, "8m")
	for name, tc := range map[string]struct{ before, dir, says string }{
		"for others too":  {"mkdir -m 750 /var/lib/wide", "/var/lib/wide", "/var/lib/wide: drwxr-x--- of user 0, want a directory of user 0 for nobody else: operation not permitted"},
		"somebody else's": {"mkdir -m 700 /var/lib/other; chown 1000 /var/lib/other", "/var/lib/other", "/var/lib/other: drwx------ of user 1000, want a directory of user 0"},
		"a link":          {"mkdir -m 700 /var/lib/to; ln -s to /var/lib/link", "/var/lib/link", "/var/lib/link: Lrwxrwxrwx of user 0, want a directory"},
		"nowhere":         {":", "/var/lib/no/where", "mkdir /var/lib/no/where: no such file or directory"},
		"another's":       {"mkdir -m 700 /var/lib/busy", "/var/lib/busy", "lock /var/lib/busy: another ipsecd has it: device or resource busy"},
	} {
		quiet(t, h, tc.before)
		if name == "another's" {
			busy, err := os.Open(h.Path(tc.dir))
			if err == nil {
				defer busy.Close()
				err = unix.Flock(int(busy.Fd()), unix.LOCK_EX)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := shell(t, h, "timeout 10 ipsecd -state-dir "+tc.dir); got.Exit != 1 || !strings.Contains(got.Stderr, tc.says) {
			t.Errorf("%s: %+v, want %q", name, got, tc.says)
		}
	}
	// A daemon can't move its state, and is not disturbed by the attempt.
	startPermanent(t, h)
	pid := daemon(t, h)
	if got := shell(t, h, "ipsecd -replace -state-dir /var/lib/elsewhere"); got.Exit != 1 || !strings.Contains(got.Stderr, "can't be moved to /var/lib/elsewhere: file exists") {
		t.Errorf("another directory: %+v", got)
	}
	if now := daemon(t, h); now != pid {
		t.Errorf("the daemon is %d, was %d", now, pid)
	}
	quiet(t, h, "ipsecd -stop; ifconfig ipsec5 create")
	if got := shell(t, h, "ipsecd -replace -state-dir "+permanentDir); got.Exit != 1 || !strings.Contains(got.Stderr, "can't be moved to "+permanentDir+": file exists") {
		t.Errorf("a directory for one that had none: %+v", got)
	}
	if got := output(t, h, "ifconfig -l"); !strings.Contains(got, "ipsec5") {
		t.Errorf("the interfaces are %s", got)
	}
}

// On a full disk, nothing is done that could not be kept, and nothing passes what
// is reserved; when there is room, everything goes on.
func TestPermanentDiskFull(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	newDisk(t, a, "1m")
	startPermanent(t, a)
	tn := newTunnel(0)
	tn.options = "-r 32"
	tn.setUp(t, a, b)
	reaches(t, a, tn.innerB[0])
	quiet(t, a, "dd if=/dev/zero of=/var/lib/full bs=4k count=1000 2>/dev/null || true")
	stream := startDatagrams(t, b, a, tn.innerA[0], 2000)
	defer stream.Stop()
	err := lab.Until(patience, func() error {
		if counted(t, a, "not_kept") == 0 {
			return fmt.Errorf("everything is received, although nothing is reserved for it")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if log := output(t, a, "cat /run/daemon-log"); strings.Count(log, "sequence numbers can't be reserved") != 1 || !strings.Contains(log, "no space left on device") {
		t.Errorf("the log does not say once that numbers can't be reserved:\n%s", log)
	}
	// What there was is there after a death, too, and goes on when there is room.
	pid := daemon(t, a)
	before := keptOf(t, a)
	signal(t, pid, unix.SIGKILL)
	restarted(t, a, pid)
	if diff := cmp.Diff(before, keptOf(t, a)); diff != "" {
		t.Errorf("after its death, what is kept (-before +after):\n%s", diff)
	}
	if got := output(t, a, setkey(tn.add(outerA, outerB, 4711, 900))); !strings.HasSuffix(got, ": No space left on device.\n") {
		t.Errorf("setkey says %q", got)
	}
	quiet(t, a, "rm /var/lib/full")
	reachesSoon(t, a, tn.innerB[0])
	reachesSoon(t, b, tn.innerA[0])
}
