package sad

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// shelf is a store as a file would be: SAs are kept as bytes, and memory by
// offset.
type shelf struct {
	mu     sync.Mutex
	kept   map[uint32][]byte
	memory map[int64][]byte
	next   int64
	used   []uint64
	full   error // of Put and Alloc
}

func newShelf() *shelf { return &shelf{kept: map[uint32][]byte{}, memory: map[int64][]byte{}} }

func (s *shelf) Alloc(size int) (int64, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return 0, nil, s.full
	}
	s.next += 64
	s.memory[s.next] = make([]byte, size)
	return s.next, s.memory[s.next], nil
}

func (s *shelf) At(offset int64, size int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.memory[offset]) != size {
		return nil, errors.New("no such memory")
	}
	return s.memory[offset], nil
}

func (s *shelf) Free(offset int64, _ int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.memory, offset)
}

func (s *shelf) Put(snapshot Snapshot, live Live) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return s.full
	}
	b, err := snapshot.Append(nil)
	if err != nil {
		return err
	}
	s.kept[snapshot.SPI] = b
	if snapshot.Used != 0 {
		s.used = append(s.used, snapshot.Used)
	}
	return nil
}

func (s *shelf) Delete(spis ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, spi := range spis {
		delete(s.kept, spi)
	}
}

func (s *shelf) parts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.memory)
}

// next is the database of the next process. What the last one does from now on
// to the shelf, it does not.
func (s *shelf) nextDB(t *testing.T, c Config) *DB {
	t.Helper()
	c.Store = s
	db := New(c)
	var snapshots []Snapshot
	for _, b := range s.kept {
		snapshot, err := DecodeSnapshot(b)
		if err != nil {
			t.Fatal(err)
		}
		snapshots = append(snapshots, snapshot)
	}
	if err := db.Restore(snapshots, s.used); err != nil {
		t.Fatal(err)
	}
	return db
}

// shown is all that can be seen of an SA.
type shown struct {
	Spec
	State     pfkey.SAState
	Created   time.Time
	KeyReused bool
	Current   Current
	Sequence  uint64
	Highest   uint64
}

func show(db *DB) (all []shown) {
	for sa := range db.All(pfkey.SATypeUnspec) {
		s := shown{Spec: sa.Spec, State: sa.State(), Created: sa.Created, KeyReused: sa.KeyReused, Current: sa.Current()}
		s.AuthKey, s.EncryptKey = sa.Keys()
		if sa.ESP != nil {
			s.Sequence, s.Highest = sa.ESP.Sequence(), sa.ESP.ReplayState().Highest
		}
		all = append(all, s)
	}
	return all
}

func TestRestore(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 123)
	shelf := newShelf()
	c := Config{Now: func() time.Time { return now }, Store: shelf, Secret: []byte("secret"), LarvalLifetime: 200 * time.Second}
	db := New(c)
	add(t, db, tunnel(1000, func(s *Spec) { s.Soft.AddTime, s.Hard.AddTime, s.Replay = 50, 100, 64 }))
	add(t, db, tunnel(1001, func(s *Spec) { s.Hard.UseTime = 30 }))
	other := add(t, db, tunnel(1002, func(s *Spec) { s.ReqID = 7; s.NATT = &NATT{SrcPort: 4500, DstPort: 4501} }))
	add(t, db, tunnel(1003))
	add(t, db, tunnel(1004))
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 1004); err != nil {
		t.Fatal(err)
	}
	if _, err := db.GetSPI(Spec{SAType: pfkey.SATypeESP, Src: hostB, Dst: hostA, PID: 5}, 5000, 5000); err != nil {
		t.Fatal(err)
	}
	now = now.Add(20 * time.Second)
	other.Account(3, 300)
	if _, err := other.ESP.Reserve(3); err != nil {
		t.Fatal(err)
	}
	changed := other.Spec
	changed.Hard.Bytes = 1 << 40
	if _, err := db.Update(changed); err != nil {
		t.Fatal(err)
	}
	now = now.Add(35 * time.Second) // 1000 is dying
	db.Expire(now)

	again := shelf.nextDB(t, c)
	before, after := show(db), show(again)
	if diff := cmp.Diff(before, after, cmpopts.EquateComparable(hostA), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("SAs, the newest group first (-before +after):\n%s", diff)
	}
	if i := slices.IndexFunc(after, func(s shown) bool { return s.SPI == 1002 }); len(after) != 5 || i < 0 ||
		after[i].Sequence != 3 || after[i].Current.Packets != 3 || after[i].Current.FirstUsed != time.Unix(1020, 123) {
		t.Errorf("restored %+v", after)
	}
	// It goes on where the other stopped.
	for _, i := range []Index{{hostA, hostB, 100}, {hostA, hostB, 7}} {
		if a, b := db.Outbound(i), again.Outbound(i); spiOf(a) != spiOf(b) {
			t.Errorf("%+v is served by %d, was by %d", i, spiOf(b), spiOf(a))
		}
	}
	if _, err := again.Add(tunnel(1000)); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("an SPI that is taken: %v, want EEXIST", err)
	}
	now = time.Unix(1000, 123).Add(100 * time.Second)
	if diff := cmp.Diff(endings(db.Expire(now)), endings(again.Expire(now))); diff != "" {
		t.Errorf("what ends (-before +after):\n%s", diff)
	}
}

