package esp

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
)

// arrival is a sequence number that arrives, and whether it is accepted.
type arrival struct {
	seq uint64
	ok  bool
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what     string
		size     uint32
		arrivals []arrival
	}{
		{"in order", 32, []arrival{{1, true}, {2, true}, {3, true}}},
		{"zero", 32, []arrival{{0, false}, {1, true}, {0, false}}},
		{"duplicate", 32, []arrival{{1, true}, {1, false}, {2, true}, {1, false}, {2, false}}},
		{"out of order", 32, []arrival{{5, true}, {3, true}, {4, true}, {3, false}, {1, true}, {2, true}, {5, false}}},
		{"first far ahead", 32, []arrival{{4000000000, true}, {4000000000, false}, {3999999999, true}}},
		{"far ahead", 32, []arrival{{1, true}, {1000, true}, {1, false}, {968, false}, {969, true}, {1000, false}}},
		{"window edge", 64, []arrival{{64, true}, {1, true}, {65, true}, {1, false}, {2, true}, {2, false}}},
		{"no check", 0, []arrival{{0, true}, {1, true}, {1, true}, {1000, true}, {1, true}}},
		{"size 1", 1, []arrival{{1, true}, {1, false}, {2, true}, {1, false}, {4, true}, {3, false}}},
		{"size 2", 2, []arrival{{2, true}, {1, true}, {1, false}, {4, true}, {3, true}, {2, false}}},
		{"size 63", 63, []arrival{{63, true}, {1, true}, {64, true}, {1, false}, {2, true}}},
		{"size 65", 65, []arrival{{65, true}, {1, true}, {66, true}, {1, false}, {2, true}}},
		{"size 128, within a word", 128, []arrival{{127, true}, {126, true}, {128, true}, {1, true}, {129, true}, {1, false}}},
		{"ahead by the ring", 64, []arrival{{10, true}, {10 + 128, true}, {10 + 128, false}, {10 + 65, true}, {10 + 64, false}}},
		{"ahead by the ring but one", 64, []arrival{{63, true}, {1, true}, {190, true}, {190, false}, {129, true}, {127, true}, {126, false}}},
		{"end of 32 bits", 32, []arrival{{math.MaxUint32, true}, {math.MaxUint32, false}, {math.MaxUint32 - 31, true}, {math.MaxUint32 - 32, false}, {1, false}}},
		{"end of 64 bits", 32, []arrival{{math.MaxUint64, true}, {math.MaxUint64, false}, {math.MaxUint64 - 31, true}, {math.MaxUint64 - 32, false}}},
		{"across 32 bits", 32, []arrival{{1<<32 - 1, true}, {1<<32 + 1, true}, {1 << 32, true}, {1 << 32, false}, {1<<32 - 30, true}, {1<<32 - 31, false}}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			var w window
			newState(&w, tt.size)
			for i, a := range tt.arrivals {
				if got := w.check(a.seq); got != a.ok {
					t.Errorf("arrival %d: check(%d) = %v, want %v", i, a.seq, got, a.ok)
				}
				if got := w.mark(a.seq, false) == nil; got != a.ok {
					t.Errorf("arrival %d: mark(%d) = %v, want %v", i, a.seq, got, a.ok)
				}
			}
		})
	}
}

// TestWindowModel holds windows of many sizes against the plain rule: a number
// is accepted once, if it is not older than the window.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []uint32{1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 1000, 4096} {
		var w window
		newState(&w, size)
		seen, top := map[uint64]bool{}, uint64(0)
		for range 20000 {
			seq := top + r.Uint64N(uint64(size)*2)
			seq -= min(seq, uint64(size)+uint64(size)/2)
			if r.IntN(1000) == 0 {
				seq = top + r.Uint64N(100000)
			}
			want := seq > 0 && !seen[seq] && (seq > top || top-seq < uint64(size))
			if got := w.mark(seq, false) == nil; got != want {
				t.Fatalf("size %d, highest %d: mark(%d) = %v, want %v", size, top, seq, got, want)
			}
			if want {
				seen[seq], top = true, max(top, seq)
			}
		}
		if got := w.top.Load(); got != top {
			t.Errorf("size %d: highest %d, want %d", size, got, top)
		}
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	const g = 1 << 32
	for _, tt := range []struct {
		size uint32
		top  uint64
		low  uint32
		want uint64
	}{
		// nothing received yet
		{64, 0, 1, 1},
		{64, 0, math.MaxUint32, math.MaxUint32},
		{0, 0, 1, 1},
		{0, 0, math.MaxUint32, math.MaxUint32},
		// the window reaches back before the first number
		{64, 10, 5, 5},
		{64, 10, math.MaxUint32, math.MaxUint32},
		// case A: the window lies within 2^32 numbers
		{64, 1000, 1001, 1001},
		{64, 1000, 937, 937},
		{64, 1000, 936, g + 936},
		{64, 5*g + 1000, 1001, 5*g + 1001},
		{64, 5*g + 1000, 936, 6*g + 936},
		{64, g - 1, 0, g},
		{64, g - 1, math.MaxUint32, g - 1},
		{64, 64, 1, 1},
		{64, 64, 0, g},
		// case B: the window spans a multiple of 2^32
		{64, 5*g + 10, 10, 5*g + 10},
		{64, 5*g + 10, 11, 5*g + 11},
		{64, 5*g + 10, math.MaxUint32, 5*g - 1},
		{64, 5*g + 10, math.MaxUint32 - 52, 5*g - 53},
		{64, 5*g + 10, math.MaxUint32 - 53, 6*g - 54},
		{64, 5 * g, 0, 5 * g},
		{1, 5 * g, 0, 5 * g},
		{1, 5 * g, math.MaxUint32, 6*g - 1},
		// without a window, the nearest
		{0, g - 1, 0, g},
		{0, g + 5, math.MaxUint32, g - 1},
		{0, 5*g + 1000, 900, 5*g + 900},
		{0, 5*g + 1000, 1<<31 + 900, 5*g + 1<<31 + 900},
		{0, 5*g + 1000, 1<<31 + 1001, 4*g + 1<<31 + 1001},
	} {
		var w window
		newState(&w, tt.size)
		w.top.Store(tt.top)
		if got := w.extend(tt.low); got != tt.want {
			t.Errorf("size %d, highest %#x: extend(%#x) = %#x, want %#x", tt.size, tt.top, tt.low, got, tt.want)
		}
	}
}

