package ifnet

import (
	"fmt"
	"iter"
	"net/netip"
	"syscall"
)

// SetReqID gives an interface a reqid and, if it has a tunnel, policies with
// it. 0 keeps the one it has, or assigns one if it has none. EEXIST: another
// interface has it. ENXIO.
func (t *Table) SetReqID(name string, reqid uint32) (Interface, error) {
	return t.change(name, "set the reqid of", func(ifp *Interface) error {
		if reqid == 0 {
			return t.initReqID(ifp)
		}
		if owner := t.reqIDOwner(reqid); owner != nil && owner.Index != ifp.Index {
			return fmt.Errorf("%s has reqid %d: %w", owner.Name, reqid, syscall.EEXIST)
		}
		ifp.ReqID = reqid
		return nil
	})
}

// SetTunnel sets the outer endpoints, and assigns a reqid if there is none.
// The zone of an address is the number of its link; that of one that is not
// link-local means nothing and is dropped.
// EINVAL: the families differ. EADDRNOTAVAIL: one is unspecified or no
// address of the wire. EEXIST: no reqid is left. ENXIO.
func (t *Table) SetTunnel(name string, src, dst netip.Addr) (Interface, error) {
	return t.change(name, "set the tunnel of", func(ifp *Interface) error {
		if src.BitLen() != dst.BitLen() {
			return fmt.Errorf("%v and %v are of different families: %w", src, dst, syscall.EINVAL)
		}
		for _, a := range []netip.Addr{src, dst} {
			if !a.IsValid() || a.IsUnspecified() || a.Is4In6() {
				return fmt.Errorf("%v can't be an endpoint: %w", a, syscall.EADDRNOTAVAIL)
			}
		}
		if err := t.initReqID(ifp); err != nil {
			return err
		}
		ifp.Src, ifp.Dst = scoped(src), scoped(dst)
		ifp.Running = t.isLocal(ifp.Src)
		return nil
	})
}

// DeleteTunnel removes the endpoints, if there are any, and with them the
// policies. The reqid stays. ENXIO.
func (t *Table) DeleteTunnel(name string) (Interface, error) {
	return t.change(name, "delete the tunnel of", func(ifp *Interface) error {
		ifp.Src, ifp.Dst, ifp.Running = netip.Addr{}, netip.Addr{}, false
		return nil
	})
}

// SetLocalAddrs tells the table all addresses of this host, link-local ones
// with the link's number as their zone. It returns the interfaces that started
// or stopped running.
func (t *Table) SetLocalAddrs(addrs iter.Seq[netip.Addr]) []Interface {
	clear(t.local)
	for a := range addrs {
		t.local[scoped(a)] = struct{}{}
	}
	return t.updateRunning()
}

// AddLocalAddr is [Table.SetLocalAddrs] with one address more than before.
func (t *Table) AddLocalAddr(a netip.Addr) []Interface {
	if t.isLocal(scoped(a)) {
		return nil
	}
	t.local[scoped(a)] = struct{}{}
	return t.updateRunning()
}

// updateRunning returns the interfaces that start or stop running now.
func (t *Table) updateRunning() []Interface {
	var changed []Interface
	for _, ifp := range t.list {
		if running := ifp.HasTunnel() && t.isLocal(ifp.Src); running != ifp.Running {
			ifp.Running = running
			changed = append(changed, ifp.snapshot())
		}
	}
	return changed
}

func (t *Table) isLocal(a netip.Addr) bool {
	_, ok := t.local[a]
	return ok
}

// scoped drops a zone from an address that has none by its nature.
func scoped(a netip.Addr) netip.Addr {
	if a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast() {
		return a
	}
	return a.WithZone("")
}

func (t *Table) initReqID(ifp *Interface) error {
	if ifp.ReqID != 0 {
		return nil
	}
	for range reqIDTries {
		if reqid := t.cfg.NewReqID(); t.reqIDOwner(reqid) == nil {
			ifp.ReqID = reqid
			return nil
		}
	}
	return fmt.Errorf("no free reqid in %d tries: %w", reqIDTries, syscall.EEXIST)
}

func (t *Table) reqIDOwner(reqid uint32) *Interface {
	for _, ifp := range t.list {
		if ifp.ReqID == reqid {
			return ifp
		}
	}
	return nil
}
