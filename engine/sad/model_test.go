package sad

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// model is the database as one would write it down: a list, searched through
// for every question.
type model struct{ entries []*entry }

type entry struct {
	Spec
	state   pfkey.SAState
	created time.Time
	bytes   uint64
}

func (m *model) bySPI(spi uint32) *entry {
	for _, e := range m.entries {
		if e.SPI == spi {
			return e
		}
	}
	return nil
}

func (m *model) remove(gone func(*entry) bool) int {
	n := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, gone)
	return n - len(m.entries)
}

func (m *model) inbound(spi uint32, dst netip.Addr) uint32 {
	if e := m.bySPI(spi); e != nil && e.Dst == dst && e.SAType == pfkey.SATypeESP && e.state != pfkey.StateLarval {
		return e.SPI
	}
	return 0
}

// outbound relies on entries being in the order in which they became mature.
func (m *model) outbound(i Index) uint32 {
	var best *entry
	for _, e := range m.entries {
		if e.SAType != pfkey.SATypeESP || e.Mode == pfkey.ModeTransport || e.state == pfkey.StateLarval ||
			e.Src != i.Src || e.Dst != i.Dst || e.ReqID != i.ReqID {
			continue
		}
		if best == nil || e.state == pfkey.StateMature || best.state == pfkey.StateDying {
			best = e
		}
	}
	if best == nil {
		return 0
	}
	return best.SPI
}

func spiOf(sa *SA) uint32 {
	if sa == nil {
		return 0
	}
	return sa.SPI
}

