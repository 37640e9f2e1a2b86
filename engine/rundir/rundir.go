// Package rundir knows where the daemon of a network namespace has its
// sockets and its lock, and starts the daemon when a command needs it and none
// runs.
//
// A daemon belongs to one network namespace, as a kernel's IPsec does, although
// several namespaces may share one /run. Its directory is therefore named after
// the namespace's identity:
//
//	/run/ifipsec/net-4026531840/control    ifconfig's socket
//	/run/ifipsec/net-4026531840/pfkey      the PF_KEYv2 socket
//	/run/ifipsec/net-4026531840/lock       held by the daemon while it lives
//	/run/ifipsec/net-4026531840/log        what a daemon says that a command started
//	/run/ifipsec/net-4026531840/state-dir  leads to what outlives the machine, if anything does
//
// An inode number is not used again for another namespace while a daemon keeps
// the namespace alive, so a held lock always means a daemon of this namespace.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BaseEnv names the environment variable that holds another directory than
// /run/ifipsec, for those who may not write there.
const BaseEnv = "IFIPSEC_RUN_DIR"

// ErrNotRunning says that there is no daemon.
var ErrNotRunning = errors.New("no ipsecd runs in this network namespace")

// ErrLocked is returned by [Dir.Lock] when a daemon of this namespace runs.
var ErrLocked = errors.New("another ipsecd runs in this network namespace")

// Dir is the run directory of one network namespace.
type Dir string

// Current returns the run directory of the calling process's network
// namespace. It does not create it.
func Current() (Dir, error) {
	base := os.Getenv(BaseEnv)
	if base == "" {
		base = "/run/ifipsec"
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return "", fmt.Errorf("which network namespace is this: /proc/self/ns/net: %w", err)
	}
	return Dir(filepath.Join(base, fmt.Sprintf("net-%d", st.Ino))), nil
}

// Control is the path of ifconfig's socket.
func (d Dir) Control() string { return filepath.Join(string(d), "control") }

// PFKey is the path of the PF_KEYv2 socket.
func (d Dir) PFKey() string { return filepath.Join(string(d), "pfkey") }

// LogFile is the path of the log of a daemon that a command started.
func (d Dir) LogFile() string { return filepath.Join(string(d), "log") }

// Handover is the path of the socket for a daemon that takes over from another.
func (d Dir) Handover() string { return filepath.Join(string(d), "handover") }

// State is the directory of what outlives the daemon's process.
func (d Dir) State() string { return filepath.Join(string(d), "state") }

// permanentLink leads to the directory of what outlives the machine, if there is
// one.
func (d Dir) permanentLink() string { return filepath.Join(string(d), "state-dir") }

// Permanent is the directory of what outlives the machine that the daemon of this
// namespace has, or had that died; empty if there is none.
func (d Dir) Permanent() (string, error) {
	path, err := os.Readlink(d.permanentLink())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return path, err
}

// ChoosePermanent is [Dir.Permanent] for a daemon that was told to have that
// directory, if path is not empty. EEXIST: the daemon before had another one.
func (d Dir) ChoosePermanent(path string) (string, error) {
	before, err := d.Permanent()
	if err == nil && path != "" && before != "" && path != before {
		err = fmt.Errorf("the state is in %s, and can't be moved to %s: %w", before, path, syscall.EEXIST)
	}
	if before == "" {
		before = path
	}
	return before, err
}

// KeepPermanent has the next daemon have that directory, if this one, which has the
// lock, dies.
func (d Dir) KeepPermanent(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Symlink(path, d.permanentLink()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d Dir) lockFile() string { return filepath.Join(string(d), "lock") }

// Lock makes the directory and takes its lock for the daemon's life. It returns
// [ErrLocked] if another daemon has it. What a killed daemon left in the
// directory is removed.
func (d Dir) Lock() (*Lock, error) {
	f, err := d.flock()
	// The directory goes with the daemon that had it, maybe just now.
	for errors.Is(err, fs.ErrNotExist) {
		// MkdirAll fails with EEXIST if the directory goes while it looks.
		if err := os.MkdirAll(string(d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = d.flock()
	}
	if err != nil {
		return nil, err
	}
	for _, stale := range []string{d.Control(), d.PFKey(), d.Handover()} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Close()
			return nil, err
		}
	}
	return &Lock{dir: d, file: f}, nil
}

// flock locks the lock file. A daemon that ends removes the file, so the file
// that was locked may no longer be the one that has the name: then once more.
func (d Dir) flock() (*os.File, error) {
	for {
		f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, fmt.Errorf("lock %s: %w", d.lockFile(), err)
		}
		held, err1 := f.Stat()
		named, err2 := os.Stat(d.lockFile())
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return f, nil
		}
		f.Close()
	}
}

// Lock is the daemon's hold on its run directory.
type Lock struct {
	dir  Dir
	file *os.File
}

// Release removes what the daemon had in its run directory and gives up the
// lock. The lock file goes last, and the directory only if it is empty then:
// the next daemon may already be on its way.
func (l *Lock) Release() error {
	var errs []error
	for _, path := range []string{l.dir.Control(), l.dir.PFKey(), l.dir.Handover(), l.dir.LogFile(), l.dir.permanentLink(), l.dir.lockFile()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(string(l.dir)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, l.file.Close())...)
}

// Leave gives up the lock and leaves the directory to the next daemon, which is
// on its way.
func (l *Lock) Leave() error { return l.file.Close() }

// Stop ends the daemon of this namespace with SIGTERM and waits until it has
// let go of its lock. It returns [ErrNotRunning] if none runs.
func (d Dir) Stop(timeout time.Duration) error {
	pid, err := d.pid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end ipsecd (process %d): %w", pid, err)
	}
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		f, err := d.flock()
		switch {
		case err == nil:
			// The daemon was killed before it could tidy up.
			return (&Lock{dir: d, file: f}).Release()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		}
	}
	return fmt.Errorf("ipsecd (process %d) did not end within %v", pid, timeout)
}

// pid asks the kernel who listens on the control socket: unlike a file with a
// number in it, that can't be stale.
func (d Dir) pid() (int, error) {
	fd, err := connect(d.Control())
	if err != nil {
		if notRunning(err) {
			return 0, ErrNotRunning
		}
		return 0, err
	}
	defer unix.Close(fd)
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	if cred.Pid == 0 {
		return 0, errors.New("ipsecd runs in a PID namespace that can't be seen from here")
	}
	return int(cred.Pid), nil
}

func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "connect", Path: path, Err: err}
	}
	return fd, nil
}

// notRunning reports whether an error of connecting means that nobody listens:
// there is no socket, or a killed daemon left it behind.
func notRunning(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}
