package sad

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
)

// kinds lists events as "SPI kind".
func kinds(events []Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, fmt.Sprintf("%d %v", e.SA.SPI, e.Kind))
	}
	return list
}

func TestExpire(t *testing.T) {
	t.Parallel()
	const hard, soft = "1000 hard lifetime expired", "1000 soft lifetime expired"
	type step struct {
		at             int    // seconds after the SA was added
		packets, bytes uint64 // used just before
		want           string // event
	}
	tests := map[string]struct {
		soft, hard Lifetime
		steps      []step
	}{
		"no limits":     {Lifetime{}, Lifetime{}, []step{{at: 1e9, packets: 1e6, bytes: 1e9}}},
		"add time":      {Lifetime{AddTime: 10}, Lifetime{AddTime: 20}, []step{{at: 9}, {at: 10, want: soft}, {at: 11}, {at: 19}, {at: 20, want: hard}, {at: 30}}},
		"hard only":     {Lifetime{}, Lifetime{AddTime: 20}, []step{{at: 19}, {at: 20, want: hard}}},
		"soft only":     {Lifetime{AddTime: 10}, Lifetime{}, []step{{at: 10, want: soft}, {at: 1e6}}},
		"hard wins":     {Lifetime{AddTime: 10}, Lifetime{AddTime: 10}, []step{{at: 10, want: hard}}},
		"both long ago": {Lifetime{AddTime: 10}, Lifetime{AddTime: 20}, []step{{at: 99, want: hard}}},
		"use time": {Lifetime{UseTime: 10}, Lifetime{UseTime: 20}, []step{
			{at: 100}, {at: 101, packets: 1}, {at: 110}, {at: 111, want: soft}, {at: 120}, {at: 121, want: hard},
		}},
		"use time between looks": {Lifetime{}, Lifetime{UseTime: 5}, []step{{at: 50, packets: 1}, {at: 99, want: hard}}},
		"bytes":                  {Lifetime{Bytes: 100}, Lifetime{Bytes: 200}, []step{{at: 1, bytes: 100}, {at: 2, bytes: 1, want: soft}, {at: 3, bytes: 99}, {at: 4, bytes: 1, want: hard}}},
		"allocations":            {Lifetime{Allocations: 2}, Lifetime{Allocations: 3}, []step{{at: 1, packets: 2}, {at: 2, packets: 1, want: soft}, {at: 3, packets: 1, want: hard}}},
		"endless":                {Lifetime{AddTime: math.MaxUint64}, Lifetime{UseTime: math.MaxUint64}, []step{{at: 1e9, packets: 1}, {at: 2e9}}},
		"bytes before time":      {Lifetime{}, Lifetime{Bytes: 100, AddTime: 50}, []step{{at: 1, bytes: 101, want: hard}}},
		"time before bytes":      {Lifetime{}, Lifetime{Bytes: 100, AddTime: 50}, []step{{at: 1, bytes: 100}, {at: 50, want: hard}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c := newDB(t)
			sa := add(t, db, tunnel(1000, func(s *Spec) { s.Soft, s.Hard = tt.soft, tt.hard }))
			start := c.t
			for _, s := range tt.steps {
				c.t = start.Add(time.Duration(s.at) * time.Second)
				if s.packets+s.bytes > 0 {
					sa.Account(s.packets, s.bytes)
				}
				var want []string
				if s.want != "" {
					want = []string{s.want}
				}
				if got := kinds(db.Expire(c.t)); !slices.Equal(got, want) {
					t.Fatalf("after %d s: %q, want %q", s.at, got, want)
				}
				state := map[string]pfkey.SAState{hard: pfkey.StateDead, soft: pfkey.StateDying}
				if want, ok := state[s.want]; ok && sa.State() != want {
					t.Errorf("after %d s the SA is %v, want %v", s.at, sa.State(), want)
				}
			}
			alive := sa.State() != pfkey.StateDead
			if (db.Inbound(1000, hostB) == sa) != alive || (db.Outbound(Index{hostA, hostB, 100}) == sa) != alive {
				t.Errorf("the SA is %v; packets see it otherwise", sa.State())
			}
		})
	}
}

