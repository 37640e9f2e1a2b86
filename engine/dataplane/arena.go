package dataplane

import "golang.org/x/sys/unix"

// arena is memory for packets outside Go's heap. Of the buffers of a tunnel
// most are never filled: here they cost nothing until they are, whereas the
// heap would clear memory that it uses again, and the collector would let
// garbage grow in proportion.
type arena []byte

// newArena returns size octets. If Linux has none, they are of the heap.
func newArena(size int) arena {
	a, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return make(arena, size, size+1)
	}
	return a
}

// free gives the memory back. Nobody may use it any more.
func (a arena) free() {
	// What is of the heap was made with more room than it has.
	if cap(a) == len(a) {
		_ = unix.Munmap(a)
	}
}
