package rundir

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeDaemon makes this test's binary an ipsecd that does what the variable
// says.
const fakeDaemon = "IFIPSEC_TEST_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(claimantEnv) != "" {
		claimant()
		return
	}
	if lives := os.Getenv(lifeEnv); lives != "" {
		live(lives)
	}
	switch os.Getenv(fakeDaemon) {
	case "":
		os.Exit(m.Run())
	case "serve":
		serve()
	case "refuse":
		Report(errors.New("no /dev/net/tun\nhere"))
		os.Exit(1)
	case "die":
		os.Exit(1)
	case "list":
		Report(errors.New(strings.Join(openFiles(), " ")))
		os.Exit(1)
	}
}

// openFiles returns the names of what this process has open.
func openFiles() (names []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// serve accepts one connection and ends.
func serve() {
	d, err := Current()
	if err != nil {
		panic(err)
	}
	lock, err := d.Lock()
	if err != nil {
		Report(err)
		os.Exit(1)
	}
	l, err := net.Listen("unix", d.Control())
	if err != nil {
		panic(err)
	}
	Report(nil)
	if c, err := l.Accept(); err == nil {
		c.Close()
	}
	l.Close()
	lock.Release()
}

// start makes this binary the only ipsecd that can be found, behaving as told.
func start(t *testing.T, behaviour string) Dir {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root may start a daemon, and this test is not root")
	}
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "ipsecd")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	t.Setenv(BaseEnv, t.TempDir())
	t.Setenv(fakeDaemon, behaviour)
	d, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dialControl(d Dir) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.Dial("unix", d.Control()) }
}

func TestDialStartsTheDaemon(t *testing.T) {
	d := start(t, "serve")
	conn, err := Dial(d, dialControl(d))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestDialSaysWhyThereIsNoDaemon(t *testing.T) {
	for behaviour, want := range map[string]string{
		"refuse": "ipsecd did not start: no /dev/net/tun; here",
		"die":    "ipsecd ended before it was ready; its log is ",
	} {
		t.Run(behaviour, func(t *testing.T) {
			d := start(t, behaviour)
			_, err := Dial(d, dialControl(d))
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Dial = %v, want %q", err, want)
			}
		})
	}
}

// A lock that a script holds while it calls the command is not the daemon's.
func TestDaemonInheritsNoFiles(t *testing.T) {
	d := start(t, "list")
	held := filepath.Join(t.TempDir(), "held")
	fd, err := syscall.Open(held, syscall.O_CREAT|syscall.O_RDWR, 0o600) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	_, err = Dial(d, dialControl(d))
	if err == nil || !strings.Contains(err.Error(), d.LogFile()) || strings.Contains(err.Error(), held) {
		t.Errorf("the daemon has open: %v; want its log and not %s", err, held)
	}
}

func TestDialWithoutProgram(t *testing.T) {
	d := start(t, "serve")
	t.Setenv("PATH", t.TempDir())
	if _, err := Dial(d, dialControl(d)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial = %v, want ErrNotRunning", err)
	}
}

func TestLockIsExclusive(t *testing.T) {
	t.Parallel()
	d := Dir(filepath.Join(t.TempDir(), "net-1"))
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(); !errors.Is(err, ErrLocked) {
		t.Errorf("second Lock = %v, want ErrLocked", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory after Release: %v, want it gone", err)
	}
}

func TestLockRemovesWhatAKilledDaemonLeft(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	for _, path := range []string{d.Control(), d.PFKey(), d.lockFile()} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	for _, path := range []string{d.Control(), d.PFKey()} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", path, err)
		}
	}
}

// Daemons that come and go at once: never do two hold the lock.
func TestLockUnderContention(t *testing.T) {
	t.Parallel()
	d := Dir(filepath.Join(t.TempDir(), "net-1"))
	var holders, taken int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				lock, err := d.Lock()
				if errors.Is(err, ErrLocked) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				holders++
				taken++
				if holders != 1 {
					t.Errorf("%d hold the lock", holders)
				}
				mu.Unlock()
				mu.Lock()
				holders--
				mu.Unlock()
				if err := lock.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if taken == 0 {
		t.Error("nobody ever had the lock")
	}
}

func TestStopWithoutDaemon(t *testing.T) {
	t.Parallel()
	if err := Dir(t.TempDir()).Stop(time.Second); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Stop = %v, want ErrNotRunning", err)
	}
}

// A daemon goes on with the directory on a disk that the one before had, and with
// no other.
func TestPermanent(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	chooses := func(path, want string, wantErr error) {
		t.Helper()
		if got, err := d.ChoosePermanent(path); got != want && err == nil || !errors.Is(err, wantErr) {
			t.Errorf("ChoosePermanent(%q) = %q, %v; want %q, %v", path, got, err, want, wantErr)
		}
	}
	chooses("", "", nil)
	chooses("/disk", "/disk", nil)
	for _, path := range []string{"", "/disk", "/disk"} {
		if err := d.KeepPermanent(path); err != nil {
			t.Fatal(err)
		}
	}
	chooses("", "/disk", nil)
	chooses("/disk", "/disk", nil)
	chooses("/other", "", syscall.EEXIST)
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	chooses("/other", "/other", nil)
}
