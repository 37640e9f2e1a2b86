package dataplane

import (
	"net/netip"
	"unsafe"
)

// raw6Receiver gets packets without the outer IPv6 header, which ancillary data
// tell of. The kernel puts fragments together.
type raw6Receiver struct {
	*messages
	arrivals []arrival
	named
}

// named is where the kernel writes from where messages came, and how.
type named struct {
	from     []sockaddr
	controls []control
	zone     zone
}

func newNamed(n int) named {
	m := named{from: make([]sockaddr, n), controls: make([]control, n)}
	for i := range m.controls {
		m.controls[i] = make(control, controlRoom)
	}
	return m
}

// prepare gives the messages the room, before each receive: the kernel writes
// how much of it it has used.
func (n *named) prepare(m *messages) {
	for i := range n.from {
		m.setName(i, unsafe.Pointer(&n.from[i]), unsafe.Sizeof(n.from[i]))
		m.setControl(i, n.controls[i])
	}
}

// ends is from where to where message i came.
func (n *named) ends(m *messages, i int) (src netip.AddrPort, a account) {
	a = n.controls[i][:m.headers[i].Hdr.Controllen].account()
	src = n.from[i].addrPort()
	a.dst = n.zone.scoped(a.dst, a.link)
	return netip.AddrPortFrom(n.zone.scoped(src.Addr(), a.link), src.Port()), a
}

func newRaw6Receiver(s *socket) *raw6Receiver {
	m := newMessages(s, batchIn, 1)
	in := &raw6Receiver{messages: m, arrivals: newArrivals(), named: newNamed(batchIn)}
	for i := range in.arrivals {
		m.setPiece(i, in.arrivals[i].buf[headroomIn:])
	}
	return in
}

func (r *raw6Receiver) receive() ([]arrival, error) {
	r.prepare(r.messages)
	n, err := r.receiveSome()
	for i := range r.arrivals[:n] {
		a := &r.arrivals[i]
		a.off, a.end = headroomIn, headroomIn+int(r.headers[i].Len)
		src, about := r.ends(r.messages, i)
		// Linux puts the protocol where a port would be.
		a.src, a.dst, a.class = netip.AddrPortFrom(src.Addr(), 0), about.dst, about.class
	}
	return r.arrivals[:n], err
}
