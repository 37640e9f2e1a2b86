package sad

import (
	"container/heap"
	"container/list"
	"math"
	"time"

	"ifipsec/engine/pfkey"
)

// EventKind says what happened to an SA by the passing of time or by use.
type EventKind int

const (
	HardExpired   EventKind = iota // its hard lifetime is over and it is dead (SADB_EXPIRE)
	SoftExpired                    // its soft lifetime is over and it is dying (SADB_EXPIRE)
	LarvalDropped                  // no update completed it in time and it is dead
)

func (k EventKind) String() string {
	switch k {
	case HardExpired:
		return "hard lifetime expired"
	case SoftExpired:
		return "soft lifetime expired"
	default:
		return "larval SA dropped"
	}
}

// Event is what [DB.Expire] found.
type Event struct {
	SA   *SA
	Kind EventKind
}

// lookInterval is how often the use of SAs is looked at whose lifetime depends
// on it, as FreeBSD's key_timehandler does with all of them.
const lookInterval = time.Second

// Expire ends what is to end at now and says what it was: hard lifetimes
// first, then soft ones, then larval SAs, each in the order in which they
// ended. A hard lifetime takes precedence over a soft one that ends at the
// same time (RFC 2367, section 2.3.4). Limits in bytes and packets take effect
// here, once they are passed.
func (db *DB) Expire(now time.Time) []Event {
	db.mu.Lock()
	defer db.mu.Unlock()
	var over []*SA
	for len(db.deadlines) > 0 && !db.deadlines[0].due.After(now) {
		over = append(over, heap.Pop(&db.deadlines).(*SA))
	}
	if db.watched.Len() > 0 && !now.Before(db.looked.Add(lookInterval)) {
		db.looked = now
		var next *list.Element
		for e := db.watched.Front(); e != nil; e = next {
			next = e.Next()
			// What is due anyway is in over already.
			if sa := e.Value.(*SA); sa.due.IsZero() || sa.heap >= 0 {
				over = append(over, sa)
			}
		}
	}

	var hard, soft, larval []Event
	var dead []*SA
	for _, sa := range over {
		switch {
		case sa.State() == pfkey.StateLarval:
			dead = append(dead, sa)
			larval = append(larval, Event{sa, LarvalDropped})
		case sa.over(sa.Hard, now):
			dead = append(dead, sa)
			hard = append(hard, Event{sa, HardExpired})
		case sa.State() == pfkey.StateMature && sa.over(sa.Soft, now):
			db.tire(sa)
			soft = append(soft, Event{sa, SoftExpired})
		default:
			db.schedule(sa) // its first use may have set a deadline
		}
	}
	db.kill(dead...)
	return append(append(hard, soft...), larval...)
}

// NextDeadline returns when [DB.Expire] should be called next, and false if
// that can wait until the database changes. It is at most a second ahead while
// an SA has a lifetime that depends on its use.
func (db *DB) NextDeadline() (time.Time, bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	var next time.Time
	if len(db.deadlines) > 0 {
		next = db.deadlines[0].due
	}
	if db.watched.Len() > 0 {
		next = earlier(next, db.looked.Add(lookInterval))
	}
	return next, !next.IsZero()
}

// over says whether a lifetime of the SA is over.
func (sa *SA) over(l Lifetime, now time.Time) bool {
	end := sa.end(l)
	return !end.IsZero() && !end.After(now) || sa.usage.exceeds(l)
}

// end returns when a lifetime is over by the clock, zero if that is unknown.
func (sa *SA) end(l Lifetime) time.Time {
	var end time.Time
	if l.AddTime != 0 {
		end = after(sa.Created, l.AddTime)
	}
	if first := sa.usage.at(&sa.usage.first); l.UseTime != 0 && !first.IsZero() {
		end = earlier(end, after(first, l.UseTime))
	}
	return end
}

// schedule notes when Expire must look at the SA, in place of what was noted
// before.
func (db *DB) schedule(sa *SA) {
	db.unschedule(sa)
	if sa.State() == pfkey.StateLarval {
		sa.due = sa.Created.Add(db.larval)
		heap.Push(&db.deadlines, sa)
		return
	}
	limits := []Lifetime{sa.Hard}
	if sa.State() == pfkey.StateMature {
		limits = append(limits, sa.Soft)
	}
	unused := sa.usage.first.Load() == 0
	for _, l := range limits {
		if end := sa.end(l); !end.IsZero() {
			sa.due = earlier(sa.due, end)
		}
		if sa.watch == nil && (l.Bytes != 0 || l.Allocations != 0 || l.UseTime != 0 && unused) {
			if db.watched.Len() == 0 {
				db.looked = db.now()
			}
			sa.watch = db.watched.PushBack(sa)
		}
	}
	if !sa.due.IsZero() {
		heap.Push(&db.deadlines, sa)
	}
}

func (db *DB) unschedule(sa *SA) {
	if sa.heap >= 0 {
		heap.Remove(&db.deadlines, sa.heap)
	}
	sa.due = time.Time{}
	if sa.watch != nil {
		db.watched.Remove(sa.watch)
		sa.watch = nil
	}
}

// after adds seconds to a time, which is never reached if they are too many.
func after(t time.Time, seconds uint64) time.Time {
	return t.Add(time.Duration(min(seconds, math.MaxInt64/uint64(time.Second))) * time.Second)
}

// earlier returns the earlier of two times, where zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// deadlines is a heap of SAs by the time at which they are due.
type deadlines []*SA

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heap, d[j].heap = i, j
}

func (d *deadlines) Push(x any) {
	sa := x.(*SA)
	sa.heap = len(*d)
	*d = append(*d, sa)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	sa := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	sa.heap = -1
	return sa
}
