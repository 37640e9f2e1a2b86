package engine

import (
	"context"
	"time"

	"ifipsec/engine/dataplane"
	"ifipsec/engine/sad"
)

// tick is how often lifetimes are looked at, as FreeBSD does.
const tick = time.Second

// expire ends what has come to the end of its lifetime, until ctx ends.
func (e *Engine) expire(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			e.lapse()
		}
	}
}

// lapse does what the time that has passed calls for.
func (e *Engine) lapse() {
	e.keepOffset()
	if now := e.clock.Now(); e.due(now) {
		e.key.Expire(now)
	}
}

// keepOffset keeps a step of the wall clock, so that the next process shows the
// same times.
func (e *Engine) keepOffset() {
	offset := e.clock.Offset()
	if e.state == nil || offset == e.offset {
		return
	}
	e.offset = offset
	e.log.Info("the wall clock was set; lifetimes are not changed by that")
	if err := e.state.putGeneral(func(g *general) { g.Offset = offset }); err != nil {
		e.log.Warn("the step of the wall clock is not kept", "error", err)
	}
}

// due says whether a lifetime has ended.
func (e *Engine) due(now time.Time) bool {
	sas, some := e.sad.NextDeadline()
	if some && !sas.After(now) {
		return true
	}
	policies, some := e.spd.NextDeadline()
	return some && !policies.After(now)
}

// acquire asks key-management programs for the SA that a tunnel lacks. It runs
// on the tunnel's own goroutine, for which whoever closes the tunnel waits, so
// it must not wait for e.mu.
func (e *Engine) acquire(t *dataplane.Tunnel) {
	s := t.Settings()
	e.key.Acquire(sad.Index{Src: s.Src, Dst: s.Dst, ReqID: s.ReqID})
}