func TestExpireDropsLarvalSAs(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	for spi := range uint32(3) {
		if _, err := db.GetSPI(tunnel(0), 5000+spi, 5000+spi); err != nil {
			t.Fatal(err)
		}
		c.forward(time.Second)
	}
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 5001); err != nil {
		t.Fatal(err)
	}
	c.forward(26 * time.Second)
	if got := kinds(db.Expire(c.t)); len(got) != 0 {
		t.Errorf("after 29 s: %q", got)
	}
	c.forward(time.Second)
	if got := kinds(db.Expire(c.t)); !slices.Equal(got, []string{"5000 larval SA dropped"}) {
		t.Errorf("after 30 s: %q", got)
	}
	c.forward(time.Minute)
	if got := kinds(db.Expire(c.t)); !slices.Equal(got, []string{"5002 larval SA dropped"}) {
		t.Errorf("later: %q", got)
	}
	add(t, db, tunnel(5000)) // the SPI is free again
}

func TestExpireOrder(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	if _, err := db.GetSPI(tunnel(0), 5000, 5000); err != nil {
		t.Fatal(err)
	}
	add(t, db, tunnel(1000, func(s *Spec) { s.Soft.AddTime = 6 }))
	add(t, db, tunnel(1001, func(s *Spec) { s.Soft.AddTime = 5 }))
	add(t, db, tunnel(1002, func(s *Spec) { s.Hard.AddTime = 8 }))
	add(t, db, tunnel(1003, func(s *Spec) { s.Hard.AddTime = 7 }))
	c.forward(time.Minute)
	want := []string{
		"1003 hard lifetime expired", "1002 hard lifetime expired",
		"1001 soft lifetime expired", "1000 soft lifetime expired",
		"5000 larval SA dropped",
	}
	if got := kinds(db.Expire(c.t)); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestNextDeadline(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	start := c.t
	want := func(what string, seconds int) {
		t.Helper()
		got, ok := db.NextDeadline()
		if seconds < 0 {
			if ok {
				t.Errorf("%s: a deadline at %v", what, got.Sub(start))
			}
			return
		}
		if !ok || got.Sub(start) != time.Duration(seconds)*time.Second {
			t.Errorf("%s: deadline at %v, %v, want %d s", what, got.Sub(start), ok, seconds)
		}
	}
	want("empty", -1)
	add(t, db, tunnel(1000))
	want("nothing can expire", -1)
	add(t, db, tunnel(1001, func(s *Spec) { s.Soft.AddTime, s.Hard.AddTime = 50, 100 }))
	want("soft", 50)
	if _, err := db.GetSPI(tunnel(0), 5000, 5000); err != nil {
		t.Fatal(err)
	}
	want("larval", 30)
	used := add(t, db, tunnel(1002, func(s *Spec) { s.Hard.UseTime = 15 }))
	want("unused", 1)
	c.forward(5 * time.Second)
	used.Account(1, 1)
	db.Expire(c.t)
	want("used", 20)
	c.forward(15 * time.Second)
	db.Expire(c.t)
	want("use time over", 30)
	add(t, db, tunnel(1003, func(s *Spec) { s.Hard.Bytes = 1000 }))
	want("bytes", 21)
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 1003); err != nil {
		t.Fatal(err)
	}
	want("no bytes", 30)
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 5000); err != nil {
		t.Fatal(err)
	}
	want("no larval", 50)
	c.forward(30 * time.Second)
	db.Expire(c.t)
	want("hard", 100)
	db.Flush(pfkey.SATypeUnspec)
	want("flushed", -1)
}

func TestCurrent(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	sa := add(t, db, tunnel(1000))
	if got := sa.Current(); got != (Current{}) {
		t.Errorf("unused: %+v", got)
	}
	c.forward(5 * time.Second)
	first := c.t
	sa.Account(12, 1440)
	c.forward(time.Second)
	sa.Account(1, 60)
	want := Current{Packets: 13, Bytes: 1500, FirstUsed: first, LastUsed: first.Add(time.Second)}
	if got := sa.Current(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestUseWhenTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	sa := add(t, db, tunnel(1000, func(s *Spec) { s.Hard.UseTime = 10 }))
	c.forward(-time.Hour)
	sa.Account(1, 1)
	if got := sa.Current().FirstUsed; !got.Equal(sa.Created) {
		t.Errorf("first used at %v, created at %v", got, sa.Created)
	}
}
