package sad

import (
	"math/rand/v2"
	"sync"
	"testing"

	"ifipsec/engine/pfkey"
)

// TestReadersWhileOthersWrite wants packets to find an SA at all times that is
// there at all times, while it is updated and others come and go around it.
func TestReadersWhileOthersWrite(t *testing.T) {
	t.Parallel()
	db := New(Config{})
	steady := tunnel(1000, func(s *Spec) { s.ReqID = 1 })
	add(t, db, steady)
	add(t, db, tunnel(1001)) // the oldest of the reqid whose others come and go

	done := make(chan struct{})
	var readers sync.WaitGroup
	read := func(what string, find func() *SA) {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				sa := find()
				if sa == nil {
					t.Errorf("%s: packets find no SA", what)
					return
				}
				sa.Account(1, 100)
				sa.Current()
			}
		})
	}
	read("inbound", func() *SA { return db.Inbound(1000, hostB) })
	read("outbound", func() *SA { return db.Outbound(Index{hostA, hostB, 1}) })
	read("outbound, newest", func() *SA { return db.Outbound(Index{hostA, hostB, 100}) })
	read("dump", func() *SA {
		var last *SA
		for sa := range db.All(pfkey.SATypeUnspec) {
			sa.Keys()
			last = sa
		}
		return last
	})

	var writers sync.WaitGroup
	for w := range uint32(2) {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			for range 2000 {
				s := tunnel(2000 + rng.Uint32N(50))
				switch rng.IntN(4) {
				case 0:
					if _, err := db.Update(steady); err != nil {
						t.Error(err)
					}
				case 1:
					_ = db.Delete(s.SAType, s.Src, s.Dst, s.SPI)
				default:
					_, _ = db.Add(s) // it may be there
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}
