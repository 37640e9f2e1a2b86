package journal

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// File is a journal file that is being written. Its methods may be called
// concurrently.
type File struct {
	path  string
	owner Header
	disk  disk

	mu        sync.Mutex
	file      storage
	failed    error   // of the disk, after which nobody knows what is on it
	marked    []place // that have the mark of the dead, maybe not on the disk yet, and still a value
	committed int64
	index     map[key]place
	live      int64 // octets of the records in index
	compactAt int64 // octets of the file from which on it is worth to compact it
	buf       []byte
}

// place is where a record is.
type place struct {
	offset int64
	size   int32 // octets of the whole record
}

// minCompact is the size in bytes below which no file is compacted.
const minCompact = 1 << 18

// createFile makes a journal with these records in place of any that there is.
func createFile(d disk, path string, h Header, records []Record) (*File, error) {
	f := &File{disk: d, path: path, owner: h, index: make(map[key]place, len(records))}
	file, err := f.write(func(w io.WriterAt) (int64, error) {
		var b []byte
		defer func() { clear(b) }() // there may be keys in it
		end := int64(headerLen)
		for i, r := range records {
			p := place{end + int64(len(b)), int32(recordLen(len(r.Value)))}
			f.index[key{r.Kind, r.ID}] = p
			f.live += int64(p.size)
			b = appendRecord(b, r)
			if len(b) < 1<<16 && i < len(records)-1 {
				continue
			}
			if _, err := w.WriteAt(b, end); err != nil {
				return 0, err
			}
			end += int64(len(b))
			clear(b)
			b = b[:0]
		}
		return end, nil
	})
	if err != nil {
		return nil, err
	}
	f.file, f.committed = file, headerLen+f.live
	f.compactAt = max(minCompact, 2*f.committed)
	return f, nil
}

// reopen goes on with a journal that was read from file.
func reopen(d disk, path string, file storage, j Journal) (*File, error) {
	f := &File{
		disk: d, path: path, owner: j.Header, file: file, committed: j.Committed,
		index: make(map[key]place, len(j.Entries)), compactAt: minCompact,
	}
	for _, e := range j.Stale {
		if err := f.kill(place{e.Offset, int32(recordLen(len(e.Value)))}); err != nil {
			return nil, err
		}
	}
	for _, e := range j.Entries {
		p := place{e.Offset, int32(recordLen(len(e.Value)))}
		f.index[key{e.Kind, e.ID}] = p
		f.live += int64(p.size)
	}
	if err := f.flush(); err != nil {
		return nil, err
	}
	f.compactAt = max(minCompact, 2*f.live)
	return f, nil
}

// Put adds records, all or none. Each takes the place of the one with its kind
// and ID. The values are copied. An error wraps the errno of the write, such as
// ENOSPC, or EINVAL if a value is too long; nothing has changed then.
func (f *File) Put(records ...Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.buf[:0]
	for _, r := range records {
		if len(r.Value) > MaxValue || r.Kind == 0 {
			return fmt.Errorf("journal: a record of kind %d with %d octets, at most %d are possible: %w",
				r.Kind, len(r.Value), MaxValue, syscall.EINVAL)
		}
		b = appendRecord(b, r)
	}
	f.buf = b
	defer clear(b) // there may be keys in it
	offset := f.committed
	if err := f.append(b); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, r := range records {
		k := key{r.Kind, r.ID}
		if old, replaces := f.index[k]; replaces {
			// If it can't be overwritten, the later one counts all the same, but
			// that must not be removed then.
			if err := f.kill(old); err != nil && f.failed == nil && f.disk.durable() {
				f.failed = err
			}
			f.live -= int64(old.size)
		}
		p := place{offset, int32(recordLen(len(r.Value)))}
		f.index[k] = p
		f.live += int64(p.size)
		offset += int64(p.size)
	}
	if f.committed > f.compactAt {
		f.compact()
	}
	return nil
}

// append writes records behind the others and commits them.
func (f *File) append(b []byte) error {
	if f.failed != nil {
		return f.failed
	}
	if _, err := f.file.WriteAt(b, f.committed); err != nil {
		return err
	}
	if err := f.flush(); err != nil {
		return err
	}
	next := f.committed + int64(len(b))
	if err := f.commit(next); err != nil {
		// They don't count, for the process that reads the file, either.
		_, _ = f.file.WriteAt(appendCommit(nil, uint64(f.committed)), headerCommit)
		return err
	}
	f.committed = next
	return nil
}

func (f *File) commit(next int64) error {
	if _, err := f.file.WriteAt(appendCommit(make([]byte, 0, commitLen), uint64(next)), headerCommit); err != nil {
		return err
	}
	return f.sync()
}

// sync returns when everything that was written is on the disk, if that is what
// the file is for. After an error the kernel takes for written what is not, so
// that there is no second attempt.
func (f *File) sync() error {
	if f.failed == nil {
		f.failed = f.disk.sync(f.file)
	}
	return f.failed
}

