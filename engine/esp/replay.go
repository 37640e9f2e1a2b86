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
	top  *atomic.Uint64

	mu   sync.Mutex     // held to change what follows, and top
	next *atomic.Uint64 // where top is on the way to
	ring []atomic.Uint64

	bound  bound         // set under mu
	beyond atomic.Uint64 // the highest number that was refused because of bound
}

// init takes memory for the window. If the process that had it was killed while
// top was on its way, that is brought to an end: words of the ring may be
// cleared already of what was received, and must not be taken for those below
// the old top. The packet that top was moved for was not delivered.
func (w *window) init(size uint32, top, next *atomic.Uint64, ring []atomic.Uint64) {
	w.size, w.top, w.next, w.ring = uint64(size), top, next, ring
	w.bound.set(unbounded, unbounded)
	if to := next.Load(); to > top.Load() {
		w.clear(to)
		w.top.Store(to)
	}
}

// ringWords is the words of the ring of a window: size numbers touch at most
// (size+62)/64+1, and a power of two makes the place of a word a mask.
func ringWords(size uint32) int {
	if size == 0 {
		return 0
	}
	words := (uint64(size)+62)/64 + 1
	return 1 << bits.Len64(words-1)
}

// clear clears the words of the numbers between top and to.
func (w *window) clear(to uint64) {
	fresh := min(to/64-w.top.Load()/64, uint64(len(w.ring)))
	for i := range fresh {
		w.word(to/64 - i).Store(0)
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

// mark notes that the packet with this number was received. If it cannot be
// accepted after all, that is ErrReplay, or ErrBound. Without a replay check,
// only the highest number is kept, and only if track says that extend needs it.
func (w *window) mark(seq uint64, track bool) error {
	if w.size == 0 && !track {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.check(seq) {
		return ErrReplay
	}
	top := w.top.Load()
	if w.size > 0 {
		if seq > w.bound.limit.Load() {
			w.beyond.Store(max(w.beyond.Load(), seq))
			return ErrBound
		}
		if seq > top {
			w.next.Store(seq)
			w.clear(seq)
		}
		word := w.word(seq / 64)
		word.Store(word.Load() | 1<<(seq%64))
	}
	if seq > top {
		w.top.Store(seq)
	}
	return nil
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
