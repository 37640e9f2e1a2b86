package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/control"
	"ifipsec/engine/diagnosis"
	"ifipsec/engine/ifnet"
)

// fakeEngine is an engine without Linux: what links would hold is here.
type fakeEngine struct {
	control.Handler // for what ifconfig does not ask for

	mu      sync.Mutex
	table   *ifnet.Table
	links   map[int]*fakeLink // by index
	refused bool              // the caller may change nothing
}

type fakeLink struct {
	up    bool
	mtu   int
	addrs []control.Address
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{table: ifnet.New(ifnet.Config{}), links: map[int]*fakeLink{}}
}

// serve answers on a socket of its own until the test ends.
func (e *fakeEngine) serve(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "control")
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- control.Serve(ctx, l, e, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func (e *fakeEngine) refuse(refused bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused = refused
}

// setLocal says which addresses the host has.
func (e *fakeEngine) setLocal(addrs []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var local []netip.Addr
	for _, a := range addrs {
		local = append(local, netip.MustParseAddr(a))
	}
	e.table.SetLocalAddrs(slices.Values(local))
}

// on changes an interface and its link.
func (e *fakeEngine) on(name string, f func(*fakeLink) error) error {
	return e.do(func() error {
		ifp, err := e.table.Get(name)
		if err != nil {
			return err
		}
		return f(e.links[ifp.Index])
	})
}

func (e *fakeEngine) do(f func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refused {
		return fmt.Errorf("request: user 1000 is not root: %w", syscall.EPERM)
	}
	return f()
}

func (e *fakeEngine) change(f func() (ifnet.Interface, error)) error {
	return e.do(func() error { _, err := f(); return err })
}

func (e *fakeEngine) Create(q control.CreateRequest) (r control.CreateResult, err error) {
	err = e.do(func() error {
		ifp, err := e.table.Create(q.Name)
		r.Name = ifp.Name
		e.links[ifp.Index] = &fakeLink{mtu: control.DefaultMTU}
		return err
	})
	return r, err
}

func (e *fakeEngine) Destroy(q control.DestroyRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.Destroy(q.Name) })
}

func (e *fakeEngine) SetTunnel(q control.SetTunnelRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetTunnel(q.Name, q.Src, q.Dst) })
}

func (e *fakeEngine) DeleteTunnel(q control.DeleteTunnelRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.DeleteTunnel(q.Name) })
}

func (e *fakeEngine) SetReqID(q control.SetReqIDRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetReqID(q.Name, q.ReqID) })
}

func (e *fakeEngine) SetTunnelFIB(q control.SetTunnelFIBRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetTunnelFIB(q.Name, q.FIB) })
}

func (e *fakeEngine) SetFIB(q control.SetFIBRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetFIB(q.Name, q.FIB) })
}

func (e *fakeEngine) SetMetric(q control.SetMetricRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetMetric(q.Name, q.Metric) })
}

func (e *fakeEngine) Rename(q control.RenameRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.Rename(q.Name, q.NewName) })
}

func (e *fakeEngine) SetDescription(q control.SetDescriptionRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.SetDescription(q.Name, q.Description) })
}

func (e *fakeEngine) AddGroup(q control.AddGroupRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.AddGroup(q.Name, q.Group) })
}

func (e *fakeEngine) RemoveGroup(q control.RemoveGroupRequest) error {
	return e.change(func() (ifnet.Interface, error) { return e.table.RemoveGroup(q.Name, q.Group) })
}

func (e *fakeEngine) SetUp(q control.SetUpRequest) error {
	return e.on(q.Name, func(link *fakeLink) error { link.up = q.Up; return nil })
}

func (e *fakeEngine) SetMTU(q control.SetMTURequest) error {
	return e.on(q.Name, func(link *fakeLink) error { link.mtu = q.MTU; return nil })
}

func (e *fakeEngine) AddAddress(q control.AddAddressRequest) error {
	return e.on(q.Name, func(link *fakeLink) error {
		if first := slices.IndexFunc(link.addrs, sameFamily(q.Addr)); q.Replace && first >= 0 {
			link.addrs = slices.Delete(link.addrs, first, first+1)
		}
		link.addrs = slices.DeleteFunc(link.addrs, func(a control.Address) bool { return a.Addr == q.Addr })
		if q.Addr.IsLinkLocalUnicast() {
			q.Addr, q.ScopeID = q.Addr.WithZone(q.Name), 4
		}
		link.addrs = append(link.addrs, q.Address)
		link.up = true
		return nil
	})
}

func (e *fakeEngine) RemoveAddress(q control.RemoveAddressRequest) error {
	return e.on(q.Name, func(link *fakeLink) error {
		is := func(a control.Address) bool { return a.Addr == q.Addr }
		if q.Addr.IsUnspecified() {
			is = sameFamily(q.Addr)
		}
		n := slices.IndexFunc(link.addrs, is)
		if n < 0 {
			return fmt.Errorf("remove from %s: it does not have %v: %w", q.Name, q.Addr, syscall.EADDRNOTAVAIL)
		}
		link.addrs = slices.Delete(link.addrs, n, n+1)
		return nil
	})
}

func sameFamily(addr netip.Addr) func(control.Address) bool {
	return func(a control.Address) bool { return a.Addr.Is4() == addr.Is4() }
}

func (e *fakeEngine) Interfaces(q control.InterfacesRequest) (r control.InterfacesResult, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.table.All()
	if q.Name != "" {
		ifp, err := e.table.Get(q.Name)
		if err != nil {
			return r, err
		}
		all = []ifnet.Interface{ifp}
	}
	for _, ifp := range all {
		link := e.links[ifp.Index]
		status := control.Interface{
			Name: ifp.Name, Flags: control.FlagPointToPoint | control.FlagMulticast, Metric: ifp.Metric, MTU: link.mtu,
			FIB: ifp.FIB, Description: ifp.Description, TunnelFIB: ifp.TunnelFIB, Addresses: slices.Clone(link.addrs),
			Groups: ifp.Groups, ReqID: ifp.ReqID, ND6: control.ND6Default,
		}
		if ifp.HasTunnel() {
			status.Tunnel = &control.Tunnel{Src: ifp.Src, Dst: ifp.Dst}
		}
		if link.up {
			status.Flags |= control.FlagUp
		}
		if ifp.Running {
			status.Flags |= control.FlagRunning
		}
		r.Interfaces = append(r.Interfaces, status)
	}
	return r, nil
}

// Diagnose knows no SAs.
func (e *fakeEngine) Diagnose(q control.DiagnoseRequest) (control.DiagnoseResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ifp, err := e.table.Get(q.Name)
	if err != nil {
		return control.DiagnoseResult{}, err
	}
	return control.DiagnoseResult{Fault: diagnosis.Explain(diagnosis.Interface{
		Name: ifp.Name, Up: e.links[ifp.Index].up, Running: ifp.Running, Src: ifp.Src, Dst: ifp.Dst, ReqID: ifp.ReqID,
	}, nil, time.Time{})}, nil
}
