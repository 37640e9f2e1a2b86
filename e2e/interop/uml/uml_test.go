package uml_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
)

func TestMain(m *testing.M) {
	lab.Init()
	os.Exit(m.Run())
}

func newHost(t *testing.T, name string) *lab.Host {
	t.Helper()
	h, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// A kernel on a link with a host: both ping the other, the kernel runs commands,
// and it is gone when its host is.
func TestKernel(t *testing.T) {
	t.Parallel()
	uml.Require(t)
	dir := t.TempDir()
	if err := uml.Build(dir); err != nil {
		t.Fatal(err)
	}
	near, far := newHost(t, "near"), newHost(t, "far")
	err := lab.Connect(
		lab.Port{Host: near, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.0.3/24"), netip.MustParsePrefix("fd00::3/64")}},
		lab.Port{Host: far, Name: "eth0"}, 1500)
	if err != nil {
		t.Fatal(err)
	}
	k, err := uml.Boot(far, "eth0", dir)
	if err != nil {
		t.Fatal(err)
	}

	r, err := k.Shell(t.Context(), "ip address add 192.168.0.5/24 dev vec0 && ip address add fd00::5/64 dev vec0")
	if err != nil || r != (lab.Result{}) {
		t.Fatalf("ip address add: %+v, %v; want silence and 0", r, err)
	}
	r, err = k.Shell(t.Context(), "echo out; echo err >&2; exit 3")
	if want := (lab.Result{Stdout: "out\n", Stderr: "err\n", Exit: 3}); err != nil || r != want {
		t.Errorf("a script's result is %+v, %v; want %+v", r, err, want)
	}
	r, err = k.Shell(t.Context(), "touch /written-by-a-test")
	if err != nil || !strings.Contains(r.Stderr, "Read-only file system") {
		t.Errorf("touching the machine's files: %+v, %v; want that the file system is read-only", r, err)
	}

	for _, size := range []int{1, 4000} {
		for _, to := range []string{"192.168.0.5", "fd00::5"} {
			r, err := near.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr(to), Size: size, Timeout: 5 * time.Second})
			if err != nil || r.Received != 1 {
				t.Errorf("ping %s with %d bytes: %+v, %v", to, size, r, err)
			}
		}
		for _, to := range []string{"192.168.0.3", "fd00::3"} {
			r, err := k.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr(to), Size: size, Timeout: 5 * time.Second})
			if err != nil || r.Received != 1 {
				t.Errorf("the kernel's ping %s with %d bytes: %+v, %v", to, size, r, err)
			}
		}
	}
	if console := k.Console(); !strings.Contains(console, "Linux version") {
		t.Errorf("on the console is no Linux version:\n%s", console)
	}

	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Shell(t.Context(), "true"); err == nil || !strings.Contains(err.Error(), "the kernel has ended") {
		t.Errorf("after the host's end: %v, want that the kernel has ended", err)
	}
}

// Who can't boot a kernel is told why.
func TestNoInit(t *testing.T) {
	t.Parallel()
	uml.Require(t)
	near, far := newHost(t, "near"), newHost(t, "far")
	if err := lab.Connect(lab.Port{Host: near, Name: "eth0"}, lab.Port{Host: far, Name: "eth0"}, 1500); err != nil {
		t.Fatal(err)
	}
	_, err := uml.Boot(far, "eth0", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "Requested init") {
		t.Errorf("the error is %v, want the kernel's console", err)
	}
}
