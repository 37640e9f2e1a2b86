package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddAddress gives a link an address. The same local address with another
// destination or prefix length is replaced.
//
// An address with a destination (Peer) is FreeBSD's of a point-to-point link:
// it comes with a host route to the destination, whatever the prefix length,
// and with no other. The route is there while the link is up. IPv6 wants a
// prefix length of 128 then.
//
// EINVAL: no address, different families, or an impossible prefix length.
func (h *Host) AddAddress(name string, a Address) error {
	a.Local, a.Peer = a.Local.WithZone(""), a.Peer.WithZone("")
	if err := a.check(); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	l, err := h.link(name)
	if err != nil {
		return err
	}
	old, err := h.withLocal(l, a.Local)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	present := false
	for i := range old {
		has := addressOf(old[i])
		if has.Bits == a.Bits && has.Peer == a.Peer {
			present = true
			continue
		}
		if err := h.netlink.AddrDel(l, &old[i]); err != nil {
			return fmt.Errorf("interface %s: replace address %v: %w", name, a.Local, err)
		}
	}
	if !present {
		if err := h.netlink.AddrAdd(l, a.netlink()); err != nil {
			return fmt.Errorf("interface %s: add address %v: %w", name, a, err)
		}
	}
	return h.routeToPeer(l, a)
}

// DeleteAddress takes an address, and the routes that came with it, from a
// link. EADDRNOTAVAIL: the link does not have it.
func (h *Host) DeleteAddress(name string, local netip.Addr) error {
	l, err := h.link(name)
	if err != nil {
		return err
	}
	old, err := h.withLocal(l, local.WithZone(""))
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	if len(old) == 0 {
		return fmt.Errorf("interface %s has no address %v: %w", name, local, syscall.EADDRNOTAVAIL)
	}
	for i := range old {
		if err := h.netlink.AddrDel(l, &old[i]); err != nil {
			return fmt.Errorf("interface %s: delete address %v: %w", name, local, err)
		}
	}
	return nil
}

// withLocal returns a link's entries of a local address.
func (h *Host) withLocal(l netlink.Link, local netip.Addr) ([]netlink.Addr, error) {
	addrs, err := h.addrsOf(l)
	if err != nil {
		return nil, err
	}
	var same []netlink.Addr
	for _, a := range addrs {
		if addressOf(a).Local == local {
			// What netlink reports of IPv4's broadcast address is not for
			// sending back.
			a.Broadcast = net.IPv4zero
			same = append(same, a)
		}
	}
	return same, nil
}

// String returns the address as ip-address(8) writes it.
func (a Address) String() string {
	if a.Peer.IsValid() {
		return fmt.Sprintf("%v peer %v/%d", a.Local, a.Peer, a.Bits)
	}
	return fmt.Sprintf("%v/%d", a.Local, a.Bits)
}

func (a Address) check() error {
	switch {
	case !a.Local.IsValid():
		return fmt.Errorf("no address given: %w", syscall.EINVAL)
	case a.Bits < 0 || a.Bits > a.Local.BitLen():
		return fmt.Errorf("prefix length %d of %v, want 0 to %d: %w", a.Bits, a.Local, a.Local.BitLen(), syscall.EINVAL)
	case !a.Peer.IsValid():
		return nil
	case a.Peer.BitLen() != a.Local.BitLen():
		return fmt.Errorf("address %v and destination %v are of different families: %w", a.Local, a.Peer, syscall.EINVAL)
	case a.Local.Is6() && a.Bits != 128:
		return fmt.Errorf("prefix length %d with destination %v, want 128: %w", a.Bits, a.Peer, syscall.EINVAL)
	}
	return nil
}

// netlink returns what is to be sent to the kernel.
func (a Address) netlink() *netlink.Addr {
	addr := &netlink.Addr{
		IPNet: prefix(a.Local, a.Bits),
		// Point-to-point links have no broadcast address.
		Broadcast: net.IPv4zero,
	}
	if a.Local.Is6() {
		// There is nobody on the link to have the address too, and while
		// it is probed it can't be used.
		addr.Flags |= unix.IFA_F_NODAD
	}
	if a.Peer.IsValid() {
		addr.Peer = prefix(a.Peer, a.Bits)
		addr.Flags |= unix.IFA_F_NOPREFIXROUTE
	}
	return addr
}

func prefix(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

// addrconfPriority is the metric of the routes that Linux adds for addresses of
// IPv6 (IP6_RT_PRIO_ADDRCONF).
const addrconfPriority = 256

// routeToPeer adds the host route to an address's destination, if there is one.
// It is the kernel's kind of route, which routing daemons leave alone. That of
// IPv4 goes away with the address, which is its preferred source. That of IPv6
// is the one that Linux adds and removes itself, but not if the link was down
// when it got the address.
func (h *Host) routeToPeer(l netlink.Link, a Address) error {
	if !a.Peer.IsValid() {
		return nil
	}
	r := &netlink.Route{
		LinkIndex: l.Attrs().Index,
		Dst:       prefix(a.Peer, a.Peer.BitLen()),
		Protocol:  unix.RTPROT_KERNEL,
	}
	if a.Local.Is4() {
		r.Src, r.Scope = a.Local.AsSlice(), netlink.SCOPE_LINK
	} else {
		r.Priority = addrconfPriority
	}
	err := h.netlink.RouteReplace(r)
	// A link that is down has no routes: SetUp adds them.
	if err != nil && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("interface %s: route to %v: %w", l.Attrs().Name, a.Peer, err)
	}
	return nil
}
