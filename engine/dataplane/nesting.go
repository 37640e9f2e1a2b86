package dataplane

import (
	"encoding/binary"
	"sync"
	"time"

	"ifipsec/engine/sysctl"
)

// This file is tunnels in tunnels. The outer packets of a tunnel may be routed
// into another one, and so on, but never in circles. A packet does not tell
// through which tunnels it went, for it is encrypted; so it is remembered which
// tunnel's outer packets came to which tunnel.

// routeMemory is how long a tunnel counts as the carrier of another one after
// the last packet. When routes change so that the two swap their places, packets
// are dropped for that long.
const routeMemory = 10 * time.Second

// complaintInterval is how often dropped packets of one cause are logged.
const complaintInterval = time.Minute

// nesting is which tunnels carry which. Tunnels with the same endpoints are one
// to it: their outer packets take the same route.
type nesting struct {
	mu      sync.Mutex
	carried map[carriage]time.Time // when it was seen last
	logged  time.Time
}

// carriage is a tunnel, the passenger, whose outer packets another one carries.
type carriage struct{ passenger, carrier ends }

// admit says whether outer packets of the passenger may go through the carrier,
// and remembers that they do.
func (n *nesting) admit(c carriage, deepest int, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for known, seen := range n.carried {
		if now.Sub(seen) > routeMemory {
			delete(n.carried, known)
		}
	}
	// What is admitted makes no circle, so that the searches end.
	if n.reaches(c.carrier, c.passenger) || n.depth(c.passenger)+1 > deepest {
		return false
	}
	if n.carried == nil {
		n.carried = make(map[carriage]time.Time)
	}
	n.carried[c] = now
	return true
}

// reaches says whether packets of a tunnel end up in another or are its own.
func (n *nesting) reaches(from, to ends) bool {
	if from == to {
		return true
	}
	for c := range n.carried {
		if c.passenger == from && n.reaches(c.carrier, to) {
			return true
		}
	}
	return false
}

// depth is how many tunnels the packets of one can have gone through, with it.
func (n *nesting) depth(e ends) (deepest int) {
	for c := range n.carried {
		if c.carrier == e {
			deepest = max(deepest, n.depth(c.passenger))
		}
	}
	return deepest + 1
}

// due says whether it is time to log, and that it is done.
func (n *nesting) due(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.logged.IsZero() && now.Sub(n.logged) < complaintInterval {
		return false
	}
	n.logged = now
	return true
}

// admitter asks nesting for one tunnel, once a batch for each passenger.
type admitter struct {
	last     ends
	admitted bool
	asked    bool
}

// admits says whether a tunnel may carry an outer packet of another one.
func (a *admitter) admits(t *Tunnel, passenger ends) bool {
	if a.asked && a.last == passenger {
		return a.admitted
	}
	p, s := t.plane, t.settings.Load()
	now := p.now()
	carrier := ends{s.Src.WithZone(""), s.Dst.WithZone("")}
	*a = admitter{last: passenger, asked: true, admitted: p.nesting.admit(
		carriage{passenger, carrier}, int(p.sysctl.Get(sysctl.MaxNesting)), now)}
	if !a.admitted && p.nesting.due(now) {
		p.log.Warn("outer packets of a tunnel are routed into a tunnel that they may not go through: in circles, or too deep",
			"interface", t.name, "from", passenger.src, "to", passenger.dst)
	}
	return a.admitted
}

// outerOf returns the ends of the tunnel whose outer packet a packet is.
func (p *Plane) outerOf(s *serving, packet []byte) (e ends, ok bool) {
	proto, e, transport := outermost(packet)
	if proto != protoESP && (proto != protoUDP || !p.encap.open.Load()) {
		return e, false
	}
	if _, ok = s.ends[e]; !ok || proto == protoESP {
		return e, ok
	}
	// A later fragment of UDP between a tunnel's ends may be anybody's; it is
	// better off than in circles.
	if len(transport) < udpHeaderLen+4 {
		return e, transport == nil
	}
	sa := p.sad.Inbound(binary.BigEndian.Uint32(transport[udpHeaderLen:]), e.dst)
	return e, sa != nil && sa.NATT != nil
}
