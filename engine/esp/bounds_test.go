package esp

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
)

func boundedConfig(b Bounds, low func(*SA)) Config {
	c := Config{SPI: 1000, Encryption: algorithm.EncryptNull, ReplayWindow: 64, Bounds: &b, Low: low}
	c.State = make([]byte, StateSize(c))
	return c
}

func TestSendsWithinBounds(t *testing.T) {
	t.Parallel()
	asked := 0
	sa := newSA(t, boundedConfig(Bounds{Sent: 100}, func(*SA) { asked++ }))
	reserve := func(n int, want uint64, wantErr error) {
		t.Helper()
		if first, err := sa.Reserve(n); first != want || !errors.Is(err, wantErr) {
			t.Errorf("Reserve(%d) = %d, %v; want %d, %v", n, first, err, want, wantErr)
		}
	}
	reserve(50, 1, nil)
	if asked != 0 {
		t.Error("asked for more when half was left")
	}
	reserve(30, 51, nil)
	reserve(21, 0, ErrBound)
	reserve(20, 81, nil)
	reserve(1, 0, ErrBound)
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	if got := sa.SetBounds(Bounds{Sent: 90}); got.Sent != 100 {
		t.Errorf("Sent was lowered to %d", got.Sent)
	}
	sa.SetBounds(Bounds{Sent: 200})
	reserve(60, 101, nil)
	if asked != 2 {
		t.Errorf("asked %d times, want twice", asked)
	}
	// The end of all numbers comes before that of the bounds.
	c := boundedConfig(Bounds{Sent: math.MaxUint64}, nil)
	if err := Resume(c, Bounds{Sent: math.MaxUint32 + 5}); err != nil {
		t.Fatal(err)
	}
	sa = newSA(t, c)
	reserve(1, 0, ErrSequenceOverflow)
}

func TestReceivesWithinBounds(t *testing.T) {
	t.Parallel()
	asked := 0
	c := boundedConfig(Bounds{Received: 10}, func(*SA) { asked++ })
	out, in := newSA(t, Config{SPI: 1000, Encryption: c.Encryption}), newSA(t, c)
	open := func(seq uint64, want error) {
		t.Helper()
		if _, _, err := in.Open(sealAs(t, out, seq, payloadOf(20), 4)); err != want {
			t.Errorf("%d: %v, want %v", seq, err, want)
		}
	}
	open(5, nil)
	if asked != 0 {
		t.Error("asked for more when half was left")
	}
	open(10, nil)
	open(12, ErrBound)
	open(11, ErrBound)
	open(10, ErrReplay)
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	if got, want := in.Wanted(), (Bounds{0, 12}); got != want {
		t.Errorf("wants %+v, want %+v", got, want)
	}
	in.SetBounds(Bounds{Received: 20})
	open(12, nil) // it was not received before
	open(12, ErrReplay)
	if got := in.SetBounds(Bounds{Received: 3}); got.Received != 12 {
		t.Errorf("lowered to %d, want what was received, 12", got.Received)
	}
	open(13, ErrBound)
	open(9, nil)
}

