// Package lab makes hosts out of namespaces, for tests and demonstrations: each
// has its own network, its own processes, its own /run and its own name, and
// shares the rest of the file system with the machine.
//
// Nothing in a lab can outlive the process that made it, not even when that
// process is killed with SIGKILL: a host's first process ends when its maker
// does, and the kernel then ends every process of the host and takes the
// network namespace, its links and its /run with them. No namespace has a name
// and no link is ever in the machine's own network, so any number of labs can
// exist at once.
//
// The first process of a host is the maker's own program, run once more. That
// is why main, or TestMain, must begin with [Init].
package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is a machine of its own, as far as network, processes, /run and name
// go. Its methods can be called from several goroutines at once, but Env must
// not change meanwhile.
type Host struct {
	// Name is the host's name, which is also what uname -n prints there.
	Name string
	// Env is what commands find in their environment, as os.Environ has it. It
	// is the maker's at first.
	Env []string

	init       *exec.Cmd
	alive      *os.File // the host ends when this is closed
	namespaces map[int]*os.File
}

// Available returns nil if hosts can be made here, else an error that says why
// not.
func Available() error {
	h, err := New("probe")
	if err != nil {
		return err
	}
	return h.Close()
}

// New makes a host without links. Its loopback interface is up.
func New(name string) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

func newHost(name string) (_ *Host, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make namespaces, and this is not root")
	}
	died, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer died.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		alive.Close()
		return nil, err
	}
	defer ready.Close()

	init := exec.Command("/proc/self/exe")
	init.Env = append(os.Environ(), initEnv+"="+name)
	init.Stdin = died
	init.Stderr = os.Stderr
	init.ExtraFiles = []*os.File{tell} // becomes readyFD
	init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
	}
	err = init.Start()
	tell.Close()
	if err != nil {
		alive.Close()
		return nil, err
	}
	host := &Host{Name: name, Env: os.Environ(), init: init, alive: alive, namespaces: make(map[int]*os.File)}
	defer func() {
		if err != nil {
			err = errors.Join(err, host.Close())
		}
	}()
	line, err := io.ReadAll(ready)
	if err != nil {
		return nil, err
	}
	if string(line) != readyLine {
		if len(line) == 0 {
			return nil, errors.New("its first process ended at once: does main or TestMain begin with lab.Init?")
		}
		return nil, errors.New(string(line))
	}
	for kind, file := range map[int]string{
		unix.CLONE_NEWPID: "pid", unix.CLONE_NEWNET: "net", unix.CLONE_NEWNS: "mnt", unix.CLONE_NEWUTS: "uts",
	} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", init.Process.Pid, file))
		if err != nil {
			return nil, err
		}
		host.namespaces[kind] = f
	}
	return host, nil
}

// Close ends the host with everything in it, and returns when all of it is
// gone. A second Close does nothing.
func (h *Host) Close() error {
	if h.alive == nil {
		return nil
	}
	h.alive.Close()
	h.alive = nil
	for _, f := range h.namespaces {
		f.Close()
	}
	// The kernel kills every other process of the host with the first, and lets
	// nobody reap the first before it has reaped the others.
	if err := h.init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var killed *exec.ExitError
	if err := h.init.Wait(); err != nil && !errors.As(err, &killed) {
		return err
	}
	return nil
}

// PID is the process ID of the host's first process, as the maker sees it.
func (h *Host) PID() int { return h.init.Process.Pid }

// Process is a process of a host.
type Process struct {
	PID  int    // as the maker of the host sees it
	Name string // the first 15 bytes of the program's name
}

// Processes lists the host's processes, without its first.
func (h *Host) Processes() ([]Process, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.PID()))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == h.PID() {
			continue
		}
		// A process that ends meanwhile is not there, which is right.
		if in, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || in != ns {
			continue
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue
		}
		all = append(all, Process{PID: pid, Name: strings.TrimSpace(string(comm))})
	}
	return all, nil
}

// Path returns how the maker of the host gets at a file of the host's, such as
// one in its /run.
func (h *Host) Path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.PID(), file)
}
