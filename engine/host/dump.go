package host

import (
	"encoding/binary"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addrsOf lists the addresses of a link. The kernel leaves out those of the
// others, so that a thousand links are no dearer each than one.
func (h *Host) addrsOf(l netlink.Link) ([]netlink.Addr, error) {
	index := l.Attrs().Index
	messages, err := again(func() ([][]byte, error) { return h.dumpAddrs(index) })
	if err != nil {
		return nil, err
	}
	var addrs []netlink.Addr
	for _, m := range messages {
		a, err := decodeAddr(m)
		if err != nil {
			return nil, err
		}
		if a.LinkIndex == index {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

func (h *Host) dumpAddrs(index int) ([][]byte, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.Sockets = h.requests
	header := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	header.Index = uint32(index)
	request.AddData(header)
	return request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
}

// decodeAddr reads RTM_NEWADDR (rtnetlink(7)). IPv4 has the peer's address in
// IFA_ADDRESS, or its own again if there is none; IPv6 has no IFA_LOCAL then.
func decodeAddr(message []byte) (netlink.Addr, error) {
	header := nl.DeserializeIfAddrmsg(message)
	attrs, err := nl.ParseRouteAttr(message[header.Len():])
	if err != nil {
		return netlink.Addr{}, err
	}
	a := netlink.Addr{LinkIndex: int(header.Index), Scope: int(header.Scope), Flags: int(header.IfAddrmsg.Flags)}
	var local, address net.IP
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_LOCAL:
			local = attr.Value
		case unix.IFA_ADDRESS:
			address = attr.Value
		case unix.IFA_FLAGS:
			a.Flags = int(binary.NativeEndian.Uint32(attr.Value))
		}
	}
	if local == nil {
		local = address
	}
	bits := 8 * len(local)
	if local.Equal(address) {
		a.IPNet = &net.IPNet{IP: local, Mask: net.CIDRMask(int(header.Prefixlen), bits)}
		return a, nil
	}
	a.IPNet = &net.IPNet{IP: local, Mask: net.CIDRMask(bits, bits)}
	a.Peer = &net.IPNet{IP: address, Mask: net.CIDRMask(int(header.Prefixlen), bits)}
	return a, nil
}
