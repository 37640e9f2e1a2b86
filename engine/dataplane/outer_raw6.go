package dataplane

import (
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw6 is ESP right in IPv6. The kernel writes the outer header, and cuts
// packets into fragments and puts them together again.
type raw6 struct{ *socket }

func openRaw6() (outer, error) {
	s, err := openSocket(unix.AF_INET6, "ESP in IPv6",
		option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
		option{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
		option{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1})
	if err != nil {
		return nil, err
	}
	return raw6{s}, nil
}

type raw6Sender struct {
	*messages
	classed []control // whole, with the traffic class at the end
	plain   int       // length without the traffic class
}

func (r raw6) sender(p path, batch int) (sender, error) {
	var scope uint32
	if zone := p.dst.Zone(); zone != "" {
		n, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("send to %v: the zone is not the number of a link: %w", p.dst, syscall.EINVAL)
		}
		scope = uint32(n)
	}
	s := &raw6Sender{messages: newMessages(r.socket, batch), classed: make([]control, batch)}
	to := &unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: p.dst.As16(), Scope_id: scope}
	for i := range batch {
		s.setName(i, unsafe.Pointer(to), unsafe.Sizeof(*to))
		// The kernel refuses a source that is not the host's.
		c := addControl(nil, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.Inet6Pktinfo{Addr: p.src.As16(), Ifindex: scope})
		s.classed[i], s.plain = classControl(c, p.mark, unix.SOL_IPV6, unix.IPV6_TCLASS)
	}
	return s, nil
}

func (s *raw6Sender) send(packets []departure) error {
	for i := range packets {
		s.setBuffer(i, packets[i].packet)
		s.setControl(i, s.classed[i].with(packets[i].class, s.plain))
	}
	return s.sendAll(packets)
}

// raw6Receiver gets packets without the outer IPv6 header, which ancillary data
// tell of.
type raw6Receiver struct {
	*messages
	arrivals []arrival
	from     []unix.RawSockaddrInet6
	controls []control
	zone     zone
}

func (r raw6) receiver() receiver {
	m := newMessages(r.socket, batchIn)
	in := &raw6Receiver{
		messages: m,
		arrivals: newArrivals(),
		from:     make([]unix.RawSockaddrInet6, batchIn),
		controls: make([]control, batchIn),
	}
	for i := range in.arrivals {
		m.setBuffer(i, in.arrivals[i].buf[headroomIn:])
		in.controls[i] = make(control, unix.CmsgSpace(unix.SizeofInet6Pktinfo)+unix.CmsgSpace(4))
	}
	return in
}

func (r *raw6Receiver) receive() ([]arrival, error) {
	// The kernel writes how much of these it has used.
	for i := range r.headers {
		r.setName(i, unsafe.Pointer(&r.from[i]), unsafe.Sizeof(r.from[i]))
		r.setControl(i, r.controls[i])
	}
	n, err := r.receiveSome()
	for i := range r.arrivals[:n] {
		a := &r.arrivals[i]
		a.off, a.end = headroomIn, headroomIn+int(r.headers[i].Len)
		a.src, a.dst, a.class = netip.AddrFrom16(r.from[i].Addr), netip.Addr{}, 0
		r.ancillary(a, r.controls[i][:r.headers[i].Hdr.Controllen])
	}
	return r.arrivals[:n], err
}

// ancillary reads the destination and the traffic class.
func (r *raw6Receiver) ancillary(a *arrival, c control) {
	for len(c) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(c)) {
			return
		}
		data := c[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			a.dst = netip.AddrFrom16(info.Addr)
			if a.dst.IsLinkLocalUnicast() {
				a.dst = a.dst.WithZone(r.zone.of(info.Ifindex))
			}
			if a.src.IsLinkLocalUnicast() {
				a.src = a.src.WithZone(r.zone.of(info.Ifindex))
			}
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			a.class = uint8(*(*int32)(unsafe.Pointer(&data[0])))
		}
		c = c[min(unix.CmsgSpace(len(data)), len(c)):]
	}
}

// zone remembers the zone of the last link, so that a packet allocates none.
type zone struct {
	link uint32
	text string
}

func (z *zone) of(link uint32) string {
	if z.link != link || z.text == "" {
		z.link, z.text = link, strconv.FormatUint(uint64(link), 10)
	}
	return z.text
}
