// Package sad is the security association database of RFC 4301, section 4.4.2,
// with the rules of FreeBSD's sys/netipsec/key.c. It is pure state: the clock
// and the randomness are given to it, it does no I/O and starts no goroutine.
//
// All methods may be called concurrently. Changes are made one at a time; the
// two questions that a data plane asks for every packet, [DB.Inbound] and
// [DB.Outbound], are answered without a lock and without allocating.
//
// Errors wrap the [syscall.Errno] that FreeBSD answers with:
//
//	EEXIST          the SPI is taken, or no SPI of a range is free
//	ENOENT          there is no such SA (FreeBSD: ESRCH, setkey says "No entry")
//	ESRCH           an update names an SA of another tunnel
//	EINVAL          anything else that is wrong with a request
//	EOPNOTSUPP      an algorithm is known by name only (FreeBSD: EINVAL)
//	EPROTONOSUPPORT the SA type is unspecified
//	EAGAIN, EIO     there is no randomness
//	ENOSPC, ENOMEM  there is no room to keep the SA for the next process
//
// A request that fails changes nothing.
package sad

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// DefaultLarvalLifetime is FreeBSD's net.key.larval_lifetime.
const DefaultLarvalLifetime = 30 * time.Second

// Config is what a DB takes from outside.
type Config struct {
	Now func() time.Time // nil: time.Now

	// Lately is Now for the last use of an SA, which is asked for with every batch of
	// packets: quicker, and not always as exact. nil: Now.
	Lately func() time.Time

	Rand io.Reader // for SPIs and the seeds of IVs; nil: crypto/rand

	// PreferOld makes Outbound choose the oldest of several SAs, as FreeBSD
	// does with net.key.preferred_oldsa=1.
	PreferOld bool

	// LarvalLifetime is how long an SPI stays reserved that no Update
	// completes; 0 is DefaultLarvalLifetime.
	LarvalLifetime time.Duration

	// Store keeps the SAs for the next process; nil keeps nothing. Secret is what
	// keys are hashed with that are remembered beyond their SAs: as the store's
	// SAs, it must be the last process's. nil: random octets.
	Store  Store
	Secret []byte

	// Bounds are those that new SAs of ESP begin with, if the store's memory can
	// be lost, and Low is what they call; see [esp.Config]. nil: they have none.
	Bounds *esp.Bounds
	Low    func(*esp.SA)

	// Encapsulated is told of every ESP SA with a NATT that becomes usable or
	// ceases to be in the database, in the order of the changes, for somebody
	// must open the port. It is called under the database's lock, so it may
	// use Inbound and Outbound only. It may be nil.
	Encapsulated func(sa *SA, usable bool)
}

// DB is a security association database. It must be made with [New].
type DB struct {
	now       func() time.Time
	lately    func() time.Time
	rand      io.Reader
	preferOld bool
	larval    time.Duration
	store     Store       // nil if nothing is kept
	bounds    *esp.Bounds // nil if there are none
	low       func(*esp.SA)

	encapsulated func(sa *SA, usable bool)

	// SPIs are unique in the system, for all types and destinations, as they
	// are since FreeBSD 11.1.
	spis     *table[uint32, SA]
	outbound *table[Index, outbound]

	mu        sync.Mutex // held for every change; readers of the tables need it not
	heads     map[headKey]*head
	pairs     map[pairKey]map[*head]struct{}
	order     list.List // of *head, the newest first
	used      usedKeys
	births    uint64
	deadlines deadlines
	watched   list.List // of *SA whose use has to be looked at
	looked    time.Time // when that was done last
}

