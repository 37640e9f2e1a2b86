package engine

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ifipsec/engine/dataplane"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/journal"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// The kinds of records in the journal. Those of versions to come are added at
// the end.
const (
	kindGeneral   journal.Kind = iota + 1 // ID 0: a general
	kindSA                                // ID: the SPI
	kindUsedKey                           // ID: what stands for the key
	kindPolicy                            // ID: the policy's
	kindInterface                         // ID: its index in the table
	kindLink                              // ID: likewise; a link
	kindCounters                          // ID: likewise, and 0 for the plane's; a counting
	kindSysctls                           // ID 0: the values that are not the defaults, by name
	kindMoved                             // ID: its index in the table; a dataplane.Mapping
	kindMark                              // ID: the SPI; a sad.Mark, where memory can be lost
)

// general is what there is once.
type general struct {
	Secret []byte        // that used keys are hashed with
	Offset time.Duration // of the wall clock
	Seen   time.Duration `json:",omitempty"` // by the clock, when the record was written; where memory can be lost
}

// link is the Linux link of an interface. Without it the creation of the
// interface was not finished. The index 0 is that of a link that is gone with the
// machine.
type link struct{ Index int }

// counting says where counters are, and which.
type counting struct {
	Offset int64
	Names  []string // of those at Offset, Offset+8, …
}

// kept is what a journal has.
type kept struct {
	general    general
	sas        []sad.Snapshot
	marks      map[uint32]sad.Mark
	usedKeys   []uint64
	policies   []spd.Policy
	interfaces []ifnet.Interface
	links      map[int]link
	counters   map[int]counting
	moved      map[int]dataplane.Mapping
	sysctls    map[string]int64
}

// decode makes sense of the records of a journal.
func decode(records []journal.Record) (k kept, err error) {
	k.links, k.counters, k.moved = map[int]link{}, map[int]counting{}, map[int]dataplane.Mapping{}
	k.marks = map[uint32]sad.Mark{}
	for _, r := range records {
		switch r.Kind {
		case kindGeneral:
			err = json.Unmarshal(r.Value, &k.general)
		case kindSA:
			err = appendDecoded(&k.sas, r.Value, sad.DecodeSnapshot)
		case kindUsedKey:
			k.usedKeys = append(k.usedKeys, r.ID)
		case kindPolicy:
			err = appendDecoded(&k.policies, r.Value, spd.DecodePolicy)
		case kindInterface:
			err = appendDecoded(&k.interfaces, r.Value, ifnet.DecodeInterface)
		case kindLink:
			var l link
			err = json.Unmarshal(r.Value, &l)
			k.links[int(r.ID)] = l
		case kindCounters:
			var c counting
			err = json.Unmarshal(r.Value, &c)
			k.counters[int(r.ID)] = c
		case kindMoved:
			var m dataplane.Mapping
			err = json.Unmarshal(r.Value, &m)
			k.moved[int(r.ID)] = m
		case kindMark:
			k.marks[uint32(r.ID)], err = sad.DecodeMark(r.Value)
		case kindSysctls:
			err = json.Unmarshal(r.Value, &k.sysctls)
		default:
			err = fmt.Errorf("a record of the unknown kind %d", r.Kind)
		}
		if err != nil {
			return kept{}, err
		}
	}
	if len(records) > 0 && len(k.general.Secret) == 0 {
		return kept{}, fmt.Errorf("%d records, and not the one that comes first", len(records))
	}
	for i := range k.sas {
		if m, ok := k.marks[k.sas[i].SPI]; ok {
			k.sas[i].Bounds = &m.Bounds
		}
	}
	return k, nil
}

func appendDecoded[T any](to *[]T, b []byte, decode func([]byte) (T, error)) error {
	v, err := decode(b)
	*to = append(*to, v)
	return err
}

// state keeps what the engine has where it outlives the process. A nil state
// keeps nothing.
type state struct {
	dir      *journal.Dir
	log      *slog.Logger
	general  general
	counters map[int]counting // where the counters of an interface are, or with 0 the plane's
	memory   map[int][]byte   // likewise
	frozen   bool             // nothing is removed any more

	mu       sync.Mutex
	buf      []byte
	reserved *reservations // nil if memory is not lost
}

func newGeneral(offset time.Duration) general {
	g := general{Secret: make([]byte, 32), Offset: offset}
	_, _ = rand.Read(g.Secret) // never fails
	return g
}

func (s *state) putJSON(kind journal.Kind, id int, v any) error {
	if s == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.dir.Put(journal.Record{Kind: kind, ID: uint64(id), Value: b})
}

// putGeneral changes what there is once.
func (s *state) putGeneral(change func(*general)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.general
	change(&next)
	if err := s.putJSON(kindGeneral, 0, next); err != nil {
		return err
	}
	s.general = next
	return nil
}