// TestExtendUndo: every number that check can accept is the one that extend
// makes of its low half, also across multiples of 2^32, as long as it is less
// than 2^32 minus the window ahead.
func TestExtendUndo(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 100000 {
		var w window
		newState(&w, 1+r.Uint32N(5000))
		top := 1<<33 + r.Uint64N(1<<34)
		if r.IntN(2) == 0 {
			top = top&^math.MaxUint32 + r.Uint64N(10000)
		}
		w.top.Store(top)
		seq := top - w.size + 1 + r.Uint64N(1<<32)
		if r.IntN(2) == 0 {
			seq = top - r.Uint64N(w.size)
		}
		if got := w.extend(uint32(seq)); got != seq {
			t.Fatalf("size %d, highest %#x: extend(%#x) = %#x, want %#x", w.size, top, uint32(seq), got, seq)
		}
	}
}

// TestReplay goes through SAs: what was opened once is not opened again.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what     string
		esn      bool
		arrivals []arrival
	}{
		{"32 bits", false, []arrival{{1, true}, {1, false}, {40, true}, {8, false}, {9, true}, {9, false}, {41, true}}},
		{"32 bits start again", false, []arrival{{1<<32 - 1, true}, {1 << 32, false}, {1<<32 + 1, false}}},
		{"64 bits", true, []arrival{
			{1, true}, {1<<32 - 10, true}, {1<<32 - 10, false}, {1<<32 + 5, true}, {1 << 32, true},
			{1<<32 - 1, true}, {1<<32 - 10, false}, {1<<32 + 5, false}, {1<<32 - 27, false}, {2<<32 - 100, true}, {2<<32 + 3, true},
		}},
	} {
		for _, s := range []suite{{"null", "hmac-sha1"}, {"aes-gcm-16", ""}} {
			t.Run(tt.what+"/"+s.String(), func(t *testing.T) {
				t.Parallel()
				c := s.config(t)
				c.ReplayWindow, c.ESN = 32, tt.esn
				out, in := newSA(t, c), newSA(t, c)
				for _, a := range tt.arrivals {
					_, _, err := in.Open(sealAs(t, out, a.seq, payloadOf(20), 4))
					// An old 64-bit number is taken for a later one, for which
					// the ICV is wrong.
					if (err == nil) != a.ok || err != nil && err != ErrReplay && !(tt.esn && err == ErrICV) {
						t.Errorf("%#x: %v, want success %v", a.seq, err, a.ok)
					}
				}
				if got := in.ReplayState().Window; got != 32 {
					t.Errorf("window of %d packets, want 32", got)
				}
			})
		}
	}
}

// TestESNWithoutWindow: the high half is followed although nothing is checked.
func TestESNWithoutWindow(t *testing.T) {
	t.Parallel()
	c := suite{"aes-gcm-16", ""}.config(t)
	c.ESN = true
	out, in := newSA(t, c), newSA(t, c)
	for _, seq := range []uint64{1, 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 - 1, 1<<32 + 1<<31, 2<<32 - 1, 2<<32 + 7, 2<<32 + 7} {
		if _, _, err := in.Open(sealAs(t, out, seq, payloadOf(20), 4)); err != nil {
			t.Errorf("%#x: %v", seq, err)
		}
	}
	if got := in.ReplayState(); got != (ReplayState{Window: 0, Highest: 2<<32 + 7}) {
		t.Errorf("replay state %+v", got)
	}
}

