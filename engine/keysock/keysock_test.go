package keysock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/key"
	"ifipsec/engine/peer"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// daemon is a server that a test runs.
type daemon struct {
	t    testing.TB
	path string
	stop func() // and wait for the end
}

// start runs a server, which change may alter before.
func start(t testing.TB, change func(*server)) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		handler:     key.New(key.Config{SAD: sad.New(sad.Config{}), SPD: spd.New(spd.Config{})}),
		log:         slog.New(slog.DiscardHandler),
		credentials: peerCredentials,
		patience:    time.Minute,
		crowd:       peer.Crowd[int32]{Most: 16, Each: 16},
	}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, l) }()
	d := &daemon{t: t, path: path, stop: sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})}
	t.Cleanup(d.stop)
	return d
}

// dial connects, with a deadline so that a failing test ends.
func (d *daemon) dial() *Conn {
	d.t.Helper()
	c, err := Dial(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		d.t.Fatal(err)
	}
	return c
}

func send(t testing.TB, c *Conn, m *pfkey.Message) {
	t.Helper()
	if err := c.Send(m); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, c *Conn) *pfkey.Message {
	t.Helper()
	m, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wantErrno(t testing.TB, m *pfkey.Message, want syscall.Errno) {
	t.Helper()
	if syscall.Errno(m.Errno) != want {
		t.Errorf("errno %d (%v), want %d (%v)", m.Errno, syscall.Errno(m.Errno), want, want)
	}
}

func add(spi uint32) *pfkey.Message {
	address := func(kind pfkey.ExtType, a string) *pfkey.Address {
		return &pfkey.Address{Kind: kind, Proto: pfkey.ProtoAny, PrefixLen: 32, Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 0)}
	}
	return &pfkey.Message{
		Type: pfkey.TypeAdd, SAType: pfkey.SATypeESP, Seq: spi,
		Exts: []pfkey.Extension{
			&pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 128, Key: []byte("VerySecureKey!!1")},
			&pfkey.SA{SPI: spi, Encrypt: algorithm.EncryptAESCBC},
			&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100},
			address(pfkey.ExtAddressSrc, "192.0.2.1"), address(pfkey.ExtAddressDst, "192.0.2.2"),
		},
	}
}

// addMany adds SAs from SPI 1000 up, one after the other.
func addMany(t testing.TB, c *Conn, n int) {
	t.Helper()
	for i := range uint32(n) {
		send(t, c, add(1000+i))
		if m := receive(t, c); m.Errno != 0 || m.Seq != 1000+i {
			t.Fatalf("SA %d: answer %+v", i, m)
		}
	}
}

func dump() *pfkey.Message { return &pfkey.Message{Type: pfkey.TypeDump} }

func TestConversation(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	c, other := d.dial(), d.dial()
	// So that the other's session is there for certain.
	send(t, other, dump())
	wantErrno(t, receive(t, other), syscall.ENOENT)

	addMany(t, c, 3)
	for i := range uint32(3) {
		if m := receive(t, other); m.Type != pfkey.TypeAdd || m.Seq != 1000+i || m.KeyEncrypt() != nil {
			t.Errorf("the other hears %+v, want SA %d without its key", m, i)
		}
	}
	send(t, c, dump())
	for want := range uint32(3) {
		m := receive(t, c)
		if m.Type != pfkey.TypeDump || m.Seq != 2-want || m.KeyEncrypt() == nil {
			t.Errorf("dump: %+v, want sequence number %d and a key", m, 2-want)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", got)
	}
	if _, err := Listen(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one: %v, want EADDRINUSE", err)
	}
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pfkey")
	_, err := Dial(path)
	if !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v, want ENOENT and the path", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	_, err = Dial(path)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), path) {
		t.Errorf("no daemon: %v, want ECONNREFUSED and the path", err)
	}
}

func TestBadRecords(t *testing.T) {
	t.Parallel()
	whole, err := add(1000).Encode()
	if err != nil {
		t.Fatal(err)
	}
	version := append([]byte{}, whole...)
	version[0] = 1
	for name, c := range map[string]struct {
		record []byte
		want   syscall.Errno // 0 for no answer
	}{
		"one byte":       {whole[:1], 0},
		"half a header":  {whole[:15], 0},
		"half a message": {whole[:len(whole)/2], syscall.EINVAL},
		"header only":    {whole[:16], syscall.EINVAL},
		"too long":       {append(append([]byte{}, whole...), make([]byte, 8)...), syscall.EINVAL},
		"other version":  {version, syscall.EINVAL},
		"giant":          {append(append([]byte{}, whole...), make([]byte, maxRecord)...), syscall.EMSGSIZE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := start(t, nil).dial()
			if err := control(conn.conn, setSendBuffer); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.conn.Write(c.record); err != nil {
				t.Fatal(err)
			}
			if c.want != 0 {
				m := receive(t, conn)
				wantErrno(t, m, c.want)
				if m.Type != pfkey.TypeAdd || m.Seq != 1000 || len(m.Exts) != 0 {
					t.Errorf("answer %+v, want the header", m)
				}
			}
			// The connection is still good.
			send(t, conn, add(2000))
			if m := receive(t, conn); m.Seq != 2000 || m.Errno != 0 {
				t.Errorf("the next answer is %+v", m)
			}
		})
	}
}

