package dataplane

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"ifipsec/engine/readable"

	"golang.org/x/sys/unix"
)

// socket is a socket that Go's poller doesn't know.
type socket struct {
	*readable.File
	file *os.File
	shut atomic.Bool // sending is to end
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
	s := &socket{file: os.NewFile(uintptr(fd), name)}
	if err == nil {
		s.File, err = readable.New(fd, s.file.Close)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket for %s: %w", name, err), s.file.Close())
	}
	return s, nil
}

// use calls f with the file descriptor.
func (s *socket) use(f func(fd int) error) error {
	fd, err := s.Acquire()
	if err != nil {
		return err
	}
	defer s.Release()
	return f(fd)
}

// stop ends receiving. What arrives stays in the kernel.
func (s *socket) stop() { s.Stop() }

// close waits for those who send and receive, who end soon.
func (s *socket) close() error {
	s.shut.Store(true)
	return s.Close()
}

// messages is a batch of messages for sendmmsg(2) or recvmmsg(2), made once.
// The kernel reads and writes the memory that their pointers name, all of it
// on the heap and held by them. The calls don't wait, so Go's run-time is not told
// of them: it would look every 20 µs whether somebody else needs the P.
type messages struct {
	socket  *socket
	headers []unix.Mmsghdr
	pieces  []unix.Iovec

	errnos []syscall.Errno // of the messages sent, 0 for success
	polled [1]unix.PollFd
	count  int // of messages received
	rest   rest
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
// with messages of its own. It waits a while for a full socket. A message that is
// refused is left out and has its errno in errnos; the last refusal is returned.
func (m *messages) sendAll(n int) error {
	fd, err := m.socket.Acquire()
	if err != nil {
		for i := range n {
			m.errnos[i] = syscall.EBADF
		}
		return err
	}
	defer m.socket.Release()
	var refusal syscall.Errno
	patience := fullSocket
	for next := 0; next < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&m.headers[next])), uintptr(n-next), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			clear(m.errnos[next:][:sent])
			next += int(sent)
			patience = fullSocket
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && patience > 0 && !m.socket.shut.Load():
			patience -= fullSocketTick
			m.polled[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
			// Only time passes if it fails.
			_, _ = unix.Poll(m.polled[:1], int(fullSocketTick/time.Millisecond))
		default:
			refusal, m.errnos[next] = errno, errno
			next++
		}
	}
	if refusal != 0 {
		return os.NewSyscallError("sendmmsg", refusal)
	}
	return nil
}

// How long packets wait for room in a socket's queue, which a link that takes
// none does not make, and how often it is asked whether the socket is closed.
const (
	fullSocket     = time.Second
	fullSocketTick = 100 * time.Millisecond
)

// sendEach is sendAll for messages that are a packet each.
func (m *messages) sendEach(packets []departure) error {
	err := m.sendAll(len(packets))
	for i := range packets {
		packets[i].sent = m.errnos[i] == 0
	}
	return err
}

// rest is what those do who receive several messages at once, because they will receive
// more. The more came, the longer they are given to come together, as network cards do:
// each would otherwise be woken up for alone, and would wake its reader alone. A message
// alone is an answer that somebody waits for. The kernel adds some 70 µs to each. It has
// to be nanosleep(2), for time.Sleep knows milliseconds only when nothing else is to do.
type rest struct{ time unix.Timespec }

const (
	restPerMessage = 25_000  // ns
	longestRest    = 200_000 // ns
)

// take rests after some messages came.
func (r *rest) take(messages int) {
	if messages > 1 {
		r.time.Nsec = int64(min(messages*restPerMessage, longestRest))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&r.time)), 0, 0) // shorter is no harm
	}
}

// receiveSome waits for messages and returns how many came.
func (m *messages) receiveSome() (n int, err error) {
	m.rest.take(m.count)
	m.count = 0
	fd, err := m.socket.Acquire()
	if err != nil {
		return 0, err
	}
	defer m.socket.Release()
	for !m.socket.Stopped() {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&m.headers[0])), uintptr(len(m.headers)), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EAGAIN {
			if err := m.socket.Wait(); err != nil {
				return 0, err
			}
			continue
		}
		if errno != 0 && errno != unix.EINTR {
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
		if n := int(n); n > 0 {
			m.count = n
			return n, nil
		}
	}
	return 0, os.ErrClosed
}

// What is received is put into buffers as large as a packet can be. A TUN device
// joins the segments of a stream in the first one's buffer, which is why they
// are not smaller.
const (
	headroomIn = 16
	batchIn    = 128
	// So much more than a power of two that not all packets begin in the same
	// lines of the processor's caches.
	strideIn = headroomIn + 1<<16 + 1536
)

func newArrivals() []arrival {
	arrivals := make([]arrival, batchIn)
	arena := make([]byte, batchIn*strideIn)
	for i := range arrivals {
		arrivals[i].buf = arena[i*strideIn:][:strideIn:strideIn]
	}
	return arrivals
}
