package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"ifipsec/engine/rundir"
	"ifipsec/parser/ifconfig"
)

func TestDialWithoutDaemon(t *testing.T) {
	t.Setenv(rundir.BaseEnv, t.TempDir())
	t.Setenv("PATH", t.TempDir())
	if d, err := dial(false); !errors.Is(err, rundir.ErrNotRunning) {
		t.Errorf("dial to read = %v, %v, want ErrNotRunning", d, err)
	}
	want := rundir.ErrNotRunning
	if os.Geteuid() != 0 {
		want = syscall.EPERM
	}
	if d, err := dial(true); !errors.Is(err, want) {
		t.Errorf("dial to change = %v, %v, want %v", d, err, want)
	}
}

func TestDialFindsTheDaemon(t *testing.T) {
	socket := newFakeEngine().serve(t)
	t.Setenv(rundir.BaseEnv, t.TempDir())
	dir, err := rundir.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(string(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(socket, dir.Control()); err != nil {
		t.Fatal(err)
	}
	for _, start := range []bool{false, true} {
		d, err := dial(start)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
}

func TestResolveKeepsToTheFamily(t *testing.T) {
	t.Parallel()
	// A resolver takes a numeric address for itself.
	if got, err := resolve(ifconfig.Inet, "192.0.2.1"); err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
		t.Errorf("resolve = %v, %v", got, err)
	}
	if got, err := resolve(ifconfig.Inet6, "192.0.2.1"); err == nil {
		t.Errorf("resolve to inet6 = %v, want an error", got)
	}
}

func TestNamedZone(t *testing.T) {
	t.Parallel()
	links, err := net.Interfaces()
	if err != nil || len(links) == 0 {
		t.Skipf("SKIPPED: no links here: %v", err)
	}
	link := links[0]
	numbered := netip.MustParseAddr("fe80::1").WithZone(strconv.Itoa(link.Index))
	if got, err := namedZone(numbered); err != nil || got.Zone() != link.Name {
		t.Errorf("namedZone(%v) = %v, %v, want zone %s", numbered, got, err, link.Name)
	}
	if got, err := namedZone(netip.MustParseAddr("fe80::1%2147483647")); err == nil {
		t.Errorf("a link that is not there: %v, want an error", got)
	}
	for _, kept := range []string{"192.0.2.1", "fe80::1%eth0", "2001:db8::1"} {
		if got, err := namedZone(netip.MustParseAddr(kept)); err != nil || got.String() != kept {
			t.Errorf("namedZone(%s) = %v, %v", kept, got, err)
		}
	}
}
