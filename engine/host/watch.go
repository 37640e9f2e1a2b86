package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind is what happened.
type EventKind int

const (
	AddressAdded   EventKind = iota + 1 // Addr can be used
	AddressRemoved                      // Addr is gone, or another host has it
	LinkChanged                         // a link was added, renamed, went up or down, or changed otherwise
	LinkDeleted
	Resync // changes were lost: ask for everything anew
)

// String returns a word for logs.
func (k EventKind) String() string {
	return [...]string{"?", "address added", "address removed", "link changed", "link deleted", "resync"}[max(0, min(k, Resync))]
}

// Event is a change of the host's links or addresses.
type Event struct {
	Kind  EventKind
	Index int        // of the link; 0 in a Resync
	Name  string     // of the link, as far as it is known
	Up    bool       // in LinkChanged: the link is up
	Addr  netip.Addr // in AddressAdded and AddressRemoved, with the number of the link as zone if it is link-local
}

// Watch tells of the changes after the call, in their order, until ctx ends,
// when it closes the channel. A receiver that is too slow gets a Resync for
// what the kernel could not keep for it.
func (h *Host) Watch(ctx context.Context) (<-chan Event, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("watch links and addresses: %w", err)
	}
	links, err := h.linkList()
	if err != nil {
		socket.Close()
		return nil, err
	}
	w := &watcher{names: make(map[int]string, len(links))}
	for _, l := range links {
		w.names[l.Attrs().Index] = l.Attrs().Name
	}
	events := make(chan Event)
	stop := context.AfterFunc(ctx, socket.Close)
	go func() {
		defer close(events)
		defer stop()
		for {
			received := w.receive(socket)
			if ctx.Err() != nil {
				return
			}
			for _, e := range received {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return events, nil
}

// watcher turns netlink messages into events.
type watcher struct {
	names map[int]string // of links, by index
}

func (w *watcher) receive(socket *nl.NetlinkSocket) (events []Event) {
	messages, from, err := socket.Receive()
	if err != nil {
		// ENOBUFS, a message that could not be read, or the end.
		return []Event{{Kind: Resync}}
	}
	if from.Pid != nl.PidKernel {
		return nil
	}
	for _, m := range messages {
		if e, ok := w.event(m); ok {
			events = append(events, e)
		}
	}
	return events
}

func (w *watcher) event(m syscall.NetlinkMessage) (Event, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		header := unix.NlMsghdr(m.Header)
		l, err := netlink.LinkDeserialize(&header, m.Data)
		if err != nil {
			return Event{Kind: Resync}, true
		}
		attrs := l.Attrs()
		e := Event{Kind: LinkChanged, Index: attrs.Index, Name: attrs.Name, Up: attrs.Flags&net.FlagUp != 0}
		w.names[attrs.Index] = attrs.Name
		if m.Header.Type == unix.RTM_DELLINK {
			e.Kind = LinkDeleted
			// A bridge sends DELLINK for a port that leaves it, which lives on.
			if nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
				return Event{}, false
			}
			delete(w.names, attrs.Index)
		}
		return e, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.address(m)
	}
	return Event{}, false
}

func (w *watcher) address(m syscall.NetlinkMessage) (Event, bool) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return Event{}, false
	}
	header := nl.DeserializeIfAddrmsg(m.Data)
	attrs, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Event{Kind: Resync}, true
	}
	var local, address netip.Addr
	flags := int(header.Flags)
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_FLAGS:
			if len(a.Value) == 4 {
				flags = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
	}
	// IPv6 addresses without a peer have no IFA_LOCAL.
	if !local.IsValid() {
		local = address
	}
	index := int(header.Index)
	e := Event{Kind: AddressAdded, Index: index, Name: w.names[index], Addr: scoped(local, index)}
	switch {
	case m.Header.Type == unix.RTM_DELADDR, flags&unix.IFA_F_DADFAILED != 0:
		e.Kind = AddressRemoved
	case unusable(flags):
		return Event{}, false
	}
	return e, local.IsValid()
}
