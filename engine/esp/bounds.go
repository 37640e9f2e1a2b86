package esp

import (
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
)

// ErrBound is what [SA.Reserve] and [SA.Open] return when the packet's sequence
// number is above the SA's [Bounds]. It wraps EAGAIN.
var ErrBound = fmt.Errorf("esp: sequence number that is not reserved yet: %w", syscall.EAGAIN)

// Bounds are sequence numbers that an SA does not pass.
//
// They are for those who keep SAs where State can be lost, as memory is when the
// machine loses power. What is sure to be kept is kept ahead: Bounds are written
// there, and only then does the SA get them. With the Bounds that are found
// there, [Resume] makes a State in which all numbers that may have been used
// are.
type Bounds struct {
	Sent     uint64 // Reserve hands out none above it
	Received uint64 // Open accepts none above it, if there is a replay window
}

// bound is one of an SA's Bounds.
type bound struct {
	limit atomic.Uint64
	ask   atomic.Uint64 // the highest number that does not call for a higher limit
}

// set puts the limit where half of the numbers from used on can be used before
// another is asked for.
func (b *bound) set(limit, used uint64) {
	b.ask.Store(used + (limit-min(used, limit))/2)
	b.limit.Store(limit)
}

// unbounded is the limit of an SA without Bounds.
const unbounded = math.MaxUint64

// setBounds gives a new SA its first bounds.
func (sa *SA) setBounds(c *Config) error {
	window := &sa.state.window
	if c.Bounds == nil {
		sa.sent.set(unbounded, unbounded)
		return nil
	}
	sent, top := sa.state.sent.Load(), window.top.Load()
	if sent > c.Bounds.Sent || window.size > 0 && top > c.Bounds.Received {
		return fmt.Errorf("state in which numbers up to %d and %d were used, with bounds of %d and %d: %w",
			sent, top, c.Bounds.Sent, c.Bounds.Received, syscall.EINVAL)
	}
	sa.low = c.Low
	sa.sent.set(c.Bounds.Sent, sent)
	window.bound.set(c.Bounds.Received, top)
	return nil
}

// Bounds returns the SA's bounds. Without any they are the highest numbers that
// there are.
func (sa *SA) Bounds() Bounds {
	return Bounds{sa.sent.limit.Load(), sa.state.window.bound.limit.Load()}
}

// SetBounds gives the SA other bounds, and returns those that it has then. Sent is
// never lowered, and Received not below what was received: what was used stays
// within the bounds. It must not be called from several goroutines at once.
func (sa *SA) SetBounds(b Bounds) Bounds {
	sa.asked.Store(false)
	if b.Sent > sa.sent.limit.Load() {
		sa.sent.set(b.Sent, sa.state.sent.Load())
	}
	window := &sa.state.window
	window.mu.Lock()
	top := window.top.Load()
	window.bound.set(max(b.Received, top), top)
	window.mu.Unlock()
	return sa.Bounds()
}

// Wanted returns the highest numbers that were sent and received, or would have
// been received within higher bounds.
func (sa *SA) Wanted() Bounds {
	return Bounds{sa.state.sent.Load(), max(sa.state.window.top.Load(), sa.state.window.beyond.Load())}
}

// callLow tells once that bounds should be moved.
func (sa *SA) callLow() {
	if sa.low != nil && sa.asked.CompareAndSwap(false, true) {
		sa.low(sa)
	}
}

// Resume fills in c.State, which is zero, for an SA whose State is lost and that
// has stayed within bounds. The SA made of it sends above b.Sent and accepts
// above b.Received, which some numbers that the peer has not sent yet may not be.
// EINVAL: there is no room for it, or something in it.
func Resume(c Config, b Bounds) error {
	var s state
	if c.State == nil {
		return fmt.Errorf("esp: no state to resume in: %w", syscall.EINVAL)
	}
	if err := s.init(&c); err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	if s.sent.Load() != 0 || s.window.top.Load() != 0 {
		return fmt.Errorf("esp: state that is not lost: %w", syscall.EINVAL)
	}
	s.sent.Store(min(b.Sent, c.last()))
	if c.ReplayWindow == 0 && !c.ESN {
		return nil // the number is not tracked
	}
	s.window.next.Store(b.Received)
	s.window.top.Store(b.Received)
	for i := range s.window.ring {
		s.window.ring[i].Store(math.MaxUint64)
	}
	return nil
}

// last is the highest sequence number that is handed out.
func (c *Config) last() uint64 {
	if c.ESN || c.Cyclic {
		return math.MaxUint64
	}
	return math.MaxUint32
}
