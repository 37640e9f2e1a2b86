package spd

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"ifipsec/engine/pfkey"
)

// Store keeps policies where they outlive the process. The database calls it
// with its lock held, before a policy is in the database.
type Store interface {
	// Put keeps a policy. If it fails, nothing has changed.
	Put(*Policy) error
	// Delete forgets the policy with an ID.
	Delete(id uint32)
}

// kept is a Policy in JSON. Its last use is not kept: nothing uses policies
// that have a lifetime.
type kept struct {
	Policy
	Created int64 // nanoseconds
}

// Append appends the policy to b, as it is kept for the next process.
func (p *Policy) Append(b []byte) ([]byte, error) {
	text, err := json.Marshal(kept{*p, p.Created.UnixNano()})
	return append(b, text...), err
}

// DecodePolicy reads what [Policy.Append] wrote.
func DecodePolicy(b []byte) (Policy, error) {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return Policy{}, fmt.Errorf("a kept policy: %w", err)
	}
	k.Policy.Created = time.Unix(0, k.Created)
	return k.Policy, nil
}

// Restore puts the policies of another process's database into this one, which
// must be empty, in the order in which they were put into the store. Of two
// that can't be there both, the later one counts: the process was about to
// replace the other. If it fails, nothing has changed.
func (db *DB) Restore(policies []Policy) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	selectors := map[key]int{}
	ids := map[uint32]struct{}{}
	for i := range policies {
		p := &policies[i]
		if err := p.check(); err != nil {
			return fmt.Errorf("policy %d: %w", p.ID, err)
		}
		if _, twice := ids[p.ID]; twice || p.ID == 0 {
			return invalid("two policies have ID %d", p.ID)
		}
		ids[p.ID] = struct{}{}
		switch {
		case p.Scope == pfkey.ScopeGlobal && p.IfName == "":
			selectors[key{p.Dir, p.Selector}] = i
		case p.Scope != pfkey.ScopeIfnet || p.IfName == "":
			return invalid("policy %d of scope %v and interface %q", p.ID, p.Scope, p.IfName)
		}
	}
	for i, p := range policies {
		db.lastID = max(db.lastID, p.ID)
		if p.Scope == pfkey.ScopeGlobal && selectors[key{p.Dir, p.Selector}] != i {
			db.forget(p.ID)
			continue
		}
		next := p.stored()
		db.ids[next.ID] = next
		if p.Scope == pfkey.ScopeIfnet {
			c := db.chain(next.Dir)
			c.ifnet = append(c.ifnet, next)
		} else {
			db.insert(next)
		}
	}
	return nil
}

// Interface returns the policies of an interface, in the order in which they
// were set.
func (db *DB) Interface(ifname string) []*Policy {
	db.mu.RLock()
	defer db.mu.RUnlock()
	var all []*Policy
	for _, c := range []*chain{&db.in, &db.out} {
		for _, p := range c.ifnet {
			if p.IfName == ifname {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Policy) int { return int(int64(a.ID) - int64(b.ID)) })
	return all
}

// keep puts a policy into the store.
func (db *DB) keep(p *Policy) error {
	if db.store == nil {
		return nil
	}
	return db.store.Put(p)
}

func (db *DB) forget(id uint32) {
	delete(db.ids, id)
	if db.store != nil {
		db.store.Delete(id)
	}
}
