package sad

import (
	"hash/maphash"
	"sync/atomic"
)

// table maps keys to pointers for many readers and one writer at a time. A
// reader takes no lock and allocates nothing; a writer must hold the lock that
// orders the writers.
//
// It is an open hash table with linear probing that is at most half full. A
// slot's key is written once, before its value is published, and never again:
// a removed entry leaves its slot behind until the next growth. A reader that
// still walks the array from before a growth sees the entries of that moment.
type table[K comparable, V any] struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]slot[K, V]]
	gone  *V  // what a slot holds whose entry was removed
	live  int // entries
	used  int // slots that hold or held an entry
}

type slot[K comparable, V any] struct {
	value atomic.Pointer[V] // nil while the slot was never used
	key   K
}

const minSlots = 16

func newTable[K comparable, V any]() *table[K, V] {
	t := &table[K, V]{seed: maphash.MakeSeed(), gone: new(V)}
	slots := make([]slot[K, V], minSlots)
	t.slots.Store(&slots)
	return t
}

// get returns the value of key, or nil.
func (t *table[K, V]) get(key K) *V {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := maphash.Comparable(t.seed, key) & mask; ; i = (i + 1) & mask {
		s := &slots[i]
		v := s.value.Load()
		if v == nil {
			return nil
		}
		if s.key == key && v != t.gone {
			return v
		}
	}
}

// put sets the value of key, which must not be nil.
func (t *table[K, V]) put(key K, v *V) {
	slots := *t.slots.Load()
	s := t.find(slots, key)
	if s.value.Load() != nil {
		s.value.Store(v)
		return
	}
	if 2*(t.used+1) > len(slots) {
		slots = t.grow(slots)
		s = t.find(slots, key)
	}
	s.key = key
	s.value.Store(v)
	t.live++
	t.used++
}

// remove forgets key. A key that is not there is no error.
func (t *table[K, V]) remove(key K) {
	if s := t.find(*t.slots.Load(), key); s.value.Load() != nil {
		s.value.Store(t.gone)
		t.live--
	}
}

// find returns the slot of key, or else the empty one that ends its chain.
func (t *table[K, V]) find(slots []slot[K, V], key K) *slot[K, V] {
	mask := uint64(len(slots) - 1)
	for i := maphash.Comparable(t.seed, key) & mask; ; i = (i + 1) & mask {
		s := &slots[i]
		v := s.value.Load()
		if v == nil || v != t.gone && s.key == key {
			return s
		}
	}
}

// grow copies the live entries to an array that they fill to a quarter, so
// that as many more can come before the next growth: O(1) for each on average.
func (t *table[K, V]) grow(old []slot[K, V]) []slot[K, V] {
	n := minSlots
	for n < 4*t.live {
		n *= 2
	}
	slots := make([]slot[K, V], n)
	for i := range old {
		v := old[i].value.Load()
		if v == nil || v == t.gone {
			continue
		}
		s := t.find(slots, old[i].key)
		s.key = old[i].key
		s.value.Store(v)
	}
	t.used = t.live
	t.slots.Store(&slots)
	return slots
}
