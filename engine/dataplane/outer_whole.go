package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wholeSender sends packets with the DF bit set, in IPv4. Whether the kernel sets
// it is a matter of a socket, not of a message; so the outer headers are written
// here, for a socket that takes them and receives nothing. The kernel refuses
// what is larger than the first link takes (EMSGSIZE).
type wholeSender struct {
	*messages
	way      path
	headers  [][headerLen4 + udpHeaderLen]byte
	controls []control
	ttl      uint8
}

// wholeSender returns one for a path. The plane opens its socket with the first.
func (p *Plane) wholeSender(way path, batch int) (*wholeSender, error) {
	s, err := p.sending(&p.whole, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, "ESP in IPv4 with DF", option{unix.SOL_IP, unix.IP_HDRINCL, 1})
	if err != nil {
		return nil, err
	}
	return newWholeSender(s, way, batch)
}

// sending returns a socket that sends and receives nothing, opened when it is
// needed first.
func (p *Plane) sending(at **socket, domain, kind, protocol int, name string, options ...option) (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, os.ErrClosed
	}
	if *at == nil {
		s, err := openSocket(domain, kind, protocol, name, options...)
		if err != nil {
			return nil, err
		}
		*at = s
	}
	return *at, nil
}

func newWholeSender(socket *socket, way path, batch int) (*wholeSender, error) {
	to, size, err := newSockaddr(netip.AddrPortFrom(way.dst, 0))
	if err != nil {
		return nil, err
	}
	s := &wholeSender{
		messages: newMessages(socket, batch, 2),
		way:      way,
		headers:  make([][headerLen4 + udpHeaderLen]byte, batch),
		controls: make([]control, batch),
	}
	if s.ttl, err = socket.hopLimit(false); err != nil {
		return nil, err
	}
	for i := range batch {
		s.setName(i, unsafe.Pointer(to), size)
		s.controls[i] = pathControl(way, 0)
		s.setControl(i, s.controls[i])
		// The kernel fills in length, identification and checksum.
		h := &s.headers[i]
		h[0], h[6], h[8], h[9] = 0x45, dontFragment, s.ttl, protoESP
		copy(h[12:], way.src.AsSlice())
		copy(h[16:], way.dst.AsSlice())
		n := headerLen4
		if way.kind.port != 0 {
			// IPv4 needs no checksum of UDP (RFC 3948, section 2.1).
			h[9], n = protoUDP, len(h)
			binary.BigEndian.PutUint16(h[headerLen4:], way.kind.port)
			binary.BigEndian.PutUint16(h[headerLen4+2:], way.peerPort)
		}
		s.setPiece(2*i, h[:n])
	}
	return s, nil
}

// hopLimit is the host's, or its TTL (net.ipv4.ip_default_ttl), by a socket of the
// family.
func (s *socket) hopLimit(six bool) (limit uint8, err error) {
	level, name := unix.SOL_IP, unix.IP_TTL
	if six {
		level, name = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
	}
	err = s.use(func(fd int) error {
		n, err := unix.GetsockoptInt(fd, level, name)
		limit = uint8(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("the hop limit of packets with an outer header of ours: %w", err)
	}
	return limit, nil
}

func (s *wholeSender) send(packets []departure) error {
	for i := range packets {
		h := &s.headers[i]
		h[1] = packets[i].class
		binary.BigEndian.PutUint16(h[headerLen4+4:], uint16(udpHeaderLen+len(packets[i].packet)))
		s.setPiece(2*i+1, packets[i].packet)
	}
	return s.sendEach(packets)
}
