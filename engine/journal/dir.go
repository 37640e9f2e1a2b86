package journal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is a directory with a journal: its records and its memory.
type Dir struct {
	*File
	*Memory

	path string   // of the memory, and of the records if they go with it
	lock *os.File // of a journal that outlives the machine, else nil
}

// Refused says that there was a journal that can't be used, and where it is
// now.
type Refused struct {
	Cause error  // wraps ErrCorrupt, ErrVersion or ErrForeign
	Kept  string // the directory that it was moved to
}

func (r *Refused) Error() string { return fmt.Sprintf("%v; it is kept as %s", r.Cause, r.Kept) }

func (r *Refused) Unwrap() error { return r.Cause }

const (
	recordsName = "journal"
	memoryName  = "memory"
	// keptSuffix ends the name of a directory whose journal was refused.
	keptSuffix = ".refused"
)

// Open opens the journal in a directory and gives use its records, in the order
// in which they were put. If there is none, or none that can be used, it makes
// an empty one; what was refused is moved aside as a whole, and why is told.
// Nobody else may have the journal open.
//
// use has the last word: with an error of its own, a journal that was whole is
// refused, unless it is the process that lacks memory or descriptors. It is
// called again then, without records. The values are overwritten when it
// returns.
func Open(path string, owner Owner, use func(*Dir, []Record) error) (*Dir, *Refused, error) {
	if err := makeDir(path); err != nil {
		return nil, nil, err
	}
	return openOr(path, use,
		func() (*Dir, []Record, error) { return open(path, owner) },
		func() (*Dir, error) { return create(path, owner) })
}

// openOr opens the journal in a directory, or creates one there.
func openOr(path string, use func(*Dir, []Record) error,
	open func() (*Dir, []Record, error), create func() (*Dir, error),
) (*Dir, *Refused, error) {
	d, records, err := open()
	if err == nil {
		err = use(d, records)
		for _, r := range records {
			clear(r.Value) // there may be keys in it
		}
		if err == nil {
			return d, nil, nil
		}
		d.Close()
		if errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, nil, err
		}
		if !errors.Is(err, ErrCorrupt) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	var refused *Refused
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion), errors.Is(err, ErrForeign):
		if refused, err = setAside(path, err); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, err
	}
	if d, err = create(); err != nil {
		return nil, nil, err
	}
	if err := use(d, nil); err != nil {
		d.Close()
		return nil, nil, err
	}
	return d, refused, nil
}

// setAside moves a directory away whose journal was refused, in place of one
// that was refused before, and makes another.
func setAside(path string, cause error) (*Refused, error) {
	kept := path + keptSuffix
	if err := os.RemoveAll(kept); err != nil {
		return nil, err
	}
	if err := os.Rename(path, kept); err != nil {
		return nil, err
	}
	return &Refused{Cause: cause, Kept: kept}, makeDir(path)
}

// Exists says whether a directory has a journal.
func Exists(path string) bool {
	_, err := os.Stat(filepath.Join(path, recordsName))
	return err == nil
}

// HasMemory says whether a directory has the memory of a journal, which may be
// elsewhere.
func HasMemory(path string) bool {
	_, err := os.Stat(filepath.Join(path, memoryName))
	return err == nil
}

// makeDir makes a directory for root alone. It must not be somebody else's: who
// can rename its files can choose the keys.
func makeDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: %v of user %d, want a directory of user %d for nobody else: %w",
			path, st.Mode(), sys.Uid, os.Geteuid(), syscall.EPERM)
	}
	return nil
}

func open(path string, owner Owner) (*Dir, []Record, error) {
	name := filepath.Join(path, recordsName)
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	d, records, err := read(path, file, owner)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return d, records, nil
}

func read(path string, file *os.File, owner Owner) (*Dir, []Record, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	data := make([]byte, st.Size())
	if _, err := file.ReadAt(data, 0); err != nil && st.Size() > 0 {
		return nil, nil, err
	}
	j, err := Decode(data)
	if err != nil {
		return nil, nil, err
	}
	if err := j.Owner.check(owner); err != nil {
		return nil, nil, err
	}
	memory, err := openMemory(filepath.Join(path, memoryName), j.Pair)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: its memory is missing", ErrCorrupt)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := reopen(volatile{}, filepath.Join(path, recordsName), file, j)
	if err != nil {
		memory.Close()
		return nil, nil, err
	}
	return &Dir{File: f, Memory: memory, path: path}, j.records(), nil
}

func (j *Journal) records() []Record {
	records := make([]Record, len(j.Entries))
	for i, e := range j.Entries {
		records[i] = e.Record
	}
	return records
}

// check says why a journal of o's is not now's.
func (o Owner) check(now Owner) error {
	switch {
	case o.Boot != now.Boot:
		return fmt.Errorf("%w: it was written before the machine was started, in boot %x", ErrForeign, o.Boot)
	case o.Inode != now.Inode, o.Cookie != now.Cookie && o.Cookie != 0 && now.Cookie != 0:
		return fmt.Errorf("%w: it is of network namespace %d with cookie %d, this is %d with cookie %d",
			ErrForeign, o.Inode, o.Cookie, now.Inode, now.Cookie)
	}
	return nil
}

func newHeader(owner Owner) Header {
	h := Header{Version: Version, Owner: owner}
	_, _ = rand.Read(h.Pair[:]) // never fails
	return h
}

// create makes an empty journal. The records come last: without them there is
// no journal.
func create(path string, owner Owner) (*Dir, error) {
	h := newHeader(owner)
	memory, err := createMemory(filepath.Join(path, memoryName), h.Pair)
	if err != nil {
		return nil, err
	}
	f, err := createFile(volatile{}, filepath.Join(path, recordsName), h, nil)
	if err != nil {
		memory.Close()
		return nil, err
	}
	return &Dir{File: f, Memory: memory, path: path}, nil
}

// Close gives the journal up and leaves it for the next to open. Who still
// looks at its memory dies.
func (d *Dir) Close() error {
	err := errors.Join(d.File.Close(), d.Memory.Close())
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// Remove removes a journal that was closed, when there is nothing left that it
// could restore. Of one that outlives the machine it removes the memory, which may
// still be looked at: the next to open it has to renew it.
func (d *Dir) Remove() error {
	var errs []error
	// In this order: without records there is no journal.
	for _, name := range []string{recordsName, memoryName} {
		if name == memoryName || d.lock == nil {
			errs = append(errs, os.Remove(filepath.Join(d.path, name)))
		}
	}
	return errors.Join(append(errs, os.Remove(d.path))...)
}

// ThisOwner is the calling process's network namespace in this boot of the
// machine.
func ThisOwner() (Owner, error) {
	var o Owner
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return o, fmt.Errorf("which boot is this: %w", err)
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) != len(o.Boot) {
		return o, fmt.Errorf("which boot is this: %q is no boot ID", text)
	}
	copy(o.Boot[:], id)
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return o, fmt.Errorf("which network namespace is this: %w", err)
	}
	o.Inode = st.Ino
	// An inode number is used again when a namespace is gone; a cookie never
	// is. Linux has them since 5.14.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return o, fmt.Errorf("which network namespace is this: %w", err)
	}
	defer unix.Close(fd)
	if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
		o.Cookie = cookie
	}
	return o, nil
}
