// Package keysock carries PF_KEYv2 messages between a key.Handler and the
// programs that manage keys: over a Unix socket of type SOCK_SEQPACKET, one
// record a message, which is what a PF_KEY socket of the kernel's is to its
// user.
package keysock

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const network = "unixpacket"

const (
	// maxRecord is the size in bytes of the largest message that either side
	// takes. Nothing that PF_KEY is for comes near it.
	maxRecord = 64 << 10

	// sendBuffer is what the kernel may hold for one reader, in bytes with its
	// own overhead: some thousands of messages.
	sendBuffer = 4 << 20
)

// Listen makes the daemon's socket, to which only the user who runs the daemon,
// and root, may connect.
func Listen(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// control runs f on the descriptor of a connection. Unlike a write, it does not
// wait for another goroutine's write to end.
func control(conn *net.UnixConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// setSendBuffer makes the send buffer as large as is allowed.
func setSendBuffer(fd int) error {
	// Beyond net.core.wmem_max it takes CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
}
