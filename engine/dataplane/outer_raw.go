package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw is ESP right in IP. The kernel writes the outer header, and cuts packets
// into fragments. With IPv4 the DF bit is clear, and fragments are as large as the
// first link takes, whatever ICMP errors say: the routers on the path can cut them
// again. See wholeSender for the DF bit set.
type raw struct {
	in *socket
	// A packet that has left wakes those who wait at its socket, if only to find
	// that no packet has come. So another one sends.
	out *socket
	six bool
}

// openRaw opens the sockets of a family. It may be given the one that receives,
// which it then owns, or nil.
func openRaw(six bool, in *socket) (outer, error) {
	var err error
	if in == nil {
		if in, err = openESP(six); err != nil {
			return nil, err
		}
	}
	out, err := openESP(six)
	if err != nil {
		return nil, errors.Join(err, in.close())
	}
	r := raw{in: in, out: out, six: six}
	if err := out.use(r.deafen); err != nil {
		return nil, errors.Join(fmt.Errorf("bind the socket that sends %v: %w", kind{six: six}, err), r.close())
	}
	return r, nil
}

// openESP opens a socket that sends and receives ESP.
func openESP(six bool) (*socket, error) {
	if six {
		return openSocket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ESP, "ESP in IPv6",
			option{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
			option{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
			option{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1})
	}
	return openSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ESP, "ESP in IPv4",
		option{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT})
}

// deafen makes the socket that sends receive nothing: it gets an address that is
// no packet's destination (RFC 1122, section 3.2.1.3; RFC 6666). It keeps no right
// to addresses that are not the host's.
func (r raw) deafen(fd int) error {
	level, free, nowhere := unix.SOL_IP, unix.IP_FREEBIND, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{3: 1}})
	if r.six {
		level, free, nowhere = unix.SOL_IPV6, unix.IPV6_FREEBIND, &unix.SockaddrInet6{Addr: [16]byte{0: 1, 15: 1}}
	}
	return errors.Join(
		unix.SetsockoptInt(fd, level, free, 1),
		unix.Bind(fd, nowhere),
		unix.SetsockoptInt(fd, level, free, 0))
}

func (r raw) receiver() receiver {
	if r.six {
		return newRaw6Receiver(r.in)
	}
	return newRaw4Receiver(r.in)
}

func (r raw) stop() { r.in.stop() }

func (r raw) close() error { return errors.Join(r.in.close(), r.out.close()) }

// rawSender sends packets that the kernel has only to put into IP, of either
// family.
type rawSender struct {
	*messages
	six      bool
	controls []control
	plain    int // length of one without a traffic class
}

func (r raw) sender(p path, batch int) (sender, error) {
	// Linux wants a port of 0 or the protocol's number.
	to, size, err := newSockaddr(netip.AddrPortFrom(p.dst, 0))
	if err != nil {
		return nil, err
	}
	out := &rawSender{messages: newMessages(r.out, batch, 1), six: r.six, controls: make([]control, batch)}
	for i := range batch {
		out.setName(i, unsafe.Pointer(to), size)
		out.controls[i] = pathControl(p, to.raw.Scope_id)
		out.plain = len(out.controls[i])
	}
	return out, nil
}

func (s *rawSender) send(packets []departure) error {
	for i := range packets {
		s.setPiece(i, packets[i].packet)
		s.setControl(i, s.controls[i][:s.plain].withClass(s.six, packets[i].class))
	}
	return s.sendEach(packets)
}
