package esp

import (
	"fmt"
	"testing"

	"ifipsec/engine/algorithm"
)

// benchConfig returns a Config with keys of 128 bits, or the nearest valid.
func (s suite) benchConfig(b *testing.B) Config {
	c := s.config(b)
	e, _ := algorithm.EncryptionByID(c.Encryption)
	c.EncryptionKey = key(max(min(128+e.SaltBits, e.Key.Max), e.Key.Min))
	return c
}

func BenchmarkSeal(b *testing.B) {
	for _, s := range suites() {
		for _, n := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", s, n), func(b *testing.B) {
				sa := newSA(b, s.benchConfig(b))
				off := sa.HeaderLen()
				buf := make([]byte, off+n+sa.MaxTrailerLen())
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					seq, err := sa.Reserve(1)
					if err != nil {
						b.Fatal(err)
					}
					if _, _, err := sa.Seal(seq, buf, off, n, 4); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSealer seals runs of packets, as a stream makes them. Times are for a
// packet.
func BenchmarkSealer(b *testing.B) {
	const run, n = 32, 1400
	for _, s := range suites() {
		b.Run(fmt.Sprintf("%s/%d", s, n), func(b *testing.B) {
			sa := newSA(b, s.benchConfig(b))
			off := sa.HeaderLen()
			var bufs [run][]byte
			for i := range bufs {
				bufs[i] = make([]byte, off+n+sa.MaxTrailerLen())
			}
			b.SetBytes(n)
			b.ReportAllocs()
			for i := 0; i < b.N; i += run {
				seq, err := sa.Reserve(run)
				if err != nil {
					b.Fatal(err)
				}
				sealer := sa.Sealer()
				for j, buf := range bufs {
					if _, _, err := sealer.Seal(seq+uint64(j), buf, off, n, 4); err != nil {
						b.Fatal(err)
					}
				}
				sealer.Close()
			}
		})
	}
}

// BenchmarkOpen opens one packet again and again, so without a replay window;
// copying the packet is measured too, because Open decrypts in place.
func BenchmarkOpen(b *testing.B) {
	for _, s := range suites() {
		for _, n := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/%d", s, n), func(b *testing.B) {
				sa := newSA(b, s.benchConfig(b))
				packet := seal(b, sa, payloadOf(n), 4)
				buf := make([]byte, len(packet))
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, packet)
					if _, _, err := sa.Open(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkWindow checks and marks numbers as they come: in order, and each pair
// the wrong way round, with packets of four lost in a hundred.
func BenchmarkWindow(b *testing.B) {
	for _, size := range []uint32{32, 256, 8192} {
		for name, arrival := range map[string]func(n uint64) uint64{
			"in order":  func(n uint64) uint64 { return n },
			"reordered": func(n uint64) uint64 { return n + n/25 ^ 1 },
		} {
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				var w window
				newState(&w, size)
				b.ReportAllocs()
				for n := uint64(2); b.Loop(); n++ {
					seq := arrival(n)
					if w.check(seq) {
						_ = w.mark(seq, false)
					}
				}
			})
		}
	}
}
