package engine

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/dataplane"
	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/spd"
)

// This file is what ifconfig's requests do: each asks ifnet whether it may be,
// then the host, and tells the databases and the data plane what came of it. An
// interface that Linux refuses is put back as it was.

var _ control.Handler = (*Engine)(nil)

// Create implements [control.Handler].
func (e *Engine) Create(r control.CreateRequest) (control.CreateResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ifp, err := e.ifs.Create(r.Name)
	if err != nil {
		return control.CreateResult{}, err
	}
	dev, err := e.createDevice(ifp)
	if err != nil {
		_, _ = e.ifs.Destroy(ifp.Name)
		e.state.forgetInterface(ifp.Index)
		return control.CreateResult{}, err
	}
	e.attach(ifp, dev)
	e.log.Info("interface created", "interface", ifp.Name)
	return control.CreateResult{Name: ifp.Name}, nil
}

// createDevice makes the device of an interface. It outlives the process from
// the moment on in which the next process would know of it.
func (e *Engine) createDevice(ifp ifnet.Interface) (*host.Device, error) {
	if err := e.state.prepareCounters(ifp.Index, tunnelCounters()); err != nil {
		return nil, err
	}
	dev, err := e.host.CreateTUN(host.TUN{Name: ifp.Name, MTU: control.DefaultMTU, Offload: e.offload})
	if err != nil || e.state == nil {
		return dev, err
	}
	err = e.state.putJSON(kindLink, ifp.Index, link{dev.Index()})
	if err == nil {
		err = dev.Persist(true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", ifp.Name, err), dev.Close())
	}
	return dev, nil
}

// Destroy implements [control.Handler].
func (e *Engine) Destroy(r control.DestroyRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	ifp, err := e.ifs.Get(r.Name)
	if err != nil {
		return fmt.Errorf("destroy %s: %w", r.Name, syscall.ENXIO)
	}
	// First, so that a death leaves no device that nobody knows of.
	if err := e.devices[ifp.Index].Persist(false); err != nil && !errors.Is(err, syscall.EBADFD) && !errors.Is(err, syscall.EBADF) {
		return fmt.Errorf("destroy %s: %w", r.Name, err)
	}
	if _, err := e.ifs.Destroy(r.Name); err != nil {
		return err
	}
	e.forget(ifp)
	e.forgetRules(ifp)
	e.log.Info("interface destroyed", "interface", ifp.Name)
	return nil
}

// forget ends what an interface that is no longer in the table had.
func (e *Engine) forget(ifp ifnet.Interface) {
	e.key.PoliciesChanged(nil, e.spd.ClearInterface(ifp.Name))
	if err := e.tunnels[ifp.Index].Close(); err != nil {
		e.log.Warn("closing the TUN device failed", "interface", ifp.Name, "error", err)
	}
	e.indices.Delete(e.tunnels[ifp.Index])
	delete(e.tunnels, ifp.Index)
	collect(len(e.tunnels))
	delete(e.devices, ifp.Index)
	e.state.forgetInterface(ifp.Index)
	maps.DeleteFunc(e.links, func(_ int, name string) bool { return name == ifp.Name })
}

// SetTunnel implements [control.Handler].
func (e *Engine) SetTunnel(r control.SetTunnelRequest) error {
	src, err := e.numbered(r.Src)
	if err != nil {
		return err
	}
	dst, err := e.numbered(r.Dst)
	if err != nil {
		return err
	}
	return e.retunnel(r.Name, func() (ifnet.Interface, error) {
		return e.ifs.SetTunnel(r.Name, src, dst)
	})
}

// numbered replaces a link's name in an address by the link's number. Inside,
// all zones are numbers, as PF_KEY has them: names change.
func (e *Engine) numbered(a netip.Addr) (netip.Addr, error) {
	if _, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil || a.Zone() == "" {
		return a, nil
	}
	link, err := e.host.BareLink(a.Zone())
	if err != nil {
		return a, fmt.Errorf("%v: %w", a, err)
	}
	return a.WithZone(strconv.Itoa(link.Index)), nil
}

// named is the reverse of numbered, for people. The number of a link that is
// gone stays.
func (e *Engine) named(a netip.Addr) netip.Addr {
	index, err := strconv.Atoi(a.Zone())
	if err != nil {
		return a
	}
	name, err := e.host.LinkName(index)
	if err != nil {
		return a
	}
	return a.WithZone(name)
}

// DeleteTunnel implements [control.Handler].
func (e *Engine) DeleteTunnel(r control.DeleteTunnelRequest) error {
	return e.retunnel(r.Name, func() (ifnet.Interface, error) {
		return e.ifs.DeleteTunnel(r.Name)
	})
}

// SetReqID implements [control.Handler].
func (e *Engine) SetReqID(r control.SetReqIDRequest) error {
	return e.retunnel(r.Name, func() (ifnet.Interface, error) {
		return e.ifs.SetReqID(r.Name, r.ReqID)
	})
}

// retunnel makes a change that may concern the endpoints or the reqid, and
// nothing if it changes neither, as FreeBSD: policies keep their IDs then.
func (e *Engine) retunnel(name string, change func() (ifnet.Interface, error)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, err := e.ifs.Get(name)
	if err != nil {
		return err
	}
	after, err := change()
	if err != nil {
		return err
	}
	if slices.Equal(before.Policies(), after.Policies()) {
		return nil
	}
	err = e.configure(after)
	if err == nil {
		err = e.setPolicies(after)
	}
	if err != nil {
		e.ifs.Restore(before)
		return errors.Join(err, e.configure(before))
	}
	e.log.Info("tunnel set", "interface", name, "src", after.Src, "dst", after.Dst, "reqid", after.ReqID, "running", after.Running)
	return nil
}

// setPolicies makes the policies of scope ifnet those of the interface.
func (e *Engine) setPolicies(ifp ifnet.Interface) error {
	added, removed, err := e.spd.SetInterface(ifp.Name, e.policies(ifp))
	if err != nil {
		return err
	}
	e.key.PoliciesChanged(added, removed)
	return nil
}

// policies are what the interface needs in the SPD.
func (e *Engine) policies(ifp ifnet.Interface) []spd.Policy {
	var index uint32
	if link, err := e.host.BareLink(ifp.Name); err == nil {
		index = uint32(link.Index)
	}
	var policies []spd.Policy
	for _, p := range ifp.Policies() {
		dir := pfkey.DirOut
		if p.Inbound {
			dir = pfkey.DirIn
		}
		policies = append(policies, spd.Policy{
			Selector: spd.Selector{Src: p.Selector, Dst: p.Selector, Proto: spd.AnyProto},
			Dir:      dir,
			Type:     pfkey.PolicyIPsec,
			// FreeBSD keeps the interface's index where other policies have
			// their priority, and setkey finds the name by it.
			Priority: index,
			Requests: []spd.Request{{
				Proto: syscall.IPPROTO_ESP,
				Mode:  pfkey.ModeTunnel,
				Level: pfkey.LevelUnique,
				ReqID: p.ReqID,
				Src:   netip.AddrPortFrom(p.Src, 0),
				Dst:   netip.AddrPortFrom(p.Dst, 0),
			}},
		})
	}
	return policies
}

// configure tells the data plane about the interface.
func (e *Engine) configure(ifp ifnet.Interface) error {
	link, err := e.host.BareLink(ifp.Name)
	if err != nil {
		return err
	}
	return e.tunnels[ifp.Index].Configure(dataplane.Settings{
		Src: ifp.Src, Dst: ifp.Dst, ReqID: ifp.ReqID, Mark: markOf(ifp.TunnelFIB),
		Running: ifp.Running, Up: link.Up,
	})
}

// AddAddress implements [control.Handler].
func (e *Engine) AddAddress(r control.AddAddressRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	link, err := e.link(r.Name)
	if err != nil {
		return err
	}
	var replaced *host.Address
	if first := slices.IndexFunc(link.Addresses, sameFamily(r.Addr)); r.Replace && r.Addr.Is4() && first >= 0 {
		replaced = &link.Addresses[first]
	}
	if replaced != nil && replaced.Local != r.Addr {
		if err := e.host.DeleteAddress(r.Name, replaced.Local); err != nil {
			return err
		}
	}
	if err := e.host.AddAddress(r.Name, host.Address{Local: r.Addr, Peer: r.Peer, Bits: r.Bits}); err != nil {
		if replaced != nil && replaced.Local != r.Addr {
			err = errors.Join(err, e.host.AddAddress(r.Name, *replaced))
		}
		return err
	}
	return e.setUp(r.Name, true)
}

// sameFamily says of an address whether it is of a's family.
func sameFamily(a netip.Addr) func(host.Address) bool {
	return func(b host.Address) bool { return a.Is4() == b.Local.Is4() }
}

// RemoveAddress implements [control.Handler].
func (e *Engine) RemoveAddress(r control.RemoveAddressRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	link, err := e.link(r.Name)
	if err != nil {
		return err
	}
	addr := r.Addr
	if addr.IsUnspecified() {
		first := slices.IndexFunc(link.Addresses, sameFamily(addr))
		if first < 0 {
			return fmt.Errorf("%s has no address: %w", r.Name, syscall.EADDRNOTAVAIL)
		}
		addr = link.Addresses[first].Local
	}
	return e.host.DeleteAddress(r.Name, addr)
}

// SetUp implements [control.Handler].
func (e *Engine) SetUp(r control.SetUpRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.setUp(r.Name, r.Up)
}

func (e *Engine) setUp(name string, up bool) error {
	ifp, err := e.ifs.Get(name)
	if err != nil {
		return err
	}
	if up {
		err = e.host.SetUp(name)
	} else {
		err = e.host.SetDown(name)
	}
	if err != nil {
		return err
	}
	return e.configure(ifp)
}

// SetMTU implements [control.Handler].
func (e *Engine) SetMTU(r control.SetMTURequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.ifs.Get(r.Name); err != nil {
		return err
	}
	if r.MTU < control.MinMTU || r.MTU > control.MaxMTU {
		return fmt.Errorf("%s: mtu %d, want %d to %d: %w", r.Name, r.MTU, control.MinMTU, control.MaxMTU, syscall.EINVAL)
	}
	return e.host.SetMTU(r.Name, r.MTU)
}

// Rename implements [control.Handler].
func (e *Engine) Rename(r control.RenameRequest) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	ifp, err := e.ifs.Rename(r.Name, r.NewName)
	if err != nil || r.Name == r.NewName {
		return err
	}
	if err := e.host.Rename(r.Name, r.NewName); err != nil {
		_, undo := e.ifs.Rename(r.NewName, r.Name)
		return errors.Join(err, undo)
	}
	e.renamed(r.Name, ifp)
	return nil
}