// New returns an empty database.
func New(c Config) *DB {
	db := &DB{
		now:       c.Now,
		lately:    c.Lately,
		rand:      c.Rand,
		preferOld: c.PreferOld,
		larval:    c.LarvalLifetime,
		spis:      newTable[uint32, SA](),
		outbound:  newTable[Index, outbound](),
		heads:     map[headKey]*head{},
		pairs:     map[pairKey]map[*head]struct{}{},
		used:      usedKeys{secret: c.Secret, hashes: map[uint64]struct{}{}},
		store:     c.Store,
		bounds:    c.Bounds,
		low:       c.Low,

		encapsulated: c.Encapsulated,
	}
	if db.used.secret == nil {
		db.used.secret = make([]byte, sha256.Size)
		_, _ = rand.Read(db.used.secret) // never fails
	}
	if db.now == nil {
		db.now = time.Now
	}
	if db.lately == nil {
		db.lately = db.now
	}
	if db.rand == nil {
		db.rand = rand.Reader
	}
	if db.encapsulated == nil {
		db.encapsulated = func(*SA, bool) {}
	}
	if db.larval == 0 {
		db.larval = DefaultLarvalLifetime
	}
	return db
}

// Tune changes what [Config] says of PreferOld and LarvalLifetime, for the SAs
// that there are, too. Here a lifetime of 0 is none at all.
func (db *DB) Tune(preferOld bool, larvalLifetime time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.preferOld == preferOld && db.larval == larvalLifetime {
		return
	}
	db.preferOld, db.larval = preferOld, larvalLifetime
	for _, h := range db.heads {
		db.choose(h.out)
		for e := h.larval.Front(); e != nil; e = e.Next() {
			db.schedule(e.Value.(*SA))
		}
	}
}

// Add puts a mature SA into the database (SADB_ADD). It keeps copies of the
// keys. A TCP-MD5 SA whose SPI is taken gets another one, for SPIs mean
// nothing there; two of them for one pair of addresses are EEXIST.
func (db *DB) Add(s Spec) (*SA, error) {
	if err := s.checkEndpoints(); err != nil {
		return nil, err
	}
	if err := s.checkSPI(); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.checkTCP(&s); err != nil {
		return nil, err
	}
	if db.spis.get(s.SPI) != nil {
		if s.SAType != pfkey.SATypeTCPSignature {
			return nil, fmt.Errorf("SPI %d is taken: %w", s.SPI, syscall.EEXIST)
		}
		var err error
		if s.SPI, err = db.freeSPI(s.SAType, 0, 0); err != nil {
			return nil, err
		}
	}
	transform, m, err := db.transform(&s, db.bounds, nil)
	if err != nil {
		return nil, err
	}
	sa := db.create(s, pfkey.StateMature, transform, m, newKeys(&s))
	if err := db.insert(sa); err != nil {
		return nil, err
	}
	return sa, nil
}

// GetSPI reserves an SPI from min to max, both inclusive, with a larval SA
// that [DB.Update] completes (SADB_GETSPI). Of s it takes the SA type, the
// addresses, mode, reqid, Seq and PID. With min and max 0 the range is 0x100
// to 0xfffffff; an IPComp CPI has at most 16 bits. EEXIST says that no SPI of
// the range is free, EINVAL that the range is empty or reserved.
func (db *DB) GetSPI(s Spec, min, max uint32) (*SA, error) {
	if err := s.checkEndpoints(); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	spi, err := db.freeSPI(s.SAType, min, max)
	if err != nil {
		return nil, err
	}
	sa := db.create(Spec{
		SPI: spi, SAType: s.SAType, Src: s.Src, Dst: s.Dst,
		Mode: s.Mode, ReqID: s.ReqID, Seq: s.Seq, PID: s.PID,
	}, pfkey.StateLarval, nil, memory{}, new(keys))
	if err := db.insert(sa); err != nil {
		return nil, err
	}
	return sa, nil
}

// Update completes a larval SA, or sets the lifetimes and the UDP
// encapsulation of a mature or dying one and makes it mature (SADB_UPDATE).
//
// The SPI says which SA is meant; EINVAL if there is none. Its type, addresses,
// mode and reqid must be those of s, where an SA of mode any takes every mode
// and a reqid of 0 in s stands for that of the SA; else ESRCH. A larval SA is
// completed by the process that reserved it; else EINVAL. The keys of a mature
// SA cannot be changed (EINVAL), but the same keys may be given again.
func (db *DB) Update(s Spec) (*SA, error) {
	return db.Move(s, netip.Addr{}, netip.Addr{})
}

