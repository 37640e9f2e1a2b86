package rundir

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InBackground says whether a command started this daemon and waits for it.
func InBackground() bool { return os.Getenv(readyEnv) != "" }

// readyEnv tells a daemon that a command started it and on which descriptor
// the command waits for one line: "ready", or why there will be no daemon.
const (
	readyEnv  = "IFIPSEC_READY_FD"
	readyFD   = 3
	readyLine = "ready"
)

// startTimeout bounds the wait for a daemon that neither answers nor ends.
const startTimeout = 10 * time.Second

// Dial calls dial, which connects to one of the daemon's sockets. If nobody
// listens there, it starts the daemon and calls dial again.
func Dial[C any](d Dir, dial func() (C, error)) (C, error) {
	conn, err := dial()
	if err == nil || !notRunning(err) {
		return conn, err
	}
	if err := d.Start(); err != nil {
		return conn, err
	}
	// Another command's daemon may have won the race and still be on its way.
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		conn, err = dial()
		if err == nil || !notRunning(err) || time.Now().After(deadline) {
			return conn, err
		}
	}
}

// Start starts the daemon and returns when its sockets accept, or when another
// daemon has this namespace. The program is the ipsecd beside the calling
// command, or else the one on PATH.
func (d Dir) Start() error {
	program, err := FindProgram("ipsecd")
	if err != nil {
		return fmt.Errorf("%w, and there is none to start beside this command or on PATH", ErrNotRunning)
	}
	err = d.start(program)
	if errors.Is(err, ErrLocked) {
		return nil
	}
	return err
}

// Replace starts this program with these arguments as a daemon that takes over
// from the one that runs, and returns when it serves.
func (d Dir) Replace(args ...string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return d.start(program, args...)
}

// start starts a daemon in the background and returns when its sockets accept.
// ErrLocked: another daemon has this namespace.
func (d Dir) start(program string, args ...string) error {
	log, err := d.log()
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w, and only root may start it: %w", ErrNotRunning, err)
	}
	if err != nil {
		return fmt.Errorf("start ipsecd: %w", err)
	}
	defer log.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start ipsecd: %w", err)
	}
	defer ready.Close()

	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", readyEnv, readyFD))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{tell} // becomes readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What a script has open beyond standard error, such as a lock, is not for
	// the daemon to hold. (Linux before 5.11 can't do that.)
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return fmt.Errorf("start ipsecd: %w", err)
	}
	// Reaped if it ends before this command does; init's afterwards.
	go cmd.Wait()

	_ = ready.SetReadDeadline(time.Now().Add(startTimeout))
	line, err := bufio.NewReader(ready).ReadString('\n')
	switch line = strings.TrimSpace(line); {
	case line == readyLine:
		return nil
	case line == ErrLocked.Error():
		return ErrLocked
	case line != "":
		return fmt.Errorf("ipsecd did not start: %s", line)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("ipsecd did not start within %v; its log is %s", startTimeout, d.LogFile())
	default:
		return fmt.Errorf("ipsecd ended before it was ready; its log is %s", d.LogFile())
	}
}

// log opens the daemon's log, in its directory, which it makes.
func (d Dir) log() (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(d.LogFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// FindProgram finds one of the project's programs: beside the program that runs,
// or else on PATH.
func FindProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), name)
			if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return beside, nil
			}
		}
	}
	return exec.LookPath(name)
}

// Report tells the command that started this process, if one did, how the
// start went: nil when the sockets accept, else why not. The daemon calls it
// once.
func Report(err error) {
	if os.Getenv(readyEnv) == "" {
		return
	}
	os.Unsetenv(readyEnv)
	f := os.NewFile(readyFD, "ready")
	if f == nil {
		return
	}
	defer f.Close()
	line := readyLine
	if err != nil {
		line = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	// A command that did not wait is not the daemon's problem.
	_, _ = fmt.Fprintln(f, line)
}
