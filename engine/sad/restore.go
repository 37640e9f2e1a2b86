package sad

import (
	"cmp"
	"fmt"
	"slices"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// Restore puts the SAs of another process's database into this one, which must
// be empty, with all that they had: age, order, state, counters, sequence
// numbers and replay windows. used are the keys of SAs that may be gone. The
// store has all of them already. If it fails, nothing has changed.
func (db *DB) Restore(snapshots []Snapshot, used []uint64) error {
	snapshots = slices.Clone(snapshots)
	// As if the groups, and the SAs in them, had just come one after the other.
	slices.SortFunc(snapshots, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Born, b.Born))
	})
	db.mu.Lock()
	defer db.mu.Unlock()
	sas := make([]*SA, len(snapshots))
	spis := make(map[uint32]struct{}, len(snapshots))
	for i := range snapshots {
		s := &snapshots[i]
		if _, twice := spis[s.SPI]; twice {
			return invalid("two SAs have SPI %d", s.SPI)
		}
		spis[s.SPI] = struct{}{}
		var err error
		if sas[i], err = db.restored(s); err != nil {
			return fmt.Errorf("SA with SPI %d: %w", s.SPI, err)
		}
	}
	for i, sa := range sas {
		db.births = max(db.births, sa.born, snapshots[i].Group)
		db.link(sa)
		sa.head.made = snapshots[i].Group
		db.spis.put(sa.SPI, sa)
		db.choose(sa.head.out)
		db.schedule(sa)
	}
	for _, k := range used {
		db.used.hashes[k] = struct{}{}
	}
	return nil
}

// restored makes an SA of what was kept of it.
func (db *DB) restored(s *Snapshot) (*SA, error) {
	if err := s.checkEndpoints(); err != nil {
		return nil, err
	}
	var transform *esp.SA
	var m memory
	switch s.State {
	case pfkey.StateLarval:
	case pfkey.StateMature, pfkey.StateDying:
		if err := s.check(); err != nil {
			return nil, err
		}
		if s.Size != 0 {
			mem, err := db.store.At(s.Offset, s.Size)
			if err != nil {
				return nil, err
			}
			m = memory{s.Offset, mem}
		}
		if db.bounds != nil && s.Bounds == nil && s.transforms() {
			return nil, invalid("an SA without bounds")
		}
		var err error
		if transform, m, err = db.transform(&s.Spec, s.Bounds, &m); err != nil {
			return nil, err
		}
	default:
		return nil, invalid("an SA in state %v", s.State)
	}
	sa := &SA{
		Spec: s.Spec, ESP: transform, Created: s.Created, KeyReused: s.KeyReused,
		usage: &usage{now: db.now, lately: db.lately, origin: s.Created, counts: m.counts()}, keys: newKeys(&s.Spec),
		born: s.Born, heap: -1, memory: m, usedKey: s.Used,
	}
	sa.AuthKey, sa.EncryptKey = nil, nil
	sa.setState(s.State)
	return sa, nil
}
