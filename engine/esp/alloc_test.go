//go:build !race

package esp

import "testing"

// TestAllocations: nothing is allocated per packet. The race detector makes
// sync.Pool forget, so this test is not for it.
func TestAllocations(t *testing.T) {
	for _, s := range suites() {
		for _, esn := range []bool{false, true} {
			c := s.config(t)
			c.ESN, c.ReplayWindow, c.Padding = esn, 64, Random
			out, in := newSA(t, c), newSA(t, c)
			off := out.HeaderLen()
			buf := make([]byte, off+1400+out.MaxTrailerLen())
			var seq uint64
			n := testing.AllocsPerRun(100, func() {
				seq++
				start, end, err := out.Seal(seq, buf, off, 1400, 4)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := in.Open(buf[start:end]); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%s, ESN %v: %v allocations to seal and open a packet", s, esn, n)
			}
			bufs := [20][]byte{}
			for i := range bufs {
				bufs[i] = make([]byte, len(buf))
			}
			if n := testing.AllocsPerRun(100, func() {
				sealer := out.Sealer()
				for _, buf := range bufs {
					seq++
					if _, _, err := sealer.Seal(seq, buf, off, 1400, 4); err != nil {
						t.Fatal(err)
					}
				}
				sealer.Close()
			}); n != 0 {
				t.Errorf("%s, ESN %v: %v allocations to seal %d packets", s, esn, n, len(bufs))
			}
		}
	}
}
