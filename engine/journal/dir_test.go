package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// writerEnv makes this test's binary a process that writes to the journal that
// it names until it is killed.
const writerEnv = "IFIPSEC_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeForever(path)
	}
	os.Exit(m.Run())
}

var here = Owner{Boot: [16]byte{1}, Inode: 2, Cookie: 3}

func mustOpen(t *testing.T, path string) (*Dir, []Record) {
	t.Helper()
	var records []Record
	d, refused, err := Open(path, here, taking(&records))
	if err != nil || refused != nil {
		t.Fatalf("Open = %v, refused %v", err, refused)
	}
	t.Cleanup(func() { d.Close() })
	return d, records
}

// taking uses a journal by copying its records.
func taking(to *[]Record) func(*Dir, []Record) error {
	return func(_ *Dir, records []Record) error {
		*to = nil
		for _, r := range records {
			r.Value = append([]byte{}, r.Value...)
			*to = append(*to, r)
		}
		return nil
	}
}

func mustPut(t *testing.T, d *Dir, records ...Record) {
	t.Helper()
	if err := d.Put(records...); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, records := mustOpen(t, path)
	if len(records) != 0 {
		t.Fatalf("a new journal has %v", records)
	}
	mustPut(t, d, testRecords[0], testRecords[1])
	mustPut(t, d, testRecords[2])
	mustPut(t, d, Record{Kind: 1, ID: 10000, Value: []byte("changed")})
	if err := d.Delete(1, 10001); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(1, 4711); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	want := []Record{testRecords[2], {Kind: 1, ID: 10000, Value: []byte("changed")}}
	d.Close()
	_, records = mustOpen(t, path)
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	st, err := os.Stat(filepath.Join(path, recordsName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file %v (%v), want 0600", st.Mode(), err)
	}
	if st, err = os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory %v (%v), want 0700", st.Mode(), err)
	}
}

// A key is not in the file any more when its SA is gone, or was replaced.
func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, _ := mustOpen(t, path)
	secrets := []string{"VerySecureKey!!1", "VerySecureKey!!2", strings.Repeat("long", 1000)}
	for i, s := range secrets {
		mustPut(t, d, Record{Kind: 1, ID: uint64(i), Value: []byte(s)})
	}
	mustPut(t, d, Record{Kind: 1, ID: 0, Value: []byte("other")})
	for i := range secrets[1:] {
		if err := d.Delete(1, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(path, recordsName))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if bytes.Contains(data, []byte(s)) {
			t.Errorf("the file still has %.20q", s)
		}
	}
	if _, err := Decode(data); err != nil {
		t.Error(err)
	}
}

