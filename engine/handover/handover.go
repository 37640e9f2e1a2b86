// Package handover is how one daemon takes over from another while the tunnels
// are up: over a Unix stream socket, the old one gives the new one what it has
// open, so that packets wait there instead of being lost, lets go of everything
// else, and waits until it hears that the new one serves.
//
//	new                           old
//	connects                 ──►
//	                         ◄──  a line with a name and a descriptor, for each
//	                         ◄──  an empty line
//	                              lets go of all that it has
//	                         ◄──  a line with "."
//	serves
//	a line with "."          ──►  ends
//
// Both end the connection if something goes wrong. Until the empty line, the old
// one goes on as if nothing had been. After it, whoever is left has to start
// anew.
package handover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/engine/peer"
)

// patience bounds the wait of either side for the other's next step.
const patience = 20 * time.Second

// Files are what one daemon gives to the other, by name. Names have no line
// feed in them and are not empty.
type Files map[string]*os.File

// Descriptors are files as they arrive: nothing has looked at them yet. A nil
// one has none. Its methods may be called concurrently.
type Descriptors struct {
	mu     sync.Mutex
	byName map[string]int
}

// Take returns a descriptor, which is the caller's then, or -1 if there is none
// with that name.
func (d *Descriptors) Take(name string) int {
	if d == nil {
		return -1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, ok := d.byName[name]
	if !ok {
		return -1
	}
	delete(d.byName, name)
	return fd
}

// Close closes those that nobody has taken.
func (d *Descriptors) Close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, fd := range d.byName {
		unix.Close(fd)
	}
	clear(d.byName)
}

// Listen makes the socket for successors. Only root and the daemon's own user
// can open it.
func Listen(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Until then, Accept sends others away all the same.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Predecessor is the old daemon's end of a connection.
type Predecessor struct{ conn *net.UnixConn }

// Accept waits for a successor: a program of root's or of the daemon's user.
// Others are sent away. It returns an error that wraps [net.ErrClosed] when l
// is closed.
func Accept(l *net.UnixListener) (*Predecessor, error) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		if uid, err := uidOf(conn); err != nil || !peer.Privileged(uid) {
			conn.Close()
			continue
		}
		return &Predecessor{conn}, nil
	}
}

func uidOf(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// Refuse tells the successor why it can't take over.
func (p *Predecessor) Refuse(why error) {
	_, _ = fmt.Fprintf(p.conn, "!%v\n", why)
	p.conn.Close()
}

// Give gives the successor the files, which stay open here. The old daemon must
// let go of the rest when it returns, even if it fails.
func (p *Predecessor) Give(files Files) error {
	_ = p.conn.SetDeadline(time.Now().Add(patience))
	for name, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var sendErr error
		// File.Fd would make the file one that blocks.
		if err := raw.Control(func(fd uintptr) {
			_, _, sendErr = p.conn.WriteMsgUnix([]byte(name+"\n"), unix.UnixRights(int(fd)), nil)
		}); err != nil {
			return err
		}
		if sendErr != nil {
			return sendErr
		}
	}
	_, err := p.conn.Write([]byte("\n"))
	return err
}

// Done tells the successor that everything is its own now, and waits until it
// serves. An error says that it does not, and that somebody else must.
func (p *Predecessor) Done() error {
	defer p.conn.Close()
	_ = p.conn.SetDeadline(time.Now().Add(patience))
	if _, err := p.conn.Write([]byte(".\n")); err != nil {
		return fmt.Errorf("the successor ended: %w", err)
	}
	line, err := bufio.NewReader(p.conn).ReadString('\n')
	if err != nil || line != ".\n" {
		return fmt.Errorf("the successor does not serve: %w", errors.Join(err, errLine(line)))
	}
	return nil
}

func errLine(line string) error {
	if line == "" {
		return nil
	}
	return fmt.Errorf("it says %q", line)
}

// Successor is the new daemon's end of a connection.
type Successor struct{ conn *net.UnixConn }

// Take connects to the daemon at path and takes its files, which are the
// caller's. Everything else is free when it returns. ECONNREFUSED or ENOENT:
// there is no daemon.
func Take(path string) (*Successor, *Descriptors, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	files := &Descriptors{byName: map[string]int{}}
	if err := receive(conn, files); err != nil {
		conn.Close()
		files.Close()
		return nil, nil, fmt.Errorf("take over from the running ipsecd: %w", err)
	}
	return &Successor{conn}, files, nil
}

// receive reads what the old daemon says, until it is done.
func receive(conn *net.UnixConn, files *Descriptors) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	var name []byte
	var pending []int // of the line that is being read
	defer func() {
		for _, fd := range pending {
			unix.Close(fd)
		}
	}()
	given := false
	for {
		b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if oobn > 0 {
			if pending, err = appendDescriptors(pending, oob[:oobn]); err != nil {
				return err
			}
		}
		if b[0] != '\n' {
			if name = append(name, b[0]); len(name) > 4096 {
				return errors.New("it says too much")
			}
			continue
		}
		switch {
		case len(name) > 0 && name[0] == '!':
			return errors.New(string(name[1:]))
		case len(name) == 0 && !given:
			given = true
		case given && string(name) == ".":
			return nil
		case given || len(pending) != 1:
			return fmt.Errorf("it says %q with %d files: %w", name, len(pending), syscall.EPROTO)
		default:
			if _, twice := files.byName[string(name)]; twice {
				return fmt.Errorf("it says %q twice: %w", name, syscall.EPROTO)
			}
			files.byName[string(name)] = pending[0]
			pending = nil
		}
		name = nil
	}
}

func appendDescriptors(to []int, oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return to, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return to, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			to = append(to, fd)
		}
	}
	return to, nil
}

// Serves tells the old daemon that the new one serves, and that it can end.
func (s *Successor) Serves() error {
	defer s.conn.Close()
	_, err := s.conn.Write([]byte(".\n"))
	return err
}

// Abandon tells the old daemon that the new one will not serve.
func (s *Successor) Abandon() { s.conn.Close() }