// Move is [DB.Update] that also gives a mature or dying SA another source,
// destination or both, those that are valid (SADB_X_EXT_NEW_ADDRESS_*, for
// MOBIKE, RFC 4555). Moving a larval SA is EINVAL.
func (db *DB) Move(s Spec, src, dst netip.Addr) (*SA, error) {
	if err := s.checkEndpoints(); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	old := db.spis.get(s.SPI)
	if old == nil {
		return nil, invalid("no SA has SPI %d", s.SPI)
	}
	if !old.matches(&s) {
		return nil, fmt.Errorf("SPI %d belongs to another SA than %v from %v to %v, mode %v, reqid %d: %w",
			s.SPI, s.SAType, s.Src, s.Dst, s.Mode, s.ReqID, syscall.ESRCH)
	}
	if old.State() == pfkey.StateLarval {
		if src.IsValid() || dst.IsValid() {
			return nil, invalid("the SA with SPI %d is not complete and has no addresses to change", s.SPI)
		}
		return db.complete(old, s)
	}
	return db.revise(old, s, src, dst)
}

// complete makes a mature SA of a larval one.
func (db *DB) complete(larval *SA, s Spec) (*SA, error) {
	if larval.PID != s.PID {
		return nil, invalid("SPI %d was given to process %d, not %d", s.SPI, larval.PID, s.PID)
	}
	s.Mode, s.ReqID, s.Seq = larval.Mode, larval.ReqID, larval.Seq
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := db.checkTCP(&s); err != nil {
		return nil, err
	}
	transform, m, err := db.transform(&s, db.bounds, nil)
	if err != nil {
		return nil, err
	}
	sa := db.create(s, pfkey.StateMature, transform, m, newKeys(&s))
	if err := db.replace(larval, sa); err != nil {
		return nil, err
	}
	return sa, nil
}

// revise replaces an SA by one with other lifetimes and addresses that goes on
// where it is.
func (db *DB) revise(old *SA, s Spec, src, dst netip.Addr) (*SA, error) {
	if !old.keys.same(&s) {
		return nil, invalid("the keys of the SA with SPI %d cannot be changed", s.SPI)
	}
	next := &SA{
		Spec: old.Spec, ESP: old.ESP, Created: old.Created,
		KeyReused: old.KeyReused, usage: old.usage, keys: old.keys, born: old.born, heap: -1,
		memory: old.memory, usedKey: old.usedKey,
	}
	next.setState(pfkey.StateMature)
	next.Hard, next.Soft = s.Hard, s.Soft
	if natt := s.encapsulation(); natt != nil {
		if err := s.checkNATT(); err != nil {
			return nil, err
		}
		next.NATT = natt
	}
	if src.IsValid() {
		next.Src = src
	}
	if dst.IsValid() {
		next.Dst = dst
	}
	if err := next.checkEndpoints(); err != nil {
		return nil, err
	}
	if next.Src != old.Src || next.Dst != old.Dst {
		if err := db.checkTCP(&next.Spec); err != nil {
			return nil, err
		}
	}
	if err := db.replace(old, next); err != nil {
		return nil, err
	}
	return next, nil
}

// Get returns the SA with this type, source, destination and SPI, in whatever
// state, or ENOENT (SADB_GET). The SPI of a TCP-MD5 SA is not looked at.
func (db *DB) Get(t pfkey.SAType, src, dst netip.Addr, spi uint32) (*SA, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.find(t, src, dst, spi)
}

// Delete removes the SA that [DB.Get] would return (SADB_DELETE).
func (db *DB) Delete(t pfkey.SAType, src, dst netip.Addr, spi uint32) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	sa, err := db.find(t, src, dst, spi)
	if err != nil {
		return err
	}
	db.kill(sa)
	return nil
}

