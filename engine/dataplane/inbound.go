package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// headroomWrite is the octets that a TUN device wants before what is written to
// it, for its own header (struct virtio_net_hdr).
const headroomWrite = 10

// maxLen is the longest packet of IP, in octets. A TUN device joins as many as there is
// room for in the buffer, and the kernel refuses all of them if that is more.
const maxLen = 1<<16 - 1

const minSPI = 256 // RFC 4303, section 2.1

// inbound is the way in from one outer socket.
type inbound struct {
	plane    *Plane
	kind     kind
	receiver receiver

	// run of packets with the same SPI and addresses
	spi     uint32
	src     netip.AddrPort
	dst     netip.Addr
	sa      *sad.SA // nil: they are to be dropped, and counted under refusal
	group   int     // of the tunnel, an index of groups
	refusal Counter
	moved   bool   // the peer is somewhere else than its SA says, if the packet proves to be from it
	packets uint64 // to be accounted to sa
	bytes   uint64

	ecn     int64 // how ECN is handled: a value of sysctl.ECN
	groups  []group
	refused uint64 // packets that no tunnel wanted
}

// group is the packets of a batch that go to one tunnel.
type group struct {
	tunnel *Tunnel
	bufs   [][]byte // each with headroomWrite octets before the packet
	bytes  uint64
}

func newInbound(p *Plane, k kind, r receiver) *inbound {
	return &inbound{plane: p, kind: k, receiver: r}
}

