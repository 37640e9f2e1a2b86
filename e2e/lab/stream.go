package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Stream sends n random bytes in one TCP connection from one host to an address
// of another, and returns how long that took. It returns an error unless the
// other end read the same n bytes, which a checksum tells.
func Stream(ctx context.Context, from, to *Host, addr netip.Addr, n int64) (time.Duration, error) {
	took, err := stream(ctx, from, to, addr, n)
	if err != nil {
		return took, fmt.Errorf("TCP stream of %d bytes from %s to %s %s: %w", n, from.Name, to.Name, addr, err)
	}
	return took, nil
}

func stream(ctx context.Context, from, to *Host, addr netip.Addr, n int64) (time.Duration, error) {
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer listener.Close()

	type received struct {
		n   int64
		sum []byte
		err error
	}
	result := make(chan received, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			result <- received{err: err}
			return
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		hash := sha256.New()
		n, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{conn}, make([]byte, 1<<18))
		result <- received{n, hash.Sum(nil), err}
	}()

	start := time.Now()
	var conn net.Conn
	err = from.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	hash := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{}), n)
	if _, err := io.CopyBuffer(io.MultiWriter(conn, hash), source, make([]byte, 1<<18)); err != nil {
		return 0, errors.Join(err, ctx.Err())
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	select {
	case got := <-result:
		switch {
		case got.err != nil:
			return 0, errors.Join(got.err, ctx.Err())
		case got.n != n:
			return 0, fmt.Errorf("%d bytes arrived", got.n)
		case !bytes.Equal(got.sum, hash.Sum(nil)):
			return 0, errors.New("what arrived has another checksum")
		}
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// SendUDP sends one datagram from the host to dst. The source port is the
// system's choice.
func (h *Host) SendUDP(dst netip.AddrPort, payload []byte) error {
	err := h.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(payload)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: UDP to %s: %w", h.Name, dst, err)
	}
	return nil
}

// ListenUDP opens a UDP socket at an address of the host; port 0 is the
// system's choice.
func (h *Host) ListenUDP(addr netip.AddrPort) (conn *net.UDPConn, err error) {
	err = h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: UDP at %s: %w", h.Name, addr, err)
	}
	return conn, nil
}
