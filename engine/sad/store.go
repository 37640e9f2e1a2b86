package sad

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"ifipsec/engine/esp"
)

// Store keeps SAs where they outlive the process. The database calls it with
// its lock held, and puts an SA there before packets can find it.
type Store interface {
	// Alloc returns zeroed memory that outlives the process, on a line of cache,
	// and what [Store.At] finds it by in the next process. ENOSPC, ENOMEM: there
	// is none.
	Alloc(size int) (offset int64, mem []byte, err error)
	// At returns memory that another process allocated.
	At(offset int64, size int) ([]byte, error)
	// Free takes memory back.
	Free(offset int64, size int)
	// Put keeps an SA, in place of the one with its SPI if there is one. If it
	// fails, nothing has changed. The keys are the database's.
	Put(Snapshot, Live) error
	// Delete forgets SAs.
	Delete(spis ...uint32)
}

// memory is the part of a store's memory that an SA has.
type memory struct {
	offset int64
	mem    []byte
}

// counts is what an SA carried until now. It begins the SA's memory, and the
// state of the transform follows in the next line of cache.
type counts struct {
	packets, bytes atomic.Uint64
	first          atomic.Int64 // nanoseconds from the SA's creation to the first use, plus one
	last           atomic.Int64 // likewise to the last use
	refused        [refusals]atomic.Uint64
	_              [countsSize/8 - 4 - refusals]atomic.Uint64
}

const countsSize = 64

// words is the counters as memory.
func (c *counts) words() *[countsSize / 8]atomic.Uint64 {
	return (*[countsSize / 8]atomic.Uint64)(unsafe.Pointer(c))
}

// counts returns the counters in the memory, or new ones if there is none.
func (m memory) counts() *counts {
	if m.mem == nil {
		return new(counts)
	}
	return (*counts)(unsafe.Pointer(unsafe.SliceData(m.mem)))
}

// Live is what changes of an SA with its packets. It can be looked at at any time.
type Live struct {
	ESP    *esp.SA // nil if the SA carries none
	counts *counts
}

// Live is the SA's.
func (sa *SA) Live() Live { return Live{sa.ESP, sa.usage.counts} }

// Mark is what is known of an SA when its memory is lost.
type Mark struct {
	esp.Bounds // that its numbers did not pass
	counted    [countsSize / 8]uint64
}

// markSize is the octets of a mark that is kept.
const markSize = 16 + countsSize

// Mark is what there is to be kept now, with these bounds.
func (l Live) Mark(b esp.Bounds) Mark {
	m := Mark{Bounds: b}
	for i := range m.counted {
		m.counted[i] = l.counts.words()[i].Load()
	}
	return m
}

// Append appends the mark to b.
func (m *Mark) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, m.Sent)
	b = binary.BigEndian.AppendUint64(b, m.Received)
	for _, n := range m.counted {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// DecodeMark reads what [Mark.Append] wrote.
func DecodeMark(b []byte) (m Mark, err error) {
	if len(b) != markSize {
		return m, fmt.Errorf("a mark of %d bytes, want %d", len(b), markSize)
	}
	m.Sent, m.Received = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	for i := range m.counted {
		m.counted[i] = binary.BigEndian.Uint64(b[16+8*i:])
	}
	return m, nil
}

// Resume gives what was kept of an SA new memory, because what it had is lost. All
// that is known of that is the mark; see [esp.Resume]. alloc is [Store.Alloc],
// the errors of which it returns.
func (s *Snapshot) Resume(m Mark, alloc func(size int) (int64, []byte, error)) (err error) {
	if s.Size == 0 {
		return nil
	}
	s.Bounds = &m.Bounds
	c := s.config()
	s.Size = countsSize + esp.StateSize(c)
	var mem []byte
	if s.Offset, mem, err = alloc(s.Size); err != nil {
		return err
	}
	counts := memory{mem: mem}.counts()
	for i, n := range m.counted {
		counts.words()[i].Store(n)
	}
	c.State = mem[countsSize:]
	return esp.Resume(c, m.Bounds)
}

// build makes the transform of an SA with its state in the memory of the
// store: at, or new memory if at is nil.
func (db *DB) build(c esp.Config, at *memory) (*esp.SA, memory, error) {
	if db.store == nil {
		t, err := esp.New(c)
		return t, memory{}, err
	}
	size := countsSize + esp.StateSize(c)
	var m memory
	var err error
	if at != nil {
		m = *at
		if len(m.mem) != size {
			return nil, m, invalid("an SA with %d bytes of state, want %d", len(m.mem), size)
		}
	} else if m.offset, m.mem, err = db.store.Alloc(size); err != nil {
		return nil, m, err
	}
	c.State = m.mem[countsSize:]
	t, err := esp.New(c)
	if err != nil {
		db.store.Free(m.offset, size)
		return nil, m, err
	}
	// Packets may be worked on with the SA after it was deleted. Their sequence
	// numbers must not come from memory that is another SA's.
	store := db.store
	runtime.AddCleanup(t, func(offset int64) { store.Free(offset, size) }, m.offset)
	return t, m, nil
}

// keep puts an SA into the store, before it is linked into its group.
func (db *DB) keep(sa *SA) error {
	if db.store == nil {
		return nil
	}
	group := db.births + 1 // that of a new group
	if h := db.heads[sa.headKey()]; h != nil {
		group = h.made
	}
	return db.store.Put(sa.snapshot(group), sa.Live())
}

// snapshot is the SA as it is kept. The keys are its own.
func (sa *SA) snapshot(group uint64) Snapshot {
	s := Snapshot{
		Spec: sa.Spec, State: sa.State(), Created: sa.Created, KeyReused: sa.KeyReused,
		Born: sa.born, Group: group, Used: sa.usedKey, Offset: sa.memory.offset, Size: len(sa.memory.mem),
	}
	s.AuthKey, s.EncryptKey = sa.keys.auth, sa.keys.encrypt
	return s
}
