package dataplane

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is the ancillary data of a message (cmsg(3)).
type control []byte

// controlRoom is enough for all that a message can have, in octets.
var controlRoom = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + 3*unix.CmsgSpace(4)

// addControl appends an item of a type that the kernel knows the size of.
func addControl[T any](c control, level, kind int32, value T) control {
	size := int(unsafe.Sizeof(value))
	start := len(c)
	c = append(c, make([]byte, unix.CmsgSpace(size))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	*(*T)(unsafe.Pointer(&c[start+unix.CmsgLen(0)])) = value
	return c
}

// pathControl is what all messages along a path have in common: the source,
// which the kernel refuses if it is not the host's, and the mark if there is one.
func pathControl(p path, link uint32) control {
	c := make(control, 0, controlRoom)
	if p.kind.six {
		c = addControl(c, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.Inet6Pktinfo{Addr: p.src.As16(), Ifindex: link})
	} else {
		c = addControl(c, unix.SOL_IP, unix.IP_PKTINFO, unix.Inet4Pktinfo{Spec_dst: p.src.As4()})
	}
	if p.mark != 0 {
		c = addControl(c, unix.SOL_SOCKET, unix.SO_MARK, p.mark)
	}
	return c
}

// withClass appends the traffic class, which most packets do without.
func (c control) withClass(six bool, class uint8) control {
	switch {
	case class == 0:
		return c
	case six:
		return addControl(c, unix.SOL_IPV6, unix.IPV6_TCLASS, int32(class))
	default:
		return addControl(c, unix.SOL_IP, unix.IP_TOS, int32(class))
	}
}

// account is what ancillary data say of a packet that arrived.
type account struct {
	dst     netip.Addr
	link    uint32 // it came by
	class   uint8
	segment int // octets of each packet that the kernel joined in one message, 0 if it didn't
}

func (c control) account() (a account) {
	for len(c) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(c)) {
			return a
		}
		data := c[unix.CmsgLen(0):h.Len]
		switch kind := [2]int32{h.Level, h.Type}; {
		case kind == [2]int32{unix.SOL_IP, unix.IP_PKTINFO} && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			a.dst, a.link = netip.AddrFrom4(info.Addr), uint32(info.Ifindex)
		case kind == [2]int32{unix.SOL_IPV6, unix.IPV6_PKTINFO} && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			a.dst, a.link = netip.AddrFrom16(info.Addr), info.Ifindex
		case kind == [2]int32{unix.SOL_IP, unix.IP_TOS} && len(data) >= 1:
			a.class = data[0]
		case kind == [2]int32{unix.SOL_IPV6, unix.IPV6_TCLASS} && len(data) >= 4:
			a.class = uint8(*(*int32)(unsafe.Pointer(&data[0])))
		case kind == [2]int32{unix.SOL_UDP, unix.UDP_GRO} && len(data) >= 4:
			a.segment = int(*(*int32)(unsafe.Pointer(&data[0])))
		}
		c = c[min(unix.CmsgSpace(len(data)), len(c)):]
	}
	return a
}
