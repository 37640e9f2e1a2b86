package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// lastAnswer is how long a connection is waited for that is to end.
const lastAnswer = time.Minute

// pace calls f for every part of a second that a rate of n allows, until stop
// is closed or f returns an error. f gets how many are due.
func pace(rate int, stop <-chan struct{}, f func(due int) error) error {
	const interval = 5 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	start, done := time.Now(), 0
	for {
		select {
		case <-stop:
			return nil
		case <-ticker.C:
		}
		due := int(time.Since(start).Seconds()*float64(rate)) - done
		// What could not be sent in time is not made up for.
		most := max(1, rate/20)
		done += max(due-most, 0)
		if due = min(due, most); due <= 0 {
			continue
		}
		if err := f(due); err != nil {
			return err
		}
		done += due
	}
}

// Connection is a TCP connection that carries random bytes until it is stopped.
type Connection struct {
	stop chan struct{}
	end  func() (int64, error)
}

// StartConnection connects one host to an address of another and sends rate
// bytes a second.
func StartConnection(from, to *Host, addr netip.Addr, rate int) (*Connection, error) {
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	var out net.Conn
	err = from.Do(func() (err error) {
		out, err = net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	in, err := listener.Accept()
	if err != nil {
		out.Close()
		return nil, err
	}

	c := &Connection{stop: make(chan struct{})}
	sent, received := sha256.New(), sha256.New()
	var nSent, nReceived int64
	var sendErr, receiveErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		source := rand.NewChaCha8([32]byte{})
		buf := make([]byte, 1<<16)
		sendErr = pace(rate, c.stop, func(due int) error {
			part := buf[:min(due, len(buf))]
			_, _ = source.Read(part)
			n, err := out.Write(part)
			nSent += int64(n)
			sent.Write(part[:n])
			return err
		})
		sendErr = errors.Join(sendErr, out.(*net.TCPConn).CloseWrite())
	})
	wg.Go(func() { nReceived, receiveErr = io.Copy(received, in) })
	c.end = sync.OnceValues(func() (int64, error) {
		close(c.stop)
		deadline := time.Now().Add(lastAnswer)
		_, _ = out.SetDeadline(deadline), in.SetDeadline(deadline)
		wg.Wait()
		err := errors.Join(sendErr, receiveErr, out.Close(), in.Close())
		switch {
		case err != nil:
		case nSent != nReceived:
			err = fmt.Errorf("%d bytes of %d arrived", nReceived, nSent)
		case !bytes.Equal(sent.Sum(nil), received.Sum(nil)):
			err = errors.New("what arrived has another checksum")
		}
		return nReceived, err
	})
	return c, nil
}

// Stop ends the connection and returns how many bytes arrived, and an error
// unless they are those that were sent.
func (c *Connection) Stop() (int64, error) { return c.end() }

// Datagrams is numbered UDP datagrams that are sent until they are stopped.
type Datagrams struct {
	stop    chan struct{}
	end     func() Arrivals
	arrived atomic.Int64
}

// Arrivals is what became of datagrams.
type Arrivals struct {
	Sent, Received int // each number once
	Twice          int // arrived again
	Damaged        int // arrived with another content than was sent
	Late           int // arrived after one that was sent later
	Gap            int // the most in a row that were lost
}

const datagramLen = 200

// StartDatagrams sends rate datagrams a second from one host to an address of
// another.
func StartDatagrams(from, to *Host, addr netip.Addr, rate int) (*Datagrams, error) {
	in, err := to.ListenUDP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return nil, err
	}
	// Few are to be lost here of all places.
	_ = in.SetReadBuffer(1 << 20)
	var out *net.UDPConn
	err = from.Do(func() (err error) {
		out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		in.Close()
		return nil, err
	}
	d := &Datagrams{stop: make(chan struct{})}
	var a Arrivals
	var sending, receiving sync.WaitGroup
	sending.Go(func() {
		buf := make([]byte, datagramLen)
		_ = pace(rate, d.stop, func(due int) error {
			for range due {
				a.Sent++
				binary.BigEndian.PutUint64(buf, uint64(a.Sent))
				for i := 8; i < datagramLen-4; i++ {
					buf[i] = byte(a.Sent * i)
				}
				binary.BigEndian.PutUint32(buf[datagramLen-4:], crc32.ChecksumIEEE(buf[:datagramLen-4]))
				// A tunnel that is down refuses it, or one that is gone.
				_, _ = out.Write(buf)
			}
			return nil
		})
	})
	receiving.Go(func() {
		seen := map[uint64]struct{}{}
		var last uint64
		buf := make([]byte, 1<<16)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			if n != datagramLen || binary.BigEndian.Uint32(buf[n-4:]) != crc32.ChecksumIEEE(buf[:n-4]) {
				a.Damaged++
				continue
			}
			number := binary.BigEndian.Uint64(buf)
			if _, again := seen[number]; again {
				a.Twice++
				continue
			}
			seen[number] = struct{}{}
			a.Received++
			d.arrived.Add(1)
			if number < last {
				a.Late++
				continue
			}
			a.Gap = max(a.Gap, int(number-last)-1)
			last = number
		}
	})
	d.end = sync.OnceValue(func() Arrivals {
		close(d.stop)
		sending.Wait()
		time.Sleep(300 * time.Millisecond) // for those on their way
		out.Close()
		in.Close()
		receiving.Wait()
		return a
	})
	return d, nil
}

// Arrived returns how many have arrived until now.
func (d *Datagrams) Arrived() int64 { return d.arrived.Load() }

// Stop ends the datagrams and returns what became of them.
func (d *Datagrams) Stop() Arrivals { return d.end() }
