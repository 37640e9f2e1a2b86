package keysock

import (
	"context"
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

	"ifipsec/engine/key"
	"ifipsec/engine/peer"
	"ifipsec/engine/pfkey"
)

// Serve answers messages with h until ctx ends, then closes l and all
// connections, waits for what was begun, and returns nil. Each connection is a
// session of h.
//
// A connection has one goroutine, which answers a message before it reads the
// next. What others cause to be told goes straight into the socket's buffer; a
// reader that lets the buffer fill up misses it, as on a BSD. For its own
// answers the reader is waited for, so that a dump is whole, but not for ever.
func Serve(ctx context.Context, l *net.UnixListener, h *key.Handler, log *slog.Logger) error {
	s := server{
		handler:     h,
		log:         log,
		credentials: peerCredentials,
		patience:    time.Minute,
		crowd:       peer.Crowd[int32]{Most: 256, Each: 64},
	}
	return s.serve(ctx, l)
}

// server is what the connections of one Serve share.
type server struct {
	handler     *key.Handler
	log         *slog.Logger
	credentials func(fd int) (*unix.Ucred, error)

	patience time.Duration     // for a reader to take one answer
	crowd    peer.Crowd[int32] // the connections, by process
}

// refusals is how many connections may be told at one time that they are
// refused; those beyond it are just closed.
const refusals = 16

func (s *server) serve(ctx context.Context, l *net.UnixListener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	refused := make(chan struct{}, refusals)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("PF_KEY socket: %w", err)
		default:
			// Out of file descriptors, most likely: others will end.
			s.log.Warn("PF_KEY socket", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		c := &connection{conn: conn, log: s.log, patience: s.patience}
		serve, leave := s.converse, func() { s.crowd.Leave(c.pid) }
		if why := s.admit(c); why != nil {
			select {
			case refused <- struct{}{}:
			default:
				conn.Close()
				continue
			}
			// Who floods the socket does not flood the log too.
			c.log.Warn("PF_KEY connection refused", "error", why)
			serve, leave = func(c *connection) { c.refuse(why) }, func() { <-refused }
		}
		conns.Go(func() {
			defer leave()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			serve(c)
		})
	}
}

// admit counts a connection among those served, or says why it must not be.
func (s *server) admit(c *connection) error {
	var cred *unix.Ucred
	err := control(c.conn, func(fd int) (err error) {
		if err := setSendBuffer(fd); err != nil {
			return err
		}
		cred, err = s.credentials(fd)
		return err
	})
	if err != nil {
		return err
	}
	c.log = c.log.With("pid", cred.Pid, "uid", cred.Uid)
	if !peer.Privileged(cred.Uid) {
		return fmt.Errorf("user %d is not root: %w", cred.Uid, syscall.EPERM)
	}
	c.pid = cred.Pid
	return s.crowd.Enter(c.pid, fmt.Sprintf("process %d", c.pid))
}

// peerCredentials asks the kernel who connected.
func peerCredentials(fd int) (*unix.Ucred, error) {
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}

// converse serves one connection to its end.
func (s *server) converse(c *connection) {
	session := s.handler.Open(c.tell)
	defer session.Close()
	buf := make([]byte, maxRecord)
	for {
		m, err := c.receive(buf)
		switch {
		case m == nil && err == nil: // nothing to reply to
			continue
		case err != nil && m == nil:
			c.ended(err)
			return
		case err != nil:
			err = c.answer(key.Failure(m, err))
		default:
			for answer := range session.Handle(m) {
				err = c.answer(answer)
				wipe(answer)
				if err != nil {
					break
				}
			}
			wipe(m)
		}
		if err != nil {
			c.ended(err)
			return
		}
	}
}

// wipe overwrites the keys in a message that nobody needs any more.
func wipe(m *pfkey.Message) {
	for _, e := range m.Exts {
		if k, ok := e.(*pfkey.Key); ok {
			clear(k.Key)
		}
	}
}

// connection is one client as the daemon sees it.
type connection struct {
	conn     *net.UnixConn
	log      *slog.Logger
	pid      int32 // of the process that connected
	patience time.Duration
	missed   sync.Once
}

// receive reads a message. With an error that the message is to blame for it
// returns the message's header; with neither error nor message, what arrived
// had no header.
func (c *connection) receive(buf []byte) (*pfkey.Message, error) {
	n, _, flags, _, err := c.conn.ReadMsgUnix(buf, nil)
	if err != nil {
		return nil, err
	}
	defer clear(buf[:n]) // there may have been keys in it
	m, err := pfkey.Decode(buf[:n])
	if flags&unix.MSG_TRUNC != 0 {
		err = fmt.Errorf("message of over %d bytes: %w", maxRecord, syscall.EMSGSIZE)
	}
	if err != nil {
		c.log.Debug("PF_KEY message refused", "error", err)
	}
	if m == nil {
		return nil, nil
	}
	return m, err
}

// answer sends a message to the client, who is waited for while his buffer is
// full.
func (c *connection) answer(m *pfkey.Message) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	defer clear(b) // there may be keys in it
	if err := c.offer(b); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return err
	}
	_, err = c.conn.Write(b)
	return err
}

// tell sends a message that the client did not ask for, unless his buffer is
// full. It never waits.
func (c *connection) tell(m *pfkey.Message) {
	b, err := m.Encode()
	if err == nil {
		err = c.offer(b)
		clear(b)
	}
	switch {
	case err == nil, errors.Is(err, net.ErrClosed), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
	case errors.Is(err, unix.EAGAIN):
		c.missed.Do(func() { c.log.Warn("a PF_KEY client does not read and misses messages", "first", m.Type.String()) })
	default:
		c.log.Warn("PF_KEY message not sent", "type", m.Type.String(), "error", err)
	}
}

// offer puts a record into the client's buffer. EAGAIN: it is full.
func (c *connection) offer(b []byte) error {
	return control(c.conn, func(fd int) error {
		return unix.Send(fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
}

// refuse answers the client's first message with an error, which every PF_KEY
// program reports, where a connection that just ends would tell it nothing.
func (c *connection) refuse(why error) {
	if c.conn.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	var buf [1 << 10]byte
	if m, _ := c.receive(buf[:]); m != nil {
		_ = c.answer(key.Failure(m, why))
	}
}

// ended notes why a connection ended, if that is of interest.
func (c *connection) ended(err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Warn("a PF_KEY client does not read its answers, so its connection ends")
	default:
		c.log.Warn("PF_KEY connection", "error", err)
	}
}
