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

// Sealer seals a run of packets, which takes less than one after the other. It is
// for one goroutine, and to be closed.
type Sealer struct {
	sa *SA
	w  *worker
}

// Sealer returns one that has nothing to seal yet.
func (sa *SA) Sealer() Sealer { return Sealer{sa, sa.workers.Get().(*worker)} }

// Close completes the packets. It must be called once.
func (s Sealer) Close() {
	s.w.protection.finish()
	s.sa.workers.Put(s.w)
}

// Seal is [Sealer.Seal] for one packet, which is complete.
func (sa *SA) Seal(seq uint64, buf []byte, off, n int, next uint8) (start, end int, err error) {
	s := sa.Sealer()
	defer s.Close()
	return s.Seal(seq, buf, off, n, next)
}

// Seal makes the ESP packet buf[start:end] of the payload buf[off:off+n], in
// place: header and IV before the payload, padding and ICV after it. It needs
// HeaderLen octets before off, and after the payload the capacity for what is
// added, at most MaxTrailerLen octets; with less, it returns ErrNoRoom and
// leaves buf as it was. end can be beyond len(buf). The packet is complete when the
// Sealer is closed, and buf must not be touched until then.
//
// seq comes from [SA.Reserve] and is used once: counter modes and AEADs make
// the IV of it. next is the payload's protocol number (4 for IPv4, 41 for
// IPv6). Seal does not allocate.
func (s Sealer) Seal(seq uint64, buf []byte, off, n int, next uint8) (start, end int, err error) {
	sa, w := s.sa, s.w
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
	return start, end, nil
}
