package dataplane

import (
	"encoding/binary"
	"net/netip"

	"ifipsec/engine/sysctl"
)

// Protocol numbers, of the inner packet in ESP and of ESP in IP.
const (
	protoIPv4       = 4
	protoUDP        = 17
	protoIPv6       = 41
	protoFragment   = 44
	protoESP        = 50
	protoNoNextHead = 59
)

const (
	headerLen4 = 20 // without options
	headerLen6 = 40
)

// family returns the protocol number of an IP packet, 0 if it is none.
func family(packet []byte) uint8 {
	switch {
	case len(packet) >= headerLen4 && packet[0]>>4 == 4:
		return protoIPv4
	case len(packet) >= headerLen6 && packet[0]>>4 == 6:
		return protoIPv6
	}
	return 0
}

// trim returns the IP packet at the beginning of a payload. What follows it is
// padding against traffic analysis (RFC 4303, section 2.7). The family is that
// of the ESP trailer's next header.
func trim(payload []byte, next uint8) (packet []byte, ok bool) {
	if family(payload) != next {
		return nil, false
	}
	var total int
	switch next {
	case protoIPv4:
		header := int(payload[0]&0x0f) * 4
		total = int(binary.BigEndian.Uint16(payload[2:]))
		if header < headerLen4 || total < header {
			return nil, false
		}
	case protoIPv6:
		total = headerLen6 + int(binary.BigEndian.Uint16(payload[4:]))
	default:
		return nil, false
	}
	if total > len(payload) {
		return nil, false
	}
	return payload[:total], true
}

// trafficClass returns the octet of DS and ECN fields of an IP packet.
func trafficClass(packet []byte) uint8 {
	if packet[0]>>4 == 4 {
		return packet[1]
	}
	return packet[0]<<4 | packet[1]>>4
}

func setTrafficClass(packet []byte, class uint8) {
	if packet[0]>>4 == 6 {
		packet[0] = packet[0]&0xf0 | class>>4
		packet[1] = packet[1]&0x0f | class<<4
		return
	}
	// The header checksum follows (RFC 1624).
	old := binary.BigEndian.Uint16(packet)
	packet[1] = class
	sum := uint32(^binary.BigEndian.Uint16(packet[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(packet))
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
}

// Values of the ECN field (RFC 3168, section 5).
const (
	ecnMask = 3
	ecnECT1 = 1
	ecnECT0 = 2
	ecnCE   = 3
)

// outerClass is the traffic class of the outer header. The DS field is copied;
// mode is net.inet.ipsec.ecn or net.inet6.ipsec6.ecn. FreeBSD's default is to say
// that the tunnel does not carry ECN (RFC 6040's compatibility mode).
func outerClass(inner uint8, mode int64) uint8 {
	if mode == sysctl.ECNForbidden {
		return inner &^ ecnMask
	}
	return inner
}

// decapsulateECN brings the outer header's ECN field into the inner packet
// (RFC 6040, section 4.2) if mode says that the tunnel carries ECN. Otherwise the
// inner packet is as it was sent: FreeBSD strips the outer header unread. It
// reports false for a packet that is to be dropped: it met congestion, and the
// inner packet has no way to say so.
func decapsulateECN(packet []byte, outer uint8, mode int64) (keep bool) {
	if outer&ecnMask == 0 || outer&ecnMask == ecnECT0 || mode != sysctl.ECNAllowed {
		return true
	}
	inner := trafficClass(packet)
	switch {
	case outer&ecnMask == ecnCE && inner&ecnMask == 0:
		return false
	case outer&ecnMask == ecnCE:
		setTrafficClass(packet, inner|ecnCE)
	case inner&ecnMask == ecnECT0: // and the outer is ECT(1)
		setTrafficClass(packet, inner&^ecnMask|ecnECT1)
	}
	return true
}

// ends are the outer endpoints of a tunnel, without zones.
type ends struct{ src, dst netip.Addr }

// outermost returns an IP packet's protocol, from where to where it goes, and
// what is after its header: nil in a later fragment.
func outermost(packet []byte) (proto uint8, e ends, transport []byte) {
	if packet[0]>>4 == 4 {
		proto = packet[9]
		if proto != protoESP && proto != protoUDP {
			return proto, e, nil
		}
		if binary.BigEndian.Uint16(packet[6:])&0x1fff == 0 {
			transport = packet[min(int(packet[0]&0x0f)*4, len(packet)):]
		}
		return proto, ends{netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))}, transport
	}
	proto, transport = packet[6], packet[headerLen6:]
	if proto == protoFragment && len(transport) >= 8 {
		proto = transport[0]
		if binary.BigEndian.Uint16(transport[2:])&^7 == 0 {
			transport = transport[8:]
		} else {
			transport = nil
		}
	}
	if proto != protoESP && proto != protoUDP {
		return proto, e, nil
	}
	return proto, ends{netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))}, transport
}
