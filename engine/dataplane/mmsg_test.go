package dataplane

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A port is free as soon as its socket is closed, although somebody waits for
// packets there: a script gives ports up and wants them again at once, and must
// not find them taken by its own past.
func TestClosingFreesThePort(t *testing.T) {
	t.Parallel()
	for name, six := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHosts(t, 1500, func(h int) error {
				for range 50 {
					s, err := bindUDP(kind{six, 4500})
					if err != nil {
						return err // the port is taken
					}
					r := udp{s, six}.receiver()
					go func() { _, _ = r.receive() }()
					time.Sleep(time.Millisecond) // it is better if it waits already
					if err := s.close(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// datagrams returns a socket to send by, and the descriptor at which what is sent
// arrives.
func datagrams(t *testing.T) (s *socket, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	if s, err = socketOf(fds[0], "a socket pair"); err != nil {
		t.Fatal(err)
	}
	return s, fds[1]
}

// tooMany is messages that no queue has room for.
func tooMany(s *socket) *messages {
	m := newMessages(s, 1000, 1)
	for i := range m.headers {
		m.setPiece(i, bytes.Repeat([]byte{byte(i)}, 1000))
	}
	return m
}

// Packets wait for room in a queue.
func TestFullSocketIsWaitedFor(t *testing.T) {
	t.Parallel()
	s, far := datagrams(t)
	m := tooMany(s)
	sent := make(chan error)
	go func() { sent <- m.sendAll(len(m.headers)) }()
	buf := make([]byte, 2000)
	for i := range m.headers {
		n, err := unix.Read(far, buf)
		if err != nil {
			t.Fatal(err)
		}
		if want := bytes.Repeat([]byte{byte(i)}, 1000); !bytes.Equal(buf[:n], want) {
			t.Fatalf("message %d is %d bytes beginning with %x, want %d of %x", i, n, buf[:1], len(want), want[:1])
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// A queue that nobody empties loses packets, and does not keep anybody.
func TestFullSocketIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	s, _ := datagrams(t)
	m := tooMany(s)
	err := m.sendAll(len(m.headers))
	last := m.errnos[len(m.errnos)-1]
	if !errors.Is(err, syscall.EAGAIN) || m.errnos[0] != 0 || last != syscall.EAGAIN {
		t.Errorf("%v, the first has %v, the last %v; want %v, 0, %[4]v", err, m.errnos[0], last, syscall.EAGAIN)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if err := m.sendAll(1); !errors.Is(err, os.ErrClosed) || m.errnos[0] != syscall.EBADF {
		t.Errorf("sent by a closed socket: %v, %v", err, m.errnos[0])
	}
}
