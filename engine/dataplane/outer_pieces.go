package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// piecesSender sends packets in fragments that are no larger than the path takes,
// in IPv6, where no router cuts them. The kernel learns nothing from errors about
// ESP, so the fragments are made here (RFC 8200, section 4.5).
type piecesSender struct {
	*messages
	way     path
	headers [maxPieces][fragmentHeaderLen + udpHeaderLen]byte
	control control
	plain   int
	id      uint32
}

const (
	fragmentHeaderLen = 8

	// maxPieces is enough for the largest packet and the narrowest path.
	maxPieces = (MaxPacket+headroomOut+tailroomOut)/(minPathMTU6-headerLen6-fragmentHeaderLen) + 1
)

// piecesSender returns one for a path. The plane opens its socket with the first.
func (p *Plane) piecesSender(way path) (*piecesSender, error) {
	// The header is the kernel's all the same.
	socket, err := p.sending(&p.pieces, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW, "fragments of ESP in IPv6",
		option{unix.SOL_IPV6, unix.IPV6_HDRINCL, 0},
		option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT})
	if err != nil {
		return nil, err
	}
	// To such a socket, a port is the protocol.
	to, size, err := newSockaddr(netip.AddrPortFrom(way.dst, protoFragment))
	if err != nil {
		return nil, err
	}
	s := &piecesSender{messages: newMessages(socket, maxPieces, 2), way: way, control: pathControl(way, to.raw.Scope_id)}
	s.plain = len(s.control)
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	s.id = binary.NativeEndian.Uint32(id[:])
	for i := range maxPieces {
		s.setName(i, unsafe.Pointer(to), size)
	}
	return s, nil
}

// send sends packets in fragments of at most mtu octets each.
func (s *piecesSender) send(packets []departure, mtu int) (last error) {
	for i := range packets {
		n := s.cut(packets[i].packet, mtu)
		control := s.control[:s.plain].withClass(true, packets[i].class)
		for j := range n {
			s.setControl(j, control)
		}
		err := s.sendAll(n)
		packets[i].sent = err == nil
		if err != nil {
			last = err
		}
	}
	return last
}

// cut makes messages of a packet, and returns how many.
func (s *piecesSender) cut(packet []byte, mtu int) (n int) {
	const more = 1
	room := (mtu - headerLen6 - fragmentHeaderLen) &^ 7
	proto, transport := uint8(protoESP), 0
	if s.way.kind.port != 0 {
		proto, transport = protoUDP, udpHeaderLen
		udp := s.headers[0][fragmentHeaderLen:]
		binary.BigEndian.PutUint16(udp[0:], s.way.kind.port)
		binary.BigEndian.PutUint16(udp[2:], s.way.peerPort)
		binary.BigEndian.PutUint16(udp[4:], uint16(udpHeaderLen+len(packet)))
		binary.BigEndian.PutUint16(udp[6:], udpChecksum6(s.way.src, s.way.dst, udp[:6], packet))
	}
	s.id++
	for offset := 0; ; n++ {
		chunk := min(room-transport, len(packet))
		h := s.headers[n][:fragmentHeaderLen+transport]
		h[0], h[1] = proto, 0
		binary.BigEndian.PutUint16(h[2:], uint16(offset))
		if chunk < len(packet) {
			h[3] |= more
		}
		binary.BigEndian.PutUint32(h[4:], s.id)
		s.setPiece(2*n, h)
		s.setPiece(2*n+1, packet[:chunk])
		offset += transport + chunk
		if packet, transport = packet[chunk:], 0; len(packet) == 0 {
			return n + 1
		}
	}
}

// udpChecksum6 is the checksum of a UDP datagram in IPv6 (RFC 8200, section 8.1)
// whose header has no checksum yet.
func udpChecksum6(src, dst netip.Addr, header, payload []byte) uint16 {
	a, b := src.As16(), dst.As16()
	sum := uint64(protoUDP) + uint64(udpHeaderLen+len(payload))
	for _, part := range [][]byte{a[:], b[:], header, payload} {
		for ; len(part) >= 2; part = part[2:] {
			sum += uint64(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint64(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		return 0xffff // 0 would say that there is none
	}
	return ^uint16(sum)
}
