package dataplane

import (
	"errors"
	"syscall"

	"ifipsec/engine/icmp"
	"ifipsec/engine/sad"
	"ifipsec/engine/sysctl"
)

// This file is the DF bit outside (net.inet.ipsec.dfbit), and what becomes of
// packets that must not be fragmented outside and are larger than the path takes.

// maxAnswers bounds the answers to the packets of one batch: a sender is told
// again when it sends again.
const maxAnswers = 8

// dontFragment is the DF bit in the octet of an IPv4 header that has it.
const dontFragment = 0x40

// wantsDF says whether a packet's outer header gets the DF bit, with IPv4
// outside; with IPv6 it says whether the host should leave it in one piece.
func wantsDF(inner []byte, dfbit int64) bool {
	switch dfbit {
	case sysctl.DFClear:
		return false
	case sysctl.DFSet:
		return true
	default:
		return inner[0]>>4 == 6 || inner[6]&dontFragment != 0
	}
}

// fit leaves in valid what may be sent, now that the way is known: it takes out
// what is larger than the path takes and can be answered.
func (o *outbound) fit(sa *sad.SA, counts *TunnelCounters) {
	o.dfbit, o.limit = o.tunnel.plane.sysctl.Get(sysctl.DFBit), MaxPacket
	if o.dfbit == sysctl.DFClear {
		return
	}
	known := o.tunnel.pathMTU(o.way)
	if known == 0 {
		return
	}
	o.limit = sa.ESP.MaxPayload(known - o.way.kind.headerLen())
	kept, answers := o.valid[:0], 0
	for _, i := range o.valid {
		inner := o.bufs[i][headroomOut:][:o.sizes[i]]
		if len(inner) <= o.limit || !wantsDF(inner, o.dfbit) || !o.answer(inner, &answers) {
			kept = append(kept, i)
			continue
		}
		counts[OutPathMTU]++
	}
	o.valid = kept
}

// answer tells the sender of a packet how large it may be. It reports false if
// there is no way to tell, and the packet must be carried in pieces.
func (o *outbound) answer(inner []byte, answers *int) bool {
	if inner[0]>>4 == 6 && len(inner) <= icmp.MinMTU6 {
		return false // no sender of IPv6 can be told to send less
	}
	if *answers >= maxAnswers {
		return inner[0]>>4 == 6 || inner[6]&dontFragment != 0
	}
	b, ok := icmp.AppendTooBig(o.answers[:headroomWrite], inner, o.limit)
	if !ok {
		return false
	}
	*answers++
	if _, err := o.tunnel.dev.Write([][]byte{b}, headroomWrite); err != nil {
		o.complain(err)
	}
	return true
}

// transmit sends the batch: by the way that sets the DF bit what gets it, and in
// pieces what an IPv6 path takes no other way.
func (o *outbound) transmit() error {
	special := func(d *departure) bool { return d.df }
	send := o.sendWhole
	if o.way.kind.six {
		mtu := o.tunnel.pathMTU(o.way)
		if mtu == 0 {
			return o.sender.send(o.batch)
		}
		room := mtu - o.way.kind.headerLen()
		special = func(d *departure) bool { return len(d.packet) > room }
		send = func(run []departure) error { return o.sendPieces(run, mtu) }
	} else if o.dfbit == sysctl.DFClear {
		return o.sender.send(o.batch)
	}
	// In their order: the peer's replay window may be small.
	var last error
	for rest := o.batch; len(rest) > 0; {
		n, is := 1, special(&rest[0])
		for n < len(rest) && special(&rest[n]) == is {
			n++
		}
		err := error(nil)
		if is {
			err = send(rest[:n])
		} else {
			err = o.sender.send(rest[:n])
		}
		if err != nil {
			last = err
		}
		rest = rest[n:]
	}
	return last
}

// sendWhole sends packets of IPv4 with the DF bit.
func (o *outbound) sendWhole(run []departure) error {
	if o.whole == nil || o.whole.way != o.way {
		whole, err := o.tunnel.plane.wholeSender(o.way, cap(o.batch))
		if err != nil {
			return err
		}
		o.whole = whole
	}
	err := o.whole.send(run)
	if !errors.Is(err, syscall.EMSGSIZE) {
		return err
	}
	// The first link is too small already. What was refused is encrypted and
	// can't be answered; what comes after it will be.
	if mtu, err := linkMTU(o.way); err == nil {
		o.tunnel.learn(o.way, mtu)
	}
	return err
}

// sendPieces sends packets of IPv6 that are too large for the path.
func (o *outbound) sendPieces(run []departure, mtu int) error {
	if o.pieces == nil || o.pieces.way != o.way {
		pieces, err := o.tunnel.plane.piecesSender(o.way)
		if err != nil {
			return err
		}
		o.pieces = pieces
	}
	return o.pieces.send(run, mtu)
}
