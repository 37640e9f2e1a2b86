package clock

import (
	"testing"
	"time"
)

func TestSteps(t *testing.T) {
	t.Parallel()
	boot, wall := 100*time.Second, 1700000000*time.Second
	c := Of(0, func() time.Duration { return boot }, func() time.Duration { return wall })
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
	next := Of(c.Offset(), c.boot, c.wall)
	if a, b := c.Wall(begin), next.Wall(begin); !a.Equal(b) {
		t.Errorf("the next process shows %v, want %v", b, a)
	}
	if !c.Wall(time.Time{}).IsZero() {
		t.Error("never is shown as some time")
	}
}

// Who asks often is told the same as who asks exactly, but for a sleep just before.
func TestLately(t *testing.T) {
	t.Parallel()
	boot, awake := 100*time.Second, 90*time.Second
	c := of(0, func() time.Duration { return boot }, func() time.Duration { return 0 }, func() time.Duration { return awake })
	pass := func(d time.Duration) { boot, awake = boot+d, awake+d }
	behind := func(want time.Duration) {
		t.Helper()
		if got := c.Now().Sub(c.Lately()); got != want {
			t.Errorf("%v behind, want %v", got, want)
		}
	}
	behind(0)
	pass(time.Millisecond)
	behind(0)
	boot += time.Hour
	behind(time.Hour)
	pass(lately)
	behind(0)
	pass(24 * time.Hour)
	behind(0)

	if d := New(0).Now().Sub(New(0).Lately()); d < -time.Second || d > time.Second {
		t.Errorf("the machine's clocks differ by %v", d)
	}
}

func BenchmarkClock(b *testing.B) {
	c := New(0)
	for name, now := range map[string]func() time.Time{"now": c.Now, "lately": c.Lately} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				now()
			}
		})
	}
}

// What another boot's clock counted goes on, with the time that the machine was
// off, as far as the wall clock knows it.
func TestAhead(t *testing.T) {
	t.Parallel()
	const year2026 = 1767225600 * time.Second
	seen, offset := time.Unix(5000, 0), year2026-5000*time.Second
	made := seen.Add(-time.Hour) // of an SA
	for what, tc := range map[string]struct {
		wall, age time.Duration
	}{
		"off for a minute":       {year2026 + time.Minute, time.Hour + time.Minute},
		"off for a year":         {year2026 + 365*24*time.Hour, time.Hour + 365*24*time.Hour},
		"the wall clock is lost": {time.Minute, time.Hour},
		"it was set back":        {year2026 - time.Minute, time.Hour},
	} {
		boot := 20 * time.Second
		c := Of(0, func() time.Duration { return boot }, func() time.Duration { return tc.wall })
		now := made.Add(c.Ahead(seen, offset))
		if got := c.Now().Sub(now); got != tc.age {
			t.Errorf("%s: what was an hour old is %v old, want %v", what, got, tc.age)
		}
		if tc.wall > year2026 && !c.Wall(now).Equal(time.Unix(0, int64(year2026-time.Hour))) {
			t.Errorf("%s: it is shown as made at %v", what, c.Wall(now))
		}
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