// The file does not grow with the number of changes, and compacting it keeps
// what there is.
func TestCompact(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, _ := mustOpen(t, path)
	model := map[uint64][]byte{}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20000 {
		id := r.Uint64N(200)
		if r.IntN(3) == 0 {
			delete(model, id)
			if err := d.Delete(1, id); err != nil {
				t.Fatal(err)
			}
			continue
		}
		value := fmt.Appendf(nil, "%d:%s", i, strings.Repeat("x", r.IntN(300)))
		model[id] = value
		mustPut(t, d, Record{Kind: 1, ID: id, Value: value})
	}
	st, err := os.Stat(filepath.Join(path, recordsName))
	if err != nil || st.Size() > 4*minCompact {
		t.Errorf("the file has %d bytes (%v), want at most %d", st.Size(), err, 4*minCompact)
	}
	d.Close()
	_, records := mustOpen(t, path)
	got := map[uint64][]byte{}
	for _, rec := range records {
		got[rec.ID] = rec.Value
	}
	if diff := cmp.Diff(model, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	overwrite := func(name string, at int64, b string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(filepath.Join(path, name), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(b), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		damage func(*testing.T, string)
		owner  Owner
		want   error
	}{
		"corrupt":         {overwrite(recordsName, headerLen+40, "?"), here, ErrCorrupt},
		"newer version":   {overwrite(recordsName, 8, "\x00\x00\x00\x02"), here, ErrVersion},
		"other boot":      {func(*testing.T, string) {}, Owner{Boot: [16]byte{2}, Inode: 2, Cookie: 3}, ErrForeign},
		"other namespace": {func(*testing.T, string) {}, Owner{Boot: [16]byte{1}, Inode: 5, Cookie: 6}, ErrForeign},
		"inode used again": {func(*testing.T, string) {}, Owner{Boot: [16]byte{1}, Inode: 2, Cookie: 6},
			ErrForeign},
		"memory of another": {overwrite(memoryName, 20, "?"), here, ErrCorrupt},
		"memory missing": {func(t *testing.T, path string) {
			if err := os.Remove(filepath.Join(path, memoryName)); err != nil {
				t.Fatal(err)
			}
		}, here, ErrCorrupt},
		"memory cut off": {func(t *testing.T, path string) {
			if err := os.Truncate(filepath.Join(path, memoryName), 5000); err != nil {
				t.Fatal(err)
			}
		}, here, ErrCorrupt},
		"cut off": {func(t *testing.T, path string) {
			if err := os.Truncate(filepath.Join(path, recordsName), headerLen+8); err != nil {
				t.Fatal(err)
			}
		}, here, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state")
			d, _ := mustOpen(t, path)
			mustPut(t, d, testRecords...)
			d.Close()
			tc.damage(t, path)
			var records []Record
			d, refused, err := Open(path, tc.owner, taking(&records))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if refused == nil || !errors.Is(refused, tc.want) || len(records) > 0 {
				t.Fatalf("%d records, refused %v; want none and %v", len(records), refused, tc.want)
			}
			if _, err := os.Stat(filepath.Join(refused.Kept, recordsName)); err != nil {
				t.Errorf("what was refused is gone: %v", err)
			}
			mustPut(t, d, testRecords[0])
		})
	}
}

// What makes no sense to the user is refused like what is damaged, but not for
// want of memory.
func TestUserRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, _ := mustOpen(t, path)
	mustPut(t, d, testRecords...)
	d.Close()
	_, _, err := Open(path, here, func(*Dir, []Record) error { return syscall.ENOMEM })
	if !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("Open = %v, want ENOMEM", err)
	}
	var calls []int
	d, refused, err := Open(path, here, func(_ *Dir, records []Record) error {
		calls = append(calls, len(records))
		if len(records) > 0 {
			return errors.New("an SA of the future")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if refused == nil || !strings.Contains(refused.Error(), "an SA of the future") || !slices.Equal(calls, []int{4, 0}) {
		t.Errorf("refused %v after calls with %v records", refused, calls)
	}
}

func TestOpenRefusesADirectoryForOthers(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path, here, taking(new([]Record))); !errors.Is(err, syscall.EPERM) {
		t.Errorf("Open = %v, want EPERM", err)
	}
}

// Without memory there is nothing new, and the file is as it was.
func TestNoMemory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, _ := mustOpen(t, path)
	size := func() int64 {
		st, err := os.Stat(filepath.Join(path, memoryName))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	before := size()
	works := d.mmap
	d.mmap = func(int, int64, int, int, int) ([]byte, error) { return nil, syscall.ENOMEM }
	for range 3 {
		if _, _, err := d.Alloc(2 * chunkSize); !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("Alloc = %v, want ENOMEM", err)
		}
	}
	if _, _, err := d.Alloc(1000); err != nil {
		t.Errorf("what there was room for: %v", err)
	}
	if after := size(); after != before {
		t.Errorf("the file has %d bytes, had %d", after, before)
	}
	d.mmap = works
	if _, mem, err := d.Alloc(2 * chunkSize); err != nil || len(mem) != 2*chunkSize {
		t.Errorf("then %d bytes, %v", len(mem), err)
	}
}

func TestPutTooLong(t *testing.T) {
	t.Parallel()
	d, _ := mustOpen(t, filepath.Join(t.TempDir(), "state"))
	err := d.Put(Record{Kind: 1, Value: []byte("fits")}, Record{Kind: 2, Value: make([]byte, MaxValue+1)})
	if !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Put = %v, want EINVAL", err)
	}
	if len(d.index) != 0 {
		t.Errorf("the journal has %v, want all or nothing", d.index)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	d, _ := mustOpen(t, path)
	type part struct {
		offset int64
		size   int
	}
	parts := map[part]byte{}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		size := 1 + r.IntN(2000)
		if i%500 == 0 {
			size = 2<<20 + i // as replay windows that are larger than a chunk
		}
		offset, mem, err := d.Alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		if len(mem) != size || uintptr(unsafe.Pointer(&mem[0]))%unit != 0 {
			t.Fatalf("%d bytes at %p, want %d on a line of cache", len(mem), &mem[0], size)
		}
		if bytes.Count(mem, []byte{0}) != size {
			t.Fatalf("memory that is not zero")
		}
		fill := byte(1 + i%255)
		for j := range mem {
			mem[j] = fill
		}
		parts[part{offset, size}] = fill
		if r.IntN(3) == 0 {
			for p := range parts {
				d.Free(p.offset, p.size)
				delete(parts, p)
				break
			}
		}
	}
	d.Close()
	d, _ = mustOpen(t, path)
	for p, fill := range parts {
		mem, err := d.At(p.offset, p.size)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(mem, []byte{fill}) != p.size {
			t.Errorf("the %d bytes at %d are not those that were written", p.size, p.offset)
		}
		if _, err := d.At(p.offset, p.size); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the same memory twice: %v, want ErrCorrupt", err)
		}
	}
	// What is in use is not handed out again.
	for range 3000 {
		_, mem, err := d.Alloc(1 + r.IntN(2000))
		if err != nil {
			t.Fatal(err)
		}
		for j := range mem {
			mem[j] = 0xff
		}
	}
	d.Close()
	d, _ = mustOpen(t, path)
	for p, fill := range parts {
		mem, err := d.At(p.offset, p.size)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(mem, []byte{fill}) != p.size {
			t.Errorf("the %d bytes at %d were overwritten", p.size, p.offset)
		}
	}
	for _, p := range []part{{-64, 8}, {1, 8}, {1 << 40, 8}, {64, 0}, {64, -1}, {0, 8}} {
		if _, err := d.At(p.offset, p.size); !errors.Is(err, ErrCorrupt) {
			t.Errorf("memory of %d bytes at %d: %v, want ErrCorrupt", p.size, p.offset, err)
		}
	}
}

