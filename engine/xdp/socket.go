package xdp

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The memory of a socket is cut into chunks of a frame each, some for sending and the
// others for receiving. It is locked, and the limit on that is 8 MiB on most hosts, for
// all processes of a user.
const (
	chunkSize  = 2048
	chunksIn   = 768
	chunksOut  = 128
	ringIn     = 1024 // a power of two, with room for all
	memorySize = (chunksIn + chunksOut) * chunkSize

	// MaxFrame is the largest frame that can be sent or received, in octets: the
	// kernel wants room before what it receives.
	MaxFrame = chunkSize - unix.XDP_PACKET_HEADROOM
)

// Socket sends frames to a link, and receives what the program takes of one of its
// queues. One goroutine at a time may receive, and any number send.
type Socket struct {
	fd     int
	memory []byte
	fill   ring[uint64]       // chunks for what is received
	rx     ring[unix.XDPDesc] // what was received

	mu   sync.Mutex // for sending
	tx   ring[unix.XDPDesc]
	done ring[uint64] // chunks whose frames were sent
	free []uint64     // chunks to send from
}

// newSocket opens a socket of a link's queue. EBUSY: somebody has one. ENOBUFS,
// EPERM, ENOMEM: the limit on locked memory (RLIMIT_MEMLOCK) forbids its memory.
func newSocket(index, queue int) (_ *Socket, err error) {
	s := &Socket{fd: -1}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("AF_XDP socket for queue %d of link %d: %w", queue, index, err)
		}
	}()
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s.memory, err = unix.Mmap(-1, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	memory := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&s.memory[0]))), Len: memorySize, Size: chunkSize}
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&memory)), unsafe.Sizeof(memory), 0); errno != 0 {
		return nil, os.NewSyscallError("setsockopt(XDP_UMEM_REG)", errno)
	}
	var offsets unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(offsets))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&offsets)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return nil, os.NewSyscallError("getsockopt", errno)
	}
	if s.fill, err = newRing[uint64](s.fd, unix.XDP_UMEM_FILL_RING, ringIn, offsets.Fr, unix.XDP_UMEM_PGOFF_FILL_RING); err != nil {
		return nil, err
	}
	if s.done, err = newRing[uint64](s.fd, unix.XDP_UMEM_COMPLETION_RING, chunksOut, offsets.Cr, unix.XDP_UMEM_PGOFF_COMPLETION_RING); err != nil {
		return nil, err
	}
	if s.rx, err = newRing[unix.XDPDesc](s.fd, unix.XDP_RX_RING, ringIn, offsets.Rx, unix.XDP_PGOFF_RX_RING); err != nil {
		return nil, err
	}
	if s.tx, err = newRing[unix.XDPDesc](s.fd, unix.XDP_TX_RING, chunksOut, offsets.Tx, unix.XDP_PGOFF_TX_RING); err != nil {
		return nil, err
	}
	for i := range uint64(chunksIn) {
		s.fill.put(i * chunkSize)
	}
	s.fill.given()
	for i := range uint64(chunksOut) {
		s.free = append(s.free, (chunksIn+i)*chunkSize)
	}
	// The program sees what the kernel has made a packet of, so that there is
	// something to copy.
	err = unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index), QueueID: uint32(queue)})
	return s, os.NewSyscallError("bind", err)
}

// FD is the descriptor, which can be waited for.
func (s *Socket) FD() int { return s.fd }

// Receive calls take with each frame that has come, until it returns false. The frame
// is the caller's until then. It does not wait.
func (s *Socket) Receive(take func(frame []byte) bool) (n int) {
	for more := s.rx.filled(); n < more; n++ {
		d := s.rx.peek()
		if !take(s.memory[d.Addr:][:d.Len]) {
			break
		}
		s.rx.next()
		s.fill.put(d.Addr &^ (chunkSize - 1))
	}
	if n > 0 {
		s.rx.taken()
		s.fill.given()
	}
	return n
}

// Err is nil while the socket can receive. ENXIO, ENETDOWN: the link is gone, of which
// those who wait for the descriptor are not told.
func (s *Socket) Err() error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	if errno == 0 || errno == unix.EAGAIN || errno == unix.EINTR {
		return nil
	}
	return os.NewSyscallError("recvfrom", errno)
}

// patience is how long a link may take none of the frames that it has.
const patience = time.Second

// nap is how long is waited before a link is asked again to take frames.
const nap = 50 * time.Microsecond

// Send sends n frames, which put writes, in their order. It waits a while for a link
// that takes none. sent is how many were given to the link; the error says why not
// all.
func (s *Socket) Send(n int, put func(i int, frame []byte) (size int)) (sent int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sent < n {
		s.collect()
		for sent < n && len(s.free) > 0 && s.tx.room() > 0 {
			chunk := s.free[len(s.free)-1]
			s.free = s.free[:len(s.free)-1]
			size := put(sent, s.memory[chunk:][:chunkSize:chunkSize])
			s.tx.put(unix.XDPDesc{Addr: chunk, Len: uint32(size)})
			sent++
		}
		s.tx.given()
		if err := s.kick(); err != nil {
			return sent - int(s.tx.mine-s.tx.consumer.Load()), err
		}
	}
	return sent, nil
}

// collect takes back the chunks of what was sent.
func (s *Socket) collect() {
	n := s.done.filled()
	for range n {
		s.free = append(s.free, s.done.next())
	}
	if n > 0 {
		s.done.taken()
	}
}

// kick has the kernel send what is in the ring, of which it does some at a time.
func (s *Socket) kick() error {
	left := patience
	for before := s.tx.consumer.Load(); before != s.tx.mine; {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0, unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.EINTR:
		default:
			return os.NewSyscallError("sendto", errno)
		}
		switch now := s.tx.consumer.Load(); {
		case now != before:
			before, left = now, patience
		case left > 0:
			left -= nap
			pause := unix.NsecToTimespec(int64(nap))
			_ = unix.Nanosleep(&pause, nil) // shorter is no harm
		default:
			return fmt.Errorf("the link takes no frames: %w", syscall.ENOBUFS)
		}
	}
	return nil
}

// Close closes the socket. Nobody may use it any more.
func (s *Socket) Close() error {
	var err error
	if s.fd >= 0 {
		err = os.NewSyscallError("close", unix.Close(s.fd))
	}
	for _, r := range []*ring[uint64]{&s.fill, &s.done} {
		r.free()
	}
	for _, r := range []*ring[unix.XDPDesc]{&s.rx, &s.tx} {
		r.free()
	}
	if s.memory != nil {
		err = errors.Join(err, unix.Munmap(s.memory))
	}
	return err
}
