package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"ifipsec/engine/readable"
	"ifipsec/engine/xdp"
)

// xdpLinks are the links by which ESP right in IP leaves and arrives past all of the
// host's network: see package xdp. linkSender sends by them, and xdpReceiver receives
// what comes from its peers to us. Whatever is not plain, fragments first of all, goes
// and comes by the ordinary sockets.
type xdpLinks struct {
	plane *Plane
	links *xdp.Links

	mu      sync.Mutex
	open    map[int]*xdpLink // by the link's index
	refused map[int]error    // why a link is not open, so that it is logged once
	pairs   map[ends]struct{}
	stopped bool
}

// xdpLink is one of them.
type xdpLink struct {
	*xdp.Link
	queues []*readable.File // of its sockets; who uses one holds its queue
}

func newXDPLinks(p *Plane, links *xdp.Links) *xdpLinks {
	return &xdpLinks{
		plane: p, links: links,
		open: make(map[int]*xdpLink), refused: make(map[int]error), pairs: make(map[ends]struct{}),
	}
}

// link returns the link of a hop, which receives what comes back along the path from
// then on. There is none, nil, without AF_XDP, or if it can't be had; later says that it
// may be had later.
func (x *xdpLinks) link(hop Hop, way path) (l *xdpLink, later bool) {
	if x == nil {
		return nil, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped {
		return nil, false
	}
	for index, l := range x.open {
		if err := l.Sockets[0].Err(); err != nil {
			delete(x.open, index)
			x.plane.log.Info("packets don't pass by AF_XDP any more", "link", index, "error", err, "closed", l.close())
		}
	}
	if l = x.open[hop.Link]; l == nil {
		var err error
		if l, err = x.begin(hop); err != nil {
			if known := x.refused[hop.Link]; known == nil || known.Error() != err.Error() {
				x.refused[hop.Link] = err
				x.plane.log.Warn("packets don't pass by AF_XDP", "error", err)
			}
			// What locked memory another one gave up counts for a while yet.
			return nil, errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ENOBUFS)
		}
		delete(x.refused, hop.Link)
		x.open[hop.Link] = l
		x.plane.log.Info("packets pass by AF_XDP", "link", hop.Link, "queues", len(l.queues))
	}
	if err := l.Take(way.dst, way.src, hop.Own); err != nil {
		x.plane.log.Warn("packets are not received by AF_XDP", "link", hop.Link, "from", way.dst, "to", way.src, "error", err)
		return l, false
	}
	x.pairs[ends{way.src, way.dst}] = struct{}{}
	return l, false
}

// begin opens a link and receives.
func (x *xdpLinks) begin(hop Hop) (*xdpLink, error) {
	opened, err := x.links.Open(hop.Link, hop.Queues)
	if err != nil {
		return nil, err
	}
	l := &xdpLink{Link: opened}
	for _, s := range opened.Sockets {
		q, err := readable.New(s.FD(), func() error { return nil })
		if err != nil {
			return nil, errors.Join(fmt.Errorf("AF_XDP for link %d: %w", hop.Link, err), l.close())
		}
		l.queues = append(l.queues, q)
	}
	for i, s := range opened.Sockets {
		x.plane.receives.Go(newInbound(x.plane, kind{}, newXDPReceiver(s, l.queues[i])).run)
	}
	return l, nil
}

// close waits for those who send and receive, who end soon.
func (l *xdpLink) close() error {
	var errs []error
	for _, q := range l.queues {
		errs = append(errs, q.Close())
	}
	return errors.Join(append(errs, l.Link.Close())...)
}

// serve leaves the host what comes for tunnels that there are no more.
func (x *xdpLinks) serve(s *serving) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for e := range x.pairs {
		if _, ok := s.ends[e]; !ok {
			delete(x.pairs, e)
			if err := x.links.Leave(e.dst, e.src); err != nil {
				x.plane.log.Warn("packets are not left to the host", "from", e.dst, "to", e.src, "error", err)
			}
		}
	}
}

// stop ends receiving when what has arrived is delivered. What comes later takes the
// ordinary way.
func (x *xdpLinks) stop() (err error) {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped = true
	for _, l := range x.open {
		err = errors.Join(err, l.Detach())
		for _, q := range l.queues {
			q.Stop()
		}
	}
	return err
}

// close ends sending, after stop.
func (x *xdpLinks) close() (err error) {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for index, l := range x.open {
		err = errors.Join(err, l.close())
		delete(x.open, index)
	}
	return err
}

// send sends frames that put writes, see [xdp.Socket.Send].
func (l *xdpLink) send(n int, put func(i int, frame []byte) (size int)) (sent int, err error) {
	if _, err := l.queues[0].Acquire(); err != nil {
		return 0, err
	}
	defer l.queues[0].Release()
	return l.Sockets[0].Send(n, put)
}

// xdpReceiver gets frames of Ethernet with packets of both families, which the program
// has found to be plain.
type xdpReceiver struct {
	socket   *xdp.Socket
	queue    *readable.File
	arrivals []arrival
	n        int // of them that are filled
	take     func(frame []byte) bool
	rest     rest
}

func newXDPReceiver(s *xdp.Socket, queue *readable.File) *xdpReceiver {
	r := &xdpReceiver{socket: s, queue: queue, arrivals: newArrivals()}
	r.take = r.takeFrame
	return r
}

func (r *xdpReceiver) receive() ([]arrival, error) {
	r.rest.take(r.n)
	r.n = 0
	if _, err := r.queue.Acquire(); err != nil {
		return nil, err
	}
	defer r.queue.Release()
	for {
		// What was there before Stop is delivered.
		stopped := r.queue.Stopped()
		r.socket.Receive(r.take)
		if r.n > 0 {
			return r.arrivals[:r.n], nil
		}
		if stopped {
			return nil, os.ErrClosed
		}
		if err := r.queue.Wait(); err != nil && !errors.Is(err, os.ErrClosed) {
			return nil, err
		}
	}
}

// takeFrame makes an arrival of a frame, if there is room for another one and it holds
// what it says.
func (r *xdpReceiver) takeFrame(frame []byte) bool {
	if r.n == len(r.arrivals) {
		return false
	}
	a := &r.arrivals[r.n]
	packet := frame[etherLen:]
	var size, header int // of the packet; Ethernet may have padded it
	if packet[0]>>4 == 6 {
		header = headerLen6
		size = header + int(binary.BigEndian.Uint16(packet[4:]))
		a.src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(packet[8:])), 0)
		a.dst = netip.AddrFrom16([16]byte(packet[24:]))
	} else {
		header = headerLen4
		size = int(binary.BigEndian.Uint16(packet[2:]))
		a.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[12:])), 0)
		a.dst = netip.AddrFrom4([4]byte(packet[16:]))
		if headerChecksum(packet[:header]) != 0 {
			return true
		}
	}
	if size < header || size > len(packet) {
		return true
	}
	a.class = trafficClass(packet)
	a.off, a.end = headroomIn, headroomIn+copy(a.buf[headroomIn:], packet[header:size])
	r.n++
	return true
}

// etherLen is the octets of Ethernet's header.
const etherLen = 14
