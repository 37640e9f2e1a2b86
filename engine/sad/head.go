package sad

import (
	"container/list"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// head is the group of SAs that share type, mode, addresses and reqid:
// FreeBSD's secashead. SAs are dumped group by group. FreeBSD also puts an SA
// without a reqid into the group of whatever reqid there is, and a tunnel
// into a group of mode any, so that it changes its reqid or its mode without
// being asked; here an SA stays what it was added as.
type head struct {
	headKey
	made   uint64        // orders groups by age, the youngest has the highest
	elem   *list.Element // of DB.order
	larval list.List     // of *SA, the newest first
	alive  list.List     // of mature and dying *SA, the newest first
	mature int           // how many of alive are mature
	out    *outbound     // what the group serves, nil if it carries no tunnel
}

type headKey struct {
	saType   pfkey.SAType
	mode     pfkey.Mode
	src, dst netip.Addr
	reqID    uint32
}

type pairKey struct {
	saType   pfkey.SAType
	src, dst netip.Addr
}

// outbound holds the answer of [DB.Outbound] for one index.
type outbound struct {
	best  atomic.Pointer[SA]
	heads []*head // of mode tunnel, any, or both
}

func (sa *SA) headKey() headKey {
	return headKey{sa.SAType, sa.Mode, sa.Src, sa.Dst, sa.ReqID}
}

func (h *head) pair() pairKey { return pairKey{h.saType, h.src, h.dst} }
func (h *head) index() Index  { return Index{h.src, h.dst, h.reqID} }

// create makes an SA that begins now. It is in no list and no table yet.
func (db *DB) create(s Spec, state pfkey.SAState, transform *esp.SA, m memory, k *keys) *SA {
	var used uint64
	if transform != nil {
		used = db.used.hash(&s)
	}
	s.AuthKey, s.EncryptKey = nil, nil
	s.NATT = s.encapsulation()
	db.births++
	now := db.now()
	sa := &SA{
		Spec: s, ESP: transform, Created: now, KeyReused: db.used.has(used),
		usage: &usage{now: db.now, lately: db.lately, origin: now, counts: m.counts()}, keys: k,
		born: db.births, heap: -1, memory: m, usedKey: used,
	}
	sa.setState(state)
	return sa
}

// insert puts an SA where readers find it, when it is kept. If that fails,
// nothing has changed.
func (db *DB) insert(sa *SA) error {
	if err := db.keep(sa); err != nil {
		return err
	}
	db.used.note(sa.usedKey)
	db.link(sa)
	db.spis.put(sa.SPI, sa)
	db.choose(sa.head.out)
	db.schedule(sa)
	return nil
}

// replace puts next, which has old's SPI, in old's place. Its age says where
// that is in its group, which lives on if it is the same. If next can't be
// kept, nothing has changed.
func (db *DB) replace(old, next *SA) error {
	if err := db.keep(next); err != nil {
		return err
	}
	db.used.note(next.usedKey)
	db.unschedule(old)
	db.link(next)
	db.unlink(old)
	db.spis.put(next.SPI, next)
	db.choose(old.head.out)
	db.choose(next.head.out)
	// Last, so that a reader who finds the old one dead finds the new one.
	old.setState(pfkey.StateDead)
	db.schedule(next)
	return nil
}

// kill takes SAs out of the database and wipes their keys.
func (db *DB) kill(sas ...*SA) {
	spis := make([]uint32, len(sas))
	for i, sa := range sas {
		spis[i] = sa.SPI
		db.unschedule(sa)
		db.spis.remove(sa.SPI)
		db.unlink(sa)
		db.choose(sa.head.out)
		// After the choice, so that a reader who finds it dead finds another.
		sa.setState(pfkey.StateDead)
		sa.keys.wipe()
	}
	if db.store != nil && len(sas) > 0 {
		db.store.Delete(spis...)
	}
}

// tire makes a mature SA dying.
func (db *DB) tire(sa *SA) {
	sa.head.mature--
	sa.setState(pfkey.StateDying)
	// If that is not kept, the next process finds it out again.
	_ = db.keep(sa)
	db.choose(sa.head.out)
	db.schedule(sa)
}

// link puts an SA into its group, which it makes if there is none.
func (db *DB) link(sa *SA) {
	key := sa.headKey()
	h := db.heads[key]
	if h == nil {
		db.births++
		h = &head{headKey: key, made: db.births}
		h.elem = db.order.PushFront(h)
		db.heads[key] = h
		pair := db.pairs[h.pair()]
		if pair == nil {
			pair = map[*head]struct{}{}
			db.pairs[h.pair()] = pair
		}
		pair[h] = struct{}{}
		if h.saType == pfkey.SATypeESP && (h.mode == pfkey.ModeTunnel || h.mode == pfkey.ModeAny) {
			h.out = db.outbound.get(h.index())
			if h.out == nil {
				h.out = new(outbound)
				db.outbound.put(h.index(), h.out)
			}
			h.out.heads = append(h.out.heads, h)
		}
	}
	sa.head = h
	if sa.State() == pfkey.StateLarval {
		sa.elem = h.larval.PushFront(sa)
		return
	}
	if sa.NATT != nil {
		db.encapsulated(sa, true)
	}
	if sa.State() == pfkey.StateMature {
		h.mature++
	}
	// Nearly always it is the first; one that is replaced keeps its age.
	for e := h.alive.Front(); e != nil; e = e.Next() {
		if e.Value.(*SA).born < sa.born {
			sa.elem = h.alive.InsertBefore(sa, e)
			return
		}
	}
	sa.elem = h.alive.PushBack(sa)
}

// unlink takes an SA out of its group, and an empty group out of the database.
func (db *DB) unlink(sa *SA) {
	h := sa.head
	h.larval.Remove(sa.elem) // Remove looks whether the element is of the list
	h.alive.Remove(sa.elem)
	if sa.NATT != nil && sa.State() != pfkey.StateLarval {
		db.encapsulated(sa, false)
	}
	if sa.State() == pfkey.StateMature {
		h.mature--
	}
	if h.larval.Len() != 0 || h.alive.Len() != 0 {
		return
	}
	db.order.Remove(h.elem)
	delete(db.heads, h.headKey)
	delete(db.pairs[h.pair()], h)
	if len(db.pairs[h.pair()]) == 0 {
		delete(db.pairs, h.pair())
	}
	if h.out != nil {
		h.out.heads = slices.DeleteFunc(h.out.heads, func(o *head) bool { return o == h })
		if len(h.out.heads) == 0 {
			db.outbound.remove(h.index())
		}
	}
}

// choose finds the SA that o's packets use from now on.
func (db *DB) choose(o *outbound) {
	if o == nil {
		return
	}
	var best *SA
	for _, h := range o.heads {
		sa := h.preferred(db.preferOld)
		if sa != nil && (best == nil || sa.better(best, db.preferOld)) {
			best = sa
		}
	}
	o.best.Store(best)
}

// preferred returns the SA of the group that should be sent with, or nil.
func (h *head) preferred(old bool) *SA {
	if old {
		for e := h.alive.Back(); e != nil; e = e.Prev() {
			if sa := e.Value.(*SA); sa.ESP != nil {
				return sa
			}
		}
		return nil
	}
	for e := h.alive.Front(); e != nil; e = e.Next() {
		sa := e.Value.(*SA)
		if sa.ESP != nil && (h.mature == 0 || sa.State() == pfkey.StateMature) {
			return sa
		}
	}
	return nil
}

func (sa *SA) better(than *SA, old bool) bool {
	if old {
		return sa.born < than.born
	}
	if mature := sa.State() == pfkey.StateMature; mature != (than.State() == pfkey.StateMature) {
		return mature
	}
	return sa.born > than.born
}

// find is Get under the lock.
func (db *DB) find(t pfkey.SAType, src, dst netip.Addr, spi uint32) (*SA, error) {
	if t == pfkey.SATypeTCPSignature {
		if sa := db.tcp(src, dst); sa != nil {
			return sa, nil
		}
		return nil, fmt.Errorf("no TCP-MD5 SA from %v to %v: %w", src, dst, syscall.ENOENT)
	}
	sa := db.spis.get(spi)
	if sa == nil || sa.SAType != t || sa.Src != src || sa.Dst != dst {
		return nil, fmt.Errorf("no SA of type %v from %v to %v with SPI %d: %w", t, src, dst, spi, syscall.ENOENT)
	}
	return sa, nil
}

// tcp returns the TCP-MD5 SA between two addresses, or nil. There is one at
// most that is not larval.
func (db *DB) tcp(src, dst netip.Addr) *SA {
	for h := range db.pairs[pairKey{pfkey.SATypeTCPSignature, src, dst}] {
		if e := h.alive.Front(); e != nil {
			return e.Value.(*SA)
		}
	}
	return nil
}

// list returns the SAs of a type in dump order.
func (db *DB) list(t pfkey.SAType) []*SA {
	var sas []*SA
	for he := db.order.Front(); he != nil; he = he.Next() {
		h := he.Value.(*head)
		if t != pfkey.SATypeUnspec && t != h.saType {
			continue
		}
		for _, l := range []*list.List{&h.larval, &h.alive} {
			for e := l.Front(); e != nil; e = e.Next() {
				sas = append(sas, e.Value.(*SA))
			}
		}
	}
	return sas
}
