// Package spd is the security policy database of RFC 4301, section 4.4.1, with
// the rules of FreeBSD's sys/netipsec/key.c. It is pure state: the clock is
// given to it and it does no I/O.
//
// All methods may be called concurrently. Errors wrap the [syscall.Errno] that
// FreeBSD answers with:
//
//	EEXIST          there is a policy with this direction and selector
//	ENOENT          there is none (FreeBSD: EINVAL, except in SPDGET)
//	EACCES          the policy belongs to an interface
//	EINVAL          anything else that is wrong with a request
//	ENOSPC          there is no room to keep the policy for the next process
//	EPROTONOSUPPORT a request names another protocol than ESP, AH or IPComp
//
// A request that fails changes nothing.
package spd

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
)

// Config is what a DB takes from outside.
type Config struct {
	Now func() time.Time // nil: time.Now

	// NewReqID returns the reqid of a request of level unique that names none.
	// nil: a [ReqIDs] of the database's own.
	NewReqID func() uint32

	// Store keeps the policies for the next process; nil keeps nothing.
	Store Store
}

// DB is a security policy database. It must be made with [New].
type DB struct {
	now      func() time.Time
	newReqID func() uint32
	store    Store // nil if nothing is kept

	mu        sync.RWMutex
	in, out   chain
	ids       map[uint32]*Policy // of both scopes
	selectors map[key]*Policy    // of scope global
	mortals   map[*Policy]struct{}
	lastID    uint32
}

// chain is the policies of one direction.
type chain struct {
	global []*Policy // by priority, those of one priority by age
	ifnet  []*Policy // by age
}

type key struct {
	dir pfkey.Direction
	Selector
}

// New returns an empty database.
func New(c Config) *DB {
	db := &DB{
		now:       c.Now,
		newReqID:  c.NewReqID,
		store:     c.Store,
		ids:       map[uint32]*Policy{},
		selectors: map[key]*Policy{},
		mortals:   map[*Policy]struct{}{},
	}
	if db.now == nil {
		db.now = time.Now
	}
	if db.newReqID == nil {
		db.newReqID = new(ReqIDs).Next
	}
	return db
}

// Add puts a policy into the database, after those of its priority, and
// returns it with its ID and its reqids (SADB_X_SPDADD). EEXIST if there is a
// global one with its direction and selector; a prefix is what is written,
// host bits and all.
//
// A request of level unique without a reqid, or with one above
// [MaxManualReqID], gets one; on the other levels reqids mean nothing and are
// 0 in the policy.
func (db *DB) Add(p Policy) (*Policy, error) {
	return db.add(p, false)
}

// Update is [DB.Add] that takes the place of a policy with the same direction
// and selector (SADB_X_SPDUPDATE). The policy gets a new ID.
func (db *DB) Update(p Policy) (*Policy, error) {
	return db.add(p, true)
}

func (db *DB) add(p Policy, replace bool) (*Policy, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.Scope != 0 && p.Scope != pfkey.ScopeGlobal {
		return nil, invalid("policy scope %v, want global", p.Scope)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	old := db.selectors[key{p.Dir, p.Selector}]
	if old != nil {
		if !replace {
			return nil, fmt.Errorf("there is a policy %v for %v: %w", p.Dir, p.Selector, syscall.EEXIST)
		}
	}
	next := p.stored()
	next.Scope, next.IfName = pfkey.ScopeGlobal, ""
	for i := range next.Requests {
		r := &next.Requests[i]
		switch {
		case r.Level != pfkey.LevelUnique:
			r.ReqID = 0
		case r.ReqID == 0 || r.ReqID > MaxManualReqID:
			r.ReqID = db.newReqID()
		}
	}
	db.number(next)
	if err := db.keep(next); err != nil {
		return nil, err
	}
	if old != nil {
		db.remove(old)
	}
	db.ids[next.ID] = next
	db.insert(next)
	return next, nil
}

// insert puts a global policy into its chain.
func (db *DB) insert(next *Policy) {
	c := db.chain(next.Dir)
	at, _ := slices.BinarySearchFunc(c.global, next, func(e, p *Policy) int {
		if e.Priority > p.Priority {
			return 1
		}
		return -1 // the new one comes after its equals
	})
	c.global = slices.Insert(c.global, at, next)
	db.selectors[key{next.Dir, next.Selector}] = next
	if next.mortal() {
		db.mortals[next] = struct{}{}
	}
}

// Get returns the policy with this ID, of whatever scope, or ENOENT
// (SADB_X_SPDGET).
func (db *DB) Get(id uint32) (*Policy, error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.get(id)
}

func (db *DB) get(id uint32) (*Policy, error) {
	if p := db.ids[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no policy has ID %d: %w", id, syscall.ENOENT)
}

// Delete removes the global policy with this direction and selector and
// returns it (SADB_X_SPDDELETE). ENOENT if there is none, which an interface's
// policy with the same selector does not change.
func (db *DB) Delete(d pfkey.Direction, s Selector) (*Policy, error) {
	if err := checkSelector(d, &s); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	p := db.selectors[key{d, s}]
	if p == nil {
		return nil, fmt.Errorf("no policy %v for %v: %w", d, s, syscall.ENOENT)
	}
	db.remove(p)
	return p, nil
}

// DeleteID removes the policy with this ID and returns it
// (SADB_X_SPDDELETE2). EACCES if it is an interface's.
func (db *DB) DeleteID(id uint32) (*Policy, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	p, err := db.get(id)
	if err != nil {
		return nil, err
	}
	if p.Scope == pfkey.ScopeIfnet {
		return nil, fmt.Errorf("policy %d belongs to %s: %w", id, p.IfName, syscall.EACCES)
	}
	db.remove(p)
	return p, nil
}

// Flush removes all policies but those of interfaces and returns how many
// there were (SADB_X_SPDFLUSH).
func (db *DB) Flush() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	n := 0
	for _, c := range []*chain{&db.in, &db.out} {
		for _, p := range c.global {
			db.forget(p.ID)
		}
		n += len(c.global)
		c.global = nil
	}
	clear(db.selectors)
	clear(db.mortals)
	return n
}

// All returns the policies in the order in which FreeBSD dumps them: those for
// what comes in before those for what goes out; of each the global ones by
// priority, then the interfaces'. It is a snapshot of the moment in which the
// iteration begins.
func (db *DB) All() iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		db.mu.RLock()
		all := slices.Concat(db.in.global, db.in.ifnet, db.out.global, db.out.ifnet)
		db.mu.RUnlock()
		for _, p := range all {
			if !yield(p) {
				return
			}
		}
	}
}

