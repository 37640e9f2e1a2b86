// Package icmp has what a tunnel says and hears by ICMP about packets that are
// too big: "fragmentation needed" of ICMP (RFC 792, RFC 1191) and "packet too
// big" of ICMPv6 (RFC 4443). It does no I/O.
package icmp

import (
	"encoding/binary"
	"net/netip"
)

// What the answers say of MTUs, in bytes.
const (
	MinMTU4 = 68   // RFC 791: what every link of IPv4 takes
	MinMTU6 = 1280 // RFC 8200, section 5: what every link of IPv6 takes
)

// The sizes of an answer, in bytes with the IP header. It has as much of the
// packet as fits.
const (
	maxAnswer4 = 576  // RFC 1812, section 4.3.2.3
	maxAnswer6 = 1280 // RFC 4443, section 2.4 (c)
)

// MaxAnswer is the most bytes that an answer has.
const MaxAnswer = maxAnswer6

const (
	ipLen4  = 20
	ipLen6  = 40
	icmpLen = 8

	protoICMP   = 1
	protoICMPv6 = 58

	typeUnreachable = 3 // with
	codeFragNeeded  = 4
	typeTooBig6     = 2

	hopLimit = 64
)

// AppendTooBig appends to b the packet that tells the sender of a packet, which
// is IPv4 or IPv6, to send none that is larger than mtu bytes. It comes from the
// packet's destination: an address that the sender reaches through the tunnel,
// so that no check of the source refuses it. mtu is raised to the family's
// minimum.
//
// ok is false, and b as it was, if nothing may be said about the packet: it
// makes no sense or has no DF bit, it is itself an ICMP error or a later
// fragment, or it comes from or goes to more than one host (RFC 1122, section
// 3.2.2; RFC 4443, section 2.4 (e)).
func AppendTooBig(b, packet []byte, mtu int) (answer []byte, ok bool) {
	if len(packet) == 0 {
		return b, false
	}
	switch packet[0] >> 4 {
	case 4:
		return appendTooBig4(b, packet, mtu)
	case 6:
		return appendTooBig6(b, packet, mtu)
	}
	return b, false
}

func appendTooBig4(b, packet []byte, mtu int) ([]byte, bool) {
	if !answerable4(packet) {
		return b, false
	}
	quote := packet[:min(len(packet), maxAnswer4-ipLen4-icmpLen)]
	start := len(b)
	b = append(b, make([]byte, ipLen4+icmpLen)...)
	b = append(b, quote...)
	answer := b[start:]

	answer[0] = 0x45
	answer[1] = 0xc0 // internetwork control (RFC 1812, section 4.3.2.5)
	binary.BigEndian.PutUint16(answer[2:], uint16(len(answer)))
	answer[8] = hopLimit
	answer[9] = protoICMP
	copy(answer[12:16], packet[16:20])
	copy(answer[16:20], packet[12:16])
	binary.BigEndian.PutUint16(answer[10:], ^sum(0, answer[:ipLen4]))

	message := answer[ipLen4:]
	message[0], message[1] = typeUnreachable, codeFragNeeded
	binary.BigEndian.PutUint16(message[6:], uint16(min(max(mtu, MinMTU4), 0xffff)))
	binary.BigEndian.PutUint16(message[2:], ^sum(0, message))
	return b, true
}

func answerable4(packet []byte) bool {
	const dontFragment, offset = 0x4000, 0x1fff
	if len(packet) < ipLen4 {
		return false
	}
	header := int(packet[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(packet[6:])
	if header < ipLen4 || header > len(packet) || fragment&dontFragment == 0 || fragment&offset != 0 {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	if !oneHost(src) || !oneHost(dst) {
		return false
	}
	if packet[9] != protoICMP {
		return true
	}
	if header == len(packet) {
		return false
	}
	switch packet[header] {
	case 3, 4, 5, 11, 12: // the errors, and Redirect
		return false
	}
	return true
}

func appendTooBig6(b, packet []byte, mtu int) ([]byte, bool) {
	if !answerable6(packet) {
		return b, false
	}
	quote := packet[:min(len(packet), maxAnswer6-ipLen6-icmpLen)]
	start := len(b)
	b = append(b, make([]byte, ipLen6+icmpLen)...)
	b = append(b, quote...)
	answer := b[start:]

	answer[0] = 0x60
	binary.BigEndian.PutUint16(answer[4:], uint16(icmpLen+len(quote)))
	answer[6] = protoICMPv6
	answer[7] = hopLimit
	copy(answer[8:24], packet[24:40])
	copy(answer[24:40], packet[8:24])

	message := answer[ipLen6:]
	message[0] = typeTooBig6
	binary.BigEndian.PutUint32(message[4:], uint32(max(mtu, MinMTU6)))
	// The pseudo-header of RFC 8200, section 8.1.
	pseudo := uint32(len(message)) + protoICMPv6
	pseudo += uint32(sum(0, answer[8:40]))
	binary.BigEndian.PutUint16(message[2:], ^sum(pseudo, message))
	return b, true
}

func answerable6(packet []byte) bool {
	if len(packet) < ipLen6 {
		return false
	}
	src, dst := netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
	if !oneHost(src) || !oneHost(dst) {
		return false
	}
	// An error of ICMPv6 may come after extension headers. Where it can't be
	// seen what comes, nothing is said.
	next, rest := packet[6], packet[ipLen6:]
	for {
		switch next {
		case 0, 43, 60, 135: // hop-by-hop, routing, destination options, mobility
			if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
				return false
			}
			next, rest = rest[0], rest[8+int(rest[1])*8:]
		case 44: // fragment
			if len(rest) < 8 {
				return false
			}
			if binary.BigEndian.Uint16(rest[2:])&^7 != 0 {
				return rest[0] != protoICMPv6
			}
			next, rest = rest[0], rest[8:]
		case protoICMPv6:
			return len(rest) > 0 && rest[0] >= 128 && rest[0] != 137 // errors are below; Redirect
		default:
			return true
		}
	}
}

// oneHost says whether an address is one host's, and can be answered.
func oneHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && (!a.Is4() || a.As4()[0] != 0 && a.As4()[0] < 240)
}

// sum is the one's complement sum of RFC 1071 of start and b.
func sum(start uint32, b []byte) uint16 {
	n := uint64(start)
	for ; len(b) >= 2; b = b[2:] {
		n += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		n += uint64(b[0]) << 8
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}