// delete removes records. What can't be removed is logged: the next process would
// find it.
func (s *state) delete(kind journal.Kind, ids ...uint64) {
	if s == nil || s.frozen {
		return
	}
	if err := s.dir.Delete(kind, ids...); err != nil {
		s.log.Error("what is gone is still in the journal", "kind", int(kind), "ids", ids, "error", err)
	}
}

// findCounters finds the memory of all counters there were. Memory can be
// allocated only when all that is in use is found.
func (s *state) findCounters() error {
	for index, c := range s.counters {
		mem, err := s.dir.At(c.Offset, 8*len(c.Names))
		if err != nil {
			return err
		}
		s.memory[index] = mem
	}
	return nil
}

// prepareCounters makes memory for the counters of an interface, or with index
// 0 the plane's, if there is none with what they counted before. A version with
// other counters takes over those that it knows.
func (s *state) prepareCounters(index int, names []string) error {
	if s == nil {
		return nil
	}
	// There are as many names as there is memory.
	names = append(slices.Clone(names), make([]string, dataplane.CountersSize/8-len(names))...)
	before, counted := s.counters[index]
	if counted && slices.Equal(before.Names, names) {
		return nil
	}
	offset, mem, err := s.dir.Alloc(dataplane.CountersSize)
	if err != nil {
		return err
	}
	for i, name := range names {
		if at := slices.Index(before.Names, name); at >= 0 && name != "" {
			copy(mem[8*i:][:8], s.memory[index][8*at:][:8])
		}
	}
	next := counting{offset, names}
	if err := s.putJSON(kindCounters, index, next); err != nil {
		s.dir.Free(offset, dataplane.CountersSize)
		return err
	}
	if counted {
		s.dir.Free(before.Offset, 8*len(before.Names))
	}
	s.counters[index], s.memory[index] = next, mem
	return nil
}

// forgetInterface removes what is kept of an interface beside what the table
// keeps itself. Its tunnel is closed.
func (s *state) forgetInterface(index int) {
	if s == nil {
		return
	}
	s.delete(kindLink, uint64(index))
	s.delete(kindMoved, uint64(index))
	if c, ok := s.counters[index]; ok {
		s.delete(kindCounters, uint64(index))
		delete(s.counters, index)
		delete(s.memory, index)
		s.dir.Free(c.Offset, 8*len(c.Names))
	}
}

// sas is the state as the SAD's store.
type sas struct {
	*journal.Dir
	state *state
}

func (s sas) Put(snapshot sad.Snapshot, live sad.Live) error {
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	b, err := snapshot.Append(st.buf[:0])
	if err != nil {
		return err
	}
	st.buf = b
	defer clear(b) // there are keys in it
	records := []journal.Record{{Kind: kindSA, ID: uint64(snapshot.SPI), Value: b}}
	if snapshot.Used != 0 && !s.Has(kindUsedKey, snapshot.Used) {
		records = append(records, journal.Record{Kind: kindUsedKey, ID: snapshot.Used})
	}
	if st.reserved == nil || live.ESP == nil {
		return s.Dir.Put(records...)
	}
	mark := live.Mark(live.ESP.Bounds())
	if err := s.Dir.Put(append(records, markRecord(snapshot.SPI, &mark))...); err != nil {
		return err
	}
	st.reserved.add(live, mark)
	return nil
}

func (s sas) Delete(spis ...uint32) {
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	ids := make([]uint64, len(spis))
	for i, spi := range spis {
		ids[i] = uint64(spi)
	}
	st.delete(kindSA, ids...)
	if st.reserved == nil {
		return
	}
	for _, spi := range spis {
		st.reserved.remove(spi)
	}
	// Not before the SAs are gone, which would begin anew without.
	ids = slices.DeleteFunc(ids, func(id uint64) bool { return s.Has(kindSA, id) })
	st.delete(kindMark, ids...)
}

// policies is the state as the SPD's store.
type policies struct{ state *state }

func (p policies) Put(policy *spd.Policy) error {
	b, err := policy.Append(nil)
	if err != nil {
		return err
	}
	return p.state.dir.Put(journal.Record{Kind: kindPolicy, ID: uint64(policy.ID), Value: b})
}

func (p policies) Delete(id uint32) { p.state.delete(kindPolicy, uint64(id)) }

// interfaces is the state as the interface table's store.
type interfaces struct{ state *state }

func (i interfaces) Put(ifp ifnet.Interface) error {
	b, err := ifp.Append(nil)
	if err != nil {
		return err
	}
	return i.state.dir.Put(journal.Record{Kind: kindInterface, ID: uint64(ifp.Index), Value: b})
}

func (i interfaces) Delete(index int) { i.state.delete(kindInterface, uint64(index)) }
