package esp

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// ErrNoRoom is what [SA.Seal] returns when the buffer has too little room
// before or after the payload. It wraps EMSGSIZE.
var ErrNoRoom = fmt.Errorf("esp: no room for header or trailer in the buffer: %w", syscall.EMSGSIZE)

// sequence is the padding of RFC 4303, section 2.4.
var sequence = func() (s [255]byte) {
	for i := range s {
		s[i] = byte(i + 1)
	}
	return s
}()

// Seal makes the ESP packet buf[start:end] of the payload buf[off:off+n], in
// place: header and IV before the payload, padding and ICV after it. It needs
// HeaderLen octets before off, and after the payload the capacity for what is
// added, at most MaxTrailerLen octets; with less, it returns ErrNoRoom and
// leaves buf as it was. end can be beyond len(buf).
//
// seq comes from [SA.Reserve] and is used once: counter modes and AEADs make
// the IV of it. next is the payload's protocol number (4 for IPv4, 41 for
// IPv6). Seal does not allocate.
func (sa *SA) Seal(seq uint64, buf []byte, off, n int, next uint8) (start, end int, err error) {
	if n < 0 || off < sa.HeaderLen() || off > len(buf) || n > len(buf)-off {
		return 0, 0, ErrNoRoom
	}
	pad := -(n + trailerLen) & (sa.alignOut - 1)
	start = off - sa.HeaderLen()
	end = off + n + pad + trailerLen + sa.icvLen
	if end > cap(buf) {
		return 0, 0, ErrNoRoom
	}
	packet := buf[start:end:end]
	w := sa.workers.Get().(*worker)

	binary.BigEndian.PutUint32(packet, sa.spi)
	binary.BigEndian.PutUint32(packet[4:], uint32(seq))
	trailer := packet[sa.HeaderLen()+n:]
	switch sa.padding {
	case Sequential:
		copy(trailer[:pad], sequence[:])
	case Zero:
		clear(trailer[:pad])
	case Random:
		w.random.fill(trailer[:pad])
	}
	trailer[pad] = uint8(pad)
	trailer[pad+1] = next
	w.protection.seal(packet, seq)

	sa.workers.Put(w)
	return start, end, nil
}
