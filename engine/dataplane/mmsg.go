package dataplane

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a socket whose goroutines wait in Go's poller.
type socket struct {
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool
}

// bufferSize is what the kernel may keep of packets in each direction, in
// bytes. A burst comes faster than it can be worked on.
const bufferSize = 4 << 20

// option is one of setsockopt(2).
type option struct{ level, name, value int }

// openSocket opens a raw socket for ESP.
func openSocket(domain int, name string, options ...option) (*socket, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protoESP)
	if err != nil {
		return nil, fmt.Errorf("open a raw socket for %s: %w", name, err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("option %d of a raw socket for %s: %w", o.name, name, err)
		}
	}
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		// Without CAP_NET_ADMIN the size is what the host allows.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], bufferSize) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], bufferSize)
		}
	}
	file := os.NewFile(uintptr(fd), name)
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("raw socket for %s: %w", name, err)
	}
	return &socket{file: file, conn: conn}, nil
}

func (s *socket) close() error {
	s.closed.Store(true)
	return s.file.Close()
}

// gone makes the poller's error for a closed file one that can be recognized.
func (s *socket) gone(err error) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// messages is a batch of messages for sendmmsg(2) or recvmmsg(2), made once.
// The kernel reads and writes the memory that their pointers name, all of it
// on the heap and held by them.
type messages struct {
	socket  *socket
	headers []unix.Mmsghdr
	iovecs  []unix.Iovec

	// The system calls' arguments and results pass through fields, for the
	// functions that the poller calls are made once.
	send, receive func(fd uintptr) (done bool)
	packets       []departure // being sent
	next          int         // of them
	count         int         // of messages received
	errno         syscall.Errno
}

func newMessages(s *socket, n int) *messages {
	m := &messages{socket: s, headers: make([]unix.Mmsghdr, n), iovecs: make([]unix.Iovec, n)}
	for i := range m.headers {
		h := &m.headers[i].Hdr
		h.Iov = &m.iovecs[i]
		h.SetIovlen(1)
	}
	m.send, m.receive = m.sendmmsg, m.recvmmsg
	return m
}

// setName sets the address of message i.
func (m *messages) setName(i int, name unsafe.Pointer, size uintptr) {
	h := &m.headers[i].Hdr
	h.Name, h.Namelen = (*byte)(name), uint32(size)
}

// setControl sets the ancillary data of message i.
func (m *messages) setControl(i int, control []byte) {
	h := &m.headers[i].Hdr
	h.Control = unsafe.SliceData(control)
	h.SetControllen(len(control))
}

// setBuffer sets the data of message i.
func (m *messages) setBuffer(i int, b []byte) {
	m.iovecs[i].Base = unsafe.SliceData(b)
	m.iovecs[i].SetLen(len(b))
}

// sendAll sends the messages of packets. It waits while the socket is full. A
// message that is refused is left out; the last refusal is returned.
func (m *messages) sendAll(packets []departure) error {
	m.next, m.packets, m.errno = 0, packets, 0
	err := m.socket.conn.Write(m.send)
	m.packets = nil
	if err != nil {
		return m.socket.gone(err)
	}
	if m.errno != 0 {
		return os.NewSyscallError("sendmmsg", m.errno)
	}
	return nil
}

func (m *messages) sendmmsg(fd uintptr) (done bool) {
	for m.next < len(m.packets) {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd,
			uintptr(unsafe.Pointer(&m.headers[m.next])), uintptr(len(m.packets)-m.next), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			for i := range m.packets[m.next:][:n] {
				m.packets[m.next+i].sent = true
			}
			m.next += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			m.errno = errno
			m.next++
		}
	}
	return true
}

// receiveSome waits for messages and returns how many came.
func (m *messages) receiveSome() (n int, err error) {
	m.count, m.errno = 0, 0
	if err := m.socket.conn.Read(m.receive); err != nil {
		return 0, m.socket.gone(err)
	}
	if m.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", m.errno)
	}
	return m.count, nil
}

func (m *messages) recvmmsg(fd uintptr) (done bool) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&m.headers[0])), uintptr(len(m.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			m.count = int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			m.errno = errno
			return true
		}
	}
}

// control builds ancillary data.
type control []byte

// add appends an item of a type that the kernel knows the size of.
func addControl[T any](c control, level, kind int32, value T) control {
	size := int(unsafe.Sizeof(value))
	start := len(c)
	c = append(c, make([]byte, unix.CmsgSpace(size))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	*(*T)(unsafe.Pointer(&c[start+unix.CmsgLen(0)])) = value
	return c
}

// classControl completes the ancillary data of a message to send: the mark, if
// there is one, and the traffic class at the end. plain is the length without
// the class, which most packets do without.
func classControl(c control, mark uint32, level, class int32) (whole control, plain int) {
	if mark != 0 {
		c = addControl(c, unix.SOL_SOCKET, unix.SO_MARK, mark)
	}
	return addControl(c, level, class, int32(0)), len(c)
}

// with returns the ancillary data for a traffic class.
func (c control) with(class uint8, plain int) control {
	if class == 0 {
		return c[:plain]
	}
	*(*int32)(unsafe.Pointer(&c[plain+unix.CmsgLen(0)])) = int32(class)
	return c
}

// What is received is put into buffers as large as a packet can be. A TUN device
// joins the segments of a stream in the first one's buffer, which is why they
// are not smaller.
const (
	headroomIn = 16
	batchIn    = 128
	strideIn   = headroomIn + 1<<16
)

func newArrivals() []arrival {
	arrivals := make([]arrival, batchIn)
	arena := make([]byte, batchIn*strideIn)
	for i := range arrivals {
		arrivals[i].buf = arena[i*strideIn:][:strideIn:strideIn]
	}
	return arrivals
}