func endings(events []Event) (all []string) {
	for _, e := range events {
		all = append(all, e.Kind.String())
	}
	return all
}

// What was kept of an SA is refused if its memory is another SA's.
func TestRestoreWithMemoryOfAnother(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*Snapshot){
		"another SPI":    func(s *Snapshot) { s.SPI++ },
		"64-bit numbers": func(s *Snapshot) { s.Flags |= pfkey.SAFlagESN },
		// As large in memory as it was.
		"another window": func(s *Snapshot) { s.Replay++ },
	} {
		shelf := newShelf()
		add(t, New(Config{Store: shelf}), tunnel(1000, func(s *Spec) { s.Replay = 32 }))
		s, err := DecodeSnapshot(shelf.kept[1000])
		if err != nil {
			t.Fatal(err)
		}
		change(&s)
		if err := New(Config{Store: shelf}).Restore([]Snapshot{s}, nil); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", what, err)
		}
	}
}

// An SA whose memory is lost goes on above its bounds, and has counted what its
// mark says.
func TestResume(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	c := Config{Now: func() time.Time { return now }, Store: newShelf(), Bounds: &esp.Bounds{Sent: 10, Received: 5}}
	asked := 0
	c.Low = func(*esp.SA) { asked++ }
	shelf := c.Store.(*shelf)
	sa := add(t, New(c), tunnel(1000, func(s *Spec) { s.Replay = 64 }))
	now = now.Add(time.Minute)
	if _, err := sa.ESP.Reserve(7); err != nil || asked != 1 {
		t.Fatalf("%v, asked %d times, want once", err, asked)
	}
	sa.Account(7, 700)
	sa.Refuse(RefusedICV)
	mark := sa.Live().Mark(sa.ESP.Bounds())
	kept, err := DecodeMark(mark.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := DecodeSnapshot(shelf.kept[1000])
	if err != nil {
		t.Fatal(err)
	}
	next := newShelf()
	c.Store = next
	if err := New(c).Restore([]Snapshot{snapshot}, nil); err == nil {
		t.Error("memory that is lost was found")
	}
	next.full = syscall.ENOSPC
	if err := snapshot.Resume(kept, next.Alloc); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Resume = %v, want ENOSPC", err)
	}
	next.full = nil
	if err := snapshot.Resume(kept, next.Alloc); err != nil {
		t.Fatal(err)
	}
	db := New(c)
	if err := db.Restore([]Snapshot{snapshot}, nil); err != nil {
		t.Fatal(err)
	}
	again := db.Outbound(Index{hostA, hostB, 100})
	if diff := cmp.Diff(sa.Current(), again.Current()); diff != "" || again.Refused(RefusedICV) != 1 {
		t.Errorf("counted (-before +after):\n%s", diff)
	}
	if again.ESP.Sequence() != 10 || again.ESP.ReplayState().Highest != 5 {
		t.Errorf("goes on from %d and %d, want its bounds, 10 and 5", again.ESP.Sequence(), again.ESP.ReplayState().Highest)
	}
	if _, err := again.ESP.Reserve(1); err != esp.ErrBound {
		t.Errorf("Reserve = %v, want ErrBound", err)
	}
	snapshot.Bounds = nil
	if err := New(c).Restore([]Snapshot{snapshot}, nil); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("an SA without bounds: %v, want EINVAL", err)
	}
	for _, n := range []int{0, markSize - 1, markSize + 1} {
		if _, err := DecodeMark(make([]byte, n)); err == nil {
			t.Errorf("a mark of %d bytes is no error", n)
		}
	}
}