// flush is sync. The values of records whose marks are on the disk then are
// overwritten.
func (f *File) flush() error {
	if err := f.sync(); err != nil {
		return err
	}
	for _, p := range f.marked {
		if err := f.wipe(p); err != nil {
			return err
		}
	}
	f.marked = f.marked[:0]
	return nil
}

// Has says whether there is a record.
func (f *File) Has(kind Kind, id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.index[key{kind, id}]
	return ok
}

// Delete removes records of a kind. Those that are not there are no error. A death
// in the middle may remove some of them.
func (f *File) Delete(kind Kind, ids ...uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// If the mark of a record came to the disk before that of one whose place it
	// took, that one would come back.
	if len(f.marked) > 0 {
		if err := f.flush(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	var killed []key
	var err error
	for _, id := range ids {
		k := key{kind, id}
		p, ok := f.index[k]
		if !ok {
			continue
		}
		if err = f.kill(p); err != nil {
			break
		}
		killed = append(killed, k)
	}
	if len(killed) > 0 {
		if failed := f.flush(); failed != nil {
			return fmt.Errorf("journal: %w", failed)
		}
	}
	for _, k := range killed {
		f.live -= int64(f.index[k].size) // 0 if it was named twice
		delete(f.index, k)
	}
	if err != nil {
		err = fmt.Errorf("journal: %w", err)
	}
	return err
}

// kill gives a record the mark of the dead. Its value is overwritten when that
// mark is on the disk: without it, the value must be right.
func (f *File) kill(p place) error {
	if _, err := f.file.WriteAt(binary.BigEndian.AppendUint32(nil, markDead), p.offset); err != nil {
		return err
	}
	if !f.disk.durable() {
		return f.wipe(p)
	}
	f.marked = append(f.marked, p)
	return nil
}

// wipe overwrites the value of a dead record with zeros.
func (f *File) wipe(p place) error {
	var zeros [512]byte
	end := p.offset + int64(p.size)
	for at := p.offset + recordChecksum; at < end; {
		n := min(end-at, int64(len(zeros)))
		if _, err := f.file.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// compact writes the file anew, without what is dead. If that is not possible,
// for want of space, the file goes on as it is.
func (f *File) compact() {
	f.compactAt = 2 * f.committed // should it fail
	if f.live > f.committed/2 || f.failed != nil {
		return
	}
	index := make(map[key]place, len(f.index))
	file, err := f.write(func(w io.WriterAt) (int64, error) {
		return f.copyLive(w, index)
	})
	if err != nil {
		return
	}
	f.file.Close()
	f.file, f.index, f.marked = file, index, nil
	f.committed = headerLen + f.live
	f.compactAt = max(minCompact, 2*f.committed)
}

// copyLive copies the records that are alive, in their order, and notes where
// they are then.
func (f *File) copyLive(w io.WriterAt, index map[key]place) (end int64, err error) {
	at := int64(headerLen)
	out := int64(headerLen)
	batch := make([]byte, 0, 1<<16)
	defer func() { clear(batch[:cap(batch)]) }()
	var head [recordHeaderLen]byte
	for at < f.committed {
		if _, err := f.file.ReadAt(head[:], at); err != nil {
			return 0, err
		}
		size := recordLen(int(binary.BigEndian.Uint32(head[16:])))
		k := key{Kind(head[4]), binary.BigEndian.Uint64(head[8:])}
		if p, ok := f.index[k]; ok && p.offset == at {
			if len(batch)+size > cap(batch) && len(batch) > 0 {
				if _, err := w.WriteAt(batch, out); err != nil {
					return 0, err
				}
				out += int64(len(batch))
				batch = batch[:0]
			}
			start := len(batch)
			batch = append(batch, make([]byte, size)...)
			if _, err := f.file.ReadAt(batch[start:], at); err != nil {
				return 0, err
			}
			index[k] = place{out + int64(start), int32(size)}
		}
		at += int64(size)
	}
	if _, err := w.WriteAt(batch, out); err != nil {
		return 0, err
	}
	return out + int64(len(batch)), nil
}

// write makes a journal beside the one that there is, and gives it its name
// when it is complete. records writes the records and returns the size of the
// file.
func (f *File) write(records func(io.WriterAt) (int64, error)) (_ storage, err error) {
	name := f.path + ".new"
	file, err := f.disk.create(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
			f.disk.remove(name)
		}
	}()
	if _, err := file.WriteAt(appendHeader(nil, f.owner), 0); err != nil {
		return nil, err
	}
	end, err := records(file)
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteAt(appendCommit(nil, uint64(end)), headerCommit); err != nil {
		return nil, err
	}
	if err := f.disk.sync(file); err != nil {
		return nil, err
	}
	if err := f.disk.rename(name, f.path); err != nil {
		if f.disk.durable() {
			// Nobody knows which of the two has the name when the machine is
			// started again.
			f.failed = err
		}
		return nil, err
	}
	return file, nil
}

// Close closes the file, which stays.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