// DeleteAll removes all SAs of this type between these addresses, except
// larval ones, and returns how many there were (SADB_DELETE without an SPI,
// setkey's deleteall).
func (db *DB) DeleteAll(t pfkey.SAType, src, dst netip.Addr) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	var sas []*SA
	for h := range db.pairs[pairKey{t, src, dst}] {
		for e := h.alive.Front(); e != nil; e = e.Next() {
			sas = append(sas, e.Value.(*SA))
		}
	}
	db.kill(sas...)
	return len(sas)
}

// Flush removes all SAs of this type, larval ones too, or of every type if it
// is unspecified, and returns how many there were (SADB_FLUSH).
func (db *DB) Flush(t pfkey.SAType) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	sas := db.list(t)
	db.kill(sas...)
	return len(sas)
}

// All returns the SAs of this type, or of every type if it is unspecified, in
// the order in which FreeBSD dumps them: the SAs that share type, addresses,
// mode and reqid together, the group that came into being last first; in a
// group the larval SAs before the others and newer before older ones. It is a
// snapshot of the moment in which the iteration begins.
func (db *DB) All(t pfkey.SAType) iter.Seq[*SA] {
	return func(yield func(*SA) bool) {
		db.mu.Lock()
		sas := db.list(t)
		db.mu.Unlock()
		for _, sa := range sas {
			if !yield(sa) {
				return
			}
		}
	}
}

// Inbound returns the mature or dying ESP SA of a packet that came in, or nil.
// It takes no lock and does not allocate.
func (db *DB) Inbound(spi uint32, dst netip.Addr) *SA {
	for range 2 {
		sa := db.spis.get(spi)
		if sa == nil || sa.ESP == nil || sa.Dst != dst {
			return nil
		}
		if sa.usable() {
			return sa
		}
		// An update may have put another SA in its place just now.
	}
	return nil
}

// Index is what an outbound packet's policy asks of an SA: the tunnel's
// endpoints and the reqid.
type Index struct {
	Src, Dst netip.Addr
	ReqID    uint32
}

// Outbound returns the ESP SA to send packets with, or nil: the newest mature
// one of mode tunnel or any with these endpoints and exactly this reqid, or
// the newest dying one if none is mature. With Config.PreferOld it is the
// oldest, mature or dying. It takes no lock and does not allocate.
func (db *DB) Outbound(i Index) *SA {
	o := db.outbound.get(i)
	if o == nil {
		return nil
	}
	for range 2 {
		if sa := o.best.Load(); sa == nil || sa.usable() {
			return sa
		}
		// It died just now, and its successor is being chosen.
	}
	return nil
}

// transform makes the ESP transform of s, nil if it has none, and the memory of
// the SA: at, or new memory if at is nil.
func (db *DB) transform(s *Spec, bounds *esp.Bounds, at *memory) (*esp.SA, memory, error) {
	if !s.transforms() {
		return nil, memory{}, nil
	}
	c := s.config()
	c.Bounds, c.Low, c.Rand = bounds, db.low, db.rand
	return db.build(c, at)
}

// matches says whether an update with s means sa: FreeBSD's key_cmpsaidx with
// CMP_MODE_REQID.
func (sa *SA) matches(s *Spec) bool {
	return sa.SAType == s.SAType && sa.Src == s.Src && sa.Dst == s.Dst &&
		(s.ReqID == 0 || sa.ReqID == s.ReqID) &&
		(sa.Mode == pfkey.ModeAny || sa.Mode == s.Mode)
}

// checkTCP refuses a second TCP-MD5 SA between two addresses.
func (db *DB) checkTCP(s *Spec) error {
	if s.SAType == pfkey.SATypeTCPSignature && db.tcp(s.Src, s.Dst) != nil {
		return fmt.Errorf("there is a TCP-MD5 SA from %v to %v: %w", s.Src, s.Dst, syscall.EEXIST)
	}
	return nil
}