// A key whose IVs would come again is known in the next process too, also when
// its SA is gone.
func TestRestoreUsedKeys(t *testing.T) {
	t.Parallel()
	shelf := newShelf()
	c := Config{Store: shelf, Secret: []byte("secret")}
	db := New(c)
	gcm := tunnel(1000, func(s *Spec) { s.Encrypt, s.EncryptKey = 20, bytes.Repeat([]byte{7}, 20); s.Auth, s.AuthKey = 0, nil })
	if add(t, db, gcm).KeyReused {
		t.Fatal("a key is used again at its first use")
	}
	db.Flush(pfkey.SATypeUnspec)
	if !add(t, shelf.nextDB(t, c), gcm).KeyReused {
		t.Error("a key is used again and nobody is told")
	}
}

// What can't be kept is not done.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	shelf := newShelf()
	db := New(Config{Store: shelf})
	add(t, db, tunnel(1000))
	larval, err := db.GetSPI(Spec{SAType: pfkey.SATypeESP, Src: hostB, Dst: hostA, ReqID: 100, PID: 42}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := show(db)
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.ENOMEM} {
		storeFails(t, db, shelf, larval, errno)
		if diff := cmp.Diff(before, show(db), cmpopts.EquateComparable(hostA)); diff != "" {
			t.Errorf("%v: SAs (-before +after):\n%s", errno, diff)
		}
	}
}

func storeFails(t *testing.T, db *DB, shelf *shelf, larval *SA, errno syscall.Errno) {
	t.Helper()
	shelf.full = errno
	update := tunnel(1000)
	update.Hard.Bytes = 5
	complete := tunnel(larval.SPI, func(s *Spec) { s.Src, s.Dst = hostB, hostA })
	for what, do := range map[string]func() error{
		"Add":      func() error { _, err := db.Add(tunnel(1001)); return err },
		"GetSPI":   func() error { _, err := db.GetSPI(larval.Spec, 0, 0); return err },
		"Update":   func() error { _, err := db.Update(update); return err },
		"complete": func() error { _, err := db.Update(complete); return err },
	} {
		if err := do(); !errors.Is(err, errno) {
			t.Errorf("%s = %v, want %v", what, err, errno)
		}
	}
}

// The memory of an SA is given back when nobody can have the SA any more.
func TestMemoryIsFreed(t *testing.T) {
	t.Parallel()
	shelf := newShelf()
	db := New(Config{Store: shelf})
	held := add(t, db, tunnel(1000))
	add(t, db, tunnel(1001))
	db.Flush(pfkey.SATypeUnspec)
	deadline := time.Now().Add(10 * time.Second)
	for shelf.parts() != 1 && time.Now().Before(deadline) {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if n := shelf.parts(); n != 1 {
		t.Errorf("%d parts of memory are in use, want that of the SA that somebody holds", n)
	}
	held.Account(1, 1)
	runtime.KeepAlive(held)
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	good := Snapshot{Spec: tunnel(1000), State: pfkey.StateLarval, Born: 1, Group: 2}
	for what, change := range map[string]func(*Snapshot){
		"no SA":         func(s *Snapshot) { s.Spec = Spec{} },
		"state":         func(s *Snapshot) { s.State = pfkey.StateDead },
		"no memory":     func(s *Snapshot) { s.State = pfkey.StateMature },
		"wrong memory":  func(s *Snapshot) { s.State, s.Offset, s.Size = pfkey.StateMature, 4711, 64 },
		"unknown":       func(s *Snapshot) { s.State, s.Encrypt = pfkey.StateMature, 199 },
		"an SPI twice ": func(s *Snapshot) { s.Born = 3 },
	} {
		db := New(Config{Store: newShelf()})
		bad := good
		change(&bad)
		if err := db.Restore([]Snapshot{good, bad}, nil); err == nil {
			t.Errorf("%s: no error", what)
		}
		if all := slices.Collect(db.All(pfkey.SATypeUnspec)); len(all) != 0 {
			t.Errorf("%s: half-applied, there are %d SAs", what, len(all))
		}
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	s := Snapshot{Spec: tunnel(1000), State: pfkey.StateMature, Created: time.Unix(5, 6), Born: 1, Group: 2, Size: 64}
	b, err := s.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSnapshot(b)
		if err != nil {
			return
		}
		again, err := s.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		s2, err := DecodeSnapshot(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, s2, cmpopts.EquateComparable(hostA)); diff != "" {
			t.Fatalf("(-first +again):\n%s", diff)
		}
	})
}
