package dataplane

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// raw4 is ESP right in IPv4. The kernel writes the outer header, and cuts
// packets into fragments and puts them together again. The DF bit is clear, and
// fragments are as large as the first link takes, whatever ICMP errors say: the
// routers on the path can cut them again. See wholeSender for the DF bit set.
type raw4 struct{ *socket }

func openRaw4() (outer, error) {
	s, err := openSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ESP, "ESP in IPv4",
		option{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT})
	if err != nil {
		return nil, err
	}
	return raw4{s}, nil
}

func (r raw4) sender(p path, batch int) (sender, error) { return newRawSender(r.socket, p, batch) }

// raw4Receiver gets packets with the outer IPv4 header.
type raw4Receiver struct {
	*messages
	arrivals []arrival
}

func (r raw4) receiver() receiver {
	m := newMessages(r.socket, batchIn, 1)
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
