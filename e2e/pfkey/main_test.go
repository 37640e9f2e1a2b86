// Package pfkey tests the daemon as PF_KEY programs have it that share nothing
// with it: their messages are bytes put together by hand from RFC 2367 and
// linux/pfkeyv2.h, on the daemon's own socket, on hosts that lab makes.
package pfkey

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }

// What is to come is waited for as long as a busy machine may need, what is not
// to come as long as is reasonable.
const (
	patience   = 10 * time.Second
	impatience = 300 * time.Millisecond
)

// newHost makes a host on which the daemon runs. If the test fails, it shows
// the daemon's log.
func newHost(t *testing.T) *lab.Host {
	t.Helper()
	lab.Require(t)
	h, err := lab.New("host")
	if err != nil {
		t.Fatal(err)
	}
	h.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "TZ=UTC"}
	t.Cleanup(func() {
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(filepath.Dir(socket(h)), "log")); err == nil {
				t.Logf("the daemon's log:\n%s", log)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	quiet(t, h, "setkey -F")
	return h
}

// newGateway makes a host with an interface ipsec0 of reqid 100 between two
// outer addresses, and returns the address that is reached through it. There is
// nobody at the other end, and no SA.
func newGateway(t *testing.T, local, remote netip.Addr) (*lab.Host, netip.Addr) {
	t.Helper()
	h := newHost(t)
	bits := 24
	family := "inet"
	if local.Is6() {
		bits, family = 64, "inet6"
	}
	if err := lab.Connect(
		lab.Port{Host: h, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(local, bits)}},
		lab.Port{Host: newHost(t), Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(remote, bits)}},
		1500); err != nil {
		t.Fatal(err)
	}
	quiet(t, h, fmt.Sprintf("set -e\nifconfig ipsec0 create reqid 100\nifconfig ipsec0 %s tunnel %v %v\nifconfig ipsec0 inet 172.16.0.3/32 172.16.0.5",
		family, local, remote))
	return h, netip.MustParseAddr("172.16.0.5")
}

// socket is where the host's daemon listens; empty if it does not.
func socket(h *lab.Host) string {
	all, err := filepath.Glob(h.Path("/run/ifipsec/*/pfkey"))
	if err != nil || len(all) != 1 {
		return ""
	}
	return all[0]
}

// shell runs a script on a host.
func shell(t *testing.T, h *lab.Host, script string) lab.Result {
	t.Helper()
	r, err := h.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// quiet runs a script that must succeed and print nothing.
func quiet(t *testing.T, h *lab.Host, script string) {
	t.Helper()
	if r := shell(t, h, script); r != (lab.Result{}) {
		t.Fatalf("%s\nexit %d, stdout %q, stderr %q; want silence and 0", script, r.Exit, r.Stdout, r.Stderr)
	}
}
