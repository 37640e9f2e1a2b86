package rundir

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/engine/peer"
)

// claimName is in the abstract namespace of Unix sockets, of which every network
// namespace has one of its own.
const claimName = "@ifipsec"

// claimNetwork is of connections, so that SO_PEERCRED says who has the name.
const claimNetwork = "unixpacket"

// Claim is a daemon's hold on its network namespace.
type Claim struct{ listener *net.UnixListener }

// TakeNamespace makes the calling process the daemon of its network namespace,
// until [Claim.Release] or its end. [Dir.Lock] does that too for those who agree
// on the directory; this is about those who don't: containers with one network
// and a /run each, or a directory that somebody removed under a daemon.
//
// An error says which process has the namespace and wraps EADDRINUSE. Everybody
// can take a name, so a name that the privileged don't have proves nothing: then
// there is an error of type [*StrangerError], and no reason not to go on.
func TakeNamespace() (*Claim, error) {
	for deadline := time.Now().Add(dyingTimeout); ; time.Sleep(5 * time.Millisecond) {
		claim, err := takeNamespace()
		if err == nil || time.Now().After(deadline) {
			return claim, err
		}
	}
}

// dyingTimeout is for a daemon that was killed, of which the kernel has not yet
// closed everything.
const dyingTimeout = 300 * time.Millisecond

func takeNamespace() (*Claim, error) {
	addr := &net.UnixAddr{Name: claimName, Net: claimNetwork}
	l, err := net.ListenUnix(claimNetwork, addr)
	if err == nil {
		go answer(l)
		return &Claim{l}, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, err
	}
	holder, err := holderOf(addr)
	if err != nil {
		// He is just going, or he does not answer, as a daemon does.
		return nil, &StrangerError{Err: err}
	}
	if !peer.Privileged(holder.Uid) {
		return nil, &StrangerError{PID: int(holder.Pid), UID: int(holder.Uid)}
	}
	return nil, fmt.Errorf("%w, and its sockets are elsewhere (process %d): %w", ErrLocked, holder.Pid, syscall.EADDRINUSE)
}

// StrangerError says that somebody has a daemon's name who can't be one.
type StrangerError struct {
	PID, UID int
	Err      error // nil: PID and UID are known
}

// Error says who has the name.
func (e *StrangerError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the Unix socket %s is in use: %v", claimName, e.Err)
	}
	return fmt.Sprintf("the Unix socket %s is in use by user %d (process %d)", claimName, e.UID, e.PID)
}

// Unwrap returns why it is not known who has the name.
func (e *StrangerError) Unwrap() error { return e.Err }

// answer lets those who ask see who has the name.
func answer(l *net.UnixListener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
}

func holderOf(addr *net.UnixAddr) (*unix.Ucred, error) {
	// Without waiting, which a stranger could make long.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: addr.Name}); err != nil {
		return nil, err
	}
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}

// Release gives the namespace up. A nil claim is none.
func (c *Claim) Release() error {
	if c == nil {
		return nil
	}
	return c.listener.Close()
}
