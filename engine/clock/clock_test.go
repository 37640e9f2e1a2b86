package clock

import (
	"testing"
	"time"
)

func TestSteps(t *testing.T) {
	t.Parallel()
	boot, wall := 100*time.Second, 1700000000*time.Second
	c := newClock(0, func() time.Duration { return boot }, func() time.Duration { return wall })
	begin := c.Now()
	shows := func(want time.Duration) {
		t.Helper()
		if got := c.Wall(begin); !got.Equal(time.Unix(0, int64(want))) {
			t.Errorf("the beginning is shown as %v, want %v", got, time.Unix(0, int64(want)))
		}
	}
	shows(1700000000 * time.Second)
	boot, wall = boot+time.Minute, wall+time.Minute+time.Microsecond // read one after the other
	shows(1700000000 * time.Second)
	for _, d := range []time.Duration{time.Hour, -3 * time.Hour} {
		wall += d
		if got := c.Now().Sub(begin); got != time.Minute {
			t.Errorf("after a step of %v, %v have passed, want a minute", d, got)
		}
	}
	shows(1700000000*time.Second - 2*time.Hour + time.Microsecond)

	// The next process shows the same.
	boot, wall = boot+time.Second, wall+time.Second+time.Millisecond
	next := newClock(c.Offset(), c.boot, c.wall)
	if a, b := c.Wall(begin), next.Wall(begin); !a.Equal(b) {
		t.Errorf("the next process shows %v, want %v", b, a)
	}
	if !c.Wall(time.Time{}).IsZero() {
		t.Error("never is shown as some time")
	}
}

// Sleep is time that passes: only CLOCK_BOOTTIME counts it. That this is the
// clock, its distance from the wall clock tells, for both are the kernel's.
func TestReal(t *testing.T) {
	t.Parallel()
	c := New(0)
	before := time.Now()
	if got := c.Wall(c.Now()); got.Sub(before) < -time.Second || got.Sub(before) > time.Minute {
		t.Errorf("now is shown as %v, want %v", got, before)
	}
	a := c.Now()
	if b := c.Now(); b.Before(a) {
		t.Errorf("the clock went from %v to %v", a, b)
	}
}
