package dataplane

import (
	"fmt"
	"net/netip"

	"ifipsec/engine/sad"
)

// kind is a way of ESP packets between hosts.
type kind struct {
	six  bool   // IPv6 outside, else IPv4
	port uint16 // our port of ESP in UDP (RFC 3948), 0 for ESP right in IP
}

// String returns words for errors and logs.
func (k kind) String() string {
	ip := "IPv4"
	if k.six {
		ip = "IPv6"
	}
	if k.port == 0 {
		return "ESP in " + ip
	}
	return fmt.Sprintf("ESP in UDP port %d of %s", k.port, ip)
}

// headerLen is the octets before the ESP header, without options.
func (k kind) headerLen() (n int) {
	if n = headerLen4; k.six {
		n = headerLen6
	}
	if k.port != 0 {
		n += udpHeaderLen
	}
	return n
}

// path is everything that the packets of a tunnel have in common outside.
type path struct {
	kind     kind
	src, dst netip.Addr
	peerPort uint16 // of ESP in UDP
	mark     uint32 // SO_MARK, 0 for none
}

// pathOf is the path that an SA's packets take. moved is where the peer is
// found now, if it isn't where its SA says.
func pathOf(sa *sad.SA, moved *Mapping, mark uint32) path {
	way := path{kind: kind{six: sa.Dst.Is6()}, src: sa.Src, dst: sa.Dst, mark: mark}
	if sa.NATT != nil {
		way.kind.port, way.peerPort = sa.NATT.SrcPort, sa.NATT.DstPort
		if moved != nil && moved.Configured == netip.AddrPortFrom(way.dst, way.peerPort) {
			way.dst, way.peerPort = moved.Now.Addr(), moved.Now.Port()
		}
	}
	return way
}

// outer is a socket that ESP packets leave and arrive by.
type outer interface {
	// sender returns what sends at most batch packets at once along a path.
	sender(p path, batch int) (sender, error)
	// receiver returns what receives. It is called once.
	receiver() receiver
	// stop makes receive return an error that wraps [os.ErrClosed].
	stop()
	// close does too, and ends sending.
	close() error
}

// sender is for one goroutine.
type sender interface {
	// send sends packets in their order and marks those that were sent. One
	// that the kernel refuses does not keep back those after it; the last
	// refusal is returned.
	send(packets []departure) error
}

// departure is an ESP packet to send.
type departure struct {
	packet []byte // from the ESP header to the end of the ICV
	class  uint8  // traffic class of the outer header
	df     bool   // with IPv4 outside: not to be fragmented
	inner  int    // octets of the payload
	sent   bool
}

// receiver is for one goroutine.
type receiver interface {
	// receive waits for packets. They, and their buffers, are the caller's
	// until the next call.
	receive() ([]arrival, error)
}

// arrival is what arrived in a buffer.
type arrival struct {
	buf      []byte         // at least headroomIn octets before the packet, and room to grow after it
	off, end int            // the ESP packet is buf[off:end]
	src      netip.AddrPort // port 0 of ESP right in IP
	dst      netip.Addr
	class    uint8 // traffic class of the outer header
}

// takeOuter goes on with a socket that another plane opened.
func takeOuter(k kind, fd int) (outer, error) {
	s, err := socketOf(fd, k.String())
	switch {
	case err != nil:
		return nil, err
	case k.port != 0:
		return udp{s, k.six}, nil
	default:
		return openRaw(k.six, s)
	}
}

// openOuter opens a socket of the kernel's.
func openOuter(k kind) (outer, error) {
	if k.port != 0 {
		return openUDP(k)
	}
	return openRaw(k.six, nil)
}
