package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/sad"
)

// This file is what ESP in UDP (RFC 3948) needs beyond its sockets: which ports
// are open, where the peer is behind its NAT, and what keeps the NAT's mapping.

// encapsulation counts who needs which of our UDP ports. The plane's lock guards
// it.
type encapsulation struct {
	ports     map[sad.Index]map[uint16]int // the SAs of an index, which may have a tunnel, by our port
	needs     map[kind]int                 // of the tunnels that serve
	keepalive *time.Timer                  // nil while no port is needed
	open      atomic.Bool                  // a port is needed; needs no lock
	givenUp   atomic.Uint64                // how many ports were closed; needs no lock
}

func newEncapsulation() encapsulation {
	return encapsulation{ports: make(map[sad.Index]map[uint16]int), needs: make(map[kind]int)}
}

// stop ends the keepalives.
func (e *encapsulation) stop() {
	if e.keepalive != nil {
		e.keepalive.Stop()
	}
}

// Encapsulated tells the plane of an SA for ESP in UDP that has become usable or
// has gone. Its port is open while a tunnel serves for it. It must be called in
// the order of the changes. It does not wait for packets, and may be called by
// who holds the SAD's lock.
func (p *Plane) Encapsulated(sa *sad.SA, usable bool) {
	n := 1
	if !usable {
		n = -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Which end we are is the tunnels' to say.
	p.countPort(sad.Index{Src: sa.Src, Dst: sa.Dst, ReqID: sa.ReqID}, sa.NATT.SrcPort, n)
	p.countPort(sad.Index{Src: sa.Dst, Dst: sa.Src, ReqID: sa.ReqID}, sa.NATT.DstPort, n)
}

// countPort counts an SA with our port.
func (p *Plane) countPort(i sad.Index, port uint16, n int) {
	ports := p.encap.ports[i]
	if ports == nil {
		ports = make(map[uint16]int)
		p.encap.ports[i] = ports
	}
	before := ports[port]
	ports[port] += n
	_, serves := p.serving.Load().tunnels[i]
	switch {
	case ports[port] == 0:
		delete(ports, port)
		if len(ports) == 0 {
			delete(p.encap.ports, i)
		}
		if serves {
			p.needPort(kind{i.Dst.Is6(), port}, -1)
		}
	case before == 0 && serves:
		p.needPort(kind{i.Dst.Is6(), port}, +1)
	}
}

// needPorts is called when a tunnel begins (1) or ends (-1) to serve.
func (p *Plane) needPorts(i sad.Index, n int) {
	for port := range p.encap.ports[i] {
		p.needPort(kind{i.Dst.Is6(), port}, n)
	}
}

// needPort opens a port that is needed and closes one that is not any more.
func (p *Plane) needPort(k kind, n int) {
	p.encap.needs[k] += n
	defer func() { p.encap.open.Store(len(p.encap.needs) > 0) }()
	if p.encap.needs[k] > 0 {
		// Sending tries again.
		if _, err := p.outer(k); err != nil && !p.closed {
			p.log.Warn("packets can't be received", "way", k, "error", err)
		}
		if p.encap.keepalive == nil && !p.closed {
			p.encap.keepalive = time.AfterFunc(keepaliveTick, p.keepalive)
		}
		return
	}
	delete(p.encap.needs, k)
	if o := p.outers[k]; o != nil && !p.closed {
		delete(p.outers, k)
		p.encap.givenUp.Add(1)
		if err := o.close(); err != nil {
			p.log.Warn("the socket was not closed", "way", k, "error", err)
		}
	}
}

// isESP says of a datagram whether it is ESP, which begins with an SPI (RFC
// 3948, section 2).
func isESP(datagram []byte, counts *Counters) bool {
	switch {
	case len(datagram) == 1 && datagram[0] == keepalive:
		counts[Keepalives]++
	case len(datagram) >= 4 && binary.BigEndian.Uint32(datagram) == 0:
		counts[NonESP]++
	default:
		return true
	}
	return false
}

// localPort is our port of packets for an inbound SA, 0 without UDP.
func localPort(sa *sad.SA) uint16 {
	if sa.NATT == nil {
		return 0
	}
	return sa.NATT.DstPort
}

// source is where an inbound SA's packets come from.
func source(sa *sad.SA) netip.AddrPort {
	if sa.NATT == nil {
		return netip.AddrPortFrom(sa.Src, 0)
	}
	return netip.AddrPortFrom(sa.Src, sa.NATT.SrcPort)
}

// followable says whether a packet of an inbound SA proves by itself that the
// peer has sent it: nobody else can make one, or send an old one again.
func followable(sa *sad.SA) bool {
	if sa.NATT == nil || sa.Replay == 0 {
		return false
	}
	if sa.Auth != 0 && sa.Auth != algorithm.AuthNull {
		return true
	}
	e, ok := algorithm.EncryptionByID(sa.Encrypt)
	return ok && e.AEAD
}

// Mapping is a peer that a NAT shows elsewhere than its SAs say. The zero value
// is one that is where they say.
type Mapping struct{ Configured, Now netip.AddrPort }

// Move tells a tunnel where its peer is until a packet from it says otherwise:
// what [Config.Moved] told of a tunnel in another process.
func (t *Tunnel) Move(m Mapping) { t.moved.Store(&m) }

// follow takes note of where the peer is, when a packet of an inbound SA that
// came from there has been authenticated.
func (t *Tunnel) follow(sa *sad.SA, from netip.AddrPort) {
	old := t.moved.Load()
	var next *Mapping
	if configured := source(sa); configured != from {
		next = &Mapping{configured, from}
	}
	if old == next || old != nil && next != nil && *old == *next {
		return
	}
	t.moved.Store(next)
	if next == nil {
		next = new(Mapping)
	}
	t.plane.moved(t, *next)
	t.plane.log.Info("the peer is reached elsewhere", "interface", t.name, "spi", sa.SPI, "configured", source(sa), "now", from)
}

// A NAT forgets a mapping that nobody uses. One octet is sent when nothing else
// was for 20 seconds at most (RFC 3948, section 4).
const (
	keepalive     = 0xff
	keepaliveTick = 10 * time.Second
)

// keepalive sends to the peers of the tunnels that were silent since the last
// time.
func (p *Plane) keepalive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if len(p.encap.needs) == 0 {
		p.encap.keepalive = nil
		return
	}
	p.encap.keepalive.Reset(keepaliveTick)
	for i, t := range p.serving.Load().tunnels {
		if len(p.encap.ports[i]) == 0 {
			continue
		}
		sent := t.counters[OutPackets].Load()
		idle := sent == t.kept
		t.kept = sent
		if sa := p.sad.Outbound(i); idle && sa != nil && sa.NATT != nil {
			if err := p.keepMapping(pathOf(sa, t.moved.Load(), t.settings.Load().Mark)); err != nil {
				p.log.Debug("no keepalive was sent", "interface", t.name, "error", err)
			}
		}
	}
}

func (p *Plane) keepMapping(way path) error {
	o, err := p.outer(way.kind)
	if err != nil {
		return err
	}
	s, err := o.sender(way, 1)
	if err != nil {
		return err
	}
	return s.send([]departure{{packet: []byte{keepalive}}})
}
