package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/control"
	"ifipsec/engine/host"
	"ifipsec/engine/pfkey"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// inside says that this process has a network namespace of its own.
const inside = "IFIPSEC_TEST_NAMESPACE"

// TestMain runs the tests in a process that has its own network namespace,
// which ends with it.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(inside) != "":
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		if os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "" {
			println("FAILED: needs root, to make a network namespace")
			os.Exit(1)
		}
		println("SKIPPED: needs root, to make a network namespace")
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		println("network namespace:", err.Error())
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

var (
	here  = netip.MustParseAddr("192.0.2.3")
	there = netip.MustParseAddr("192.0.2.5")
)

// start returns a running engine on a host that has the address here.
func start(t *testing.T) *Engine {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	setAddress(t, true)
	e, err := New(Config{Log: slog.New(slog.DiscardHandler), Offload: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if names := links(t); !slices.Equal(names, []string{"lo"}) {
			t.Errorf("links that are left: %v", names)
		}
	})
	return e
}

// setAddress gives the host the address here, or takes it away.
func setAddress(t *testing.T, present bool) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: netlink.NewIPNet(here.AsSlice())}
	if present {
		err = netlink.AddrReplace(lo, addr)
	} else {
		err = netlink.AddrDel(lo, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func links(t *testing.T) (names []string) {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrno(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want one that wraps %q", err, want)
	}
}

// create makes ipsec0 with a tunnel from here to there.
func create(t *testing.T, e *Engine) {
	t.Helper()
	_, err := e.Create(control.CreateRequest{Name: "ipsec0"})
	must(t, err)
	must(t, e.SetReqID(control.SetReqIDRequest{Name: "ipsec0", ReqID: 100}))
	must(t, e.SetTunnel(control.SetTunnelRequest{Name: "ipsec0", Src: here, Dst: there}))
}

func show(t *testing.T, e *Engine, name string) control.Interface {
	t.Helper()
	r, err := e.Interfaces(control.InterfacesRequest{Name: name})
	must(t, err)
	return r.Interfaces[0]
}

// eventually waits for what follows from a change of the host's.
func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s after 10 s", what)
		}
	}
}

