package keysock

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
)

// Conn is a client's connection to the daemon. One goroutine may send while
// another receives.
type Conn struct {
	conn *net.UnixConn
	path string
	buf  []byte
}

// Dial connects to the daemon's socket. An error names the path and wraps
// ENOENT or ECONNREFUSED if no daemon listens there, EACCES if the caller may
// not connect.
func Dial(path string) (*Conn, error) {
	conn, err := net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		return nil, err // says the path
	}
	return &Conn{conn: conn, path: path, buf: make([]byte, maxRecord)}, nil
}

// Send sends one message. EPIPE and ECONNRESET say that the daemon has ended
// the connection, EINVAL that the message cannot be encoded.
func (c *Conn) Send(m *pfkey.Message) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	if len(b) > maxRecord {
		return c.failure(fmt.Errorf("%s message of %d bytes, the most is %d: %w", m.Type, len(b), maxRecord, syscall.EMSGSIZE))
	}
	if _, err := c.conn.Write(b); err != nil {
		return c.failure(err)
	}
	return nil
}

// Receive waits for the next message, which may be an answer, with an errno in
// it or not, or what the daemon tells to all or to those who registered. The
// error is [io.EOF] when the daemon ended the connection.
func (c *Conn) Receive() (*pfkey.Message, error) {
	n, _, flags, _, err := c.conn.ReadMsgUnix(c.buf, nil)
	if err != nil {
		return nil, c.failure(err)
	}
	if flags&syscall.MSG_TRUNC != 0 {
		return nil, c.failure(fmt.Errorf("message of over %d bytes: %w", maxRecord, syscall.EMSGSIZE))
	}
	m, err := pfkey.Decode(c.buf[:n])
	clear(c.buf[:n]) // there may have been keys in it
	if err != nil {
		return nil, c.failure(err)
	}
	return m, nil
}

// SetDeadline bounds the waiting of Send and Receive; the zero time is none.
// When it is over they return [os.ErrDeadlineExceeded].
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Close ends the connection, and what waits in Send or Receive with it.
func (c *Conn) Close() error { return c.conn.Close() }

func (c *Conn) failure(err error) error { return fmt.Errorf("PF_KEY socket %s: %w", c.path, err) }
