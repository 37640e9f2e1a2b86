// Package readable waits for a descriptor to have something to read, for little while
// much comes and for nothing while nothing does.
//
// Go's poller is told of all that happens to a descriptor, whether or not somebody
// waits: of each packet that comes while the ones before are worked on, and with a
// socket of each that has left. That wakes a thread each time. poll(2) tells those who
// wait, but keeps a thread. So a file is first waited for with poll(2), and when
// that has taken some time, by way of an epoll instance of its own, which Go's poller
// knows and which is told of the file only while somebody waits.
package readable

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Threads is how many goroutines wait with poll(2) at a time; the others do so by
// Go's poller. Who has as many more Ps than processors (GOMAXPROCS) saves the
// run-time taking them from those who wait and giving them back.
const Threads = 4

// patience is how long a file is waited for with poll(2). It is short enough for the
// run-time not to be told of the call (unix.RawSyscall): it would look every 20 µs
// whether somebody else needs the P. A garbage collection, which wants everybody to
// stop, interrupts poll(2) by a signal.
const patience = 10 * time.Millisecond

var threads atomic.Int32 // that wait with poll(2)

// File is a descriptor that one goroutine reads without waiting, and waits for when
// there is nothing.
type File struct {
	fd   int
	shut func() error

	// Whoever uses the descriptor holds uses for reading. Who closes it waits
	// for it, so that what it stands for is free for others when Close returns.
	uses    sync.RWMutex
	stopped atomic.Bool
	closed  bool // uses guards it

	polled  [1]unix.PollFd
	timeout unix.Timespec
	ep      int             // an epoll instance
	epoll   *os.File        // the same, as Go's poller knows it
	conn    syscall.RawConn // the same
	events  [1]unix.EpollEvent
	check   func(uintptr) bool // whether there is an event
}

// New takes a descriptor, which shut closes. Go's poller must not know it. The
// descriptor is left open if New fails, which it does for lack of descriptors
// (EMFILE, ENFILE) or memory, or if it is none that can be waited for (EPERM).
func New(fd int, shut func() error) (*File, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	f := &File{fd: fd, shut: shut, ep: ep}
	f.polled[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	// os.NewFile gives Go's poller what doesn't block.
	err = unix.SetNonblock(ep, true)
	f.epoll = os.NewFile(uintptr(ep), "epoll instance")
	if err == nil {
		err = f.arm(unix.EPOLL_CTL_ADD, 0)
	}
	if err == nil {
		f.conn, err = f.epoll.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, f.epoll.Close())
	}
	f.check = func(uintptr) bool {
		n, err := unix.EpollWait(f.ep, f.events[:], 0)
		// Whoever reads will see what is wrong.
		return n > 0 || err != nil
	}
	return f, nil
}

// arm has the epoll instance told of events once.
func (f *File) arm(op int, events uint32) error {
	event := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(f.fd)}
	if err := unix.EpollCtl(f.ep, op, f.fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Acquire returns the descriptor, which stays open until Release, or
// [os.ErrClosed].
func (f *File) Acquire() (fd int, err error) {
	f.uses.RLock()
	if f.closed {
		f.uses.RUnlock()
		return -1, os.ErrClosed
	}
	return f.fd, nil
}

// Release ends what Acquire began.
func (f *File) Release() { f.uses.RUnlock() }

// Wait returns when there may be something to read, or an error of the file's. After
// Stop it returns [os.ErrClosed]. The caller has acquired the file and is the only one
// who waits.
func (f *File) Wait() error {
	if !f.stopped.Load() && !f.poll() {
		// What has come in between is told as well.
		if err := f.arm(unix.EPOLL_CTL_MOD, unix.EPOLLIN); err != nil {
			return err
		}
		err := f.conn.Read(f.check)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// The thread that was in Go's poller is this one now. If it went on to
		// poll(2), nobody would be told of anything else for 10 ms. Another
		// goroutine makes the run-time wake another thread, which goes there.
		go func() {}()
	}
	if f.stopped.Load() {
		return os.ErrClosed
	}
	return nil
}

// poll waits for a while and reports whether there is something to read.
func (f *File) poll() bool {
	defer threads.Add(-1)
	if threads.Add(1) > Threads {
		return false
	}
	f.timeout = unix.NsecToTimespec(int64(patience))
	n, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&f.polled[0])), 1, uintptr(unsafe.Pointer(&f.timeout)), 0, 0, 0)
	return n > 0 || err != 0 // EINTR: the caller looks, and waits again
}

// Stop ends waiting, now and for good, after at most 10 ms. The file stays open.
func (f *File) Stop() {
	f.stopped.Store(true)
	// It fails if the file is closed already.
	_ = f.epoll.SetReadDeadline(time.Unix(1, 0))
}

// Stopped reports whether Stop was called.
func (f *File) Stopped() bool { return f.stopped.Load() }

// Close closes the file when those who have acquired it have released it.
func (f *File) Close() error {
	f.Stop()
	f.uses.Lock()
	defer f.uses.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return errors.Join(f.shut(), f.epoll.Close())
}
