// Package dataplane carries packets: from an interface's TUN device through an
// ESP SA to the peer, and back. The way out is told in outbound.go, the way in
// in inbound.go.
//
// Packets move in batches, in buffers that are allocated once: a packet costs no
// allocation, no lock and no map write. A packet that can't go on is dropped and
// counted under its cause. None leaves in clear: the only way out of a TUN
// device is through an SA.
package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ifipsec/engine/sad"
	"ifipsec/engine/sysctl"
	"ifipsec/engine/xdp"

	"golang.zx2c4.com/wireguard/tun"
)

// Config is what a plane works with.
type Config struct {
	SAD *sad.DB      // where the SAs are
	Log *slog.Logger // nil discards

	// Sysctl is the variables; nil is the defaults. They are read with every
	// batch of packets.
	Sysctl *sysctl.Table

	// NoSA is told of an interface that has packets to send and no SA to send
	// them with. It is called at most once a batch, which can be very often,
	// from the interface's own goroutine: it must be quick, and must not wait
	// for anybody who closes the tunnel. It may be nil.
	NoSA func(*Tunnel)

	// Memory returns where the counters of a tunnel are, or for "" the plane's:
	// nil for memory of their own, or [CountersSize] zeroed bytes, aligned to 8,
	// that nobody else writes to. It may be nil.
	Memory func(tunnel string) []byte

	// Moved is told where the peer of a tunnel is, when that changes. It is called
	// from the goroutine that receives: it must be quick, and must not wait for
	// anybody who closes the plane. It may be nil.
	Moved func(*Tunnel, Mapping)

	// Take returns the descriptor of a socket that [Plane.Files] of another plane
	// had under a name, which is the plane's then, or -1. It may be nil.
	Take func(name string) int

	// Hop returns where the packets from one address to another go first, with a
	// mark (SO_MARK), if the plane may send them right to the link. It may be slow.
	// Nil: packets go through the kernel's IP, with all that the host does to them
	// there. See linkSender.
	Hop func(src, dst netip.Addr, mark uint32) (Hop, error)

	// XDP is the links by which packets may leave and arrive past all that the host
	// does to them. It goes with Hop; nil: none.
	XDP *xdp.Links

	// Held has nothing received before [Plane.Begin]: what waits in the sockets of
	// another plane may be for any tunnel, and is lost to one that is not there yet.
	Held bool

	// open opens an outer socket; nil is the kernel's.
	open func(kind) (outer, error)
	now  func() time.Time // nil is time.Now
}

// Plane is the data plane of one network namespace. Its methods may be called
// concurrently.
type Plane struct {
	sad  *sad.DB
	log  *slog.Logger
	noSA func(*Tunnel)
	open func(kind) (outer, error)
	hop  func(src, dst netip.Addr, mark uint32) (Hop, error)
	now  func() time.Time

	changes  atomic.Uint64 // of what hop says
	learns   bool          // from ICMP errors; there is a network to hear them from
	sysctl   *sysctl.Table
	nesting  nesting
	counters *counters
	memory   func(tunnel string) []byte
	moved    func(*Tunnel, Mapping)
	close    func() error // shutDown, once

	ready chan struct{} // closed when packets may be received
	begin func()        // closes it

	// serving has the tunnels that are running and up. It is never changed,
	// but replaced.
	serving atomic.Pointer[serving]

	mu       sync.Mutex // guards what follows, and the replacing of serving
	tunnels  map[*Tunnel]struct{}
	outers   map[kind]outer
	encap    encapsulation
	whole    *socket   // see wholeSender, nil until there is one
	pieces   *socket   // see piecesSender, likewise
	link     *socket   // see linkSender, likewise
	xdp      *xdpLinks // nil without; its own lock guards it
	reports  []*socket // of ICMP errors
	closed   bool
	receives sync.WaitGroup
}

// serving is a set of tunnels.
type serving struct {
	tunnels map[sad.Index]*Tunnel // by what their SAs have in common
	ends    map[ends]struct{}     // of them
}

