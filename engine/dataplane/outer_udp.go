package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udpHeaderLen is the octets between the outer IP header and ESP (RFC 3948,
// section 2.1).
const udpHeaderLen = 8

// udp is ESP in UDP by a port that is ours alone (RFC 3948). Runs of packets
// pass to and from the kernel as one large message where it can (UDP_SEGMENT,
// UDP_GRO).
type udp struct {
	*socket
	six bool
}

// openUDP opens a port. If somebody has it already, such as an IKE daemon that
// has 4500, it is shared. So is a port below 1024, of which the kernel does not
// say who has it to those without CAP_NET_BIND_SERVICE.
func openUDP(k kind) (outer, error) {
	s, err := bindUDP(k)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		return openSharedUDP(k)
	}
	if err != nil {
		return nil, err
	}
	return udp{s, k.six}, nil
}

// udpOptions of a family, for sockets that receive.
func udpOptions(six bool) (domain int, options []option) {
	if six {
		return unix.AF_INET6, []option{
			{unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
			{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1},
		}
	}
	return unix.AF_INET, []option{
		{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT},
		{unix.SOL_IP, unix.IP_PKTINFO, 1},
		{unix.SOL_IP, unix.IP_RECVTOS, 1},
	}
}

func bindUDP(k kind) (*socket, error) {
	domain, options := udpOptions(k.six)
	var any unix.Sockaddr = &unix.SockaddrInet4{Port: int(k.port)}
	if k.six {
		any = &unix.SockaddrInet6{Port: int(k.port)}
	}
	s, err := openSocket(domain, unix.SOCK_DGRAM, unix.IPPROTO_UDP, k.String(), options...)
	if err != nil {
		return nil, err
	}
	err = s.use(func(fd int) error {
		// An older kernel gives packets one by one.
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		return unix.Bind(fd, any)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the socket for %v: %w", k, err), s.close())
	}
	return s, nil
}

// Limits of a message that the kernel cuts into packets: UDP_MAX_SEGMENTS of
// the kernels before 6.9, and what an IP packet can carry.
const (
	maxSegments  = 64
	maxSegmented = 1<<16 - 1 - headerLen6 - udpHeaderLen
)

type udpSender struct {
	*messages
	six      bool
	controls []control
	plain    int  // length of one without traffic class and segments
	single   bool // the kernel does not cut messages along this path

	runs []run // of the packets being sent, one a message
}

// run is packets that are sent as one message: of one class and one size, but
// the last, which may be shorter.
type run struct{ first, n int }

func (u udp) sender(p path, batch int) (sender, error) {
	to, size, err := newSockaddr(netip.AddrPortFrom(p.dst, p.peerPort))
	if err != nil {
		return nil, err
	}
	s := &udpSender{
		messages: newMessages(u.socket, batch, 1),
		six:      u.six,
		controls: make([]control, batch),
		runs:     make([]run, 0, batch),
	}
	for i := range batch {
		s.setName(i, unsafe.Pointer(to), size)
		s.controls[i] = pathControl(p, to.raw.Scope_id)
		s.plain = len(s.controls[i])
	}
	return s, nil
}

func (s *udpSender) send(packets []departure) error {
	for i := range packets {
		s.setPiece(i, packets[i].packet)
	}
	s.runs = s.runs[:0]
	for first := 0; first < len(packets); {
		n := 1
		if !s.single {
			n = runLength(packets[first:])
		}
		s.runs = append(s.runs, run{first, n})
		first += n
	}
	err := s.sendRuns(packets)
	if err == nil || s.single {
		return err
	}
	// A device without checksum offload (EIO), or packets that have to be
	// fragmented (EINVAL, or EMSGSIZE from newer kernels): then one by one.
	refused := s.runs[:0]
	for i, r := range s.runs {
		if r.n > 1 && slices.Contains([]syscall.Errno{syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE}, s.errnos[i]) {
			s.single = true
			refused = append(refused, r)
		}
	}
	if !s.single {
		return err
	}
	again := make([]run, 0, len(packets))
	for _, r := range refused {
		for i := range r.n {
			again = append(again, run{r.first + i, 1})
		}
	}
	s.runs = again
	return s.sendRuns(packets)
}

// runLength is how many of the packets make a run.
func runLength(packets []departure) (n int) {
	size, total := len(packets[0].packet), 0
	for i := range packets[:min(len(packets), maxSegments)] {
		p := &packets[i]
		total += len(p.packet)
		if p.class != packets[0].class || len(p.packet) > size || total > maxSegmented {
			return max(i, 1)
		}
		if len(p.packet) < size {
			return i + 1
		}
		n = i + 1
	}
	return n
}

// sendRuns sends what runs has.
func (s *udpSender) sendRuns(packets []departure) error {
	for i, r := range s.runs {
		c := s.controls[i][:s.plain].withClass(s.six, packets[r.first].class)
		if r.n > 1 {
			c = addControl(c, unix.SOL_UDP, unix.UDP_SEGMENT, uint16(len(packets[r.first].packet)))
		}
		s.setControl(i, c)
		s.setPieces(i, r.first, r.n)
	}
	err := s.sendAll(len(s.runs))
	for i, r := range s.runs {
		for j := range packets[r.first:][:r.n] {
			packets[r.first+j].sent = s.errnos[i] == 0
		}
	}
	return err
}

// joinedIn is how many messages are received at once. Each can be of as many
// packets as IP can carry.
const joinedIn = 16

type udpReceiver struct {
	*messages
	named
	joined      [][]byte // the messages
	next, count int      // of those that have been received and not been handed out
	split       split
}

func (u udp) receiver() receiver {
	m := newMessages(u.socket, joinedIn, 1)
	in := &udpReceiver{messages: m, named: newNamed(joinedIn), joined: make([][]byte, joinedIn), split: newSplit()}
	for i := range in.joined {
		in.joined[i] = make([]byte, 1<<16)
		m.setPiece(i, in.joined[i])
	}
	return in
}

func (r *udpReceiver) receive() ([]arrival, error) {
	if r.split.empty() && r.next == r.count {
		r.prepare(r.messages)
		n, err := r.receiveSome()
		r.next, r.count = 0, n
		if err != nil {
			return nil, err
		}
	}
	return r.split.packets(r.take), nil
}

// take gives the next message to split.
func (r *udpReceiver) take() (m joined, ok bool) {
	if r.next == r.count {
		return m, false
	}
	src, about := r.ends(r.messages, r.next)
	m = joined{
		arrival: arrival{buf: r.joined[r.next], end: int(r.headers[r.next].Len), src: src, dst: about.dst, class: about.class},
		segment: about.segment,
	}
	r.next++
	return m, true
}

// joined is a message of several packets: all have the size of a segment, but
// for the last, which may be shorter. A segment of 0 is all of the message.
type joined struct {
	arrival
	segment int
}

// split puts the packets of joined messages into buffers of their own: a TUN
// device joins packets in their buffers, which therefore can't be parts of one.
type split struct {
	arrivals []arrival
	message  joined // what is left of the last one
}

func newSplit() split { return split{arrivals: newArrivals()} }

// empty says whether nothing is left of the last message.
func (s *split) empty() bool { return s.message.off == s.message.end }

// packets returns packets of as many messages as the buffers take.
func (s *split) packets(next func() (joined, bool)) []arrival {
	n := 0
	for m := &s.message; n < len(s.arrivals); n++ {
		if s.empty() {
			var ok bool
			if s.message, ok = next(); !ok {
				break
			}
		}
		packet := m.buf[m.off:m.end]
		if 0 < m.segment && m.segment < len(packet) {
			packet = packet[:m.segment]
		}
		m.off += len(packet)
		a := &s.arrivals[n]
		a.off, a.end = headroomIn, headroomIn+copy(a.buf[headroomIn:], packet)
		a.src, a.dst, a.class = m.src, m.dst, m.class
	}
	return s.arrivals[:n]
}
