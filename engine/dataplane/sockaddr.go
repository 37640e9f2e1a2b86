package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is a socket address of either family.
type sockaddr struct{ raw unix.RawSockaddrInet6 }

// newSockaddr returns an address for the kernel, with the size that it has for
// its family. EINVAL: its zone is not the number of a link.
func newSockaddr(to netip.AddrPort) (s *sockaddr, size uintptr, err error) {
	s = new(sockaddr)
	if to.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)) = unix.RawSockaddrInet4{
			Family: unix.AF_INET, Addr: to.Addr().As4(),
		}
		binary.BigEndian.PutUint16(s.port(), to.Port())
		return s, unix.SizeofSockaddrInet4, nil
	}
	scope := uint64(0)
	if zone := to.Addr().Zone(); zone != "" {
		if scope, err = strconv.ParseUint(zone, 10, 32); err != nil {
			return nil, 0, fmt.Errorf("%v: the zone is not the number of a link: %w", to.Addr(), syscall.EINVAL)
		}
	}
	s.raw = unix.RawSockaddrInet6{
		Family: unix.AF_INET6, Addr: to.Addr().As16(), Scope_id: uint32(scope),
	}
	binary.BigEndian.PutUint16(s.port(), to.Port())
	return s, unix.SizeofSockaddrInet6, nil
}

// port is the port in network byte order, which both families have in the same
// place.
func (s *sockaddr) port() []byte { return (*[2]byte)(unsafe.Pointer(&s.raw.Port))[:] }

// addrPort is the address that the kernel has written, without a zone.
func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.port())
	if s.raw.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(s.raw.Addr), port)
}

// zone remembers the zone of the last link, so that a packet allocates none.
type zone struct {
	link uint32
	text string
}

// scoped gives a link-local IPv6 address the number of its link as zone.
func (z *zone) scoped(a netip.Addr, link uint32) netip.Addr {
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		return a
	}
	if z.link != link || z.text == "" {
		z.link, z.text = link, strconv.FormatUint(uint64(link), 10)
	}
	return a.WithZone(z.text)
}