// TestReplayConcurrent: of copies that arrive at once, one is accepted.
func TestReplayConcurrent(t *testing.T) {
	t.Parallel()
	const packets, copies = 500, 4
	c := suite{"aes-gcm-16", ""}.config(t)
	c.ReplayWindow = 64
	out, in := newSA(t, c), newSA(t, c)
	all := make([][]byte, packets)
	for i := range all {
		all[i] = seal(t, out, payloadOf(20), 4)
	}
	var opened [packets]atomic.Int32
	var wg sync.WaitGroup
	for range copies {
		wg.Go(func() {
			packet := make([]byte, len(all[0]))
			for i := range all {
				copy(packet, all[i])
				switch _, _, err := in.Open(packet); err {
				case nil:
					opened[i].Add(1)
				case ErrReplay:
				default:
					t.Errorf("packet %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range opened {
		n := opened[i].Load()
		if n > 1 {
			t.Errorf("packet %d was accepted %d times", i, n)
		}
		total += int(n)
	}
	if total == 0 || in.ReplayState().Highest != packets {
		t.Errorf("%d packets accepted, highest sequence number %d, want %d", total, in.ReplayState().Highest, packets)
	}
}

// newState gives a window memory of its own.
func newState(w *window, size uint32) {
	var s state
	if err := s.init(&Config{ReplayWindow: size}); err != nil {
		panic(err)
	}
	w.init(size, s.window.top, s.window.next, s.window.ring)
}

// Whatever a process was at when it was killed, what goes on with its state
// accepts nothing that it accepted, and all that it did not look at.
func TestWindowOfAKilledProcess(t *testing.T) {
	t.Parallel()
	const size = 64
	// A jump from 100 to 300 clears the ring, in which numbers from 37 on are.
	for cleared := range 5 {
		config := Config{
			SPI: 1000, Encryption: algorithm.EncryptNull, ReplayWindow: size,
			State: make([]byte, StateSize(Config{ReplayWindow: size})),
		}
		before, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		w := &before.state.window
		for seq := uint64(40); seq <= 100; seq++ {
			if w.mark(seq, false) != nil {
				t.Fatalf("%d refused", seq)
			}
		}
		if _, err := before.Reserve(5); err != nil {
			t.Fatal(err)
		}
		w.next.Store(300)
		for i := range min(cleared, len(w.ring)) {
			w.word(300/64 - uint64(i)).Store(0)
		}
		after, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		w = &after.state.window
		for seq := uint64(1); seq <= 236; seq++ {
			if w.mark(seq, false) == nil {
				t.Errorf("after %d words were cleared, %d is accepted, want it outside the window", cleared, seq)
			}
		}
		for seq := uint64(237); seq <= 301; seq++ {
			if w.mark(seq, false) != nil {
				t.Errorf("after %d words were cleared, %d is refused", cleared, seq)
			}
		}
		if seq, err := after.Reserve(1); err != nil || seq != 6 {
			t.Errorf("the next sequence number is %d (%v), want 6", seq, err)
		}
	}
}

// The numbers of one SA are not another's.
func TestStateOfAnotherSA(t *testing.T) {
	t.Parallel()
	config := Config{SPI: 1000, Encryption: algorithm.EncryptNull, ReplayWindow: 64}
	left := func(c Config) []byte {
		c.State = make([]byte, StateSize(c)+1024)
		sa, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sa.Reserve(7); err != nil {
			t.Fatal(err)
		}
		return c.State
	}
	for what, change := range map[string]func(*Config){
		"another SPI":              func(c *Config) { c.SPI++ },
		"a larger window":          func(c *Config) { c.ReplayWindow = 65 },
		"a smaller window":         func(c *Config) { c.ReplayWindow = 32 },
		"no window":                func(c *Config) { c.ReplayWindow = 0 },
		"64-bit numbers":           func(c *Config) { c.ESN = true },
		"numbers that start again": func(c *Config) { c.Cyclic = true },
		"memory that no SA left":   func(c *Config) { clear(c.State[:8]) },
		"more than there can be": func(c *Config) {
			binary.NativeEndian.PutUint64(c.State[8:], 1<<32)
		},
		"less than its size": func(c *Config) { c.State = c.State[:StateSize(*c)-1] },
		"nothing":            func(c *Config) { c.State = c.State[:0] },
		"not aligned":        func(c *Config) { c.State = c.State[4:] },
	} {
		c := config
		c.State = left(config)
		change(&c)
		if _, err := New(c); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", what, err)
		}
	}
	for what, change := range map[string]func(*Config){
		"itself":         func(*Config) {},
		"64-bit numbers": func(c *Config) { c.ESN = true },
		"the largest":    func(c *Config) { c.ReplayWindow, c.SPI = MaxReplayWindow, math.MaxUint32 },
		"cyclic":         func(c *Config) { c.Cyclic = true },
	} {
		c := config
		change(&c)
		c.State = left(c)
		sa, err := New(c)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if seq, err := sa.Reserve(1); err != nil || seq != 8 {
			t.Errorf("%s: the next sequence number is %d (%v), want 8", what, seq, err)
		}
	}
}
