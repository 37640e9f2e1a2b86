package engine

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/journal"
	"ifipsec/engine/sad"
)

// This file keeps the bounds of the SAs' sequence numbers on a disk, ahead of what
// is sent and received, where the memory with the numbers themselves ends with
// the machine.

const (
	// sendAhead is how many numbers may be sent beyond what was sent when the bound
	// was kept. As many are lost each time that the machine ends out of order, of
	// 2^32; half of them last until the disk has taken the next bound.
	sendAhead = 1 << 20
	// receiveAhead is the least for what is received. As many of the peer's packets
	// are refused after such an end, because they may have been there before, so
	// that it is more only while more come, for about two seconds' packets, or could
	// come: an SA that is new takes the place of another, under load perhaps.
	receiveAhead      = 64
	firstReceiveAhead = 1 << 10
	maxReceiveAhead   = 1 << 19

	// reviewInterval is how often the SAs are looked at that have more.
	reviewInterval = time.Second
	// markInterval is how often it is kept what the SAs have counted.
	markInterval = 5 * time.Minute
	// complainInterval is how often the log says that this is not possible.
	complainInterval = 10 * time.Minute
)

// firstBounds are those that new SAs begin with.
var firstBounds = esp.Bounds{Sent: sendAhead, Received: firstReceiveAhead}

// reservation is what is reserved for an SA.
type reservation struct {
	live     sad.Live
	mark     sad.Mark // that is kept
	ahead    uint64   // how far Received is to be ahead of what was received
	reviewed uint64   // what had been received then
}

// reservations are those of all SAs. The methods are called with the lock of the
// state, but for ask.
type reservations struct {
	byESP map[*esp.SA]*reservation
	bySPI map[uint32]*reservation
	moved map[*reservation]struct{} // that have, or had a moment ago, more than the least

	mu    sync.Mutex
	asked []*esp.SA
	wake  chan struct{} // has something in it when somebody has asked
}

func newReservations() *reservations {
	return &reservations{
		byESP: map[*esp.SA]*reservation{}, bySPI: map[uint32]*reservation{},
		moved: map[*reservation]struct{}{}, wake: make(chan struct{}, 1),
	}
}

// ask is how an SA says that its bounds should be moved. It does not wait.
func (rs *reservations) ask(sa *esp.SA) {
	rs.mu.Lock()
	rs.asked = append(rs.asked, sa)
	rs.mu.Unlock()
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

// take returns who has asked.
func (rs *reservations) take() []*esp.SA {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	asked := rs.asked
	rs.asked = nil
	return asked
}

// add notes an SA whose mark is kept, or that it has another mark.
func (rs *reservations) add(live sad.Live, mark sad.Mark) {
	r := rs.byESP[live.ESP]
	if r == nil {
		spi := live.ESP.SPI()
		rs.remove(spi)
		used := live.ESP.Wanted().Received
		r = &reservation{live: live, ahead: max(receiveAhead, mark.Received-min(used, mark.Received)), reviewed: used}
		rs.byESP[live.ESP], rs.bySPI[spi] = r, r
		rs.moved[r] = struct{}{}
	}
	r.mark = mark
}

func (rs *reservations) remove(spi uint32) {
	if r := rs.bySPI[spi]; r != nil {
		delete(rs.byESP, r.live.ESP)
		delete(rs.moved, r)
		delete(rs.bySPI, spi)
	}
}

// raised returns the bounds that the SA is to have, none of which is lower than it
// was.
func (r *reservation) raised() esp.Bounds {
	has, used := r.live.ESP.Bounds(), r.live.ESP.Wanted()
	if has.Sent-used.Sent <= sendAhead/2 {
		has.Sent = max(has.Sent, saturated(used.Sent, sendAhead))
	}
	// Twice as much each time that it is not enough for what comes in an interval.
	came := used.Received - min(r.reviewed, used.Received)
	r.ahead = min(max(r.ahead, 2*came), maxReceiveAhead)
	has.Received = max(has.Received, saturated(used.Received, r.ahead))
	return has
}

// fitting is raised, but that what may be received is what is to be reserved.
func (r *reservation) fitting() esp.Bounds {
	b := r.raised()
	b.Received = min(b.Received, saturated(r.live.ESP.Wanted().Received, r.ahead))
	return b
}

// review fits what is reserved to what came since the last time. It says whether
// there is more than the least.
func (r *reservation) review() (wide bool) {
	top := r.live.ESP.Wanted().Received
	came := top - min(r.reviewed, top)
	r.reviewed = top
	r.ahead = min(max(receiveAhead, 2*came, r.ahead/2), maxReceiveAhead)
	return r.ahead > receiveAhead
}

func saturated(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func markRecord(spi uint32, m *sad.Mark) journal.Record {
	return journal.Record{Kind: kindMark, ID: uint64(spi), Value: m.Append(nil)}
}

// reserve moves the bounds of SAs until ctx ends.
func (s *state) reserve(ctx context.Context, now func() time.Time) {
	if s == nil || s.reserved == nil {
		return
	}
	review, mark := time.NewTicker(reviewInterval), time.NewTicker(markInterval)
	defer review.Stop()
	defer mark.Stop()
	var complained time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-mark.C:
			err = s.markAll(now())
		case <-review.C:
			err = s.review()
		case <-s.reserved.wake:
			if err = s.extend(); err != nil {
				// What has asked will have to wait, as will what asks now.
				time.AfterFunc(reviewInterval, func() { s.reserved.ask(nil) })
			}
		}
		// It is tried again and again.
		if err != nil && time.Since(complained) > complainInterval {
			complained = time.Now()
			s.notReserved(err)
		}
	}
}

