package sysctl

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestVariables(t *testing.T) {
	t.Parallel()
	names := []string{}
	for v := range All() {
		names = append(names, v.String())
		if found, ok := Find(v.String()); !ok || found != v {
			t.Errorf("Find(%v) = %v, %v", v, found, ok)
		}
		if v.Description() == "" || !strings.HasPrefix(v.String(), "net.") {
			t.Errorf("%v: %q", v, v.Description())
		}
		if _, err := new(Table).Set(v, v.Default()); err != nil {
			t.Errorf("the default of %v: %v", v, err)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %q", names)
	}
	if v, ok := Find("net.inet.ipsec.nothing"); ok {
		t.Errorf("found %v", v)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	table := New()
	for _, c := range []struct {
		variable Variable
		to, old  int64
		ok       bool
	}{
		{DFBit, DFCopy, DFClear, true},
		{DFBit, 3, 0, false},
		{DFBit, -1, 0, false},
		{DFBit, DFSet, DFCopy, true},
		{ECN, ECNIgnore, ECNForbidden, true},
		{ECN6, 2, 0, false},
		{MaxNesting, 0, 0, false},
		{LarvalLifetime, 1 << 31, 0, false},
		{LarvalLifetime, 1<<31 - 1, 30, true},
	} {
		before := table.Get(c.variable)
		old, err := table.Set(c.variable, c.to)
		want := c.to
		if !c.ok {
			want = before
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%v=%d: %v, want EINVAL", c.variable, c.to, err)
			}
		} else if err != nil || old != c.old {
			t.Errorf("%v=%d: %d, %v, want %d", c.variable, c.to, old, err, c.old)
		}
		if got := table.Get(c.variable); got != want {
			t.Errorf("%v is %d after %d, want %d", c.variable, got, c.to, want)
		}
	}
}

func TestParseValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "-1": -1, "0x10": 16, "010": 8, "2147483647": 1<<31 - 1} {
		if got, err := ParseValue(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "1 ", "1.5", "2147483648", "99999999999999999999"} {
		if n, err := ParseValue(text); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %d, %v, want EINVAL", text, n, err)
		}
	}
}

func TestChangedAndLoad(t *testing.T) {
	t.Parallel()
	table := New()
	if got := table.Changed(); len(got) != 0 {
		t.Errorf("a new table has changed %v", got)
	}
	for v, n := range map[Variable]int64{DFBit: DFSet, MaxNesting: 1} {
		if _, err := table.Set(v, n); err != nil {
			t.Fatal(err)
		}
	}
	next := New()
	if refused := next.Load(table.Changed()); len(refused) != 0 || !maps.Equal(next.Changed(), table.Changed()) {
		t.Errorf("loaded %v, refused %v", next.Changed(), refused)
	}
	refused := next.Load(map[string]int64{"net.inet.ipsec.dfbit": 7, "net.gone": 1, "net.inet.ipsec.ecn": 1})
	slices.Sort(refused)
	if want := []string{"net.gone", "net.inet.ipsec.dfbit"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
	if next.Get(DFBit) != DFSet || next.Get(ECN) != ECNAllowed {
		t.Errorf("after refusals: %v", next.Changed())
	}
}

func TestConcurrently(t *testing.T) {
	t.Parallel()
	table := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range int64(1000) {
				if _, err := table.Set(DFBit, i%3); err != nil {
					t.Error(err)
				}
				if n := table.Get(DFBit); n < DFClear || n > DFCopy {
					t.Errorf("read %d", n)
				}
			}
		})
	}
	wg.Wait()
}
