package icmp

import (
	"encoding/binary"
	"net/netip"
)

// Report is what a router says of an ESP packet that was too big for the link
// after it. Everybody can send one: who has seen a packet of the SA knows its
// SPI and sequence numbers, and nobody else does.
type Report struct {
	MTU      int            // bytes that the link takes, 0 if the router does not say (before RFC 1191)
	Src, Dst netip.AddrPort // of the packet; the ports are 0 for ESP right in IP
	Length   int            // bytes of the packet, with its IP header
	SPI      uint32
	Sequence uint32 // the low 32 bits
}

const (
	protoUDP      = 17
	protoESP      = 50
	protoFragment = 44
	udpLen        = 8
	espLen        = 8
)

// ParseTooBig4 reads an ICMP message, which begins after the IPv4 header. ok is
// false if it is not a report about an ESP packet with a sound checksum.
func ParseTooBig4(message []byte) (r Report, ok bool) {
	if len(message) < icmpLen+ipLen4 || message[0] != typeUnreachable || message[1] != codeFragNeeded ||
		sum(0, message) != 0xffff {
		return r, false
	}
	packet := message[icmpLen:]
	header := int(packet[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(packet[6:])
	if packet[0]>>4 != 4 || header < ipLen4 || header > len(packet) || fragment&0x1fff != 0 {
		return r, false
	}
	r.MTU = int(binary.BigEndian.Uint16(message[6:]))
	r.Length = int(binary.BigEndian.Uint16(packet[2:]))
	src, dst := netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	return r, r.parseESP(src, dst, packet[9], packet[header:])
}

// ParseTooBig6 reads an ICMPv6 message, which begins after the IPv6 header and
// whose checksum the kernel has looked at. ok is false if it is not a report
// about an ESP packet.
func ParseTooBig6(message []byte) (r Report, ok bool) {
	if len(message) < icmpLen+ipLen6 || message[0] != typeTooBig6 || message[1] != 0 {
		return r, false
	}
	packet := message[icmpLen:]
	if packet[0]>>4 != 6 {
		return r, false
	}
	r.MTU = int(min(binary.BigEndian.Uint32(message[4:]), 1<<20))
	r.Length = ipLen6 + int(binary.BigEndian.Uint16(packet[4:]))
	next, rest := packet[6], packet[ipLen6:]
	if next == protoFragment {
		if len(rest) < 8 || binary.BigEndian.Uint16(rest[2:])&^7 != 0 {
			return r, false
		}
		next, rest = rest[0], rest[8:]
	}
	src, dst := netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
	return r, r.parseESP(src, dst, next, rest)
}

// parseESP reads what is after the quoted IP header.
func (r *Report) parseESP(src, dst netip.Addr, proto uint8, rest []byte) bool {
	var srcPort, dstPort uint16
	if proto == protoUDP && len(rest) >= udpLen {
		srcPort, dstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		proto, rest = protoESP, rest[udpLen:]
	}
	if proto != protoESP || len(rest) < espLen {
		return false
	}
	r.Src, r.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	r.SPI, r.Sequence = binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
	return true
}

// plateaus are the MTUs of the links there are (RFC 1191, section 7.1).
var plateaus = [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, MinMTU4}

// PathMTU returns the MTU that a report proves, or false if it proves none: what
// it says does not fit the packet. A router that does not say its MTU has one
// below the packet's size.
func (r *Report) PathMTU() (mtu int, ok bool) {
	if r.MTU != 0 {
		return r.MTU, r.MTU < r.Length
	}
	for _, p := range plateaus {
		if r.Dst.Addr().Is4() && p < r.Length {
			return p, true
		}
	}
	return 0, false
}
