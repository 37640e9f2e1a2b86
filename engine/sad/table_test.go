package sad

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestTableAgainstMap(t *testing.T) {
	t.Parallel()
	table := newTable[uint32, int]()
	model := map[uint32]*int{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		key := rng.Uint32N(500)
		switch rng.IntN(3) {
		case 0, 1:
			v := new(int)
			table.put(key, v)
			model[key] = v
		case 2:
			table.remove(key)
			delete(model, key)
		}
		probe := rng.Uint32N(500)
		if got, want := table.get(probe), model[probe]; got != want {
			t.Fatalf("get(%d) = %p, want %p", probe, got, want)
		}
		if table.live != len(model) {
			t.Fatalf("live = %d, want %d", table.live, len(model))
		}
	}
	if n := len(*table.slots.Load()); n > 4096 {
		t.Errorf("500 keys that come and go take %d slots", n)
	}
}

func TestTableReadersWhileItGrows(t *testing.T) {
	t.Parallel()
	const fixed, churn = 100, 5000
	table := newTable[uint32, uint32]()
	for key := range uint32(fixed) {
		table.put(key, &key)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := uint32(0); ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if v := table.get(i % fixed); v == nil || *v != i%fixed {
					t.Errorf("get(%d) = %v while others come and go", i%fixed, v)
					return
				}
				if key := fixed + i%churn; table.get(key) != nil && *table.get(i % fixed) != i%fixed {
					t.Errorf("key %d has another's value", key)
				}
			}
		})
	}
	for key := range uint32(churn) {
		key += fixed
		table.put(key, &key)
	}
	for key := range uint32(churn) {
		table.remove(fixed + key)
	}
	close(done)
	readers.Wait()
}

func TestTableReadsWithoutAllocating(t *testing.T) {
	table := newTable[Index, int]()
	var idx Index
	table.put(idx, new(int))
	if n := testing.AllocsPerRun(100, func() { table.get(idx) }); n != 0 {
		t.Errorf("get allocates %v times", n)
	}
}
