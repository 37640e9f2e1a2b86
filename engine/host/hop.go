package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Hop is where packets to a destination go first: a neighbour on an Ethernet
// link.
type Hop struct {
	Link    int     // index of the link
	Own     [6]byte // the link's address
	Queues  int     // at most, of what the link receives
	Address [6]byte // the neighbour's, on the link
	MTU     int     // of the link or of the route, in bytes
}

// neighbourKnown is the states in which a neighbour's address can be used.
const neighbourKnown = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE |
	netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// Hop returns the first hop of packets from src to dst with a mark (SO_MARK). An
// error that wraps EOPNOTSUPP says that only the kernel can send them, at the
// moment or ever: the destination is the host itself, the link is not Ethernet,
// the neighbour has not answered yet, ….
func (h *Host) Hop(src, dst netip.Addr, mark uint32) (Hop, error) {
	hop, err := h.hop(src, dst, mark)
	if err != nil {
		return Hop{}, fmt.Errorf("the first hop from %v to %v: %w", src, dst, err)
	}
	return hop, nil
}

func (h *Host) hop(src, dst netip.Addr, mark uint32) (Hop, error) {
	if dst.Zone() != "" {
		return Hop{}, fmt.Errorf("link-local: %w", syscall.EOPNOTSUPP)
	}
	routes, err := h.netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{SrcAddr: src.AsSlice(), Mark: mark})
	if err != nil {
		return Hop{}, err
	}
	if len(routes) != 1 || routes[0].Type != unix.RTN_UNICAST || routes[0].Encap != nil {
		return Hop{}, fmt.Errorf("no plain route: %w", syscall.EOPNOTSUPP)
	}
	route := &routes[0]
	link, err := h.netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return Hop{}, err
	}
	attrs := link.Attrs()
	if attrs.EncapType != "ether" || len(attrs.HardwareAddr) != 6 || attrs.Flags&net.FlagUp == 0 {
		return Hop{}, fmt.Errorf("%s is no Ethernet link that is up: %w", attrs.Name, syscall.EOPNOTSUPP)
	}
	hop := Hop{Link: attrs.Index, Own: [6]byte(attrs.HardwareAddr), Queues: attrs.NumRxQueues, MTU: attrs.MTU}
	if route.MTU != 0 {
		hop.MTU = min(hop.MTU, route.MTU)
	}
	next := dst
	if via, ok := route.Via.(*netlink.Via); ok {
		next, _ = netip.AddrFromSlice(via.Addr)
	} else if gateway, ok := netip.AddrFromSlice(route.Gw); ok {
		next = gateway.Unmap()
	}
	if hop.Address, err = h.neighbour(attrs.Index, next); err != nil {
		return Hop{}, fmt.Errorf("neighbour %v on %s: %w", next, attrs.Name, err)
	}
	return hop, nil
}

// neighbour returns a neighbour's address on an Ethernet link.
func (h *Host) neighbour(link int, addr netip.Addr) (on [6]byte, err error) {
	family := uint8(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_REQUEST)
	request.Sockets = h.requests
	request.AddData(&netlink.Ndmsg{Family: family, Index: uint32(link)})
	request.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if errors.Is(err, unix.ENOENT) || err == nil && len(answers) != 1 {
		return on, fmt.Errorf("not known: %w", syscall.EOPNOTSUPP)
	}
	if err != nil {
		return on, err
	}
	n, err := netlink.NeighDeserialize(answers[0])
	if err != nil {
		return on, err
	}
	if n.State&neighbourKnown == 0 || len(n.HardwareAddr) != len(on) {
		return on, fmt.Errorf("its address is not known: %w", syscall.EOPNOTSUPP)
	}
	return [6]byte(n.HardwareAddr), nil
}

// WatchHops calls changed whenever something happens that what [Host.Hop] has said
// may depend on, or was lost, until ctx ends.
func (h *Host) WatchHops(ctx context.Context, changed func()) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("watch routes and neighbours: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	go func() {
		defer stop()
		for ctx.Err() == nil {
			_, from, err := socket.Receive()
			if err != nil || from.Pid == nl.PidKernel {
				changed()
			}
		}
	}()
	return nil
}
