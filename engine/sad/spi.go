package sad

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"

	"ifipsec/engine/pfkey"
)

const (
	minSPI = 0x100      // those below are reserved; also net.key.spi_minval
	maxSPI = 0x0fffffff // net.key.spi_maxval
	maxCPI = 0xffff     // IPComp, RFC 3173, section 3.3

	spiTries = 1000 // net.key.spi_trycnt
)

// freeSPI picks at random an SPI that no SA has.
func (db *DB) freeSPI(t pfkey.SAType, low, high uint32) (uint32, error) {
	if low == 0 && high == 0 {
		low, high = minSPI, maxSPI
	}
	if low > high {
		return 0, invalid("the SPI range from %d to %d is empty", low, high)
	}
	switch t {
	case pfkey.SATypeIPComp:
		low, high = min(low, maxCPI), min(high, maxCPI)
	case pfkey.SATypeESP, pfkey.SATypeAH:
		if high < minSPI {
			return 0, invalid("the SPIs from %d to %d are reserved, want %d or more", low, high, minSPI)
		}
		low = max(low, minSPI)
	}

	// A small range is searched through from a random place, so that its last
	// free SPI is found; in a large one the chance not to hit a free one is nil.
	size := uint64(high-low) + 1
	at, err := db.random()
	if err != nil {
		return 0, err
	}
	for range min(size, spiTries) {
		spi := low + uint32(at%size)
		if spi != 0 && db.spis.get(spi) == nil {
			return spi, nil
		}
		if size <= spiTries {
			at++
		} else if at, err = db.random(); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("no SPI from %d to %d is free: %w", low, high, syscall.EEXIST)
}

func (db *DB) random() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(db.rand, b[:]); err != nil {
		return 0, fmt.Errorf("no random SPI: %w: %w", err, syscall.EAGAIN)
	}
	// Half of the range, so that counting on from it cannot overflow.
	return binary.NativeEndian.Uint64(b[:]) >> 1, nil
}
