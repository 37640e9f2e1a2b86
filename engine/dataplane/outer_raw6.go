package dataplane

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw6 is ESP right in IPv6. The kernel writes the outer header, and cuts
// packets into fragments and puts them together again.
type raw6 struct{ *socket }

func openRaw6() (outer, error) {
	s, err := openSocket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ESP, "ESP in IPv6",
		option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
		option{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
		option{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1})
	if err != nil {
		return nil, err
	}
	return raw6{s}, nil
}

func (r raw6) sender(p path, batch int) (sender, error) { return newRawSender(r.socket, p, batch) }

// rawSender sends packets that the kernel has only to put into IP, of either
// family.
type rawSender struct {
	*messages
	six      bool
	controls []control
	plain    int // length of one without a traffic class
}

func newRawSender(s *socket, p path, batch int) (sender, error) {
	// Linux wants a port of 0 or the protocol's number.
	to, size, err := newSockaddr(netip.AddrPortFrom(p.dst, 0))
	if err != nil {
		return nil, err
	}
	out := &rawSender{messages: newMessages(s, batch, 1), six: p.kind.six, controls: make([]control, batch)}
	for i := range batch {
		out.setName(i, unsafe.Pointer(to), size)
		out.controls[i] = pathControl(p, to.raw.Scope_id)
		out.plain = len(out.controls[i])
	}
	return out, nil
}

func (s *rawSender) send(packets []departure) error {
	for i := range packets {
		s.setPiece(i, packets[i].packet)
		s.setControl(i, s.controls[i][:s.plain].withClass(s.six, packets[i].class))
	}
	return s.sendEach(packets)
}

// raw6Receiver gets packets without the outer IPv6 header, which ancillary data
// tell of.
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

func (r raw6) receiver() receiver {
	m := newMessages(r.socket, batchIn, 1)
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
