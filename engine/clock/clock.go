// Package clock is the time that lifetimes are counted in: CLOCK_BOOTTIME,
// which goes on while the machine sleeps, is the same for every process until
// the machine is started anew, and knows nothing of what is done to the wall
// clock.
package clock

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// step is the least difference that counts as a step of the wall clock. Two
// clocks can't be read at the same moment, and what was shown once as one
// second should not be shown as another.
const step = 100 * time.Millisecond

// lately is how old what [Clock.Lately] knows of the machine's sleep can be, in time
// that the machine did not sleep.
const lately = 100 * time.Millisecond

// Clock tells the time. Its methods may be called concurrently.
type Clock struct {
	boot, wall func() time.Duration // the clocks, as they are
	offset     atomic.Int64         // of the wall clock, in nanoseconds

	awake  func() time.Duration // a clock that stands still while the machine sleeps, and is quick to read
	asked  atomic.Int64         // when boot was read for Lately, by awake, in nanoseconds
	asleep atomic.Int64         // how far boot was ahead of awake then, in nanoseconds
}

// New returns a clock. offset is the [Clock.Offset] of a clock of another
// process, or 0.
func New(offset time.Duration) *Clock {
	begin := time.Now()
	return of(offset, read(unix.CLOCK_BOOTTIME), read(unix.CLOCK_REALTIME), func() time.Duration { return time.Since(begin) })
}

// Of is [New] for other clocks than the machine's: one that is never set, and the
// wall clock, in time since 1970.
func Of(offset time.Duration, boot, wall func() time.Duration) *Clock {
	return of(offset, boot, wall, boot)
}

func of(offset time.Duration, boot, wall, awake func() time.Duration) *Clock {
	c := &Clock{boot: boot, wall: wall, awake: awake}
	c.offset.Store(int64(offset))
	c.Offset()
	c.ask(awake())
	return c
}

func read(clock int32) func() time.Duration {
	return func() time.Duration {
		var t unix.Timespec
		// It fails for a clock that there is not; these there are.
		_ = unix.ClockGettime(clock, &t)
		return time.Duration(t.Nano())
	}
}

// Now returns the time since the machine was started as a time since 1970. Such
// times can be compared with one another, and [Clock.Wall] makes them times
// for people.
func (c *Clock) Now() time.Time { return time.Unix(0, int64(c.boot())) }

// Lately is [Clock.Now] for those who ask often, such as with every few packets: it
// does without the system call, which can take more than a microsecond. In the first
// 100 ms after the machine has slept it may not know of that yet.
func (c *Clock) Lately() time.Time {
	now := c.awake()
	if d := now - time.Duration(c.asked.Load()); d < 0 || d > lately {
		c.ask(now)
	}
	return time.Unix(0, int64(now)+c.asleep.Load())
}

// ask finds out how long the machine has slept until now.
func (c *Clock) ask(now time.Duration) {
	c.asleep.Store(int64(c.boot() - now))
	c.asked.Store(int64(now))
}

// Offset returns how far the wall clock is ahead of Now. It changes only with a
// step of the wall clock.
func (c *Clock) Offset() time.Duration {
	last := time.Duration(c.offset.Load())
	now := c.wall() - c.boot()
	if d := now - last; d > -step && d < step {
		return last
	}
	c.offset.Store(int64(now))
	return now
}

// Ahead returns how far this clock is ahead of one of another boot of the machine,
// which showed seen last and had that [Clock.Offset]: what is to be added to its
// times. Between the two, the time of the wall clock has passed, and none if that
// was set back, or lost.
func (c *Clock) Ahead(seen time.Time, offset time.Duration) time.Duration {
	now := c.Now()
	passed := max(0, c.Wall(now).Sub(seen.Add(offset)))
	return now.Sub(seen.Add(passed))
}

// Wall returns what the wall clock would have shown at a time, had it always
// gone as it goes now. The zero time stays zero.
func (c *Clock) Wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(c.Offset())
}