// TestAgainstModel does the same random things to a database and to the model
// and wants the same answers.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		db, c := newDB(t)
		m := &model{}
		hosts := []netip.Addr{hostA, hostB, hostC}
		pick := func() Spec {
			s := tunnel(1000 + rng.Uint32N(60))
			s.Src, s.Dst = hosts[rng.IntN(3)], hosts[rng.IntN(3)]
			s.ReqID = 100 + rng.Uint32N(3)
			s.Mode = pfkey.Mode(rng.IntN(3))
			if rng.IntN(5) == 0 {
				s.SAType, s.Encrypt, s.EncryptKey = pfkey.SATypeAH, 0, nil
				s.Auth, s.AuthKey = algorithm.AuthHMACSHA1, make([]byte, 20)
			}
			if rng.IntN(2) == 0 {
				s.Soft.AddTime, s.Hard.AddTime = 5+rng.Uint64N(40), 5+rng.Uint64N(60)
			}
			if rng.IntN(4) == 0 {
				s.Hard.Bytes = 1 + rng.Uint64N(500)
			}
			return s
		}
		errno := func(err error) syscall.Errno {
			var e syscall.Errno
			errors.As(err, &e)
			return e
		}
		for step := range 20_000 {
			s := pick()
			known := m.bySPI(s.SPI)
			var what string
			var got, want syscall.Errno
			switch op := rng.IntN(100); {
			case op < 35:
				what = "add"
				_, err := db.Add(s)
				got = errno(err)
				if known != nil {
					want = syscall.EEXIST
				} else {
					m.entries = append(m.entries, &entry{Spec: s, state: pfkey.StateMature, created: c.t})
				}
			case op < 45:
				what = "getspi"
				_, err := db.GetSPI(s, s.SPI, s.SPI)
				got = errno(err)
				if known != nil {
					want = syscall.EEXIST
				} else {
					s.Hard, s.Soft = Lifetime{}, Lifetime{}
					m.entries = append(m.entries, &entry{Spec: s, state: pfkey.StateLarval, created: c.t})
				}
			case op < 60:
				what = "update"
				if known != nil && rng.IntN(4) > 0 { // else it will hardly ever match
					known := known.Spec
					s.SAType, s.Src, s.Dst, s.Mode, s.ReqID = known.SAType, known.Src, known.Dst, known.Mode, known.ReqID
					s.Auth, s.AuthKey, s.Encrypt, s.EncryptKey = known.Auth, known.AuthKey, known.Encrypt, known.EncryptKey
				}
				_, err := db.Update(s)
				got = errno(err)
				switch {
				case known == nil:
					want = syscall.EINVAL
				case known.SAType != s.SAType || known.Src != s.Src || known.Dst != s.Dst || known.ReqID != s.ReqID ||
					known.Mode != pfkey.ModeAny && known.Mode != s.Mode:
					want = syscall.ESRCH
				case known.state == pfkey.StateLarval:
					m.remove(func(e *entry) bool { return e == known })
					s.Mode = known.Mode
					m.entries = append(m.entries, &entry{Spec: s, state: pfkey.StateMature, created: c.t})
				default:
					known.Hard, known.Soft, known.state = s.Hard, s.Soft, pfkey.StateMature
				}
			case op < 70:
				what = "delete"
				if known != nil && rng.IntN(2) == 0 {
					s = known.Spec
				}
				got = errno(db.Delete(s.SAType, s.Src, s.Dst, s.SPI))
				if m.remove(func(e *entry) bool {
					return e.SPI == s.SPI && e.SAType == s.SAType && e.Src == s.Src && e.Dst == s.Dst
				}) == 0 {
					want = syscall.ENOENT
				}
			case op < 71:
				what = "deleteall"
				got = syscall.Errno(db.DeleteAll(s.SAType, s.Src, s.Dst))
				want = syscall.Errno(m.remove(func(e *entry) bool {
					return e.SAType == s.SAType && e.Src == s.Src && e.Dst == s.Dst && e.state != pfkey.StateLarval
				}))
			case op < 72 && step%5 == 0:
				what = "flush"
				got = syscall.Errno(db.Flush(s.SAType))
				want = syscall.Errno(m.remove(func(e *entry) bool { return e.SAType == s.SAType }))
			case op < 85:
				what = "use"
				if sa := db.Inbound(s.SPI, s.Dst); sa != nil {
					sa.Account(1, 100)
					known.bytes += 100
				}
			default:
				what = "expire"
				c.forward(time.Duration(1+rng.IntN(3)) * time.Second)
				got = syscall.Errno(len(db.Expire(c.t)))
				want = syscall.Errno(m.remove(func(e *entry) bool {
					if e.state == pfkey.StateLarval {
						return c.t.Sub(e.created) >= DefaultLarvalLifetime
					}
					return e.over(e.Hard, c.t)
				}))
				for _, e := range m.entries {
					if e.state == pfkey.StateMature && e.over(e.Soft, c.t) {
						e.state = pfkey.StateDying
						want++
					}
				}
			}
			if got != want {
				t.Fatalf("seed %d, step %d: %s of SPI %d: %d, want %d", seed, step, what, s.SPI, got, want)
			}

			probe := pick()
			if got, want := spiOf(db.Inbound(probe.SPI, probe.Dst)), m.inbound(probe.SPI, probe.Dst); got != want {
				t.Fatalf("seed %d, step %d: after %s inbound %d, want %d", seed, step, what, got, want)
			}
			i := Index{probe.Src, probe.Dst, probe.ReqID}
			if got, want := spiOf(db.Outbound(i)), m.outbound(i); got != want {
				t.Fatalf("seed %d, step %d: after %s outbound %d, want %d", seed, step, what, got, want)
			}
			if step%100 == 0 {
				compare(t, db, m)
			}
		}
	}
}

func (e *entry) over(l Lifetime, now time.Time) bool {
	return l.AddTime != 0 && now.Sub(e.created) >= time.Duration(l.AddTime)*time.Second ||
		l.Bytes != 0 && e.bytes > l.Bytes
}

// compare wants the same SAs in the same states in both.
func compare(t *testing.T, db *DB, m *model) {
	t.Helper()
	n := 0
	for sa := range db.All(pfkey.SATypeUnspec) {
		n++
		e := m.bySPI(sa.SPI)
		if e == nil || sa.State() != e.state || sa.Mode != e.Mode || sa.ReqID != e.ReqID || sa.Hard != e.Hard || !sa.Created.Equal(e.created) {
			t.Fatalf("the database has %v %+v, the model %+v", sa.State(), sa.Spec, e)
		}
	}
	if n != len(m.entries) {
		t.Fatalf("the database has %d SAs, the model %d", n, len(m.entries))
	}
}
