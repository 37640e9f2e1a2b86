package lab

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f in the host's network namespace, for netlink and sockets. A socket
// that f makes stays in that namespace when f has returned. Goroutines that f
// starts are not in it.
func (h *Host) Do(f func() error) error {
	return h.inside(f, unix.CLONE_NEWNET)
}

// inside runs f on a thread that has entered the host's namespaces of the given
// kinds. The thread ends with f: a namespace is entered, but never left.
func (h *Host) inside(f func() error, kinds ...int) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The runtime can't end the main thread. It is occupied until
			// another one has done the work.
			defer runtime.UnlockOSThread()
			done <- h.inside(f, kinds...)
			return
		}
		done <- h.enter(f, kinds)
	}()
	return <-done
}

func (h *Host) enter(f func() error, kinds []int) error {
	// The kernel lets a thread that shares its root and working directory with
	// others into no mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter host %s: unshare: %w", h.Name, err)
	}
	for _, kind := range kinds {
		if err := unix.Setns(int(h.namespaces[kind].Fd()), kind); err != nil {
			return fmt.Errorf("enter host %s: setns %#x: %w", h.Name, kind, err)
		}
	}
	return f()
}
