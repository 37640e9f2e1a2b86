package engine

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ifipsec/engine/clock"
	"ifipsec/engine/journal"
	"ifipsec/engine/key"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/spd"
)

// machine is the clocks of one.
type machine struct{ boot, wall time.Duration }

// passes lets time pass, awake or asleep.
func (m *machine) passes(d time.Duration) { m.boot, m.wall = m.boot+d, m.wall+d }

func (m *machine) clock(offset time.Duration) *clock.Clock {
	return clock.Of(offset, func() time.Duration { return m.boot }, func() time.Duration { return m.wall })
}

// engine is one without traffic that goes on where the one before it was killed.
func (m *machine) engine(t *testing.T, path string) *Engine {
	t.Helper()
	e := &Engine{newClock: m.clock, log: slog.New(slog.DiscardHandler)}
	dir, refused, err := journal.Open(path, journal.Owner{}, e.databases)
	if err != nil || refused != nil {
		t.Fatalf("%v, refused %v", err, refused)
	}
	t.Cleanup(func() { dir.Close() })
	e.key = key.New(key.Config{SAD: e.sad, SPD: e.spd, Log: e.log, Now: e.clock.Now, Wall: e.clock.Wall})
	return e
}

// present is which SAs and how many policies an engine has, and when the first SA was
// made, as it is shown.
type present struct {
	spis     []uint32
	states   []pfkey.SAState
	policies int
	made     time.Duration
}

func thereIs(e *Engine) (is present) {
	for sa := range e.sad.All(pfkey.SATypeUnspec) {
		is.spis, is.states = append(is.spis, sa.SPI), append(is.states, sa.State())
		is.made = time.Duration(e.clock.Wall(sa.Created).UnixNano())
	}
	for range e.spd.All() {
		is.policies++
	}
	return is
}

// Whatever is done to the wall clock, in either direction, with or without a daemon:
// no lifetime ends earlier or later, and what is shown goes by the wall clock.
// Sleep is time that passes.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for name, steps := range map[string][]func(*machine){
		"nothing":          nil,
		"forward":          {func(m *machine) { m.wall += 300 * hour }},
		"back":             {func(m *machine) { m.wall -= 300 * hour }},
		"to 1970":          {func(m *machine) { m.wall = m.boot }},
		"forward and back": {func(m *machine) { m.wall += 300 * hour }, func(m *machine) { m.wall -= 301 * hour }},
		"asleep":           {func(m *machine) { m.passes(hour / 4) }, func(m *machine) { m.passes(hour / 4) }},
	} {
		for _, killed := range []bool{false, true} {
			if killed {
				name += ", while no daemon runs"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m := &machine{boot: 500 * hour, wall: 500000 * hour}
				path := filepath.Join(t.TempDir(), "state")
				e := m.engine(t, path)
				start := *m
				spec := exampleSpec()
				spec.Soft.AddTime, spec.Hard.AddTime = 3000, 3600
				if _, err := e.sad.Add(spec); err != nil {
					t.Fatal(err)
				}
				_, err := e.spd.Add(spd.Policy{
					Selector: spd.Selector{Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("10.0.0.0/8"), Proto: spd.AnyProto},
					Dir:      pfkey.DirOut, Type: pfkey.PolicyNone, AddTime: 3600,
				})
				if err != nil {
					t.Fatal(err)
				}
				until := func(age time.Duration, want pfkey.SAState) {
					t.Helper()
					m.passes(start.boot + age - m.boot)
					e.lapse()
					got := thereIs(e)
					if want == pfkey.StateDead {
						if len(got.spis) != 0 || got.policies != 0 {
							t.Errorf("after %v there are still %+v", age, got)
						}
						return
					}
					if !slices.Equal(got.states, []pfkey.SAState{want}) || got.policies != 1 {
						t.Errorf("after %v there are %+v, want an SA that is %v, and a policy", age, got, want)
					}
					if age := m.wall - got.made; age != m.boot-start.boot {
						t.Errorf("an SA that is %v old is shown as %v old", m.boot-start.boot, age)
					}
				}
				for _, step := range steps {
					if killed {
						e.state.dir.Close()
					}
					step(m)
					if killed {
						e = m.engine(t, path)
					}
					until(m.boot-start.boot, pfkey.StateMature)
				}
				until(2999*time.Second, pfkey.StateMature)
				until(3000*time.Second, pfkey.StateDying)
				until(3599*time.Second, pfkey.StateDying)
				until(3600*time.Second, pfkey.StateDead)
			})
		}
	}
}
