package key

import (
	"slices"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// Expire ends the SAs and policies whose lifetime is over at now, and tells
// whoever registered (SADB_EXPIRE, SADB_X_SPDEXPIRE). FreeBSD does that once a
// second.
func (h *Handler) Expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.spd.Expire(now) {
		h.tell(h.policyExpired(p), registered, nil)
	}
	for _, e := range h.sad.Expire(now) {
		switch e.Kind {
		case sad.HardExpired:
			h.tell(h.expired(e.SA, limit(pfkey.ExtLifetimeHard, e.SA.Hard)), registered, nil)
		case sad.SoftExpired:
			h.tell(h.expired(e.SA, limit(pfkey.ExtLifetimeSoft, e.SA.Soft)), registered, nil)
		}
	}
}

func (h *Handler) expired(sa *sad.SA, limit *pfkey.Lifetime) *pfkey.Message {
	m := association(sa)
	m.Type, m.Seq = pfkey.TypeExpire, sa.Seq
	m.Exts = append(m.Exts, h.current(sa), limit, host(pfkey.ExtAddressSrc, sa.Src), host(pfkey.ExtAddressDst, sa.Dst))
	return m
}

func (h *Handler) policyExpired(p *spd.Policy) *pfkey.Message {
	m := h.policy(p)
	m.Type, m.Reserved = pfkey.TypeSPDExpire, 0
	// The lifetimes come first here and last elsewhere.
	of := func(kinds ...pfkey.ExtType) []pfkey.Extension { return echo(m, kinds...).Exts }
	m.Exts = slices.Concat(
		of(pfkey.ExtLifetimeCurrent, pfkey.ExtLifetimeHard),
		of(pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtPolicy))
	return m
}
