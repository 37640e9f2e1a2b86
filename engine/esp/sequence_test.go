package esp

import (
	"bytes"
	"errors"
	"math"
	"sync"
	"syscall"
	"testing"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what        string
		esn, cyclic bool
		sent        uint64
		n           int
		want        uint64 // 0: ErrSequenceOverflow
	}{
		{"first", false, false, 0, 1, 1},
		{"first of many", false, false, 0, 64, 1},
		{"next", false, false, 64, 1, 65},
		{"last", false, false, math.MaxUint32 - 1, 1, math.MaxUint32},
		{"last two", false, false, math.MaxUint32 - 2, 2, math.MaxUint32 - 1},
		{"none left", false, false, math.MaxUint32, 1, 0},
		{"too few left", false, false, math.MaxUint32 - 2, 3, 0},
		{"cyclic goes on", false, true, math.MaxUint32, 1, 1 << 32},
		{"ESN goes on", true, false, math.MaxUint32 - 1, 3, math.MaxUint32},
		{"last of ESN", true, false, math.MaxUint64 - 1, 1, math.MaxUint64},
		{"none left of ESN", true, false, math.MaxUint64, 1, 0},
		{"too few left of ESN", true, true, math.MaxUint64 - 2, 3, 0},
	} {
		c := suite{"aes-gcm-16", ""}.config(t)
		c.ESN, c.Cyclic = tt.esn, tt.cyclic
		sa := newSA(t, c)
		sa.state.sent.Store(tt.sent)
		first, err := sa.Reserve(tt.n)
		if tt.want == 0 {
			if err != ErrSequenceOverflow || !errors.Is(err, syscall.EOVERFLOW) || sa.Sequence() != tt.sent {
				t.Errorf("%s: %d, %v, last sent %d; want ErrSequenceOverflow and %d", tt.what, first, err, sa.Sequence(), tt.sent)
			}
			continue
		}
		if err != nil || first != tt.want || sa.Sequence() != tt.want+uint64(tt.n)-1 {
			t.Errorf("%s: %d, %v, last sent %d; want %d", tt.what, first, err, sa.Sequence(), tt.want)
		}
	}
	sa := newSA(t, suite{"aes-gcm-16", ""}.config(t))
	for _, n := range []int{0, -1} {
		if _, err := sa.Reserve(n); !errors.Is(err, syscall.EINVAL) || sa.Sequence() != 0 {
			t.Errorf("Reserve(%d): %v, want EINVAL", n, err)
		}
	}
}

// TestReserveConcurrent: no number is handed out twice, and none is left out.
func TestReserveConcurrent(t *testing.T) {
	t.Parallel()
	sa := newSA(t, suite{"aes-gcm-16", ""}.config(t))
	const workers, times = 4, 1000
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range times {
				first, err := sa.Reserve(w + 1)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i := range uint64(w + 1) {
					if seen[first+i] {
						t.Errorf("%d was handed out twice", first+i)
					}
					seen[first+i] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if want := times * (1 + 2 + 3 + 4); len(seen) != want || sa.Sequence() != uint64(want) {
		t.Errorf("%d numbers handed out, last %d; want %d", len(seen), sa.Sequence(), want)
	}
}

// TestConcurrent seals and opens on one pair of SAs from several goroutines.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			c := s.config(t)
			c.ReplayWindow, c.ESN, c.Padding = 1024, true, Random
			out, in := newSA(t, c), newSA(t, c)
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					payload := bytes.Repeat([]byte{byte(w)}, 100+w)
					for range 50 {
						seq, err := out.Reserve(1)
						if err != nil {
							t.Error(err)
							return
						}
						got, next, err := in.Open(sealAs(t, out, seq, payload, 4))
						if err != nil || next != 4 || !bytes.Equal(got, payload) {
							t.Errorf("%d: %x, %d, %v", seq, got, next, err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
