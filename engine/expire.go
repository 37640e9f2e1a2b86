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
		case now := <-ticker.C:
			if e.due(now) {
				e.key.Expire(now)
			}
		}
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
