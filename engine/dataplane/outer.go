package dataplane

import (
	"fmt"
	"net/netip"
	"syscall"

	"ifipsec/engine/sad"
)

// kind is a way of ESP packets between hosts.
type kind uint8

const (
	rawESP4 kind = iota // IPv4, protocol 50
	rawESP6             // IPv6, next header 50

	kinds
)

// rawKind is the kind for ESP right in IP to a peer.
func rawKind(peer netip.Addr) kind {
	if peer.Is4() {
		return rawESP4
	}
	return rawESP6
}

// path is everything that the packets of a tunnel have in common outside.
type path struct {
	kind     kind
	src, dst netip.Addr
	mark     uint32 // SO_MARK, 0 for none
}

// pathOf is the path that an SA's packets take. EOPNOTSUPP: they travel in UDP.
func pathOf(sa *sad.SA, mark uint32) (path, error) {
	if sa.NATT != nil {
		return path{}, errUDP
	}
	return path{kind: rawKind(sa.Dst), src: sa.Src, dst: sa.Dst, mark: mark}, nil
}

var errUDP = fmt.Errorf("ESP in UDP is not possible: %w", syscall.EOPNOTSUPP)

// outer is a socket that ESP packets leave and arrive by.
type outer interface {
	// sender returns what sends at most batch packets at once along a path.
	sender(p path, batch int) (sender, error)
	// receiver returns what receives. It is called once.
	receiver() receiver
	// close makes receive return an error that wraps [os.ErrClosed].
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
	buf      []byte // at least headroomIn octets before the packet, and room to grow after it
	off, end int    // the ESP packet is buf[off:end]
	src, dst netip.Addr
	class    uint8 // traffic class of the outer header
}

// openOuter opens a socket of the kernel's.
func openOuter(k kind) (outer, error) {
	switch k {
	case rawESP4:
		return openRaw4()
	default:
		return openRaw6()
	}
}

// outerHeaderLen is the octets before the ESP header.
func outerHeaderLen(k kind) int {
	if k == rawESP4 {
		return headerLen4
	}
	return headerLen6
}