// renamed is what follows when an interface and its link have another name.
func (e *Engine) renamed(from string, ifp ifnet.Interface) {
	for index, name := range e.links {
		if name == from {
			e.links[index] = ifp.Name
		}
	}
	// The policies go by the interface's name.
	e.key.PoliciesChanged(nil, e.spd.ClearInterface(from))
	if err := e.setPolicies(ifp); err != nil {
		e.log.Error("the interface has no policies", "interface", ifp.Name, "error", err)
	}
	if ifp.FIB != 0 {
		e.updateRules()
	}
	e.log.Info("interface renamed", "interface", ifp.Name, "from", from)
}

// SetDescription implements [control.Handler].
func (e *Engine) SetDescription(r control.SetDescriptionRequest) error {
	return e.attribute(func() (ifnet.Interface, error) { return e.ifs.SetDescription(r.Name, r.Description) })
}

// AddGroup implements [control.Handler].
func (e *Engine) AddGroup(r control.AddGroupRequest) error {
	return e.attribute(func() (ifnet.Interface, error) { return e.ifs.AddGroup(r.Name, r.Group) })
}

// RemoveGroup implements [control.Handler].
func (e *Engine) RemoveGroup(r control.RemoveGroupRequest) error {
	return e.attribute(func() (ifnet.Interface, error) { return e.ifs.RemoveGroup(r.Name, r.Group) })
}

