package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/engine/peer"
)

// partingTimeout is how long a client may take to read its last response when
// the daemon ends.
const partingTimeout = time.Second

// Listen makes the daemon's socket. Everybody may connect; what they may ask
// for is decided for each request.
func Listen(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers requests with h until ctx ends, then closes l, waits for the
// requests that h is at, and returns nil. Requests reach h checked for what
// needs no knowledge of interfaces: an MTU is in its range, addresses are of
// one family, and so on.
func Serve(ctx context.Context, l *net.UnixListener, h Handler, log *slog.Logger) error {
	s := server{
		handler:     h,
		log:         log,
		credentials: peerCredentials,
		idleTimeout: time.Minute,
		users:       peer.Crowd[uint32]{Most: 128, Each: 32},
		processes:   peer.Crowd[int32]{Most: 256, Each: 64},
	}
	return s.serve(ctx, l)
}

// server is what the connections of one Serve share.
type server struct {
	handler     Handler
	log         *slog.Logger
	credentials func(*net.UnixConn) (*unix.Ucred, error)

	idleTimeout time.Duration      // for a request to arrive, or a response to leave
	users       peer.Crowd[uint32] // the connections of the unprivileged, by user
	processes   peer.Crowd[int32]  // those of the privileged, by process
}

func (s *server) serve(ctx context.Context, l *net.UnixListener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
			conns.Go(func() { s.converse(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("control socket: %w", err)
		default:
			// Out of file descriptors, most likely: others will end.
			s.log.Warn("control socket", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// converse serves one connection.
func (s *server) converse(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	// The end of ctx stops the wait for a request and for a client that does not
	// read, not the work at a request.
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseRead()
		_ = conn.SetWriteDeadline(time.Now().Add(partingTimeout))
	})()
	cred, err := s.credentials(conn)
	if err != nil {
		s.log.Warn("control connection", "error", err)
		return
	}
	privileged := peer.Privileged(cred.Uid)
	leave, err := s.admit(cred, privileged)
	if err != nil {
		_ = s.respond(ctx, conn, failure(err))
		return
	}
	defer leave()
	r := bufio.NewReader(conn)
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(time.Now().Add(s.idleTimeout)); err != nil {
			return
		}
		line, err := readLine(r, maxRequest)
		if err != nil {
			if errors.Is(err, errTooLong) {
				_ = s.respond(ctx, conn, failure(fmt.Errorf("request of over %d bytes: %w", maxRequest, syscall.EMSGSIZE)))
			} else if !errors.Is(err, io.EOF) {
				s.log.Debug("control connection", "pid", cred.Pid, "uid", cred.Uid, "error", err)
			}
			return
		}
		if err := s.respond(ctx, conn, s.answer(line, privileged, cred)); err != nil {
			return
		}
	}
}

// answer does what one request asks for.
func (s *server) answer(line []byte, privileged bool, cred *unix.Ucred) response {
	var q request
	if err := decode(line, &q); err != nil {
		return failure(err)
	}
	op, ok := operations[q.Op]
	if !ok {
		return failure(fmt.Errorf("unknown request %.40q: %w", q.Op, syscall.EOPNOTSUPP))
	}
	if op.changes && !privileged {
		return failure(fmt.Errorf("%s: user %d is not root: %w", q.Op, cred.Uid, syscall.EPERM))
	}
	result, err := op.call(s.handler, q.Args)
	if op.changes {
		s.log.Debug("control request", "op", q.Op, "args", string(q.Args), "pid", cred.Pid, "uid", cred.Uid, "error", err)
	}
	if err != nil {
		return failure(err)
	}
	body, err := json.Marshal(result)
	if err != nil {
		return failure(err)
	}
	if len(body) > maxResponse/2 {
		return failure(fmt.Errorf("%s: the answer has %d bytes: %w", q.Op, len(body), syscall.EMSGSIZE))
	}
	return response{Result: body}
}

func (s *server) respond(ctx context.Context, conn *net.UnixConn, r response) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(s.idleTimeout)); err != nil {
		return err
	}
	// Looked at after the deadline was set, so that the end of ctx shortens it
	// whether it comes before or after.
	if ctx.Err() != nil {
		if err := conn.SetWriteDeadline(time.Now().Add(partingTimeout)); err != nil {
			return err
		}
	}
	_, err = conn.Write(append(line, '\n'))
	return err
}

// admit counts a connection, so that nobody takes all of the daemon's file
// descriptors.
func (s *server) admit(cred *unix.Ucred, privileged bool) (leave func(), err error) {
	if privileged {
		return func() { s.processes.Leave(cred.Pid) }, s.processes.Enter(cred.Pid, fmt.Sprintf("process %d", cred.Pid))
	}
	return func() { s.users.Leave(cred.Uid) }, s.users.Enter(cred.Uid, fmt.Sprintf("user %d", cred.Uid))
}

// peerCredentials asks the kernel who connected.
func peerCredentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}
