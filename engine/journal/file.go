package journal

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// File is a journal file that is being written. Its methods may be called
// concurrently.
type File struct {
	path  string
	owner Header

	mu        sync.Mutex
	file      *os.File
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

// createFile makes a journal without records in place of any that there is.
func createFile(path string, h Header) (*File, error) {
	f := &File{path: path, owner: h, index: map[key]place{}, compactAt: minCompact}
	file, err := f.write(nil)
	if err != nil {
		return nil, err
	}
	f.file, f.committed = file, headerLen
	return f, nil
}

// reopen goes on with a journal that was read from file.
func reopen(path string, file *os.File, j Journal) (*File, error) {
	f := &File{
		path: path, owner: j.Header, file: file, committed: j.Committed,
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
			// If it can't be overwritten, the later one counts all the same.
			_ = f.kill(old)
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
	if _, err := f.file.WriteAt(b, f.committed); err != nil {
		return err
	}
	next := f.committed + int64(len(b))
	if _, err := f.file.WriteAt(appendCommit(make([]byte, 0, commitLen), uint64(next)), headerCommit); err != nil {
		return err
	}
	f.committed = next
	return nil
}

// Has says whether there is a record.
func (f *File) Has(kind Kind, id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.index[key{kind, id}]
	return ok
}

// Delete removes a record. One that is not there is no error.
func (f *File) Delete(kind Kind, id uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key{kind, id}
	p, ok := f.index[k]
	if !ok {
		return nil
	}
	if err := f.kill(p); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	delete(f.index, k)
	f.live -= int64(p.size)
	return nil
}

// kill overwrites a record. Its mark comes first: a death in the middle leaves
// a dead record, of whose value nothing is expected.
func (f *File) kill(p place) error {
	var b [512]byte
	if _, err := f.file.ReadAt(b[:recordHeaderLen], p.offset); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b[:], markDead)
	clear(b[24:recordHeaderLen])
	end := p.offset + int64(p.size)
	for at, n := p.offset, 0; at < end; at += int64(n) {
		n = int(min(end-at, int64(len(b))))
		if _, err := f.file.WriteAt(b[:n], at); err != nil {
			return err
		}
		clear(b[:])
	}
	return nil
}

// compact writes the file anew, without what is dead. If that is not possible,
// for want of space, the file goes on as it is.
func (f *File) compact() {
	f.compactAt = 2 * f.committed // should it fail
	if f.live > f.committed/2 {
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
	f.file, f.index = file, index
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
// when it is complete. records writes the records, nil none, and returns the
// size of the file.
func (f *File) write(records func(io.WriterAt) (int64, error)) (file *os.File, err error) {
	name := f.path + ".new"
	file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(name)
		}
	}()
	if _, err := file.WriteAt(appendHeader(nil, f.owner), 0); err != nil {
		return nil, err
	}
	if records != nil {
		end, err := records(file)
		if err != nil {
			return nil, err
		}
		if _, err := file.WriteAt(appendCommit(nil, uint64(end)), headerCommit); err != nil {
			return nil, err
		}
	}
	return file, os.Rename(name, f.path)
}

// Close closes the file, which stays.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