func TestSendRefusesGiant(t *testing.T) {
	t.Parallel()
	c := start(t, nil).dial()
	m := add(1000)
	m.Exts = append(m.Exts, &pfkey.Identity{Kind: pfkey.ExtIdentitySrc, Name: strings.Repeat("x", maxRecord)})
	if err := c.Send(m); !errors.Is(err, syscall.EMSGSIZE) || !strings.Contains(err.Error(), c.path) {
		t.Errorf("%v, want EMSGSIZE and the path", err)
	}
}

// A listener that never reads holds nobody up, and misses what there was no
// room for.
func TestListenerThatNeverReads(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	lazy, busy := d.dial(), d.dial()
	send(t, lazy, dump())
	wantErrno(t, receive(t, lazy), syscall.ENOENT)
	const sent = 15000 // of about 1 KiB of buffer each
	addMany(t, busy, sent)

	// It hears the first ones, and after that again what is new.
	heard := 0
	for ; ; heard++ {
		if err := lazy.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		m, err := lazy.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Seq != 1000+uint32(heard) {
			t.Fatalf("message %d is of SA %d", heard, m.Seq)
		}
	}
	if heard < 100 || heard == sent {
		t.Errorf("heard of %d SAs of %d, want many but not all", heard, sent)
	}
	send(t, busy, add(900000))
	receive(t, busy)
	if err := lazy.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, lazy); m.Seq != 900000 {
		t.Errorf("heard of SA %d, want 900000", m.Seq)
	}
}

// A dump waits for its reader, while others go on, but not for ever.
func TestDumpThatIsNotRead(t *testing.T) {
	t.Parallel()
	d := start(t, func(s *server) { s.patience = 300 * time.Millisecond })
	c, lazy := d.dial(), d.dial()
	const n = 10000
	addMany(t, c, n)
	send(t, lazy, dump())
	time.Sleep(100 * time.Millisecond) // let it fill the buffer
	begin := time.Now()
	send(t, c, &pfkey.Message{Type: pfkey.TypeSPDDump})
	wantErrno(t, receive(t, c), syscall.ENOENT)
	if waited := time.Since(begin); waited > 150*time.Millisecond {
		t.Errorf("another client waited %v", waited)
	}
	time.Sleep(500 * time.Millisecond)
	for got := 0; ; got++ {
		m, err := lazy.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) || got == 0 || got == n {
				t.Errorf("%d answers, then %v, want some and then the end", got, err)
			}
			break
		}
		if m.Type == pfkey.TypeDump && m.Seq == 0 {
			t.Fatal("the dump is whole although nobody read")
		}
	}

	// A slow reader gets it all.
	send(t, c, dump())
	for want := n - 1; want >= 0; want-- {
		if want%2000 == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		if m := receive(t, c); m.Type != pfkey.TypeDump || m.Seq != uint32(want) {
			t.Fatalf("dump: %v with sequence number %d, want %d", m.Type, m.Seq, want)
		}
	}
}

func TestCloseInMidDump(t *testing.T) {
	t.Parallel()
	d := start(t, func(s *server) { s.crowd.Most = 2 })
	c := d.dial()
	addMany(t, c, 10000)
	for range 5 {
		// There is room for it only if the one before it is gone.
		leaver := eventually(t, func() *Conn {
			leaver := d.dial()
			send(t, leaver, dump())
			if m := receive(t, leaver); m.Errno != 0 {
				leaver.Close()
				return nil
			}
			return leaver
		})
		leaver.Close()
	}
	send(t, c, &pfkey.Message{Type: pfkey.TypeSPDDump})
	wantErrno(t, receive(t, c), syscall.ENOENT)
}

// eventually tries until there is a result.
func eventually[T any](t *testing.T, try func() *T) *T {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if v := try(); v != nil {
			return v
		}
	}
	t.Fatal("it never happened")
	return nil
}

func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	const most = 3
	d := start(t, func(s *server) { s.crowd.Most = most })
	var conns []*Conn
	for range most {
		c := d.dial()
		send(t, c, dump())
		wantErrno(t, receive(t, c), syscall.ENOENT)
		conns = append(conns, c)
	}
	refused := d.dial()
	send(t, refused, dump())
	m := receive(t, refused)
	wantErrno(t, m, syscall.EUSERS)
	if m.Type != pfkey.TypeDump {
		t.Errorf("answer %+v, want that to the dump", m)
	}
	if _, err := refused.Receive(); !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), d.path) {
		t.Errorf("%v, want the end and the path", err)
	}
	// Also many who say nothing. They are seen to in the order in which they
	// come, so when the last one is closed all are.
	for range 3 * refusals {
		d.dial()
	}
	if _, err := d.dial().Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want the end", err)
	}
	send(t, conns[0], dump())
	wantErrno(t, receive(t, conns[0]), syscall.ENOENT)

	conns[0].Close()
	eventually(t, func() *pfkey.Message {
		c := d.dial()
		defer c.Close()
		if c.Send(dump()) != nil {
			return nil
		}
		if m, err := c.Receive(); err == nil && syscall.Errno(m.Errno) == syscall.ENOENT {
			return m
		}
		return nil
	})
}

