package dataplane

import (
	"errors"
	"os"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/icmp"
	"ifipsec/engine/sad"

	"golang.zx2c4.com/wireguard/tun"
)

// MaxPacket is the largest inner packet that is sent, in bytes: the largest MTU
// of an ipsec interface.
const MaxPacket = 8192

// A packet is read into the middle of a buffer: before it there is room for ESP
// header and IV, after it for padding, trailer and ICV.
const (
	headroomOut = 64
	tailroomOut = 128
	strideOut   = headroomOut + MaxPacket + tailroomOut
)

// outbound is the way out of one tunnel.
type outbound struct {
	tunnel *Tunnel
	memory arena // of the buffers
	bufs   [][]byte
	sizes  []int

	valid []int       // indices of the packets that may be sent
	batch []departure // the packets that were sealed

	way     path // what sender was made for
	sender  sender
	asOf    uint64        // how many ports had been given up when sender was made
	dfbit   int64         // net.inet.ipsec.dfbit, of this batch
	limit   int           // what fits on the path in one piece, in bytes
	whole   *wholeSender  // for packets with DF in IPv4, nil until there is one
	pieces  *piecesSender // for a narrow path of IPv6, nil until there is one
	answers []byte        // room for one

	failed string // the last error of sending, so that each is logged once
}

func newOutbound(t *Tunnel) *outbound {
	n := t.dev.BatchSize()
	o := &outbound{
		tunnel: t,
		bufs:   make([][]byte, n),
		sizes:  make([]int, n),
		valid:  make([]int, 0, n),
		batch:  make([]departure, 0, n),

		answers: make([]byte, headroomWrite, headroomWrite+icmp.MaxAnswer),
	}
	// The device splits segments without looking at how long its buffers are.
	// Segments beyond MaxPacket, which only a link with a forbidden MTU has,
	// must find memory all the same: they run into the buffers after theirs,
	// which are filled later, and are dropped.
	const maxSegment = 1 << 16
	o.memory = newArena(n*strideOut + headroomOut + maxSegment)
	for i := range o.bufs {
		o.bufs[i] = o.memory[i*strideOut:][:headroomOut+maxSegment]
	}
	return o
}

// run carries packets until the device is closed.
func (o *outbound) run() {
	defer o.memory.free()
	failures := 0
	for {
		n, err := o.tunnel.dev.Read(o.bufs, o.sizes, headroomOut)
		if n > 0 {
			o.process(n)
		}
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, os.ErrClosed):
			return
		default:
			// ErrTooManySegments, or a segment that makes no sense: the next
			// one is as good as ever.
			o.tunnel.counters[OutRead].Add(1)
			o.complain(err)
			if failures++; failures > 10 && !errors.Is(err, tun.ErrTooManySegments) {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}
}

// process sends the first n packets that were read.
func (o *outbound) process(n int) {
	var counts TunnelCounters
	defer o.tunnel.counters.add(&counts)

	s := o.tunnel.settings.Load()
	if !s.serves() {
		counts[OutNotRunning] = uint64(n)
		return
	}
	sa := o.tunnel.plane.sad.Outbound(s.index())
	if sa == nil {
		counts[OutNoSA] = uint64(n)
		o.tunnel.plane.noSA(o.tunnel)
		return
	}
	o.check(n, &counts)
	// The SA says how, for it may want other ways than the tunnel's.
	if err := o.choose(sa, s.Mark); err != nil {
		counts[OutSend] += uint64(len(o.valid))
		o.complain(err)
		return
	}
	o.fit(sa, &counts)
	o.seal(sa, &counts)
	o.send(sa, &counts)
}

// choose makes sender one for the SA, if it isn't. Its port may have been given
// up and be wanted again, as when a script flushes the SAs and adds others.
func (o *outbound) choose(sa *sad.SA, mark uint32) error {
	way := pathOf(sa, o.tunnel.moved.Load(), mark)
	givenUp := o.tunnel.plane.encap.givenUp.Load()
	if o.sender == nil || o.way != way || o.asOf != givenUp {
		sender, err := o.tunnel.sender(way, cap(o.batch))
		if err != nil {
			return err
		}
		o.way, o.sender, o.asOf = way, sender, givenUp
	}
	return nil
}

// check picks the packets that may be sent.
func (o *outbound) check(n int, counts *TunnelCounters) {
	o.valid = o.valid[:0]
	plane := o.tunnel.plane
	serving := plane.serving.Load()
	var nested admitter
	for i, size := range o.sizes[:n] {
		if size > MaxPacket {
			counts[OutTooBig]++
			continue
		}
		packet := o.bufs[i][headroomOut:][:size]
		if family(packet) == 0 {
			counts[OutFamily]++
			continue
		}
		if of, outer := plane.outerOf(serving, packet); outer && !nested.admits(o.tunnel, of) {
			counts[OutLoop]++
			continue
		}
		o.valid = append(o.valid, i)
	}
}

// seal makes ESP packets of them.
func (o *outbound) seal(sa *sad.SA, counts *TunnelCounters) {
	o.batch = o.batch[:0]
	if len(o.valid) == 0 {
		return
	}
	seq, err := sa.ESP.Reserve(len(o.valid))
	if err == esp.ErrBound {
		counts[OutNotKept] += uint64(len(o.valid))
		o.complain(err)
		return
	}
	if err != nil {
		counts[OutSequence] += uint64(len(o.valid))
		o.tunnel.plane.counters[Wrap].Add(uint64(len(o.valid)))
		o.complain(err)
		return
	}
	ecn := o.tunnel.plane.ecn(o.way.kind)
	sealer := sa.ESP.Sealer()
	defer sealer.Close()
	for i, b := range o.valid {
		buf := o.bufs[b][: headroomOut+o.sizes[b] : strideOut]
		inner := buf[headroomOut:]
		// Its header is going to be encrypted.
		class, proto := outerClass(trafficClass(inner), ecn), family(inner)
		df := len(inner) <= o.limit && wantsDF(inner, o.dfbit)
		start, end, err := sealer.Seal(seq+uint64(i), buf, headroomOut, len(inner), proto)
		if err != nil {
			counts[OutTooBig]++
			o.tunnel.plane.counters[TooBig].Add(1)
			o.complain(err)
			continue
		}
		o.batch = append(o.batch, departure{packet: buf[start:end], class: class, df: df, inner: len(inner)})
	}
}

// send puts the ESP packets on the wire.
func (o *outbound) send(sa *sad.SA, counts *TunnelCounters) {
	if len(o.batch) == 0 {
		return
	}
	if err := o.transmit(); err != nil {
		o.complain(err)
	}
	// FreeBSD's lifetimes count what was encrypted, with the outer header,
	// whether or not the network took it.
	wire := uint64(len(o.batch) * o.way.kind.headerLen())
	for i := range o.batch {
		d := &o.batch[i]
		wire += uint64(len(d.packet))
		if d.sent {
			counts[OutPackets]++
			counts[OutBytes] += uint64(d.inner)
		} else {
			counts[OutSend]++
		}
	}
	sa.Account(uint64(len(o.batch)), wire)
	o.tunnel.plane.counters[Output].Add(counts[OutPackets])
	o.tunnel.plane.counters[OutputBytes].Add(counts[OutBytes])
}

// complain logs an error, but not one after the other of the same kind.
func (o *outbound) complain(err error) {
	if text := err.Error(); text != o.failed {
		o.failed = text
		o.tunnel.plane.log.Warn("packets are not sent", "interface", o.tunnel.name, "error", err)
	}
}
