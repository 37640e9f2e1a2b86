package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"

	"ifipsec/engine/xdp"

	"golang.org/x/sys/unix"
)

// Hop is where the packets of a path go first: a neighbour on an Ethernet link.
type Hop struct {
	Link    int     // index of the link
	Own     [6]byte // the link's address
	Queues  int     // at most, of what the link receives
	Address [6]byte // the neighbour's, on the link
	MTU     int     // in bytes
}

// linkSender sends ESP packets right to the link, by packet(7): the kernel's IP is
// half of what a packet costs. Queueing disciplines and the hooks of the link
// itself are in the way as ever; routing is followed by asking for it; the host's
// other hooks (netfilter's output and postrouting, filters of control groups) see
// nothing, which is why somebody must want it. With AF_XDP the queueing disciplines
// see nothing either.
//
// Whatever is not plain goes the ordinary way: until the neighbour is known, after
// each change of routes, links and neighbours until the new state is known, and
// what has to be fragmented. So does a batch a second, without which the kernel
// would forget the neighbour, or not notice that it is gone.
type linkSender struct {
	*messages
	ordinary sender
	plane    *Plane
	way      path

	hop     atomic.Pointer[knownHop]
	asking  atomic.Bool
	due     time.Time // for the next batch of the ordinary way
	to      unix.RawSockaddrLinklayer
	headers [][headerLen6]byte
	id      uint16

	// For AF_XDP:
	ether [etherLen]byte
	batch []departure
	put   func(i int, frame []byte) (size int) // writes batch[i]
}

// knownHop is what was true before a number of changes.
type knownHop struct {
	Hop
	changes uint64
	err     error
	xdp     *xdpLink // nil without AF_XDP
	later   bool     // there may be AF_XDP later
}

// ordinaryEvery is how often a batch goes through the kernel's IP.
const ordinaryEvery = time.Second

// HopsChanged tells the plane that what [Config.Hop] has said may not be true any
// more.
func (p *Plane) HopsChanged() { p.changes.Add(1) }

// linkSender returns one for a path of ESP right in IP. What it can't send itself it
// sends by another sender, whose socket is given too.
func (p *Plane) linkSender(way path, batch int, ordinary sender, by *socket) (*linkSender, error) {
	s, err := p.sending(&p.link, unix.AF_PACKET, unix.SOCK_DGRAM, 0, "packets right to a link")
	if err != nil {
		return nil, err
	}
	l := &linkSender{
		messages: newMessages(s, batch, 2),
		ordinary: ordinary,
		plane:    p,
		way:      way,
		to:       unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Halen: 6},
		headers:  make([][headerLen6]byte, batch),
		id:       uint16(rand.Uint32()),
	}
	limit, err := by.hopLimit(way.kind.six)
	if err != nil {
		return nil, err
	}
	flow := rand.Uint32N(1 << 20) // RFC 6437, section 3: one for all packets of a flow
	protocol := uint16(unix.ETH_P_IP)
	if way.kind.six {
		protocol = unix.ETH_P_IPV6
	}
	l.to.Protocol = protocol>>8 | protocol<<8
	binary.BigEndian.PutUint16(l.ether[12:], protocol)
	l.put = l.putFrame
	for i := range l.headers {
		h := &l.headers[i]
		if way.kind.six {
			binary.BigEndian.PutUint32(h[:], 6<<28|flow)
			h[6], h[7] = protoESP, limit
			copy(h[8:], way.src.AsSlice())
			copy(h[24:], way.dst.AsSlice())
		} else {
			h[0], h[8], h[9] = 0x45, limit, protoESP
			copy(h[12:], way.src.AsSlice())
			copy(h[16:], way.dst.AsSlice())
		}
		l.setPiece(2*i, h[:way.kind.headerLen()])
		l.setName(i, unsafe.Pointer(&l.to), unix.SizeofSockaddrLinklayer)
	}
	return l, nil
}

func (l *linkSender) send(packets []departure) error {
	hop := l.direct(packets)
	if hop == nil {
		return l.ordinary.send(packets)
	}
	for i := range packets {
		l.finish(&l.headers[i], &packets[i])
	}
	if hop.xdp != nil && etherLen+hop.MTU <= xdp.MaxFrame {
		return l.sendFrames(packets, hop)
	}
	l.to.Ifindex = int32(hop.Link)
	copy(l.to.Addr[:], hop.Address[:])
	for i := range packets {
		l.setPiece(2*i+1, packets[i].packet)
	}
	return l.sendEach(packets)
}

// sendFrames is send by AF_XDP.
func (l *linkSender) sendFrames(packets []departure, hop *knownHop) error {
	copy(l.ether[:], hop.Address[:])
	copy(l.ether[6:], hop.Own[:])
	l.batch = packets
	sent, err := hop.xdp.send(len(packets), l.put)
	for i := range packets {
		packets[i].sent = i < sent
	}
	if err != nil {
		l.ask(hop.changes) // the link may be gone, or another process's
	}
	return err
}

// putFrame writes the frame of a packet.
func (l *linkSender) putFrame(i int, frame []byte) (size int) {
	size = copy(frame, l.ether[:])
	size += copy(frame[size:], l.headers[i][:l.way.kind.headerLen()])
	return size + copy(frame[size:], l.batch[i].packet)
}

// finish writes what is a packet's own into its outer header.
func (l *linkSender) finish(h *[headerLen6]byte, d *departure) {
	if l.way.kind.six {
		h[0], h[1] = 6<<4|d.class>>4, d.class<<4|h[1]&0x0f
		binary.BigEndian.PutUint16(h[4:], uint16(len(d.packet)))
		return
	}
	h[1] = d.class
	binary.BigEndian.PutUint16(h[2:], uint16(headerLen4+len(d.packet)))
	// A router may cut the packet, so that its number counts.
	binary.BigEndian.PutUint16(h[4:], l.id)
	l.id++
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], headerChecksum(h[:headerLen4]))
}

// headerChecksum is the checksum of an IPv4 header (RFC 791, section 3.1).
func headerChecksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

// direct returns the hop if packets can go right to the link, else nil.
func (l *linkSender) direct(packets []departure) *knownHop {
	changes := l.plane.changes.Load()
	hop := l.hop.Load()
	if hop == nil || hop.changes != changes {
		l.ask(changes)
		return nil
	}
	now := l.plane.now()
	if now.After(l.due) {
		l.due = now.Add(ordinaryEvery)
		if hop.later {
			l.ask(changes)
		}
		return nil
	}
	if hop.err != nil {
		return nil
	}
	room := hop.MTU - l.way.kind.headerLen()
	for i := range packets {
		if len(packets[i].packet) > room {
			return nil
		}
	}
	return hop
}

// ask finds out about the first hop. Packets don't wait for that.
func (l *linkSender) ask(changes uint64) {
	if l.asking.Swap(true) {
		return
	}
	go func() {
		defer l.asking.Store(false)
		known := knownHop{changes: changes}
		if known.Hop, known.err = l.plane.hop(l.way.src, l.way.dst, l.way.mark); known.err == nil {
			known.xdp, known.later = l.plane.xdp.link(known.Hop, l.way)
		}
		l.hop.Store(&known)
	}()
}