// SetMetric implements [control.Handler].
func (e *Engine) SetMetric(r control.SetMetricRequest) error {
	return e.attribute(func() (ifnet.Interface, error) { return e.ifs.SetMetric(r.Name, r.Metric) })
}

// attribute makes a change that only the table knows of.
func (e *Engine) attribute(change func() (ifnet.Interface, error)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := change()
	return err
}

// Interfaces implements [control.Handler].
func (e *Engine) Interfaces(r control.InterfacesRequest) (control.InterfacesResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Name != "" {
		ifp, err := e.ifs.Get(r.Name)
		if err != nil {
			return control.InterfacesResult{}, err
		}
		link, err := e.host.Link(r.Name)
		if errors.Is(err, syscall.ENXIO) {
			return control.InterfacesResult{}, nil // deleted from outside a moment ago
		}
		return control.InterfacesResult{Interfaces: []control.Interface{e.status(ifp, link)}}, err
	}
	// All links at once: to ask for one after the other would take as long as
	// their number squared.
	list, err := e.host.Links()
	if err != nil {
		return control.InterfacesResult{}, err
	}
	links := make(map[string]host.Link, len(list))
	for _, link := range list {
		links[link.Name] = link
	}
	all := e.ifs.All()
	result := control.InterfacesResult{Interfaces: make([]control.Interface, 0, len(all))}
	for _, ifp := range all {
		if link, exists := links[ifp.Name]; exists {
			result.Interfaces = append(result.Interfaces, e.status(ifp, link))
		}
	}
	return result, nil
}

// status is an interface as ifconfig shows it: what Linux's link has and what
// only the table knows.
func (e *Engine) status(ifp ifnet.Interface, link host.Link) control.Interface {
	s := control.Interface{
		Name:        ifp.Name,
		Flags:       control.FlagPointToPoint | control.FlagMulticast,
		Metric:      ifp.Metric,
		MTU:         link.MTU,
		FIB:         ifp.FIB,
		Description: ifp.Description,
		TunnelFIB:   ifp.TunnelFIB,
		Groups:      ifp.Groups,
		ReqID:       ifp.ReqID,
		ND6:         control.ND6Default,
	}
	if link.Up {
		s.Flags |= control.FlagUp
	}
	if ifp.Running {
		s.Flags |= control.FlagRunning
	}
	if ifp.HasTunnel() {
		s.Tunnel = &control.Tunnel{Src: e.named(ifp.Src), Dst: e.named(ifp.Dst)}
	}
	for _, a := range link.Addresses {
		shown := control.Address{Addr: a.Local, Bits: a.Bits, Peer: a.Peer}
		if a.Local.Is6() && a.Local.IsLinkLocalUnicast() {
			shown.Addr = a.Local.WithZone(link.Name)
			shown.ScopeID = link.Index
		}
		s.Addresses = append(s.Addresses, shown)
	}
	return s
}

// link returns the Linux link of one of our interfaces. ENXIO: there is none.
func (e *Engine) link(name string) (host.Link, error) {
	if _, err := e.ifs.Get(name); err != nil {
		return host.Link{}, err
	}
	return e.host.Link(name)
}
