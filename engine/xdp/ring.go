package xdp

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is a ring of entries that the kernel shares. Of its two ends one is the
// kernel's: the producer's of a ring that this side consumes, and the other way round.
type ring[T any] struct {
	memory   []byte
	producer *atomic.Uint32
	consumer *atomic.Uint32
	entries  []T // a power of two

	mine uint32 // the end that is this side's, before the kernel is told
}

// newRing gives a socket a ring of a size, which is a power of two.
func newRing[T any](fd, option int, size uint32, offsets unix.XDPRingOffset, page int64) (r ring[T], err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, option, int(size)); err != nil {
		return r, os.NewSyscallError(fmt.Sprintf("setsockopt(SOL_XDP, %d)", option), err)
	}
	var entry T
	length := int(offsets.Desc) + int(size)*int(unsafe.Sizeof(entry))
	r.memory, err = unix.Mmap(fd, page, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return r, os.NewSyscallError("mmap", err)
	}
	r.producer = (*atomic.Uint32)(unsafe.Pointer(&r.memory[offsets.Producer]))
	r.consumer = (*atomic.Uint32)(unsafe.Pointer(&r.memory[offsets.Consumer]))
	r.entries = unsafe.Slice((*T)(unsafe.Pointer(&r.memory[offsets.Desc])), size)
	return r, nil
}

func (r *ring[T]) free() {
	if r.memory != nil {
		_ = unix.Munmap(r.memory)
	}
}

// filled is how many entries the kernel has put into a ring that is read.
func (r *ring[T]) filled() int { return int(r.producer.Load() - r.mine) }

// peek is the next of them.
func (r *ring[T]) peek() T { return r.entries[r.mine&uint32(len(r.entries)-1)] }

// next takes it.
func (r *ring[T]) next() T {
	entry := r.peek()
	r.mine++
	return entry
}

// taken tells the kernel what was taken.
func (r *ring[T]) taken() { r.consumer.Store(r.mine) }

// room is how many entries can be put into a ring that is written.
func (r *ring[T]) room() int { return len(r.entries) - int(r.mine-r.consumer.Load()) }

// put adds one.
func (r *ring[T]) put(entry T) {
	r.entries[r.mine&uint32(len(r.entries)-1)] = entry
	r.mine++
}

// given tells the kernel what was put.
func (r *ring[T]) given() { r.producer.Store(r.mine) }
