package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Permanent says where a journal is that outlives the machine.
type Permanent struct {
	// Dir is a directory on a disk, for root alone, of which this journal is all.
	// The records are in it.
	Dir string
	// Memory is a directory for the memory. Nobody expects it to outlive the
	// machine; its parent must exist.
	Memory string
}

func (p Permanent) records() string { return filepath.Join(p.Dir, "state") }

// Renew makes the records of a journal whose memory is lost those of one with
// other memory, of which nothing is in use yet. The journal was from's. It may
// change the records that it gets. An error that wraps ErrCorrupt has the journal
// refused.
type Renew func(from Owner, memory *Memory, records []Record) ([]Record, error)

// OpenPermanent is [Open] for a journal that outlives the machine: what a method
// of the File has done when it returns is on the disk. The records are also those
// of another boot or namespace, or of one that has lost its memory for another
// reason; they are renewed then, at once or not at all.
//
// EPERM: the directory is somebody else's, or not for its owner alone. EBUSY:
// another process has the journal.
func OpenPermanent(p Permanent, owner Owner, renew Renew, use func(*Dir, []Record) error) (*Dir, *Refused, error) {
	if err := makeDir(p.Dir); err != nil {
		return nil, nil, err
	}
	lock, err := os.Open(p.Dir)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another ipsecd has it: %w", syscall.EBUSY)
		}
		return nil, nil, fmt.Errorf("lock %s: %w", p.Dir, err)
	}
	d, refused, err := p.openLocked(owner, renew, use)
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	d.lock = lock
	return d, refused, nil
}

func (p Permanent) openLocked(owner Owner, renew Renew, use func(*Dir, []Record) error) (*Dir, *Refused, error) {
	for _, path := range []string{p.records(), p.Memory} {
		if err := makeDir(path); err != nil {
			return nil, nil, err
		}
	}
	if err := syncDir(p.Dir); err != nil {
		return nil, nil, err
	}
	return openOr(p.records(), use,
		func() (*Dir, []Record, error) { return p.open(owner, renew) },
		func() (*Dir, error) {
			h := newHeader(owner)
			memory, err := createMemory(filepath.Join(p.Memory, memoryName), h.Pair)
			if err != nil {
				return nil, err
			}
			f, err := createFile(permanent{}, filepath.Join(p.records(), recordsName), h, nil)
			if err != nil {
				memory.Close()
				return nil, err
			}
			return &Dir{File: f, Memory: memory, path: p.Memory}, nil
		})
}

func (p Permanent) open(owner Owner, renew Renew) (*Dir, []Record, error) {
	data, err := os.ReadFile(filepath.Join(p.records(), recordsName))
	if err != nil {
		return nil, nil, err
	}
	j, err := Decode(data)
	if err != nil {
		return nil, nil, err
	}
	h, records := j.Header, j.records()
	memory, err := p.memory(j, owner)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) {
		h = newHeader(owner)
		memory, records, err = p.renew(h, j, renew)
	}
	if err != nil {
		return nil, nil, err
	}
	// The file is written anew, because of what was read nobody knows that it is
	// on the disk: the kernel may have failed to write it.
	f, err := createFile(permanent{}, filepath.Join(p.records(), recordsName), h, records)
	if errors.Is(err, syscall.ENOSPC) && h == j.Header {
		f, err = p.reopen(j) // better than nothing
	}
	if err != nil {
		memory.Close()
		return nil, nil, err
	}
	return &Dir{File: f, Memory: memory, path: p.Memory}, records, nil
}

// reopen goes on with the file that there is.
func (p Permanent) reopen(j Journal) (*File, error) {
	name := filepath.Join(p.records(), recordsName)
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	f, err := reopen(permanent{}, name, file, j)
	if err != nil {
		file.Close()
	}
	return f, err
}

// memory opens the memory of a journal, if it is as the process before left it.
func (p Permanent) memory(j Journal, owner Owner) (*Memory, error) {
	if err := j.Owner.check(owner); err != nil {
		return nil, err
	}
	return openMemory(filepath.Join(p.Memory, memoryName), j.Pair)
}

// renew makes the memory for a journal that has lost its own.
func (p Permanent) renew(h Header, j Journal, renew Renew) (*Memory, []Record, error) {
	path := filepath.Join(p.Memory, memoryName)
	memory, err := createMemory(path, h.Pair)
	if err != nil {
		return nil, nil, err
	}
	records, err := renew(j.Owner, memory, j.records())
	memory.Close()
	if err != nil {
		return nil, nil, err
	}
	// Once more, so that nothing of it is in use.
	memory, err = openMemory(path, h.Pair)
	return memory, records, err
}
