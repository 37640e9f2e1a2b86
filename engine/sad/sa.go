package sad

import (
	"bytes"
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// SA is one security association. What is exported never changes while the SA
// lives: [DB.Update] puts a new SA in its place, which shares the transform
// and the usage counters.
type SA struct {
	// ESP is the transform. It is nil in a larval SA, in SAs of other types
	// than ESP, and in those of RFC 1827's ESP (esp-old), which are stored and
	// listed and carry no packets.
	ESP *esp.SA

	// With ESP and the addresses, which Spec begins with, this is what a look-up
	// reads: one line of cache.
	state atomic.Uint32

	// Spec is what the SA was made from, without the keys: see [SA.Keys].
	Spec

	// Created is when the SA was added, or in a larval one when its SPI was
	// given out.
	Created time.Time

	// KeyReused says that the database has held an SA with this key before and
	// that its algorithm does not survive that: the same IVs come again.
	// Somebody should be told.
	KeyReused bool

	usage *usage
	keys  *keys

	memory  memory // where the counters and the transform's state are
	usedKey uint64 // see usedKeys

	// What follows belongs to the DB and its lock.
	head  *head
	elem  *list.Element // of the head's list
	born  uint64        // orders SAs by age, the youngest has the highest
	due   time.Time     // when a lifetime or the larval state ends, if known
	heap  int           // index in the DB's deadlines, -1 for none
	watch *list.Element // of the DB's watched SAs, or nil
}

// State returns the SA's state now. It may be called at any time; an SA that
// was deleted is dead at once.
func (sa *SA) State() pfkey.SAState { return pfkey.SAState(sa.state.Load()) }

// usable says whether packets may use the SA.
func (sa *SA) usable() bool {
	state := sa.State()
	return state == pfkey.StateMature || state == pfkey.StateDying
}

func (sa *SA) setState(s pfkey.SAState) { sa.state.Store(uint32(s)) }

// Now is the time by the database's clock, which the times of its SAs are of.
func (db *DB) Now() time.Time { return db.now() }

// Account counts packets and their bytes. It takes no lock; a data plane calls
// it once a batch.
func (sa *SA) Account(packets, bytes uint64) { sa.usage.add(packets, bytes) }

// Current returns what the SA was used for until now.
func (sa *SA) Current() Current {
	return Current{
		Packets:   sa.usage.packets.Load(),
		Bytes:     sa.usage.bytes.Load(),
		FirstUsed: sa.usage.at(&sa.usage.first),
		LastUsed:  sa.usage.at(&sa.usage.last),
	}
}

// Refusal is why a packet that arrived for an SA was not taken.
type Refusal uint8

const (
	RefusedReplay    Refusal = iota // seen before, or too old for the window
	RefusedICV                      // changed on its way, or sealed with another key
	RefusedMalformed                // of no length that the algorithms make, or badly padded

	refusals
)

// Refuse counts a packet that was not taken. It takes no lock.
func (sa *SA) Refuse(why Refusal) { sa.usage.refused[why].Add(1) }

// Refused returns how many packets were not taken for a reason.
func (sa *SA) Refused(why Refusal) uint64 { return sa.usage.refused[why].Load() }

// Current is the current lifetime of an SA.
type Current struct {
	Packets   uint64
	Bytes     uint64
	FirstUsed time.Time // zero if never used
	LastUsed  time.Time // likewise
}

// Keys returns copies of the authentication and the encryption key. They are
// nil when the SA is dead: its keys are wiped then.
func (sa *SA) Keys() (auth, encrypt []byte) { return sa.keys.copies() }

// usage counts what an SA carried. The SAs that replace one another in
// updates share it.
type usage struct {
	now    func() time.Time
	lately func() time.Time // see Config
	origin time.Time        // the SA's creation
	*counts
}

func (u *usage) add(packets, bytes uint64) {
	u.packets.Add(packets)
	u.bytes.Add(bytes)
	if u.first.Load() == 0 {
		u.first.CompareAndSwap(0, u.since(u.now()))
	}
	u.last.Store(u.since(u.lately()))
}

// since is how a time is kept, see at.
func (u *usage) since(t time.Time) int64 { return max(0, int64(t.Sub(u.origin))) + 1 }

// at is a time that is kept as nanoseconds since the SA's creation, plus one.
func (u *usage) at(since *atomic.Int64) time.Time {
	if since.Load() == 0 {
		return time.Time{}
	}
	return u.origin.Add(time.Duration(since.Load() - 1))
}

// exceeds says whether a limit in packets or bytes is passed.
func (u *usage) exceeds(l Lifetime) bool {
	return l.Bytes != 0 && u.bytes.Load() > l.Bytes ||
		l.Allocations != 0 && u.packets.Load() > uint64(l.Allocations)
}

// keys are the key bytes of an SA. They have a lock of their own so that they
// can be wiped although somebody may be about to list them.
type keys struct {
	mu            sync.Mutex
	auth, encrypt []byte
}

func newKeys(s *Spec) *keys {
	return &keys{auth: bytes.Clone(s.AuthKey), encrypt: bytes.Clone(s.EncryptKey)}
}

func (k *keys) copies() (auth, encrypt []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.auth), slices.Clone(k.encrypt)
}

// same says whether the keys that s gives, if any, are these.
func (k *keys) same(s *Spec) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return (len(s.AuthKey) == 0 || bytes.Equal(s.AuthKey, k.auth)) &&
		(len(s.EncryptKey) == 0 || bytes.Equal(s.EncryptKey, k.encrypt))
}

func (k *keys) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.auth)
	clear(k.encrypt)
	k.auth, k.encrypt = nil, nil
}
