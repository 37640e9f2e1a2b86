package sad

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"ifipsec/engine/algorithm"
)

// gateway is the nth SA of a host with many peers.
func gateway(n uint32) Spec {
	var peer [4]byte
	binary.BigEndian.PutUint32(peer[:], 10<<24+n)
	return tunnel(1000+n, func(s *Spec) {
		s.Src = netip.AddrFrom4(peer)
		s.ReqID = n
		s.Encrypt, s.EncryptKey = algorithm.EncryptNull, nil
	})
}

func BenchmarkInbound(b *testing.B) {
	for _, n := range []uint32{1, 100_000} {
		db := New(Config{})
		for i := range n {
			add(b, db, gateway(i))
		}
		// Traffic comes in batches from some of the peers, or from all at once.
		for _, active := range slices.Compact([]uint32{min(n, 64), n}) {
			b.Run(fmt.Sprintf("sas=%d/active=%d", n, active), func(b *testing.B) {
				b.ReportAllocs()
				i := uint32(0)
				for b.Loop() {
					if db.Inbound(1000+i, hostB) == nil {
						b.Fatal("not found")
					}
					i += 7919
					i %= active
				}
			})
		}
	}
}

func BenchmarkOutbound(b *testing.B) {
	for _, n := range []uint32{1, 100_000} {
		b.Run(fmt.Sprintf("sas=%d", n), func(b *testing.B) {
			db := New(Config{})
			for i := range n {
				add(b, db, gateway(i))
			}
			s := gateway(n / 2)
			b.ReportAllocs()
			for b.Loop() {
				if db.Outbound(Index{s.Src, s.Dst, s.ReqID}) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, n := range []uint32{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("sas=%d", n), func(b *testing.B) {
			for b.Loop() {
				db := New(Config{})
				for i := range n {
					add(b, db, gateway(i))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/SA")
		})
	}
}
