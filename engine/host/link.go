package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Link is what Linux knows of a network interface.
type Link struct {
	Index     int // never changes, unlike the name
	Name      string
	Up        bool // administratively
	MTU       int  // in bytes
	Addresses []Address
}

// Address is an address of a link.
type Address struct {
	Local netip.Addr // without a zone
	Peer  netip.Addr // the other end of a point-to-point link; invalid if there is none
	Bits  int        // prefix length

	// Scope is "global", "link", "host" or "site". Linux decides it for IPv6;
	// AddAddress takes it as global for IPv4.
	Scope string
}

// Link returns the link with a name. ENXIO: there is none.
func (h *Host) Link(name string) (Link, error) {
	l, err := h.link(name)
	if err != nil {
		return Link{}, err
	}
	addrs, err := h.addrsOf(l)
	if err != nil {
		return Link{}, fmt.Errorf("addresses of %s: %w", name, err)
	}
	return linkOf(l, addrs), nil
}

// BareLink is [Host.Link] without the addresses.
func (h *Host) BareLink(name string) (Link, error) {
	l, err := h.link(name)
	if err != nil {
		return Link{}, err
	}
	return linkOf(l, nil), nil
}

// LinkName returns the name that a link has now. ENXIO: there is none with
// that index.
func (h *Host) LinkName(index int) (string, error) {
	l, err := h.netlink.LinkByIndex(index)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return "", fmt.Errorf("interface %d does not exist: %w", index, syscall.ENXIO)
	}
	if err != nil {
		return "", fmt.Errorf("interface %d: %w", index, err)
	}
	return l.Attrs().Name, nil
}

// Links returns all links by index.
func (h *Host) Links() ([]Link, error) {
	links, err := h.linkList()
	if err != nil {
		return nil, err
	}
	addrs, err := h.allAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	byLink := make(map[int][]netlink.Addr, len(links))
	for _, a := range addrs {
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex], a)
	}
	all := make([]Link, 0, len(links))
	for _, l := range links {
		all = append(all, linkOf(l, byLink[l.Attrs().Index]))
	}
	return all, nil
}

// linkOf picks the link's addresses out of addrs.
func linkOf(l netlink.Link, addrs []netlink.Addr) Link {
	attrs := l.Attrs()
	link := Link{Index: attrs.Index, Name: attrs.Name, Up: attrs.Flags&net.FlagUp != 0, MTU: attrs.MTU}
	for _, a := range addrs {
		if a.LinkIndex == attrs.Index {
			link.Addresses = append(link.Addresses, addressOf(a))
		}
	}
	return link
}

func addressOf(a netlink.Addr) Address {
	local, _ := netip.AddrFromSlice(a.IP)
	address := Address{Local: local.Unmap(), Scope: scopeName(netlink.Scope(a.Scope))}
	if a.Peer == nil {
		address.Bits, _ = a.Mask.Size()
		return address
	}
	peer, _ := netip.AddrFromSlice(a.Peer.IP)
	address.Peer = peer.Unmap()
	// The prefix is the peer's.
	address.Bits, _ = a.Peer.Mask.Size()
	return address
}

// scopeName is ip-address(8)'s word.
func scopeName(s netlink.Scope) string {
	if s == netlink.SCOPE_UNIVERSE {
		return "global"
	}
	return s.String()
}

// SetUp brings a link up, with the routes to the destinations of its addresses.
func (h *Host) SetUp(name string) error {
	if err := h.change(name, "bring up", h.netlink.LinkSetUp); err != nil {
		return err
	}
	return h.RestoreRoutes(name)
}

// RestoreRoutes adds the routes to the destinations of a link's addresses, which
// Linux forgets when a link goes down. A link that is down gets none.
func (h *Host) RestoreRoutes(name string) error {
	l, err := h.link(name)
	if err != nil {
		return err
	}
	addrs, err := h.addrsOf(l)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if err := h.routeToPeer(l, addressOf(a)); err != nil {
			return err
		}
	}
	return nil
}

// SetDown takes a link down. It keeps its IPv4 addresses; Linux removes its
// routes and, unless net.ipv6.conf.*.keep_addr_on_down says otherwise, its IPv6
// addresses.
func (h *Host) SetDown(name string) error {
	return h.change(name, "take down", h.netlink.LinkSetDown)
}

// SetMTU sets the largest packet, in bytes, that a link takes. EINVAL: out of
// the bounds of the link's kind.
func (h *Host) SetMTU(name string, mtu int) error {
	return h.change(name, "set up", func(l netlink.Link) error { return h.setMTU(l, mtu) })
}

// Rename gives a link another name. EEXIST: a link has it. EBUSY: the link is
// up and Linux is older than 6.2.
func (h *Host) Rename(name, to string) error {
	return h.change(name, "rename to "+to, func(l netlink.Link) error { return h.netlink.LinkSetName(l, to) })
}

// change does something to the link with a name.
func (h *Host) change(name, what string, do func(netlink.Link) error) error {
	l, err := h.link(name)
	if err != nil {
		return err
	}
	if err := do(l); err != nil {
		return fmt.Errorf("interface %s: %s: %w", name, what, err)
	}
	return nil
}
