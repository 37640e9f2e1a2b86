package spd

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ifipsec/engine/pfkey"
)

// shelf is a store as a file would be: policies as bytes, in the order in
// which they were put.
type shelf struct {
	ids  []uint32
	kept [][]byte
	room int // puts until it is full
}

func (s *shelf) Put(p *Policy) error {
	if s.room--; s.room < 0 {
		return syscall.ENOSPC
	}
	b, err := p.Append(nil)
	if err != nil {
		return err
	}
	s.ids, s.kept = append(s.ids, p.ID), append(s.kept, b)
	return nil
}

func (s *shelf) Delete(id uint32) {
	if i := slices.Index(s.ids, id); i >= 0 {
		s.ids, s.kept = slices.Delete(s.ids, i, i+1), slices.Delete(s.kept, i, i+1)
	}
}

func (s *shelf) policies(t *testing.T) (all []Policy) {
	t.Helper()
	for _, b := range s.kept {
		p, err := DecodePolicy(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func everything(db *DB) (all []Policy) {
	for p := range db.All() {
		all = append(all, *p)
	}
	return all
}

var comparePolicies = cmp.Options{
	cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{}), cmpopts.IgnoreUnexported(Policy{}), cmpopts.EquateEmpty(),
}

func TestRestore(t *testing.T) {
	t.Parallel()
	clock := &clock{time.Unix(1_700_000_000, 0)}
	s := &shelf{room: 1000}
	db := New(Config{Now: clock.now, Store: s})
	mustAdd := func(p Policy) *Policy {
		t.Helper()
		added, err := db.Update(p)
		if err != nil {
			t.Fatal(err)
		}
		return added
	}
	mustAdd(policy(1))
	mustAdd(policy(2, func(p *Policy) { p.Priority = 5 }))
	mustAdd(policy(3, func(p *Policy) { p.Type, p.AddTime = pfkey.PolicyDiscard, 100 }))
	mustAdd(policy(1, func(p *Policy) { p.Requests[0].Level = pfkey.LevelUnique })) // in place of the first
	gone := mustAdd(policy(4))
	if _, _, err := db.SetInterface("ipsec0", interfacePolicies()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.SetInterface("ipsec1", interfacePolicies()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.SetInterface("ipsec0", interfacePolicies()); err != nil {
		t.Fatal(err)
	}
	db.ClearInterface("ipsec1")
	if _, err := db.DeleteID(gone.ID); err != nil {
		t.Fatal(err)
	}

	again := New(Config{Now: clock.now, Store: s})
	if err := again.Restore(s.policies(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything(db), everything(again), comparePolicies); diff != "" {
		t.Errorf("policies (-before +after):\n%s", diff)
	}
	if n := len(again.Interface("ipsec0")); n != 4 {
		t.Errorf("ipsec0 has %d policies, want 4", n)
	}
	a, err1 := db.Add(policy(9))
	b, err2 := again.Add(policy(9))
	if err1 != nil || err2 != nil || a.ID != b.ID {
		t.Errorf("the next policy has ID %d (%v), would have had %d (%v)", b.ID, err2, a.ID, err1)
	}
	clock.forward(101e9)
	if n := len(again.Expire(clock.now())); n != 1 {
		t.Errorf("%d policies have expired, want 1", n)
	}
	if again.Flush(); len(everything(again)) != 4 {
		t.Errorf("after a flush there are %v, want the interface's", everything(again))
	}
}

// A process that was killed while it replaced a policy leaves both.
func TestRestoreReplacement(t *testing.T) {
	t.Parallel()
	s := &shelf{room: 1000}
	db := New(Config{Store: s})
	if _, err := db.Add(policy(1)); err != nil {
		t.Fatal(err)
	}
	old := slices.Clone(s.kept)
	next, err := db.Update(policy(1, func(p *Policy) { p.Priority = 7 }))
	if err != nil {
		t.Fatal(err)
	}
	s.ids, s.kept = append([]uint32{1}, s.ids...), append(old, s.kept...)
	again := New(Config{Store: s})
	if err := again.Restore(s.policies(t)); err != nil {
		t.Fatal(err)
	}
	if all := everything(again); len(all) != 1 || all[0].ID != next.ID || len(s.kept) != 1 {
		t.Errorf("restored %v, and %d are kept; want the later one", all, len(s.kept))
	}
}

func TestStoreFull(t *testing.T) {
	t.Parallel()
	s := &shelf{room: 5}
	db := New(Config{Store: s})
	if _, err := db.Add(policy(1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.SetInterface("ipsec0", interfacePolicies()[:2]); err != nil {
		t.Fatal(err)
	}
	before := everything(db)
	// Room for two of four.
	if _, _, err := db.SetInterface("ipsec0", interfacePolicies()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("SetInterface = %v, want ENOSPC", err)
	}
	if _, err := db.Add(policy(2)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Add = %v, want ENOSPC", err)
	}
	if _, err := db.Update(policy(1, func(p *Policy) { p.Priority = 7 })); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Update = %v, want ENOSPC", err)
	}
	if diff := cmp.Diff(before, everything(db), comparePolicies); diff != "" {
		t.Errorf("policies (-before +after):\n%s", diff)
	}
	if len(s.kept) != len(before) {
		t.Errorf("%d policies are kept, want %d", len(s.kept), len(before))
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	good := policy(1)
	good.ID = 1
	for what, change := range map[string]func(*Policy){
		"no ID":         func(p *Policy) { p.ID = 0 },
		"an ID twice":   func(p *Policy) { p.Selector = policy(2).Selector },
		"no policy":     func(p *Policy) { *p = Policy{ID: 2} },
		"scope":         func(p *Policy) { p.ID, p.Scope = 2, 0 },
		"no interface":  func(p *Policy) { p.ID, p.Scope = 2, pfkey.ScopeIfnet },
		"one too many ": func(p *Policy) { p.ID, p.IfName = 2, "ipsec0" },
	} {
		db := New(Config{})
		bad := good
		change(&bad)
		if err := db.Restore([]Policy{good, bad}); err == nil {
			t.Errorf("%s: no error", what)
		}
		if all := everything(db); len(all) != 0 {
			t.Errorf("%s: half-applied, there is %v", what, all)
		}
	}
}
