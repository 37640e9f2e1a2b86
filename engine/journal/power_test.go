package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// sector is what a disk writes whole or not at all, in octets.
const sector = 512

// plug is a disk that loses its power after some operations. What was written
// and not synced is there then or not, sector by sector, and a name is the old
// file's or the new one's.
type plug struct {
	left  int // operations
	rand  *rand.Rand
	names map[string]*platter
	old   map[string]*platter // the names that are on the disk for sure, while a renaming is under way
}

var errPower = errors.New("no power")

func (d *plug) step() error {
	if d.left--; d.left < 0 {
		return errPower
	}
	return nil
}

func (d *plug) create(name string) (storage, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	d.names[name] = &platter{plug: d}
	return d.names[name], nil
}

func (d *plug) remove(name string) { delete(d.names, name) }
func (d *plug) durable() bool      { return true }

func (d *plug) sync(s storage) error {
	if err := d.step(); err != nil {
		return err
	}
	p := s.(*platter)
	p.kept, p.pending = p.content, nil
	p.content = append([]byte(nil), p.content...)
	return nil
}

func (d *plug) rename(from, to string) error {
	d.old = maps.Clone(d.names)
	if err := d.step(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	if err := d.step(); err != nil {
		return err
	}
	d.old = nil
	return nil
}

// after is the content of a file when the power is back.
func (d *plug) after(name string) []byte {
	names := d.names
	if d.old != nil && d.rand.IntN(2) == 0 {
		names = d.old
	}
	if p := names[name]; p != nil {
		return p.after(d.rand)
	}
	return nil
}

// platter is a file on it.
type platter struct {
	plug    *plug
	content []byte  // as the processes see it
	kept    []byte  // at the last sync
	pending []write // since then
}

type write struct {
	at int64
	b  []byte
}

func (p *platter) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > int64(len(p.content)) {
		return 0, errors.New("beyond the end")
	}
	return copy(b, p.content[at:]), nil
}

func (p *platter) WriteAt(b []byte, at int64) (int, error) {
	if err := p.plug.step(); err != nil {
		return 0, err
	}
	p.content = put(p.content, b, at)
	p.pending = append(p.pending, write{at, append([]byte(nil), b...)})
	return len(b), nil
}

func (p *platter) Close() error { return nil }

func put(content, b []byte, at int64) []byte {
	if end := at + int64(len(b)); end > int64(len(content)) {
		content = append(content, make([]byte, end-int64(len(content)))...)
	}
	copy(content[at:], b)
	return content
}

// after lets each sector have only the first of the writes to it, as many as
// chance wants.
func (p *platter) after(r *rand.Rand) []byte {
	content := append([]byte(nil), p.kept...)
	stopped := map[int64]bool{}
	for _, w := range p.pending {
		for len(w.b) > 0 {
			n := min(int64(len(w.b)), sector-w.at%sector)
			if !stopped[w.at/sector] {
				if r.IntN(3) == 0 {
					stopped[w.at/sector] = true
				} else {
					content = put(content, w.b[:n], w.at)
				}
			}
			w.at, w.b = w.at+n, w.b[n:]
		}
	}
	return content
}

// within says whether b has all that a has.
func within(a, b map[uint64]string) bool {
	for id, value := range a {
		if b[id] != value {
			return false
		}
	}
	return true
}

// Whenever the power fails, what was answered is there, what was not is there as
// a whole or not at all, of what was being deleted maybe some, and the journal is
// never corrupt.
func TestPowerFails(t *testing.T) {
	t.Parallel()
	unanswered := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := &plug{left: 1 << 30, rand: r, names: map[string]*platter{}}
		f, err := createFile(d, "journal", Header{Version: Version, Owner: here}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.compactAt = 1 << 10
		d.left = r.IntN(200)
		model, next, deleting := map[uint64]string{}, map[uint64]string{}, false
		for err == nil {
			next, deleting = maps.Clone(model), false
			if r.IntN(3) == 0 {
				ids := make([]uint64, 1+r.IntN(3))
				for i := range ids {
					ids[i] = r.Uint64N(8)
					delete(next, ids[i])
				}
				err = f.Delete(1, ids...)
				deleting = true
			} else {
				var records []Record
				for range 1 + r.IntN(3) {
					id := r.Uint64N(8)
					value := fmt.Sprintf("%d %s", r.Uint64(), strings.Repeat("x", r.IntN(300)))
					records = append(records, Record{Kind: 1, ID: id, Value: []byte(value)})
					next[id] = value
				}
				err = f.Put(records...)
			}
			if err == nil {
				model = next
			}
			f.compactAt = min(f.compactAt, 1<<11)
		}
		if !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		j, err := Decode(d.after("journal"))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got := map[uint64]string{}
		for _, e := range j.Entries {
			got[e.ID] = string(e.Value)
		}
		switch {
		case maps.Equal(got, model):
		case maps.Equal(got, next), deleting && within(next, got) && within(got, model):
			unanswered++
		default:
			t.Fatalf("seed %d: there is\n%v\nwant\n%v\nor\n%v", seed, got, model, next)
		}
		// Nobody goes on as if nothing had happened.
		d.left = 1 << 30
		if err := f.Put(Record{Kind: 1, ID: 1}); err == nil && f.failed != nil {
			t.Fatalf("seed %d: a record is put after %v", seed, f.failed)
		}
	}
	if unanswered == 0 {
		t.Error("no change was ever kept that was not answered: the power fails too early")
	}
}