// run carries packets until the socket is closed.
func (in *inbound) run() {
	<-in.plane.ready
	for {
		arrivals, err := in.receiver.receive()
		switch {
		case err == nil:
			in.process(arrivals)
		case errors.Is(err, os.ErrClosed):
			return
		default:
			in.plane.log.Warn("packets are not received", "error", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// process delivers what one receive brought.
func (in *inbound) process(arrivals []arrival) {
	var counts Counters
	// An SA can be deleted and a tunnel changed between two batches.
	in.spi = 0
	for i := range arrivals {
		in.packet(&arrivals[i], &counts)
	}
	in.account()
	in.deliver()
	in.plane.counters.add(&counts)
}

// packet opens one packet and puts what is inside with its tunnel's.
func (in *inbound) packet(a *arrival, counts *Counters) {
	packet := a.buf[a.off:a.end]
	if in.kind.port != 0 && !isESP(packet, counts) {
		return
	}
	counts[Input]++
	if len(packet) < 8 {
		counts[HeaderDrops]++
		return
	}
	spi := binary.BigEndian.Uint32(packet)
	if spi < minSPI {
		counts[NoSA]++
		return
	}
	if spi != in.spi || a.src != in.src || a.dst != in.dst {
		in.account()
		in.spi, in.src, in.dst = spi, a.src, a.dst
		in.find()
	}
	if in.sa == nil {
		counts[in.refusal]++
		return
	}

	payload, next, err := in.sa.ESP.Open(packet)
	if err != nil {
		cause := causeOf(err)
		counts[cause]++
		// It is not the packet's fault that the disk is slow.
		if cause != InNotKept {
			in.sa.Refuse(refusalOf(cause))
		}
		return
	}
	counts[InputBytes] += uint64(len(payload))
	in.packets++
	in.bytes += uint64(len(payload))
	if in.moved {
		in.moved = false
		in.groups[in.group].tunnel.follow(in.sa, in.src)
	}
	switch next {
	case protoIPv4, protoIPv6:
	case protoNoNextHead:
		counts[Dummies]++
		return
	default:
		counts[NoFamily]++
		return
	}
	inner, ok := trim(payload, next)
	if !ok {
		counts[TunnelSanity]++
		return
	}
	if !decapsulateECN(inner, a.class, in.ecn) {
		counts[Congestion]++
		return
	}

	start := a.off + in.sa.ESP.HeaderLen()
	g := &in.groups[in.group]
	g.bufs = append(g.bufs, a.buf[start-headroomWrite:start+len(inner):min(start+maxLen, cap(a.buf))])
	g.bytes += uint64(len(inner))
}

// causeOf is the counter of what [esp.SA.Open] found wrong.
func causeOf(err error) Counter {
	switch err {
	case esp.ErrReplay:
		return Replay
	case esp.ErrICV:
		return BadAuth
	case esp.ErrPadding:
		return BadEncrypt
	case esp.ErrBound:
		return InNotKept
	default: // ErrTooShort and ErrAlignment
		return BadLength
	}
}

// refusalOf is what the SA counts it under.
func refusalOf(cause Counter) sad.Refusal {
	switch cause {
	case Replay:
		return sad.RefusedReplay
	case BadAuth:
		return sad.RefusedICV
	default:
		return sad.RefusedMalformed
	}
}

// find looks up the SA of a run of packets, and the tunnel that it serves.
func (in *inbound) find() {
	sa := in.plane.sad.Inbound(in.spi, in.dst)
	in.sa, in.ecn = nil, in.plane.ecn(kind{six: in.dst.Is6()})
	if sa == nil {
		in.refusal = NoSA
		return
	}
	// What is not a tunnel's, a kernel would take as the host's own.
	// There is no such way from here.
	in.refusal, in.moved = PolicyDrops, false
	t := in.plane.serving.Load().tunnels[sad.Index{Src: sa.Dst, Dst: sa.Src, ReqID: sa.ReqID}]
	switch {
	case t == nil:
		in.complain("no running tunnel has the SA's endpoints and reqid", sa)
	case sa.Mode == pfkey.ModeTransport:
		in.complain("the SA is not of tunnel mode", sa)
	case localPort(sa) != in.kind.port:
		in.complain("the packets come by another way than the SA's: UDP port, or none", sa)
	case source(sa) != in.src && !followable(sa):
		in.complain("the sender is not the SA's source", sa)
	default:
		in.sa = sa
		in.moved = source(sa) != in.src || t.moved.Load() != nil
		in.group = in.groupOf(t)
	}
}

// complain logs why packets are refused, ever more rarely.
func (in *inbound) complain(why string, sa *sad.SA) {
	in.refused++
	if bits.OnesCount64(in.refused) == 1 {
		in.plane.log.Warn("ESP packets are refused", "why", why,
			"spi", sa.SPI, "reqid", sa.ReqID, "from", shown(in.src), "to", in.dst, "times", in.refused)
	}
}

// shown is from where a packet came, without a port if it has none.
func shown(src netip.AddrPort) fmt.Stringer {
	if src.Port() == 0 {
		return src.Addr()
	}
	return src
}

// groupOf returns the index of a tunnel's group.
func (in *inbound) groupOf(t *Tunnel) int {
	for i := range in.groups {
		if in.groups[i].tunnel == t {
			return i
		}
	}
	// Groups of earlier batches keep their memory.
	if n := len(in.groups); n < cap(in.groups) {
		in.groups = in.groups[:n+1]
	} else {
		in.groups = append(in.groups, group{})
	}
	g := &in.groups[len(in.groups)-1]
	g.tunnel = t
	return len(in.groups) - 1
}

// account tells the SA of the run that ends what it carried.
func (in *inbound) account() {
	if in.packets != 0 {
		in.sa.Account(in.packets, in.bytes)
		in.packets, in.bytes = 0, 0
	}
}

// deliver gives the kernel what the tunnels have got.
func (in *inbound) deliver() {
	for i := range in.groups {
		g := &in.groups[i]
		if n := uint64(len(g.bufs)); n > 0 {
			c := g.tunnel.counters
			// What Write returns is octets or packets, joined or not.
			if _, err := g.tunnel.dev.Write(g.bufs, headroomWrite); err != nil {
				c[InErrors].Add(n)
			} else {
				c[InPackets].Add(n)
				c[InBytes].Add(g.bytes)
			}
		}
		clear(g.bufs)
		g.tunnel, g.bufs, g.bytes = nil, g.bufs[:0], 0
	}
	in.groups = in.groups[:0]
}
