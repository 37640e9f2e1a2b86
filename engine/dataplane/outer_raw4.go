package dataplane

import "net/netip"

// raw4Receiver gets packets with the outer IPv4 header. The kernel puts fragments
// together.
type raw4Receiver struct {
	*messages
	arrivals []arrival
}

func newRaw4Receiver(s *socket) *raw4Receiver {
	m := newMessages(s, batchIn, 1)
	in := &raw4Receiver{messages: m, arrivals: newArrivals()}
	for i := range in.arrivals {
		m.setPiece(i, in.arrivals[i].buf[headroomIn:])
	}
	return in
}

func (r *raw4Receiver) receive() ([]arrival, error) {
	n, err := r.receiveSome()
	for i := range r.arrivals[:n] {
		a := &r.arrivals[i]
		a.off, a.end = headroomIn, headroomIn+int(r.headers[i].Len)
		packet := a.buf[a.off:a.end]
		if len(packet) < headerLen4 {
			a.off = a.end
			continue
		}
		a.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[12:])), 0)
		a.dst = netip.AddrFrom4([4]byte(packet[16:]))
		a.class = packet[1]
		a.off = min(a.off+int(packet[0]&0x0f)*4, a.end)
	}
	return r.arrivals[:n], err
}
