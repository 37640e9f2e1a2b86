package esp

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// window is the replay window of RFC 4303, section 3.4.3: the highest sequence
// number received and a bit for each of the size numbers up to it. The bits
// are a ring of words as in RFC 6479, so that moving on clears whole words and
// shifts nothing.
//
// check and extend read without the lock, while another goroutine marks. What
// they see may then be outdated, but mark decides again under the lock.
type window struct {
	size uint64 // packets; 0 for no replay check
	top  atomic.Uint64

	mu   sync.Mutex // held to change top and ring
	ring []atomic.Uint64
}

func (w *window) init(size uint32) {
	w.size = uint64(size)
	if size > 0 {
		// size numbers touch at most this many words; a power of two makes
		// the place of a word a mask.
		words := (w.size+62)/64 + 1
		w.ring = make([]atomic.Uint64, 1<<bits.Len64(words-1))
	}
}

func (w *window) word(n uint64) *atomic.Uint64 {
	return &w.ring[n&uint64(len(w.ring)-1)]
}

// check reports whether a packet with this number can still be accepted.
func (w *window) check(seq uint64) bool {
	if w.size == 0 {
		return true
	}
	if seq == 0 {
		return false
	}
	top := w.top.Load()
	return seq > top || top-seq < w.size && w.word(seq/64).Load()&(1<<(seq%64)) == 0
}

// mark notes that the packet with this number was received. It reports false
// if it cannot be accepted after all. Without a replay check, only the highest
// number is kept, and only if track says that extend needs it.
func (w *window) mark(seq uint64, track bool) bool {
	if w.size == 0 && !track {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.check(seq) {
		return false
	}
	top := w.top.Load()
	if w.size > 0 {
		if seq > top {
			fresh := min(seq/64-top/64, uint64(len(w.ring)))
			for i := range fresh {
				w.word(seq/64 - i).Store(0)
			}
		}
		word := w.word(seq / 64)
		word.Store(word.Load() | 1<<(seq%64))
	}
	if seq > top {
		w.top.Store(seq)
	}
	return true
}

// extend returns the 64-bit sequence number whose low half is low and that is
// likeliest after what was received: that of RFC 4303, appendix A2.2, which
// never goes back by more than the window. Without a window, it is the nearest.
func (w *window) extend(low uint32) uint64 {
	size := w.size
	if size == 0 {
		size = 1 << 31
	}
	top := w.top.Load()
	if top < size-1 {
		// The window reaches back before the first number; nothing was there.
		return uint64(low)
	}
	bottom := top - size + 1
	seq := bottom&^0xffffffff | uint64(low)
	if low < uint32(bottom) {
		seq += 1 << 32
	}
	return seq
}
