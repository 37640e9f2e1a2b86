// Package host is what ifipsec asks of Linux: TUN devices, links, the
// addresses and routes of links, and which addresses the host has. It keeps no
// state of its own: what it says is what the kernel says.
//
// Errors name the interface and wrap the [syscall.Errno] of the kernel's, or
// the one that FreeBSD has for the case.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Host is one network namespace. Its methods may be called concurrently.
type Host struct {
	netlink  *netlink.Handle
	requests map[int]*nl.SocketHandle // for what netlink knows no request for
}

// Open returns the network namespace of the calling thread.
func Open() (*Host, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// The kernel then takes a link's number in a dump for a filter. Linux before
	// 4.20 has no such option, and its dumps are of all links.
	_ = unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Host{netlink: h, requests: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}, nil
}

// Close gives up the netlink sockets. The host must not be used any more.
func (h *Host) Close() {
	h.netlink.Close()
	for _, s := range h.requests {
		s.Close()
	}
}

// LocalAddrs returns the addresses that the host can send from and receive at.
// A link-local IPv6 address has the number of its link as zone. An IPv6 address
// that is still being probed for duplicates (RFC 4862, section 5.4) is not one
// yet.
func (h *Host) LocalAddrs() (map[netip.Addr]struct{}, error) {
	addrs, err := h.allAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	local := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !unusable(a.Flags) {
			local[scoped(ip.Unmap(), a.LinkIndex)] = struct{}{}
		}
	}
	return local, nil
}

// unusable says whether the flags are those of an IPv6 address that is being
// probed, or that another host has.
func unusable(flags int) bool {
	return flags&unix.IFA_F_DADFAILED != 0 ||
		flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
}

// scoped gives a link-local IPv6 address the number of its link as zone.
func scoped(a netip.Addr, link int) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(link))
	}
	return a
}

// allAddrs lists the addresses of all links. A dump that the kernel calls
// inconsistent because something changed meanwhile is done again.
func (h *Host) allAddrs() ([]netlink.Addr, error) {
	return again(func() ([]netlink.Addr, error) { return h.netlink.AddrList(nil, netlink.FAMILY_ALL) })
}

func (h *Host) linkList() ([]netlink.Link, error) {
	links, err := again(h.netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the links: %w", err)
	}
	return links, nil
}

func again[T any](list func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// link finds a link by its name. ENXIO, as FreeBSD has it: there is none.
func (h *Host) link(name string) (netlink.Link, error) {
	l, err := h.netlink.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil, fmt.Errorf("interface %s does not exist: %w", name, syscall.ENXIO)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return l, nil
}
