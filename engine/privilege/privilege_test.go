package privilege

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"ifipsec/e2e/lab"
)

// daemonEnv makes this test's binary do what a daemon does, and tell what it
// then is.
const daemonEnv = "IFIPSEC_TEST_PRIVILEGE"

func TestMain(m *testing.M) {
	lab.Init()
	var answer any
	switch os.Getenv(daemonEnv) {
	case "":
		os.Exit(m.Run())
	case "lock":
		answer = lock()
	default:
		answer = become()
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		panic(err)
	}
}

// state is what a process is after it gave up its privileges.
type state struct {
	Check    string // its error
	Drop     string
	Seal     string
	Threads  map[string]int // the threads that have a state, by what it is
	Core     unix.Rlimit
	Dumpable int
	Locked   bool
	Exec     string
	Raw      string // error of a raw socket
	Mount    string
	Own      bool // it can read what /proc has of it
}

func become() (s state) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	// Threads that the runtime does not have anyway.
	hold := make(chan struct{})
	defer close(hold)
	for range 4 {
		started := make(chan struct{})
		go func() {
			r, w, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			defer w.Close()
			close(started)
			// A blocking read keeps a thread to itself.
			fd := int(r.Fd())
			_ = unix.SetNonblock(fd, false)
			go func() { <-hold; w.Close() }()
			_, _ = unix.Read(fd, make([]byte, 1))
		}()
		<-started
	}
	time.Sleep(10 * time.Millisecond)

	if s.Check = text(Check()); s.Check != "" {
		return s
	}
	lockErr := LockMemory()
	s.Drop, s.Seal = text(Drop()), text(Seal())

	s.Threads = map[string]int{}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it ended
		}
		var of []string
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch name {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
				of = append(of, name+" "+strings.TrimLeft(value, "0"))
			}
		}
		s.Threads[strings.Join(of, ", ")]++
	}
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &s.Core)
	s.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	s.Locked = lockErr == nil
	s.Exec = text(unix.Exec("/proc/self/exe", []string{"exe"}, []string{"NO=1"}))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ESP)
	if err == nil {
		unix.Close(fd)
	}
	s.Raw = text(err)
	s.Mount = text(unix.Mount("none", "/", "tmpfs", 0, ""))
	_, err = os.ReadDir("/proc/self/fd")
	s.Own = err == nil
	return s
}

// memory is what a process has, in kB.
type memory struct{ Locked, Resident int }

func measure() (m memory) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmLck: %d kB", &m.Locked)
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &m.Resident)
	}
	return m
}

const someMemory = 64 << 20

// lock measures a process that locks its memory: before and after it uses some
// more, and after it gave that back.
func lock() (m [3]memory) {
	// As root, whatever the limit is.
	if err := lockAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m[0] = measure()
	some := bytes.Repeat([]byte{1}, someMemory)
	m[1] = measure()
	runtime.KeepAlive(some)
	some = nil
	debug.FreeOSMemory()
	m[2] = measure()
	return m
}

// What is used later is locked too, what is only reserved costs nothing, and
// Go's runtime can still give memory back.
func TestLockedMemory(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonEnv+"=lock", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var m [3]memory
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	t.Logf("kB locked and resident: %+v", m)
	if m[0].Resident > 4*someMemory>>10 {
		t.Errorf("%d kB are resident: what is reserved is too", m[0].Resident)
	}
	if m[1].Locked < m[1].Resident-someMemory>>12 || m[1].Resident < someMemory>>10 {
		t.Errorf("%d kB are locked of %d kB", m[1].Locked, m[1].Resident)
	}
	// The race detector takes half of it to remember that it was given up.
	if m[2].Resident > m[1].Resident-someMemory>>12 {
		t.Errorf("%d kB are resident after %d kB of %d were given up", m[2].Resident, someMemory>>10, m[1].Resident)
	}
}

// mayLock says whether this process can raise the limit on locked memory.
func mayLock(t *testing.T) bool {
	t.Helper()
	may, err := cap.GetProc().GetFlag(cap.Effective, cap.SYS_RESOURCE)
	if err != nil {
		t.Fatal(err)
	}
	return may
}

// of runs this binary as a daemon with the attributes.
func of(t *testing.T, program []string, attr *syscall.SysProcAttr) (s state) {
	t.Helper()
	lab.Require(t)
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(os.Environ(), daemonEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = attr
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	return s
}

var self = []string{"/proc/self/exe"}

const twoCapabilities = "3000" // CAP_NET_ADMIN and CAP_NET_RAW

func TestGivesUpTheRest(t *testing.T) {
	t.Parallel()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	unlimited := limit.Max == unix.RLIM_INFINITY
	namespaces := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	for name, test := range map[string]struct {
		program []string
		attr    *syscall.SysProcAttr
		locked  bool
		bound   string
	}{
		"root":               {self, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, unlimited || mayLock(t), twoCapabilities},
		"root of namespaces": {self, namespaces, unlimited, twoCapabilities},
		"root with nothing else": {
			[]string{"setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "/proc/" + fmt.Sprint(os.Getpid()) + "/exe"},
			&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, unlimited, twoCapabilities,
		},
		// It may not change the bounding set, of which no_new_privs leaves nothing.
		"a user": {self, &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWNET,
			Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
			AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
		}, unlimited, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := of(t, test.program, test.attr)
			threads := 0
			for text, n := range got.Threads {
				threads += n
				want := "CapInh , CapPrm 3000, CapEff 3000, CapBnd " + test.bound
				if test.bound != "" {
					want += ", "
				}
				if !strings.HasPrefix(text, want) || !strings.HasSuffix(text, ", CapAmb , NoNewPrivs 1, Seccomp 2") {
					t.Errorf("%d threads have %q", n, text)
				}
			}
			if threads < 5 {
				t.Errorf("looked at %d threads only", threads)
			}
			got.Threads = nil
			want := state{Locked: test.locked, Exec: "operation not permitted", Mount: "operation not permitted", Own: true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the process (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for name, test := range map[string]struct {
		attr *syscall.SysProcAttr
		want string
	}{
		"both": {
			&syscall.SysProcAttr{Credential: nobody},
			"missing CAP_NET_ADMIN (to make interfaces) and CAP_NET_RAW (to send and receive ESP): operation not permitted",
		},
		"one": {
			&syscall.SysProcAttr{Credential: nobody, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}},
			"missing CAP_NET_RAW (to send and receive ESP): operation not permitted",
		},
		"over the network namespace": {
			&syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			},
			"missing CAP_NET_ADMIN over this network namespace, which is not this user namespace's: operation not permitted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := of(t, self, test.attr); got.Check != test.want {
				t.Errorf("Check: %q, want %q", got.Check, test.want)
			}
		})
	}
}

func TestCheckIsEPERM(t *testing.T) {
	t.Parallel()
	if err := Check(); err != nil && !errors.Is(err, syscall.EPERM) {
		t.Errorf("Check: %v, want EPERM", err)
	}
}