// policyIDs returns the IDs of an interface's policies by the number of their
// interface.
func policyIDs(e *Engine, ifname string) (ids []uint32) {
	for p := range e.spd.All() {
		if p.Scope == pfkey.ScopeIfnet && p.IfName == ifname {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

func TestStatus(t *testing.T) {
	e := start(t)
	create(t, e)
	inner := control.Address{Addr: netip.MustParseAddr("172.16.0.3"), Bits: 16, Peer: netip.MustParseAddr("172.16.0.5")}
	must(t, e.AddAddress(control.AddAddressRequest{Name: "ipsec0", Address: inner}))
	want := control.Interface{
		Name:      "ipsec0",
		Flags:     control.FlagUp | control.FlagPointToPoint | control.FlagRunning | control.FlagMulticast,
		MTU:       control.DefaultMTU,
		Tunnel:    &control.Tunnel{Src: here, Dst: there},
		Addresses: []control.Address{inner},
		Groups:    []string{"all", "ipsec"},
		ReqID:     100,
		ND6:       control.ND6Default,
	}
	if diff := cmp.Diff(want, show(t, e, "ipsec0"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// The daemon looks at the host when it starts to watch it, and whenever it may
// have missed a change; commands make interfaces meanwhile.
func TestResyncWhileInterfacesAreMade(t *testing.T) {
	e := start(t)
	stop := make(chan struct{})
	var resyncs sync.WaitGroup
	resyncs.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := e.resync(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 20 {
		create(t, e)
		must(t, e.Rename(control.RenameRequest{Name: "ipsec0", NewName: "office"}))
		if got := show(t, e, "office"); got.ReqID != 100 {
			t.Errorf("office is %+v", got)
		}
		must(t, e.Destroy(control.DestroyRequest{Name: "office"}))
	}
	close(stop)
	resyncs.Wait()
}

func linkIndex(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}

func TestPoliciesFollowTheTunnel(t *testing.T) {
	e := start(t)
	create(t, e)
	first := policyIDs(e, "ipsec0")
	if len(first) != 4 {
		t.Fatalf("policies %v, want four", first)
	}
	for p := range e.spd.All() {
		if p.Priority != uint32(linkIndex(t, "ipsec0")) {
			t.Errorf("policy %d has priority %d, want the link's number", p.ID, p.Priority)
		}
	}
	must(t, e.SetTunnel(control.SetTunnelRequest{Name: "ipsec0", Src: here, Dst: there}))
	if again := policyIDs(e, "ipsec0"); !slices.Equal(first, again) {
		t.Errorf("the same tunnel again has policies %v, had %v", again, first)
	}
	must(t, e.SetReqID(control.SetReqIDRequest{Name: "ipsec0", ReqID: 101}))
	if other := policyIDs(e, "ipsec0"); len(other) != 4 || slices.Equal(first, other) {
		t.Errorf("with another reqid: policies %v, had %v", other, first)
	}
	must(t, e.DeleteTunnel(control.DeleteTunnelRequest{Name: "ipsec0"}))
	if left := policyIDs(e, "ipsec0"); left != nil {
		t.Errorf("without a tunnel: policies %v", left)
	}
	if got := show(t, e, "ipsec0"); got.ReqID != 101 || got.Tunnel != nil || got.Flags&control.FlagRunning != 0 {
		t.Errorf("without a tunnel: %+v", got)
	}
}

func TestRunningFollowsTheLocalEndpoint(t *testing.T) {
	e := start(t)
	create(t, e)
	running := func() bool { return show(t, e, "ipsec0").Flags&control.FlagRunning != 0 }
	if !running() {
		t.Fatal("not running although the host has the endpoint")
	}
	setAddress(t, false)
	eventually(t, "stopped", func() bool { return !running() })
	setAddress(t, true)
	eventually(t, "running", running)
}

func TestNameChangedByAnother(t *testing.T) {
	e := start(t)
	create(t, e)
	l, err := netlink.LinkByName("ipsec0")
	must(t, err)
	must(t, netlink.LinkSetName(l, "wan7"))
	eventually(t, "renamed", func() bool {
		_, err := e.Interfaces(control.InterfacesRequest{Name: "wan7"})
		return err == nil
	})
	if n := len(policyIDs(e, "wan7")); n != 4 {
		t.Errorf("%d policies under the new name, want four", n)
	}
	_, err = e.Interfaces(control.InterfacesRequest{Name: "ipsec0"})
	wantErrno(t, err, syscall.ENXIO)
}

func TestRename(t *testing.T) {
	e := start(t)
	create(t, e)
	must(t, e.Rename(control.RenameRequest{Name: "ipsec0", NewName: "office"}))
	if names := links(t); !slices.Contains(names, "office") {
		t.Errorf("links %v, want office among them", names)
	}
	wantErrno(t, e.Rename(control.RenameRequest{Name: "office", NewName: "lo"}), syscall.EEXIST)
	if n := len(policyIDs(e, "office")); n != 4 {
		t.Errorf("%d policies under the new name, want four", n)
	}
}

func TestLinkDeletedByAnother(t *testing.T) {
	e := start(t)
	create(t, e)
	_, err := e.Create(control.CreateRequest{Name: "ipsec1"})
	must(t, err)
	l, err := netlink.LinkByName("ipsec0")
	must(t, err)
	must(t, netlink.LinkDel(l))
	eventually(t, "gone", func() bool {
		_, err := e.Interfaces(control.InterfacesRequest{Name: "ipsec0"})
		return errors.Is(err, syscall.ENXIO)
	})
	if left := policyIDs(e, "ipsec0"); left != nil {
		t.Errorf("policies %v are left", left)
	}
	show(t, e, "ipsec1")
}

func TestLinkDownAndUpByAnother(t *testing.T) {
	e := start(t)
	create(t, e)
	must(t, e.AddAddress(control.AddAddressRequest{Name: "ipsec0", Address: control.Address{
		Addr: netip.MustParseAddr("172.16.0.3"), Bits: 16, Peer: netip.MustParseAddr("172.16.0.5"),
	}}))
	l, err := netlink.LinkByName("ipsec0")
	must(t, err)
	routes := func() int {
		all, err := netlink.RouteList(l, netlink.FAMILY_V4)
		must(t, err)
		return len(all)
	}
	if routes() != 1 {
		t.Fatalf("%d routes, want the one to the destination", routes())
	}
	must(t, netlink.LinkSetDown(l))
	eventually(t, "down", func() bool { return show(t, e, "ipsec0").Flags&control.FlagUp == 0 })
	must(t, netlink.LinkSetUp(l))
	eventually(t, "routed again", func() bool { return routes() == 1 })
}

// What is refused leaves everything as it was.
func TestRefusals(t *testing.T) {
	e := start(t)
	create(t, e)
	_, err := e.Create(control.CreateRequest{Name: "ipsec1"})
	must(t, err)
	before, err := e.Interfaces(control.InterfacesRequest{})
	must(t, err)
	v6 := netip.MustParseAddr("2001:db8::1")
	for what, refused := range map[string]struct {
		err  error
		want syscall.Errno
	}{
		"name taken":            {second(e.Create(control.CreateRequest{Name: "ipsec0"})), syscall.EEXIST},
		"no such name":          {second(e.Create(control.CreateRequest{Name: "gif0"})), syscall.EINVAL},
		"reqid taken":           {e.SetReqID(control.SetReqIDRequest{Name: "ipsec1", ReqID: 100}), syscall.EEXIST},
		"two families":          {e.SetTunnel(control.SetTunnelRequest{Name: "ipsec1", Src: here, Dst: v6}), syscall.EINVAL},
		"unspecified":           {e.SetTunnel(control.SetTunnelRequest{Name: "ipsec1", Src: netip.IPv4Unspecified(), Dst: there}), syscall.EADDRNOTAVAIL},
		"MTU":                   {e.SetMTU(control.SetMTURequest{Name: "ipsec1", MTU: 1279}), syscall.EINVAL},
		"no such table":         {e.SetTunnelFIB(control.SetTunnelFIBRequest{Name: "ipsec1", FIB: 254}), syscall.EINVAL},
		"no such address":       {e.RemoveAddress(control.RemoveAddressRequest{Name: "ipsec1", Addr: here}), syscall.EADDRNOTAVAIL},
		"no interface":          {e.Destroy(control.DestroyRequest{Name: "ipsec9"}), syscall.ENXIO},
		"no interface to raise": {e.SetUp(control.SetUpRequest{Name: "ipsec9", Up: true}), syscall.ENXIO},
	} {
		if !errors.Is(refused.err, refused.want) {
			t.Errorf("%s: error %v, want one that wraps %q", what, refused.err, refused.want)
		}
	}
	after, err := e.Interfaces(control.InterfacesRequest{})
	must(t, err)
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func second[T any](_ T, err error) error { return err }

// An address that can't be given to the link does not cost the one that it was
// to replace.
func TestAddressIsReplacedOrKept(t *testing.T) {
	e := start(t)
	create(t, e)
	old := control.Address{Addr: netip.MustParseAddr("172.16.0.3"), Bits: 16, Peer: netip.MustParseAddr("172.16.0.5")}
	must(t, e.AddAddress(control.AddAddressRequest{Name: "ipsec0", Address: old}))
	wrong := control.Address{Addr: netip.MustParseAddr("172.16.0.4"), Bits: 33, Peer: netip.MustParseAddr("172.16.0.6")}
	wantErrno(t, e.AddAddress(control.AddAddressRequest{Name: "ipsec0", Address: wrong, Replace: true}), syscall.EINVAL)
	if got := show(t, e, "ipsec0").Addresses; len(got) != 1 || got[0].Addr != old.Addr {
		t.Errorf("addresses %v, want %v", got, old)
	}
	next := control.Address{Addr: netip.MustParseAddr("172.16.0.9"), Bits: 24, Peer: netip.MustParseAddr("172.16.0.10")}
	must(t, e.AddAddress(control.AddAddressRequest{Name: "ipsec0", Address: next, Replace: true}))
	if got := show(t, e, "ipsec0").Addresses; len(got) != 1 || got[0] != next {
		t.Errorf("addresses %v, want %v", got, next)
	}
	must(t, e.RemoveAddress(control.RemoveAddressRequest{Name: "ipsec0", Addr: netip.IPv4Unspecified()}))
	if got := show(t, e, "ipsec0").Addresses; got != nil {
		t.Errorf("addresses %v, want none", got)
	}
}

// A link of somebody else's that has the name of an interface to be is passed
// over, or is in the way.
func TestForeignLink(t *testing.T) {
	e := start(t)
	h, err := host.Open()
	must(t, err)
	defer h.Close()
	dev, err := h.CreateTUN(host.TUN{Name: "ipsec0", MTU: 1400})
	must(t, err)
	defer dev.Close()
	_, err = e.Create(control.CreateRequest{Name: "ipsec0"})
	wantErrno(t, err, syscall.EEXIST)
	made, err := e.Create(control.CreateRequest{Name: "ipsec"})
	must(t, err)
	if made.Name != "ipsec1" {
		t.Errorf("created %s, want ipsec1", made.Name)
	}
	must(t, e.Destroy(control.DestroyRequest(made)))
}
