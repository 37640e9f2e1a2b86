package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// What [SA.Open] can find wrong with a packet.
var (
	// ErrTooShort is a packet without room for header, IV, one block and ICV.
	ErrTooShort = errors.New("esp: packet is too short")
	// ErrAlignment is an encrypted part that is not whole blocks, or not a
	// multiple of 4 octets.
	ErrAlignment = errors.New("esp: packet is not whole blocks")
	// ErrReplay is a sequence number that was received before, is too old for
	// the window, or is 0.
	ErrReplay = errors.New("esp: replayed packet")
	// ErrICV is a packet that was not sealed with the SA's keys, or was
	// changed on its way.
	ErrICV = errors.New("esp: integrity check failed")
	// ErrPadding is a pad length beyond the payload, or padding that is not
	// 1, 2, 3 … although the SA's is. Without authentication, it is the sign
	// of a wrong key.
	ErrPadding = errors.New("esp: bad padding")
)

// Open checks and decrypts packet, which starts at the ESP header and ends
// with the ICV, in place. It returns the payload, which is a part of packet,
// and its protocol number; 59 (no next header) is a dummy packet for the
// caller to drop (RFC 4303, section 2.6). An error is one of ErrTooShort,
// ErrAlignment, ErrReplay, ErrICV, ErrPadding and ErrBound, unwrapped; packet's
// content is then undefined. Open does not allocate.
//
// The SPI is not compared: the SA was found by it, and the ICV covers it.
// A packet counts as received, for the replay window, when everything else was
// found right (RFC 4303, section 3.4.3).
func (sa *SA) Open(packet []byte) (payload []byte, next uint8, err error) {
	text := len(packet) - sa.HeaderLen() - sa.icvLen
	if text < sa.alignIn {
		return nil, 0, ErrTooShort
	}
	if text&(sa.alignIn-1) != 0 {
		return nil, 0, ErrAlignment
	}

	low := binary.BigEndian.Uint32(packet[4:])
	seq := uint64(low)
	if sa.esn {
		seq = sa.state.window.extend(low)
	}
	if !sa.state.window.check(seq) {
		return nil, 0, ErrReplay
	}

	w := sa.workers.Get().(*worker)
	authentic := w.protection.open(packet, seq)
	sa.workers.Put(w)
	if !authentic {
		return nil, 0, ErrICV
	}

	plain := packet[sa.HeaderLen() : sa.HeaderLen()+text]
	pad, next := int(plain[text-2]), plain[text-1]
	n := text - trailerLen - pad
	if n < 0 {
		return nil, 0, ErrPadding
	}
	if sa.padding == Sequential && !bytes.Equal(plain[n:n+pad], sequence[:pad]) {
		return nil, 0, ErrPadding
	}

	window := &sa.state.window
	err = window.mark(seq, sa.esn)
	if seq > window.bound.ask.Load() {
		sa.callLow()
	}
	if err != nil {
		return nil, 0, err
	}
	return plain[:n:n], next, nil
}
