package lab

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// initEnv makes a program the first process of the host that it names.
const initEnv = "IFIPSEC_LAB_INIT"

// On readyFD the first process says readyLine, or why there will be no host.
const (
	readyFD   = 3
	readyLine = "ready"
)

// Init must be the first thing that main, or TestMain, of a program does that
// uses this package. In the process that the user started it does nothing. In
// the one that [New] started it is the host's first process and does not
// return.
func Init() {
	name, ok := os.LookupEnv(initEnv)
	if !ok {
		return
	}
	ready := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	err := setUp(name)
	if err == nil {
		_, err = io.WriteString(ready, readyLine)
	}
	if err != nil {
		// If nobody reads it, nobody needs the host.
		_, _ = io.WriteString(ready, err.Error())
		os.Exit(1)
	}
	ready.Close()
	go reap()
	// The other end is closed by Close, or by the kernel when the maker dies.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// setUp makes a machine of the new namespaces: a name, a /proc of its own
// processes, an empty /run, and a loopback interface.
func setUp(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %q: %w", name, err)
	}
	// What is mounted here must not appear on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}

// reap reaps the orphans that every PID namespace leaves to its first process.
func reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
				break
			}
		}
	}
}
