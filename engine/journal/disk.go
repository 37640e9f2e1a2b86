package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is the file system with a journal's files.
type disk interface {
	// create makes a file in place of any that has the name.
	create(name string) (storage, error)
	remove(name string)
	// durable says whether what is synced outlives the machine.
	durable() bool
	// sync returns when everything that was written to a file is there to stay.
	sync(storage) error
	// rename gives a file another name, likewise.
	rename(from, to string) error
}

// storage is an open file.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// volatile is the file system of a journal that outlives the process only: what
// the kernel has is kept.
type volatile struct{}

func (volatile) create(name string) (storage, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (volatile) remove(name string)           { os.Remove(name) }
func (volatile) durable() bool                { return false }
func (volatile) sync(storage) error           { return nil }
func (volatile) rename(from, to string) error { return os.Rename(from, to) }

// permanent is that of a journal that outlives the machine.
type permanent struct{ volatile }

func (permanent) durable() bool { return true }

func (permanent) sync(s storage) error {
	f, ok := s.(*os.File)
	if !ok {
		return fmt.Errorf("no file: %w", errors.ErrUnsupported)
	}
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (permanent) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// syncDir returns when the names in a directory are on the disk.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