// Match returns the first global policy for a packet, or nil, and notes that
// it was used.
func (db *DB) Match(d pfkey.Direction, packet Packet) *Policy {
	db.mu.RLock()
	defer db.mu.RUnlock()
	for _, p := range db.chain(d).global {
		if p.Matches(packet) {
			if p.mortal() {
				p.used.Store(max(0, int64(db.now().Sub(p.Created))))
			}
			return p
		}
	}
	return nil
}

// SetInterface replaces the policies of an interface and returns the new ones,
// with their IDs, and those that they replace. They get scope ifnet; their
// reqids stay as they are.
func (db *DB) SetInterface(ifname string, policies []Policy) (added, removed []*Policy, err error) {
	for i := range policies {
		if err := policies[i].check(); err != nil {
			return nil, nil, fmt.Errorf("policy %d of %s: %w", i+1, ifname, err)
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, p := range policies {
		next := p.stored()
		next.Scope, next.IfName = pfkey.ScopeIfnet, ifname
		next.AddTime, next.UseTime = 0, 0
		db.number(next)
		added = append(added, next)
		if err := db.keep(next); err != nil {
			for _, p := range added {
				db.forget(p.ID)
			}
			return nil, nil, err
		}
	}
	removed = db.clear(ifname)
	for _, next := range added {
		db.ids[next.ID] = next
		c := db.chain(next.Dir)
		c.ifnet = append(c.ifnet, next)
	}
	return added, removed, nil
}

// ClearInterface removes the policies of an interface and returns them.
func (db *DB) ClearInterface(ifname string) []*Policy {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.clear(ifname)
}

func (db *DB) clear(ifname string) []*Policy {
	var removed []*Policy
	for _, c := range []*chain{&db.in, &db.out} {
		c.ifnet = slices.DeleteFunc(c.ifnet, func(p *Policy) bool {
			if p.IfName != ifname {
				return false
			}
			db.forget(p.ID)
			removed = append(removed, p)
			return true
		})
	}
	return removed
}

// Expire removes the policies whose lifetime is over at now and returns them,
// the oldest first (SADB_X_SPDEXPIRE).
func (db *DB) Expire(now time.Time) []*Policy {
	db.mu.Lock()
	defer db.mu.Unlock()
	var expired []*Policy
	for p := range db.mortals {
		if !p.end().After(now) {
			expired = append(expired, p)
		}
	}
	slices.SortFunc(expired, func(a, b *Policy) int { return cmp.Compare(a.ID, b.ID) })
	for _, p := range expired {
		db.remove(p)
	}
	return expired
}

// NextDeadline returns when [DB.Expire] should be called next, and false if
// no policy has a lifetime. Use puts the end of some off, so that a call may
// find nothing to do.
func (db *DB) NextDeadline() (time.Time, bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	var next time.Time
	for p := range db.mortals {
		if end := p.end(); next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next, !next.IsZero()
}

// number gives a policy what only the database can give it.
func (db *DB) number(p *Policy) {
	for {
		db.lastID++
		if db.lastID == math.MaxUint32 {
			db.lastID = 1
		}
		if db.ids[db.lastID] == nil {
			break
		}
	}
	p.ID = db.lastID
	p.Created = db.now()
}

// remove takes a global policy out of the database.
func (db *DB) remove(p *Policy) {
	c := db.chain(p.Dir)
	at := slices.Index(c.global, p)
	c.global = slices.Delete(c.global, at, at+1)
	delete(db.selectors, key{p.Dir, p.Selector})
	db.forget(p.ID)
	delete(db.mortals, p)
}

func (db *DB) chain(d pfkey.Direction) *chain {
	if d == pfkey.DirIn {
		return &db.in
	}
	return &db.out
}
