package lab

import (
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TB is what [Require] needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

var available = sync.OnceValue(Available)

// Require skips a test where no host can be made, and says why. Where the
// environment has CI=true or IFIPSEC_NO_SKIP set, the test fails instead: there
// a skipped test would go unseen.
func Require(t TB) {
	t.Helper()
	if err := available(); err != nil {
		skip(t, "hosts", err)
	}
}

// RequireProgram skips a test, in the same way, where a program of one of
// Debian's packages is not installed.
func RequireProgram(t TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		skip(t, fmt.Sprintf("%s, of Debian's package %s", program, pkg), err)
	}
}

// RequireXDP skips a test, in the same way, where nobody can have AF_XDP.
func RequireXDP(t TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		var m *ebpf.Map
		if m, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err == nil {
			m.Close()
		}
	}
	if err != nil {
		skip(t, "AF_XDP and BPF", err)
	}
}

func skip(t TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "" {
		t.Fatalf("this test needs %s: %v", what, err)
	}
	t.Skipf("SKIPPED, because it needs %s: %v", what, err)
}
