package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// sharedUDP is ESP in UDP by a port that another program has open. Its own
// datagrams, which begin with the non-ESP marker (RFC 3948, section 2.2), are
// not looked at; it gets copies of ours, which it has to ignore anyhow.
type sharedUDP struct {
	*socket
	kind kind
}

func openSharedUDP(k kind) (outer, error) {
	domain, options := udpOptions(k.six)
	if k.six {
		// The kernel writes the checksum, which IPv6 demands, there.
		options = append(options[1:], option{unix.SOL_IPV6, unix.IPV6_CHECKSUM, 6})
	}
	s, err := openSocket(domain, unix.SOCK_RAW, unix.IPPROTO_UDP, k.String(), options...)
	if err != nil {
		return nil, err
	}
	filter, err := espOnly(k)
	if err == nil {
		err = s.use(func(fd int) error {
			return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter)
		})
	}
	if err == nil {
		err = s.drain()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("filter of the socket for %v: %w", k, err), s.close())
	}
	return sharedUDP{s, k}, nil
}

// espOnly lets datagrams to the port pass that have four octets and not the
// non-ESP marker. A read beyond the end of a packet drops it.
func espOnly(k kind) (*unix.SockFprog, error) {
	// X is where the UDP header begins: the filter sees the IPv4 header, but
	// not the IPv6 header.
	begin := bpf.Instruction(bpf.LoadMemShift{Off: 0})
	if k.six {
		begin = bpf.LoadConstant{Dst: bpf.RegX, Val: 0}
	}
	program, err := bpf.Assemble([]bpf.Instruction{
		begin,
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(k.port), SkipFalse: 3},
		bpf.LoadIndirect{Off: udpHeaderLen, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	raw := make([]unix.SockFilter, len(program))
	for i, p := range program {
		raw[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}, nil
}

// drain takes away what came before the filter.
func (s *socket) drain() error {
	return s.use(func(fd int) error {
		for {
			switch _, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_DONTWAIT); err {
			case nil:
			case unix.EAGAIN:
				return nil
			default:
				return err
			}
		}
	})
}

type sharedUDPSender struct {
	*messages
	six      bool
	headers  [][udpHeaderLen]byte
	controls []control
	plain    int
}

func (u sharedUDP) sender(p path, batch int) (sender, error) {
	to, size, err := newSockaddr(netip.AddrPortFrom(p.dst, 0))
	if err != nil {
		return nil, err
	}
	s := &sharedUDPSender{
		messages: newMessages(u.socket, batch, 2),
		six:      u.kind.six,
		headers:  make([][udpHeaderLen]byte, batch),
		controls: make([]control, batch),
	}
	for i := range batch {
		s.setName(i, unsafe.Pointer(to), size)
		s.controls[i] = pathControl(p, to.raw.Scope_id)
		s.plain = len(s.controls[i])
		// IPv4 needs no checksum (RFC 3948, section 2.1).
		binary.BigEndian.PutUint16(s.headers[i][0:], u.kind.port)
		binary.BigEndian.PutUint16(s.headers[i][2:], p.peerPort)
		s.setPiece(2*i, s.headers[i][:])
	}
	return s, nil
}

func (s *sharedUDPSender) send(packets []departure) error {
	for i := range packets {
		binary.BigEndian.PutUint16(s.headers[i][4:], uint16(udpHeaderLen+len(packets[i].packet)))
		s.setPiece(2*i+1, packets[i].packet)
		s.setControl(i, s.controls[i][:s.plain].withClass(s.six, packets[i].class))
	}
	return s.sendEach(packets)
}

// sharedUDPReceiver gets packets as the raw sockets for ESP do, with the UDP
// header before them, and joined if the kernel has not cut them yet.
type sharedUDPReceiver struct {
	below    receiver
	arrivals []arrival // not handed out yet
	split    split
}

func (u sharedUDP) receiver() receiver {
	if u.kind.six {
		return &sharedUDPReceiver{below: newRaw6Receiver(u.socket), split: newSplit()}
	}
	return &sharedUDPReceiver{below: newRaw4Receiver(u.socket), split: newSplit()}
}

func (r *sharedUDPReceiver) receive() (_ []arrival, err error) {
	if r.split.empty() && len(r.arrivals) == 0 {
		if r.arrivals, err = r.below.receive(); err != nil {
			return nil, err
		}
	}
	return r.split.packets(r.take), nil
}

// take gives the next message to split.
func (r *sharedUDPReceiver) take() (m joined, ok bool) {
	for len(r.arrivals) > 0 {
		m.arrival = r.arrivals[0]
		r.arrivals = r.arrivals[1:]
		if header := m.buf[m.off:m.end]; len(header) > udpHeaderLen {
			m.src = netip.AddrPortFrom(m.src.Addr(), binary.BigEndian.Uint16(header))
			m.off += udpHeaderLen
			m.segment = segmentLen(m.buf[m.off:m.end])
			return m, true
		}
	}
	return m, false
}

// segmentLen finds how long the first of several joined packets is, which the
// kernel tells the port's owner only: where the next begins there is the same
// SPI with the next sequence number. 0: there is no other packet.
func segmentLen(packets []byte) int {
	const header = 8 // SPI and sequence number
	if len(packets) < 2*header {
		return 0
	}
	var next [header]byte
	binary.BigEndian.PutUint64(next[:], binary.BigEndian.Uint64(packets))
	binary.BigEndian.PutUint32(next[4:], binary.BigEndian.Uint32(packets[4:])+1)
	if i := bytes.Index(packets[header:], next[:]); i >= 0 {
		return header + i
	}
	return 0
}
