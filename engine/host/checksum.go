package host

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	headerLen6 = 40
	udpLen     = 8
)

// mendChecksum makes the checksum of a UDP packet in IPv6 ffff if it is 0 because the
// sum came to that: 0 would say that there is none, which IPv6 forbids (RFC 8200,
// section 8.1). Package tun, which works out what the kernel leaves to it, knows no
// such exception. A tunnel's packet that has no checksum (RFC 6935) stays as it is.
func mendChecksum(packet []byte) {
	if len(packet) < headerLen6+udpLen || packet[0]>>4 != 6 || packet[6] != unix.IPPROTO_UDP {
		return
	}
	field := packet[headerLen6+6:][:2]
	if binary.BigEndian.Uint16(field) != 0 {
		return
	}
	addresses, udp := packet[8:headerLen6], packet[headerLen6:]
	sum := unix.IPPROTO_UDP + uint64(len(udp)) // of the pseudo-header (RFC 8200, section 8.1)
	for _, b := range [][]byte{addresses, udp} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint64(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	}
	// The sum of what is not all zero is never 0.
	if sum%0xffff == 0 {
		binary.BigEndian.PutUint16(field, 0xffff)
	}
}
