package dataplane

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw4 is ESP right in IPv4. The kernel writes the outer header, and cuts
// packets into fragments and puts them together again; the DF bit is clear, as
// FreeBSD's net.inet.ipsec.dfbit=0 has it.
type raw4 struct{ *socket }

func openRaw4() (outer, error) {
	s, err := openSocket(unix.AF_INET, "ESP in IPv4",
		option{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT})
	if err != nil {
		return nil, err
	}
	return raw4{s}, nil
}

type raw4Sender struct {
	*messages
	classed []control // whole, with the traffic class at the end
	plain   int       // length without the traffic class
}

func (r raw4) sender(p path, batch int) (sender, error) {
	s := &raw4Sender{messages: newMessages(r.socket, batch), classed: make([]control, batch)}
	to := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: p.dst.As4()}
	for i := range batch {
		s.setName(i, unsafe.Pointer(to), unsafe.Sizeof(*to))
		// The kernel refuses a source that is not the host's.
		c := addControl(nil, unix.SOL_IP, unix.IP_PKTINFO, unix.Inet4Pktinfo{Spec_dst: p.src.As4()})
		s.classed[i], s.plain = classControl(c, p.mark, unix.SOL_IP, unix.IP_TOS)
	}
	return s, nil
}

func (s *raw4Sender) send(packets []departure) error {
	for i := range packets {
		s.setBuffer(i, packets[i].packet)
		s.setControl(i, s.classed[i].with(packets[i].class, s.plain))
	}
	return s.sendAll(packets)
}

// raw4Receiver gets packets with the outer IPv4 header.
type raw4Receiver struct {
	*messages
	arrivals []arrival
}

func (r raw4) receiver() receiver {
	m := newMessages(r.socket, batchIn)
	in := &raw4Receiver{messages: m, arrivals: newArrivals()}
	for i := range in.arrivals {
		m.setBuffer(i, in.arrivals[i].buf[headroomIn:])
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
		a.src, a.dst = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		a.class = packet[1]
		a.off = min(a.off+int(packet[0]&0x0f)*4, a.end)
	}
	return r.arrivals[:n], err
}
