package engine

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/clock"
	"ifipsec/engine/esp"
	"ifipsec/engine/journal"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// permanentEngine is an engine's databases, on a disk.
func permanentEngine(t *testing.T, p journal.Permanent, owner journal.Owner) *Engine {
	t.Helper()
	e := &Engine{newClock: clock.New, log: slog.New(slog.DiscardHandler), permanent: true}
	dir, refused, err := journal.OpenPermanent(p, owner, e.renewer(owner), e.databases)
	if err != nil || refused != nil {
		t.Fatalf("%v, refused %v", err, refused)
	}
	t.Cleanup(func() { dir.Close() })
	return e
}

// onDisk is what the next boot would find of an SA.
func onDisk(t *testing.T, p journal.Permanent, spi uint32) (esp.Bounds, bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Dir, "state", "journal"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range j.Entries {
		if e.Kind == kindMark && e.ID == uint64(spi) {
			m, err := sad.DecodeMark(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			return m.Bounds, true
		}
	}
	return esp.Bounds{}, false
}

func newPlace(t *testing.T) journal.Permanent {
	dir := t.TempDir()
	return journal.Permanent{Dir: filepath.Join(dir, "disk"), Memory: filepath.Join(dir, "run")}
}

func addExample(t *testing.T, e *Engine) *sad.SA {
	t.Helper()
	sa, err := e.sad.Add(exampleSpec())
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// send uses n numbers, and has the bounds moved as soon as the SA asks for it.
func send(t *testing.T, e *Engine, sa *sad.SA, n int) {
	t.Helper()
	for n > 0 {
		some := min(n, 1000)
		if _, err := sa.ESP.Reserve(some); err != nil {
			t.Fatal(err)
		}
		n -= some
		if len(e.state.reserved.wake) > 0 {
			<-e.state.reserved.wake
			if err := e.state.extend(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReserveAhead(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	e := permanentEngine(t, p, journal.Owner{Inode: 1})
	sa := addExample(t, e)
	writes := 0
	for range 5 * sendAhead / 1000 {
		before, _ := onDisk(t, p, sa.SPI)
		send(t, e, sa, 1000)
		bounds, kept := onDisk(t, p, sa.SPI)
		if !kept || bounds != sa.ESP.Bounds() || bounds.Sent < sa.ESP.Sequence()+sendAhead/2-1000 {
			t.Fatalf("%d were sent, within %+v, and on the disk are %+v", sa.ESP.Sequence(), sa.ESP.Bounds(), bounds)
		}
		if before != bounds {
			writes++
		}
	}
	if writes < 8 || writes > 12 {
		t.Errorf("the bound was moved %d times, want about once for %d packets", writes, sendAhead/2)
	}
	// Deleted, it gets nothing more, nor does its successor get what it had.
	if err := e.sad.Delete(pfkey.SATypeESP, sa.Src, sa.Dst, sa.SPI); err != nil {
		t.Fatal(err)
	}
	if bounds, kept := onDisk(t, p, sa.SPI); kept {
		t.Errorf("a deleted SA has %+v on the disk", bounds)
	}
	addExample(t, e)
	had := sa.ESP.Bounds()
	for {
		if _, err := sa.ESP.Reserve(1000); err != nil {
			break
		}
	}
	if err := e.state.extend(); err != nil {
		t.Fatal(err)
	}
	if bounds, _ := onDisk(t, p, sa.SPI); bounds != firstBounds || sa.ESP.Bounds() != had {
		t.Errorf("a new SA has %+v on the disk, want the first ones; the deleted one has %+v, had %+v", bounds, sa.ESP.Bounds(), had)
	}
}

// What may be received goes with what is received.
func TestReserveReceived(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	e := permanentEngine(t, p, journal.Owner{Inode: 1})
	sa := addExample(t, e)
	r := e.state.reserved.byESP[sa.ESP]
	peer := examplePeer(t)
	seq := uint64(0)
	for range 20 { // it is not new any more
		if err := e.state.review(); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(n uint64) (refused int) {
		for range n {
			seq++
			if _, _, err := sa.ESP.Open(peer(seq)); errors.Is(err, esp.ErrBound) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
			if len(e.state.reserved.wake) > 0 && seq%10 == 0 { // the disk takes its time
				<-e.state.reserved.wake
				if err := e.state.extend(); err != nil {
					t.Fatal(err)
				}
			}
			if bounds, _ := onDisk(t, p, sa.SPI); n < 100 && bounds.Received < sa.ESP.ReplayState().Highest {
				t.Fatalf("%d was received, and %+v is on the disk", sa.ESP.ReplayState().Highest, bounds)
			}
		}
		return refused
	}
	if refused := receive(3000); refused > 0 {
		t.Errorf("%d packets were refused", refused)
	}
	if r.ahead < 3000 {
		t.Errorf("%d are reserved for a stream of 3000 packets in less than a second", r.ahead)
	}
	ahead := func() uint64 { return sa.ESP.Bounds().Received - seq }
	var all []uint64
	for range 20 {
		if err := e.state.review(); err != nil {
			t.Fatal(err)
		}
		all = append(all, ahead())
		if bounds, _ := onDisk(t, p, sa.SPI); bounds != sa.ESP.Bounds() {
			t.Fatalf("the SA has %+v, on the disk are %+v", sa.ESP.Bounds(), bounds)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b uint64) int { return int(b) - int(a) }) || ahead() != receiveAhead || len(e.state.reserved.moved) != 0 {
		t.Errorf("when nothing comes, there are reserved %v", all)
	}
	// A few now and then never get more.
	for range 50 {
		receive(20)
		if err := e.state.review(); err != nil {
			t.Fatal(err)
		}
	}
	if ahead() > 2*receiveAhead {
		t.Errorf("%d are reserved for a few packets a second", ahead())
	}
	// A peer that has been restarted is far ahead.
	seq += 1 << 20
	if refused := receive(20); refused == 0 || refused > 10 {
		t.Errorf("%d of 20 packets of a peer that leaves out many are refused, want some", refused)
	}
}

// examplePeer seals packets as the peer of the example SA.
func examplePeer(t *testing.T) func(seq uint64) []byte {
	t.Helper()
	s := exampleSpec()
	sa, err := esp.New(esp.Config{SPI: s.SPI, Encryption: s.Encrypt, EncryptionKey: s.EncryptKey})
	if err != nil {
		t.Fatal(err)
	}
	return func(seq uint64) []byte {
		buf := make([]byte, 200)
		start, end, err := sa.Seal(seq, buf, 50, 100, 4)
		if err != nil {
			t.Fatal(err)
		}
		return buf[start:end]
	}
}

// After a boot the SAs go on above what they may have used, with the counters and
// at the age that they had.
func TestRenew(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	first := permanentEngine(t, p, journal.Owner{Boot: [16]byte{1}, Inode: 1})
	sa := addExample(t, first)
	send(t, first, sa, 700000)
	sa.Account(7, 700)
	if err := first.state.markAll(first.clock.Now()); err != nil {
		t.Fatal(err)
	}
	bounds := sa.ESP.Bounds()
	send(t, first, sa, 100) // nobody knows of that
	first.state.dir.Close()

	second := permanentEngine(t, p, journal.Owner{Boot: [16]byte{2}, Inode: 1})
	again := second.sad.Outbound(sad.Index{Src: sa.Src, Dst: sa.Dst, ReqID: sa.ReqID})
	if again == nil {
		t.Fatal("the SA is gone")
	}
	if again.ESP.Sequence() != bounds.Sent || again.ESP.Bounds().Sent != bounds.Sent+sendAhead || again.ESP.ReplayState().Highest != bounds.Received {
		t.Errorf("it goes on from %d and %d within %+v, want from %+v", again.ESP.Sequence(), again.ESP.ReplayState().Highest, again.ESP.Bounds(), bounds)
	}
	if c := again.Current(); c.Packets != 7 || c.Bytes != 700 {
		t.Errorf("it has counted %+v", c)
	}
	if d := again.Created.Sub(sa.Created); d < -time.Second || d > time.Minute {
		t.Errorf("it was made %v later than before, by a clock that went on", d)
	}
	if sa, err := second.sad.Add(exampleSpecWith(4711)); err != nil || !sa.KeyReused {
		t.Errorf("a key is used again, and nobody is told: %v", err)
	}
	// An end in order is exact.
	send(t, second, again, 5000)
	if err := second.state.finish(second.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if err := second.state.dir.Remove(); err != nil {
		t.Fatal(err)
	}
	want := again.ESP.Sequence() // its memory is the directory's
	second.state.dir.Close()
	third := permanentEngine(t, p, journal.Owner{Boot: [16]byte{2}, Inode: 1})
	if got := third.sad.Inbound(sa.SPI, sa.Dst).ESP.Sequence(); got != want {
		t.Errorf("after an end in order it goes on from %d, want %d", got, want)
	}
}

func exampleSpecWith(spi uint32) sad.Spec {
	s := exampleSpec()
	s.SPI = spi
	return s
}

func TestRenewRecords(t *testing.T) {
	t.Parallel()
	mark := sad.Mark{Bounds: firstBounds}
	snapshot := sad.Snapshot{Spec: exampleSpec(), State: pfkey.StateMature, Created: time.Unix(50, 0), Born: 1, Group: 2, Size: 64}
	value, err := snapshot.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	sa := journal.Record{Kind: kindSA, ID: uint64(snapshot.SPI), Value: value}
	full := error(syscall.ENOSPC)
	for what, tc := range map[string]struct {
		records []journal.Record
		alloc   error
		want    error
		n       int
	}{
		"an SA and its mark":    {[]journal.Record{sa, markRecord(snapshot.SPI, &mark)}, nil, nil, 2},
		"an SA without a mark":  {[]journal.Record{sa}, nil, journal.ErrCorrupt, 0},
		"a mark without its SA": {[]journal.Record{markRecord(5, &mark)}, nil, nil, 0},
		"no memory":             {[]journal.Record{sa, markRecord(snapshot.SPI, &mark)}, full, full, 1},
		"counters":              {[]journal.Record{{Kind: kindCounters, Value: []byte("{}")}}, nil, nil, 0},
		"a link":                {[]journal.Record{{Kind: kindLink, Value: []byte(`{"Index":7}`)}}, nil, nil, 1},
	} {
		r := renewal{spis: map[uint32]struct{}{snapshot.SPI: {}}, ahead: time.Hour, alloc: func(size int) (int64, []byte, error) {
			return 640, make([]byte, size), tc.alloc
		}}
		if len(tc.records) > 1 {
			r.kept.marks = map[uint32]sad.Mark{snapshot.SPI: mark}
		}
		n := 0
		var got error
		for _, rec := range tc.records {
			rec.Value = slices.Clone(rec.Value)
			wanted, err := r.record(&rec)
			got = errors.Join(got, err)
			if err != nil || !wanted {
				continue
			}
			n++
			if rec.Kind == kindLink && string(rec.Value) != `{"Index":0}` {
				t.Errorf("%s: %s", what, rec.Value)
			}
			if rec.Kind == kindSA {
				s, err := sad.DecodeSnapshot(rec.Value)
				if err != nil || s.Offset != 640 || !s.Created.Equal(time.Unix(50+3600, 0)) || string(s.EncryptKey) != string(snapshot.EncryptKey) {
					t.Errorf("%s: %+v, %v", what, s, err)
				}
			}
		}
		if !errors.Is(got, tc.want) || n != tc.n {
			t.Errorf("%s: %d records and %v, want %d and %v", what, n, got, tc.n, tc.want)
		}
	}
}