// extend gives higher bounds to the SAs that have asked.
func (s *state) extend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.reserved.take()
	todo := map[*reservation]struct{}{}
	for _, sa := range asked {
		// One that was deleted gets nothing more.
		if r := s.reserved.byESP[sa]; r != nil {
			todo[r] = struct{}{}
		}
	}
	err := s.raise(slices.Collect(maps.Keys(todo)))
	if err != nil {
		s.reserved.mu.Lock()
		s.reserved.asked = append(s.reserved.asked, asked...)
		s.reserved.mu.Unlock()
	}
	return err
}

// raise gives SAs higher bounds when they are kept.
func (s *state) raise(todo []*reservation) error {
	return s.keepMarks(todo, (*reservation).raised, func(r *reservation, b esp.Bounds) {
		r.live.ESP.SetBounds(b)
		s.reserved.moved[r] = struct{}{}
	})
}

// keepMarks keeps the marks of SAs with the bounds that they are to have, and then
// says so for each.
func (s *state) keepMarks(todo []*reservation, bounds func(*reservation) esp.Bounds, kept func(*reservation, esp.Bounds)) error {
	if len(todo) == 0 {
		return nil
	}
	records := make([]journal.Record, len(todo))
	marks := make([]sad.Mark, len(todo))
	for i, r := range todo {
		marks[i] = r.live.Mark(bounds(r))
		records[i] = markRecord(r.live.ESP.SPI(), &marks[i])
	}
	if err := s.dir.Put(records...); err != nil {
		return err
	}
	for i, r := range todo {
		r.mark = marks[i]
		kept(r, marks[i].Bounds)
	}
	return nil
}

// review fits what is reserved for SAs that have much to what they receive.
func (s *state) review() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var todo []*reservation
	for r := range s.reserved.moved {
		if !r.review() {
			delete(s.reserved.moved, r)
		}
		if r.fitting() != r.mark.Bounds {
			todo = append(todo, r)
		}
	}
	return s.keepMarks(todo, func(r *reservation) esp.Bounds {
		b, has := r.fitting(), r.live.ESP.Bounds()
		if b.Received < has.Received {
			// Lower: first for the SA, then where it is kept.
			has.Received = b.Received
			b.Received = r.live.ESP.SetBounds(has).Received
		}
		return b
	}, func(r *reservation, b esp.Bounds) { r.live.ESP.SetBounds(b) })
}

// markAll keeps what the SAs have counted since the last time, and what time it is.
func (s *state) markAll(now time.Time) error {
	if err := s.keepSeen(now); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var todo []*reservation
	for _, r := range s.reserved.bySPI {
		if r.live.Mark(r.mark.Bounds) != r.mark {
			todo = append(todo, r)
		}
	}
	return s.keepMarks(todo, func(r *reservation) esp.Bounds { return r.live.ESP.Bounds() }, func(*reservation, esp.Bounds) {})
}

// keepSeen keeps what time it is.
func (s *state) keepSeen(now time.Time) error {
	return s.putGeneral(func(g *general) { g.Seen = time.Duration(now.UnixNano()) })
}

// reserveAll notes the SAs that were restored, and gives those something that have
// nothing left.
func (s *state) reserveAll(sas []*sad.SA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var todo []*reservation
	for _, sa := range sas {
		if sa.ESP == nil {
			continue
		}
		live := sa.Live()
		s.reserved.add(live, live.Mark(sa.ESP.Bounds()))
		if r := s.reserved.byESP[sa.ESP]; r.raised() != sa.ESP.Bounds() {
			todo = append(todo, r)
		}
	}
	if err := s.raise(todo); err != nil {
		s.notReserved(err)
	}
}

func (s *state) notReserved(err error) {
	s.log.Error("sequence numbers can't be reserved; what has none left is not sent, and not received", "error", err)
}

// finish keeps exactly what was sent and received, when nothing is any more, and
// changes nothing from then on.
func (s *state) finish(now time.Time) error {
	err := s.keepSeen(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.keepMarks(slices.Collect(maps.Values(s.reserved.bySPI)),
			func(r *reservation) esp.Bounds {
				return esp.Bounds{Sent: r.live.ESP.Sequence(), Received: r.live.ESP.ReplayState().Highest}
			},
			func(*reservation, esp.Bounds) {})
	}
	s.frozen = true
	return err
}