// A host loses power again and again at any moment. What it had on its disk then
// is enough to send no number twice, and to accept none twice.
func TestResume(t *testing.T) {
	t.Parallel()
	for name, esn := range map[string]bool{"32 bits": false, "64 bits": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, 8))
			var disk Bounds // what is kept of the SA
			var peer uint64 // that the peer sent last
			accepted, ends := map[uint64]bool{}, 0
			var sentLast uint64
			for life := range 300 {
				disk := &disk
				if life == 0 {
					*disk = Bounds{20, 20}
				}
				c := boundedConfig(*disk, nil)
				c.ESN = esn
				if life > 0 {
					if err := Resume(c, *disk); err != nil {
						t.Fatal(err)
					}
				}
				sa, err := New(c)
				if err != nil {
					t.Fatal(err)
				}
				// The peer goes on while the host is down.
				peer = max(peer, disk.Received-min(disk.Received, r.Uint64N(20)))
				lifeEnds := false
				for range r.IntN(200) {
					switch r.IntN(4) {
					case 0:
						n := 1 + r.IntN(8)
						first, err := sa.Reserve(n)
						if err == ErrBound {
							break
						}
						if err != nil {
							t.Fatal(err)
						}
						if first <= sentLast {
							t.Fatalf("life %d sends %d again", life, first)
						}
						sentLast = first + uint64(n) - 1
					case 1, 2:
						peer++
						seq := peer - min(peer-1, r.Uint64N(70))
						if sa.state.window.mark(seq, esn) == nil {
							if accepted[seq] {
								t.Fatalf("life %d accepts %d again", life, seq)
							}
							accepted[seq] = true
						}
					case 3:
						// First the disk, then the SA; a death is in between, too.
						w, has := sa.Wanted(), sa.Bounds()
						*disk = Bounds{max(w.Sent+r.Uint64N(50), has.Sent), max(w.Received+r.Uint64N(50), has.Received)}
						if r.IntN(20) == 0 {
							ends, lifeEnds = ends+1, true
							break
						}
						sa.SetBounds(*disk)
						if r.IntN(4) == 0 {
							// Lower: first the SA, then the disk.
							low := sa.SetBounds(Bounds{Received: w.Received})
							if r.IntN(2) == 0 {
								disk.Received = low.Received
							}
						}
					}
					if lifeEnds {
						break
					}
				}
			}
			if ends == 0 || sentLast < 1000 || len(accepted) < 500 {
				t.Errorf("%d ends between disk and SA, %d numbers sent and %d accepted", ends, sentLast, len(accepted))
			}
		})
	}
}

func TestResumeWithoutWindow(t *testing.T) {
	t.Parallel()
	for esn, want := range map[bool]uint64{false: 0, true: 700} {
		c := boundedConfig(Bounds{500, 700}, nil)
		c.ReplayWindow, c.ESN = 0, esn
		if err := Resume(c, *c.Bounds); err != nil {
			t.Fatal(err)
		}
		sa := newSA(t, c)
		if got := sa.ReplayState().Highest; got != want || sa.Sequence() != 500 {
			t.Errorf("ESN %v: goes on from %d and %d, want 500 and %d", esn, sa.Sequence(), got, want)
		}
		if _, _, err := sa.Open(sealAs(t, sa, 800, payloadOf(20), 4)); err != nil {
			t.Errorf("ESN %v: %v, without a window there is no bound", esn, err)
		}
	}
}

func TestResumeRefuses(t *testing.T) {
	t.Parallel()
	used := boundedConfig(Bounds{10, 10}, nil)
	if _, err := newSA(t, used).Reserve(1); err != nil {
		t.Fatal(err)
	}
	none := used
	none.State = nil
	for what, c := range map[string]Config{"state in use": used, "no state": none} {
		if err := Resume(c, Bounds{}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", what, err)
		}
	}
	used.Bounds = &Bounds{Sent: 0, Received: 10}
	if _, err := New(used); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a state above its bounds: %v, want EINVAL", err)
	}
}

// However many send at once, none passes the bounds of the moment.
func TestBoundsConcurrent(t *testing.T) {
	t.Parallel()
	var promised, highest atomic.Uint64
	low := make(chan struct{}, 1)
	sa := newSA(t, boundedConfig(Bounds{Sent: 100}, func(*SA) { low <- struct{}{} }))
	promised.Store(100)
	var senders, keeper sync.WaitGroup
	done := make(chan struct{})
	keeper.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-low:
				promised.Store(sa.Wanted().Sent + 100)
				sa.SetBounds(Bounds{Sent: promised.Load()})
			}
		}
	})
	for range 4 {
		senders.Go(func() {
			for sent := 0; sent < 2000; {
				first, err := sa.Reserve(3)
				if err == ErrBound {
					runtime.Gosched()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				sent++
				if last := first + 2; last > promised.Load() {
					t.Errorf("%d was sent, and %d promised", last, promised.Load())
				}
				highest.Add(3)
			}
		})
	}
	senders.Wait()
	close(done)
	keeper.Wait()
	if sa.Sequence() != highest.Load() {
		t.Errorf("the last number is %d after %d packets", sa.Sequence(), highest.Load())
	}
}
