package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a socket whose goroutines wait in poll(2). Go's poller would wait for
// packets to come and for room to send at the same time, so each packet that has
// left would wake it.
type socket struct {
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool
	ended  *os.File // an eventfd that is readable once receiving is to end
	ending syscall.RawConn
}

// bufferSize is what the kernel may keep of packets in each direction, in
// bytes. A burst comes faster than it can be worked on.
const bufferSize = 4 << 20

// option is one of setsockopt(2).
type option struct{ level, name, value int }

// openSocket opens a socket of a type and protocol.
func openSocket(domain, kind, protocol int, name string, options ...option) (*socket, error) {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open a socket for %s: %w", name, err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("option %d of a socket for %s: %w", o.name, name, err)
		}
	}
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		// Without CAP_NET_ADMIN the size is what the host allows.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], bufferSize) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], bufferSize)
		}
	}
	return socketOf(fd, name)
}

// socketOf makes a socket of a descriptor, which it owns from now on.
func socketOf(fd int, name string) (*socket, error) {
	// Go's poller takes files that don't block. What must not block is told so.
	err := unix.SetNonblock(fd, false)
	event := -1
	if err == nil {
		event, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	file := os.NewFile(uintptr(fd), name)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("socket for %s: %w", name, err)
	}
	s := &socket{file: file, ended: os.NewFile(uintptr(event), name+", ended")}
	var errs [2]error
	s.conn, errs[0] = s.file.SyscallConn()
	s.ending, errs[1] = s.ended.SyscallConn()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("socket for %s: %w", name, err), s.close())
	}
	return s, nil
}

// use calls f with the file descriptor.
func (s *socket) use(f func(fd int) error) (err error) {
	if e := s.conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return s.gone(e)
	}
	return err
}

// stop ends receiving. What arrives stays in the kernel.
func (s *socket) stop() {
	s.closed.Store(true)
	// It fails if the file is closed already.
	_, _ = s.ended.Write(binary.NativeEndian.AppendUint64(nil, 1))
}

func (s *socket) close() error {
	s.stop()
	return errors.Join(s.file.Close(), s.ended.Close())
}

// gone makes the error for a closed file one that can be recognized.
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
	pieces  []unix.Iovec

	// The system calls' arguments and results pass through fields, for the
	// functions that make them are made once.
	send, receive func(fd uintptr)
	poll          func(ended uintptr)
	polled        [2]unix.PollFd
	next, end     int             // of the messages being sent
	errnos        []syscall.Errno // of the messages sent, 0 for success
	count         int             // of messages received
	errno         syscall.Errno   // of the last that failed
}

// newMessages returns n messages of as many pieces of data each.
func newMessages(s *socket, n, pieces int) *messages {
	m := &messages{
		socket:  s,
		headers: make([]unix.Mmsghdr, n),
		pieces:  make([]unix.Iovec, n*pieces),
		errnos:  make([]syscall.Errno, n),
	}
	for i := range m.headers {
		m.setPieces(i, i*pieces, pieces)
	}
	m.send, m.receive, m.poll = m.sendmmsg, m.recvmmsg, m.pollIn
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

// setPieces makes message i of n pieces.
func (m *messages) setPieces(i, first, n int) {
	h := &m.headers[i].Hdr
	h.Iov = &m.pieces[first]
	h.SetIovlen(n)
}

// setPiece sets the data of a piece.
func (m *messages) setPiece(i int, b []byte) {
	m.pieces[i].Base = unsafe.SliceData(b)
	m.pieces[i].SetLen(len(b))
}

// sendAll sends the first n messages. Several goroutines can do that at once, each
// with messages of its own. It waits while the socket is full. A
// message that is refused is left out and has its errno in errnos; the last
// refusal is returned.
func (m *messages) sendAll(n int) error {
	m.next, m.end, m.errno = 0, n, 0
	if err := m.socket.conn.Control(m.send); err != nil {
		for i := m.next; i < n; i++ {
			m.errnos[i] = syscall.EBADF
		}
		return m.socket.gone(err)
	}
	if m.errno != 0 {
		return os.NewSyscallError("sendmmsg", m.errno)
	}
	return nil
}

// sendEach is sendAll for messages that are a packet each.
func (m *messages) sendEach(packets []departure) error {
	err := m.sendAll(len(packets))
	for i := range packets {
		packets[i].sent = m.errnos[i] == 0
	}
	return err
}

func (m *messages) sendmmsg(fd uintptr) {
	for m.next < m.end {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd,
			uintptr(unsafe.Pointer(&m.headers[m.next])), uintptr(m.end-m.next), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			clear(m.errnos[m.next:][:n])
			m.next += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			// Only time passes if it fails.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		default:
			m.errno, m.errnos[m.next] = errno, errno
			m.next++
		}
	}
}

// A batch of crowd messages or more says that the next ones are on their way.
// They are given some time to come together: each would otherwise be woken up
// for alone, and would wake its reader alone. The kernel makes some 90 µs of
// this. It has to be nanosleep(2), for time.Sleep knows milliseconds only when
// nothing else is to do.
const crowd = 8

var crowdWait = unix.Timespec{Nsec: 20_000}

// receiveSome waits for messages and returns how many came.
func (m *messages) receiveSome() (n int, err error) {
	if m.count >= crowd {
		_ = unix.Nanosleep(&crowdWait, nil) // shorter is no harm
	}
	m.count, m.errno = 0, 0
	if err := m.socket.conn.Control(m.receive); err != nil {
		return 0, m.socket.gone(err)
	}
	if m.errno != 0 {
		return 0, m.socket.gone(os.NewSyscallError("recvmmsg", m.errno))
	}
	return m.count, nil
}

func (m *messages) recvmmsg(fd uintptr) {
	for !m.socket.closed.Load() {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&m.headers[0])), uintptr(len(m.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			m.count = int(n)
			return
		case unix.EINTR:
		case unix.EAGAIN:
			if !m.wait(fd) {
				return
			}
		default:
			m.errno = errno
			return
		}
	}
	m.errno = unix.ESHUTDOWN
}

// wait waits for a message, or for the end.
func (m *messages) wait(fd uintptr) bool {
	m.polled[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	if m.socket.ending.Control(m.poll) != nil {
		m.errno = unix.ESHUTDOWN
	}
	return m.errno == 0
}

func (m *messages) pollIn(ended uintptr) {
	m.polled[1] = unix.PollFd{Fd: int32(ended), Events: unix.POLLIN}
	if _, err := unix.Poll(m.polled[:], -1); err != nil && err != unix.EINTR {
		m.errno = err.(syscall.Errno)
	}
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
