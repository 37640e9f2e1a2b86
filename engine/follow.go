package engine

import (
	"errors"
	"maps"
	"net/netip"
	"syscall"

	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
)

// follow brings the interfaces into the state that a change of the host calls
// for: one is RUNNING only while its local endpoint is an address of the host,
// it is up and has the name that its link has, and it ends when its link is
// deleted from outside.
func (e *Engine) follow(change host.Event) {
	var err error
	switch change.Kind {
	case host.AddressAdded:
		// Should it be gone again already, that is the next change.
		err = e.followAddress(change.Addr)
	case host.AddressRemoved:
		// The addresses are asked for anew: an address may be on several links,
		// and is gone only when it is on none.
		err = e.followAddresses()
	case host.LinkChanged:
		err = e.followLink(change)
	case host.LinkDeleted:
		e.followDeletion(change.Index)
	case host.Resync:
		err = e.resync()
	}
	if err != nil {
		e.log.Error("a change of the host could not be followed", "change", change.Kind, "link", change.Name, "error", err)
	}
}

// followAddresses updates which interfaces run.
func (e *Engine) followAddresses() error {
	local, err := e.host.LocalAddrs()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run(e.ifs.SetLocalAddrs(maps.Keys(local)))
}

// followAddress updates which interfaces run for an address that came.
func (e *Engine) followAddress(a netip.Addr) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run(e.ifs.AddLocalAddr(a))
}

// run tells the data plane of interfaces that started or stopped running. The
// caller holds e.mu.
func (e *Engine) run(changed []ifnet.Interface) error {
	for _, ifp := range changed {
		if err := e.configure(ifp); err != nil && !deleted(err) {
			return err
		}
		e.log.Info("the local endpoint came or went", "interface", ifp.Name, "src", ifp.Src, "running", ifp.Running)
	}
	return nil
}

// followLink takes over the name and the state of a link of ours.
func (e *Engine) followLink(change host.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	from, ours := e.links[change.Index]
	if !ours {
		return nil
	}
	// The change may be older than what we did since.
	link, err := e.host.BareLink(change.Name)
	if err != nil || link.Index != change.Index {
		return nil
	}
	ifp, err := e.ifs.Get(from)
	if err != nil {
		return err
	}
	if from != link.Name {
		ifp.Name = link.Name
		e.ifs.Restore(ifp)
		e.renamed(from, ifp)
	}
	if link.Up {
		// Linux forgot them when the link went down.
		if err := e.host.RestoreRoutes(link.Name); err != nil && !deleted(err) {
			return err
		}
	}
	if err := e.configure(ifp); err != nil && !deleted(err) {
		return err
	}
	return nil
}

// deleted says of an error that the link has gone meanwhile, of which another
// change tells.
func deleted(err error) bool { return errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV) }

// followDeletion ends an interface whose link somebody else deleted.
func (e *Engine) followDeletion(index int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name, ours := e.links[index]
	if !ours {
		return
	}
	ifp, err := e.ifs.Destroy(name)
	if err != nil {
		return
	}
	e.log.Warn("the link was deleted by somebody else, so the interface ends", "interface", name)
	e.forget(ifp)
	e.forgetRules(ifp)
}

// resync brings everything up to date when changes may have been missed.
func (e *Engine) resync() error {
	// In this order: a link of ours that is missing in a newer list is gone,
	// whereas one that is made meanwhile is not looked for.
	e.mu.Lock()
	ours := maps.Clone(e.links)
	e.mu.Unlock()
	links, err := e.host.Links()
	if err != nil {
		return err
	}
	now := make(map[int]string, len(links))
	for _, l := range links {
		now[l.Index] = l.Name
	}
	for index := range ours {
		name, exists := now[index]
		if !exists {
			e.followDeletion(index)
		} else if err := e.followLink(host.Event{Index: index, Name: name}); err != nil {
			return err
		}
	}
	return e.followAddresses()
}