func TestMemoryIsUsedAgain(t *testing.T) {
	t.Parallel()
	d, _ := mustOpen(t, filepath.Join(t.TempDir(), "state"))
	for range 100000 {
		offset, _, err := d.Alloc(300)
		if err != nil {
			t.Fatal(err)
		}
		d.Free(offset, 300)
	}
	if d.size != chunkSize {
		t.Errorf("the memory has grown to %d bytes, want %d", d.size, chunkSize)
	}
}

// writeForever puts records with growing numbers, of which each says how far
// the counter in memory was, and tells of each that is done.
func writeForever(path string) {
	var records []Record
	d, refused, err := Open(path, here, taking(&records))
	if err != nil || refused != nil {
		fmt.Println("error", err, refused)
		os.Exit(1)
	}
	var mem []byte
	next := uint64(1)
	for _, r := range records {
		if r.Kind == 2 {
			if mem, err = d.At(int64(binary.BigEndian.Uint64(r.Value)), 64); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
		next = max(next, r.ID+1)
	}
	if mem == nil {
		offset, m, err := d.Alloc(64)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		mem = m
		if err := d.Put(Record{Kind: 2, Value: binary.BigEndian.AppendUint64(nil, uint64(offset))}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	counter := (*atomic.Uint64)(unsafe.Pointer(&mem[0]))
	for ; ; next++ {
		counter.Add(1)
		if err := d.Put(Record{Kind: 1, ID: next, Value: bytes.Repeat([]byte{byte(next)}, int(next%5000))}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(next)
		if next > 20 {
			if err := d.Delete(1, next-20); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
	}
}

// A process that is killed while it writes loses nothing that it was told is
// done, and leaves nothing that the next can't read.
func TestKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	for range 10 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(20*time.Millisecond+rand.N(50*time.Millisecond), func() { cmd.Process.Kill() })
		var done uint64
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscan(lines.Text(), &done); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
		}
		cmd.Wait()
		timer.Stop()

		d, records := mustOpen(t, path)
		var ids []uint64
		var counted uint64
		for _, r := range records {
			switch r.Kind {
			case 1:
				ids = append(ids, r.ID)
				if !bytes.Equal(r.Value, bytes.Repeat([]byte{byte(r.ID)}, int(r.ID%5000))) {
					t.Fatalf("record %d is not as it was put", r.ID)
				}
			case 2:
				mem, err := d.At(int64(binary.BigEndian.Uint64(r.Value)), 64)
				if err != nil {
					t.Fatal(err)
				}
				counted = binary.NativeEndian.Uint64(mem)
			}
		}
		if len(ids) > 0 && (slices.Max(ids) < done || counted < slices.Max(ids)) {
			t.Fatalf("the last record is %d and the counter %d, want at least %d", slices.Max(ids), counted, done)
		}
		if done > 0 && !slices.Contains(ids, done) {
			t.Fatalf("record %d is lost, of %v", done, ids)
		}
		d.Close()
	}
}

func BenchmarkPut(b *testing.B) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = ""
	}
	path, err := os.MkdirTemp(dir, "journal-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(path)
	d, _, err := Open(filepath.Join(path, "state"), here, taking(new([]Record)))
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	value := make([]byte, 300)
	var id uint64
	for b.Loop() {
		id++
		if err := d.Put(Record{Kind: 1, ID: id, Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}