// New returns a plane without tunnels. Sockets are opened when the first tunnel
// needs them.
func New(c Config) *Plane {
	p := &Plane{
		sad:     c.SAD,
		log:     c.Log,
		noSA:    c.NoSA,
		open:    c.open,
		hop:     c.Hop,
		now:     c.now,
		sysctl:  c.Sysctl,
		memory:  c.Memory,
		moved:   c.Moved,
		tunnels: make(map[*Tunnel]struct{}),
		outers:  make(map[kind]outer),
		encap:   newEncapsulation(),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.noSA == nil {
		p.noSA = func(*Tunnel) {}
	}
	if p.open == nil {
		p.open, p.learns = openOuter, true
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.sysctl == nil {
		p.sysctl = sysctl.New()
	}
	if open, take := p.open, c.Take; take != nil {
		p.open = func(k kind) (outer, error) {
			if fd := take(k.String()); fd >= 0 {
				return takeOuter(k, fd)
			}
			return open(k)
		}
	}
	if p.moved == nil {
		p.moved = func(*Tunnel, Mapping) {}
	}
	if p.memory == nil {
		p.memory = func(string) []byte { return nil }
	}
	if c.XDP != nil {
		p.xdp = newXDPLinks(p, c.XDP)
	}
	p.counters = (*counters)(countersIn(p.memory("")))
	p.serving.Store(&serving{})
	p.close = sync.OnceValue(p.shutDown)
	p.ready = make(chan struct{})
	p.begin = sync.OnceFunc(func() { close(p.ready) })
	if !c.Held {
		p.begin()
	}
	return p
}

// Begin ends what [Config.Held] began.
func (p *Plane) Begin() { p.begin() }

// Attach makes a tunnel of a TUN device, which it owns from now on. Until
// [Tunnel.Configure] says what it is to do, packets wait there. The name is for
// logs.
func (p *Plane) Attach(name string, dev tun.Device) *Tunnel {
	t := newTunnel(p, name, dev)
	p.mu.Lock()
	p.tunnels[t] = struct{}{}
	p.mu.Unlock()
	return t
}

// Counters returns what the plane has counted until now.
func (p *Plane) Counters() Counters { return p.counters.snapshot() }

// Files returns the sockets that another plane can go on with, by name. What
// arrives after this plane was closed waits there. They are the plane's.
func (p *Plane) Files() map[string]*os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	files := map[string]*os.File{}
	for k, o := range p.outers {
		switch o := o.(type) {
		case raw:
			files[k.String()] = o.in.file
		case udp:
			files[k.String()] = o.file
		}
	}
	return files
}

// Close closes all tunnels and sockets and waits until no packet is worked on.
func (p *Plane) Close() error { return p.close() }

func (p *Plane) shutDown() error {
	p.mu.Lock()
	p.closed = true
	tunnels := maps.Clone(p.tunnels)
	outers := p.outers
	p.encap.stop()
	p.mu.Unlock()

	// What has arrived is delivered, and what was read is sent, before that by
	// which it is. What comes after AF_XDP has stopped waits in the other sockets.
	errs := []error{p.xdp.stop()}
	for _, o := range outers {
		o.stop()
	}
	p.begin() // who has not received yet ends too
	for _, s := range p.reports {
		errs = append(errs, s.close())
	}
	p.receives.Wait()

	// The kernel takes milliseconds for each device, most of them waiting.
	first, n := len(errs), 0
	errs = append(errs, make([]error, len(tunnels))...)
	var closing sync.WaitGroup
	for t := range tunnels {
		err := &errs[first+n]
		closing.Go(func() { *err = t.Close() })
		n++
	}
	closing.Wait()
	for _, o := range outers {
		errs = append(errs, o.close())
	}
	for _, s := range []*socket{p.whole, p.pieces, p.link} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(append(errs, p.xdp.close())...)
}

// outer returns the socket of a kind. The caller holds p.mu.
func (p *Plane) outer(k kind) (outer, error) {
	if p.closed {
		return nil, fmt.Errorf("the data plane is closed: %w", syscall.ESHUTDOWN)
	}
	if o, isOpen := p.outers[k]; isOpen {
		return o, nil
	}
	o, err := p.open(k)
	if err != nil {
		return nil, err
	}
	p.outers[k] = o
	if p.learns && k.port == 0 {
		if err := p.listen(k.six); err != nil {
			p.log.Warn("the MTU of paths is not learned", "way", k, "error", err)
		}
	}
	in := newInbound(p, k, o.receiver())
	p.receives.Go(in.run)
	return o, nil
}

// serve makes a tunnel receive for its new settings, or for none. The caller
// holds p.mu.
func (p *Plane) serve(t *Tunnel, old, next *Settings) error {
	if old.serves() && next.serves() && old.index() == next.index() {
		return nil
	}
	tunnels := maps.Clone(p.serving.Load().tunnels)
	if old.serves() {
		delete(tunnels, old.index())
	}
	if next.serves() {
		if other, taken := tunnels[next.index()]; taken {
			return fmt.Errorf("%s has this tunnel and reqid %d: %w", other.name, next.ReqID, syscall.EEXIST)
		}
		if tunnels == nil {
			tunnels = make(map[sad.Index]*Tunnel)
		}
		tunnels[next.index()] = t
	}
	if old.serves() {
		p.needPorts(old.index(), -1)
	}
	if next.serves() {
		p.needPorts(next.index(), +1)
	}
	s := &serving{tunnels: tunnels, ends: make(map[ends]struct{}, len(tunnels))}
	for i := range tunnels {
		s.ends[ends{i.Src.WithZone(""), i.Dst.WithZone("")}] = struct{}{}
	}
	p.serving.Store(s)
	p.xdp.serve(s)
	return nil
}

// ecn is how packets of a kind handle ECN.
func (p *Plane) ecn(k kind) int64 {
	if k.six {
		return p.sysctl.Get(sysctl.ECN6)
	}
	return p.sysctl.Get(sysctl.ECN)
}