// A process that connects ten thousand times has some of its connections
// served, and the daemon is there for others all the time.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	const flooder, other = 100, 200
	pid := make(chan int32, 1)
	d := start(t, func(s *server) {
		s.crowd.Each = 4
		s.credentials = func(int) (*unix.Ucred, error) {
			return &unix.Ucred{Pid: <-pid, Uid: uint32(os.Geteuid())}, nil
		}
	})
	before := runtime.NumGoroutine()
	// The last ones stay open.
	var open [200]*Conn
	for i := range 10_000 {
		c, err := Dial(d.path)
		if err != nil {
			t.Fatal(err)
		}
		pid <- flooder
		if old := open[i%len(open)]; old != nil {
			old.Close()
		}
		open[i%len(open)] = c
		if i%1000 != 0 {
			continue
		}
		c = d.dial()
		pid <- other
		send(t, c, dump())
		wantErrno(t, receive(t, c), syscall.ENOENT)
		c.Close()
	}
	// Two for each connection that is served or refused, at most.
	if n := runtime.NumGoroutine() - before; n > 2*(16+refusals)+20 {
		t.Errorf("%d goroutines more than before", n)
	}
	served := 0
	for _, c := range open {
		if c.SetDeadline(time.Now().Add(10*time.Second)) == nil && c.Send(dump()) == nil {
			if m, err := c.Receive(); err == nil && syscall.Errno(m.Errno) == syscall.ENOENT {
				served++
			}
		}
		c.Close()
	}
	if served > 4 {
		t.Errorf("%d connections of one process were served, want 4 at most", served)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	t.Parallel()
	d := start(t, func(s *server) {
		s.credentials = func(fd int) (*unix.Ucred, error) {
			return &unix.Ucred{Pid: 1, Uid: uint32(os.Geteuid()) + 1}, nil
		}
	})
	c := d.dial()
	send(t, c, add(1000))
	m := receive(t, c)
	wantErrno(t, m, syscall.EPERM)
	if m.Type != pfkey.TypeAdd || m.Seq != 1000 {
		t.Errorf("answer %+v, want that to the request", m)
	}
	if _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want the end", err)
	}
}

func TestPeerCredentials(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	err = control(accepted, func(fd int) error {
		cred, err := peerCredentials(fd)
		if err == nil && (int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid()) {
			return fmt.Errorf("%+v", cred)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The end of the server ends all connections, whatever they are at, and leaves
// no goroutine. It is not parallel, so that it can count them.
func TestEndLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	d := start(t, nil)
	c := d.dial()
	addMany(t, c, 10000)
	idle, dumping, never := d.dial(), d.dial(), d.dial()
	send(t, idle, dump())
	receive(t, idle)
	send(t, dumping, dump())
	receive(t, dumping)
	_ = never
	d.stop()
	for {
		if _, err := c.Receive(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want the end", err)
			}
			break
		}
	}
	if err := c.Send(dump()); !errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), d.path) {
		t.Errorf("%v, want EPIPE and the path", err)
	}
	if _, err := os.Stat(d.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestListenerClosedByOthers(t *testing.T) {
	t.Parallel()
	l, err := Listen(filepath.Join(t.TempDir(), "pfkey"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = Serve(t.Context(), l, key.New(key.Config{SAD: sad.New(sad.Config{}), SPD: spd.New(spd.Config{})}), slog.New(slog.DiscardHandler))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// Clients that come, ask and go while others do the same.
func TestManyClientsAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, func(s *server) { s.crowd = peer.Crowd[int32]{Most: 200, Each: 200} }) // who closes is not gone at once
	var wg sync.WaitGroup
	for i := range uint32(8) {
		wg.Go(func() {
			for n := range uint32(20) {
				c, err := Dial(d.path)
				if err != nil {
					t.Error(err)
					return
				}
				spi := 1000 + 20*i + n
				if err := c.Send(add(spi)); err != nil {
					t.Error(err)
				}
				for {
					m, err := c.Receive()
					if err != nil {
						t.Error(err)
						break
					}
					// Others' SAs are heard in between.
					if m.Seq == spi && m.Type == pfkey.TypeAdd {
						wantErrno(t, m, 0)
						break
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	c := d.dial()
	send(t, c, dump())
	if m := receive(t, c); m.Seq != 159 {
		t.Errorf("%d SAs, want 160", m.Seq+1)
	}
}

func BenchmarkAdd(b *testing.B) {
	c := start(b, nil).dial()
	if err := c.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	spi := uint32(1000)
	for b.Loop() {
		spi++
		send(b, c, add(spi))
		receive(b, c)
	}
}

func BenchmarkDump(b *testing.B) {
	c := start(b, nil).dial()
	if err := c.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	const n = 10000
	addMany(b, c, n)
	for b.Loop() {
		send(b, c, dump())
		for receive(b, c).Seq != 0 {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/SA")
}
