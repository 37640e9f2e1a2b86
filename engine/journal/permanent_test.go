package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newPermanent(t *testing.T) Permanent {
	t.Helper()
	dir := t.TempDir()
	return Permanent{Dir: filepath.Join(dir, "disk"), Memory: filepath.Join(dir, "run")}
}

// reader opens permanent journals. The records of kind 1 say where memory is that
// has their ID in it.
type reader struct {
	records []Record
	renewed int
	fail    error // of renewing
}

func (r *reader) renew(from Owner, m *Memory, records []Record) ([]Record, error) {
	r.renewed++
	for i := range records {
		if records[i].Kind != 1 {
			continue
		}
		offset, mem, err := m.Alloc(1000)
		if err != nil {
			return nil, err
		}
		mem[999] = byte(records[i].ID)
		records[i].Value = fmt.Append(nil, offset)
	}
	return append(records, Record{Kind: 3, ID: from.Inode}), r.fail
}

func (r *reader) use(d *Dir, records []Record) error {
	if err := taking(&r.records)(d, records); err != nil {
		return err
	}
	for _, rec := range records {
		if rec.Kind != 1 {
			continue
		}
		var offset int64
		if _, err := fmt.Sscan(string(rec.Value), &offset); err != nil {
			return err
		}
		mem, err := d.At(offset, 1000)
		if err != nil {
			return err
		}
		if mem[999] != byte(rec.ID) {
			return fmt.Errorf("the memory at %d has %d, want %d", offset, mem[999], rec.ID)
		}
	}
	return nil
}

// fill makes a journal with records, one of which has memory, and closes it.
func fill(t *testing.T, p Permanent) []Record {
	t.Helper()
	var r reader
	d, refused, err := OpenPermanent(p, here, r.renew, r.use)
	if err != nil || refused != nil || r.renewed != 0 {
		t.Fatalf("%v, refused %v, renewed %d times", err, refused, r.renewed)
	}
	offset, mem, err := d.Alloc(1000)
	if err != nil {
		t.Fatal(err)
	}
	mem[999] = 7
	mustPut(t, d, Record{Kind: 1, ID: 7, Value: fmt.Append(nil, offset)}, Record{Kind: 2, ID: 8, Value: []byte("eight")})
	mustPut(t, d, Record{Kind: 2, ID: 9, Value: []byte("nine")}, Record{Kind: 2, ID: 8, Value: []byte("again")})
	if err := d.Delete(2, 9); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return []Record{{Kind: 1, ID: 7, Value: fmt.Append(nil, offset)}, {Kind: 2, ID: 8, Value: []byte("again")}}
}

// With its memory, a journal is as the process left it; without, it is renewed,
// once.
func TestOpenPermanent(t *testing.T) {
	t.Parallel()
	memory := func(p Permanent) string { return filepath.Join(p.Memory, memoryName) }
	for name, tc := range map[string]struct {
		owner  Owner
		change func(t *testing.T, p Permanent)
		renew  bool
	}{
		"the process died": {here, func(*testing.T, Permanent) {}, false},
		"another boot":     {Owner{Boot: [16]byte{2}, Inode: 2, Cookie: 3}, func(*testing.T, Permanent) {}, true},
		"another namespace": {Owner{Boot: [16]byte{1}, Inode: 4, Cookie: 5},
			func(*testing.T, Permanent) {}, true},
		"memory lost": {here, func(t *testing.T, p Permanent) {
			if err := os.RemoveAll(p.Memory); err != nil {
				t.Fatal(err)
			}
		}, true},
		"memory cut off": {here, func(t *testing.T, p Permanent) {
			if err := os.Truncate(memory(p), 5000); err != nil {
				t.Fatal(err)
			}
		}, true},
		"memory of another": {here, func(t *testing.T, p Permanent) {
			other := newPermanent(t)
			fill(t, other)
			if err := os.Rename(memory(other), memory(p)); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPermanent(t)
			want := fill(t, p)
			tc.change(t, p)
			for i := range 3 {
				var r reader
				if i == 0 && tc.renew {
					// A death in the middle leaves everything as it was.
					r.fail = syscall.ENOSPC
					if _, _, err := OpenPermanent(p, tc.owner, r.renew, r.use); !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("%v, want ENOSPC", err)
					}
					r = reader{}
				}
				d, refused, err := OpenPermanent(p, tc.owner, r.renew, r.use)
				if err != nil || refused != nil {
					t.Fatalf("%v, refused %v", err, refused)
				}
				if renewed := r.renewed == 1; renewed != (tc.renew && i == 0) {
					t.Errorf("opened for time %d, it was renewed %d times", i, r.renewed)
				}
				if i == 0 && tc.renew {
					want = []Record{r.records[0], want[1], {Kind: 3, ID: here.Inode, Value: []byte{}}}
				}
				if diff := cmp.Diff(want, r.records); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
				mustPut(t, d, Record{Kind: 4, ID: uint64(i)})
				want = append(want, Record{Kind: 4, ID: uint64(i), Value: []byte{}})
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestPermanentRefused(t *testing.T) {
	t.Parallel()
	p := newPermanent(t)
	fill(t, p)
	if err := os.RemoveAll(p.Memory); err != nil {
		t.Fatal(err)
	}
	r := reader{fail: fmt.Errorf("%w: something is missing", ErrCorrupt)}
	d, refused, err := OpenPermanent(p, here, r.renew, r.use)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(refused, ErrCorrupt) || len(r.records) != 0 {
		t.Errorf("refused %v, with %d records", refused, len(r.records))
	}
	if _, err := os.Stat(filepath.Join(refused.Kept, recordsName)); err != nil || filepath.Dir(refused.Kept) != p.Dir {
		t.Errorf("kept as %s: %v", refused.Kept, err)
	}
	// Nobody else gets it meanwhile.
	if _, _, err := OpenPermanent(p, here, r.renew, r.use); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a second time: %v, want EBUSY", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// The end in order takes the memory, and nothing else.
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
	r = reader{}
	d, refused, err = OpenPermanent(p, here, r.renew, r.use)
	if err != nil || refused != nil || r.renewed != 1 {
		t.Fatalf("%v, refused %v, renewed %d times; want once", err, refused, r.renewed)
	}
	d.Close()
	if err := os.Chmod(p.Dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenPermanent(p, here, r.renew, r.use); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a directory for others: %v, want EPERM", err)
	}
}
