package dataplane

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

func recv(t testing.TB, f *fakeTUN) []byte {
	t.Helper()
	select {
	case p := <-f.in:
		return p
	case <-time.After(5 * time.Second):
		t.Fatal("no packet arrives")
		return nil
	}
}

// eventually waits until a counter has a value.
func eventually(t testing.TB, what string, get func() uint64, want uint64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); get() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, want %d", what, get(), want)
		}
	}
}

func (h *testHost) counter(c Counter) func() uint64 {
	return func() uint64 { return h.plane.Counters()[c] }
}

func (h *testHost) tunnelCounter(c TunnelCounter) func() uint64 {
	return func() uint64 { return h.tunnel.Counters()[c] }
}

func TestPacketsPassInOrderBothWays(t *testing.T) {
	t.Parallel()
	a, b := pair(t, newFakeNet())
	var want [][]byte
	for i := range 500 {
		p := ip4(headerLen4 + i)
		if i%2 == 1 {
			p = ip6(headerLen6 + i)
		}
		want = append(want, p)
	}
	var octets uint64
	for _, way := range [][2]*testHost{{a, b}, {b, a}} {
		octets = 0
		for _, p := range want {
			way[0].tun.out <- p
			octets += uint64(len(p))
		}
		for i, p := range want {
			if got := recv(t, way[1].tun); !bytes.Equal(got, p) {
				t.Fatalf("packet %d arrives as\n%x\nwant\n%x", i, got, p)
			}
		}
	}
	for name, h := range map[string]*testHost{"A": a, "B": b} {
		for c, n := range map[TunnelCounter]uint64{InPackets: 500, OutPackets: 500, InBytes: octets, OutBytes: octets} {
			eventually(t, name+": "+c.String(), h.tunnelCounter(c), n)
		}
		for c, n := range map[Counter]uint64{Input: 500, Output: 500, InputBytes: octets, OutputBytes: octets} {
			eventually(t, name+": "+c.String(), h.counter(c), n)
		}
	}
	// Lifetimes: what was encrypted with the outer header, and what was inside.
	out, in := a.sad.Inbound(10000, addrB).Current(), b.sad.Inbound(10000, addrB).Current()
	if out.Packets != 500 || in.Packets != 500 || in.Bytes != octets || out.Bytes <= octets+500*(20+8+8+16) {
		t.Errorf("the SA counts %+v out and %+v in, for %d octets", out, in, octets)
	}
}

func TestWhatWasChangedOnItsWayIsDropped(t *testing.T) {
	t.Parallel()
	n := newFakeNet()
	i := 0
	n.alter = func(p []byte) []byte {
		if i++; i%2 == 1 {
			p[len(p)/2] ^= 1
		}
		return p
	}
	a, b := pair(t, n)
	for i := range 10 {
		a.tun.out <- ip4(100 + i)
	}
	for i := range 5 {
		if got := recv(t, b.tun); !bytes.Equal(got, ip4(101+2*i)) {
			t.Errorf("packet %d is changed", i)
		}
	}
	eventually(t, "bad authentication", b.counter(BadAuth), 5)
	eventually(t, "packets in", b.tunnelCounter(InPackets), 5)
}

func TestWrongReqID(t *testing.T) {
	t.Parallel()
	a, b := pair(t, newFakeNet())
	b.configure(t, addrB, addrA, 201)
	a.tun.out <- ip4(100)
	eventually(t, "policy", b.counter(PolicyDrops), 1)
	b.tun.out <- ip4(100)
	eventually(t, "no SA", b.tunnelCounter(OutNoSA), 1)

	b.configure(t, addrB, addrA, 200)
	a.tun.out <- ip4(100)
	recv(t, b.tun)
}

func TestNoSAIsTold(t *testing.T) {
	t.Parallel()
	asked := make(chan *Tunnel, 10)
	n, dev := newFakeNet(), newFakeTUN()
	h := newHost(t, n, addrB)
	p := New(Config{SAD: h.sad, NoSA: func(t *Tunnel) { asked <- t }, open: n.open(addrA)})
	defer p.Close()
	tunnel := p.Attach("ipsec7", dev)
	if err := tunnel.Configure(Settings{Src: addrA, Dst: addrB, ReqID: 1, Running: true, Up: true}); err != nil {
		t.Fatal(err)
	}
	dev.out <- ip4(100)
	select {
	case got := <-asked:
		if got != tunnel || got.Name() != "ipsec7" || got.Settings().ReqID != 1 {
			t.Errorf("told of %v", got.Name())
		}
	case <-time.After(5 * time.Second):
		t.Error("not told")
	}
}

func TestTunnelThatDoesNotServe(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Settings){
		"not running": func(s *Settings) { s.Running = false },
		"down":        func(s *Settings) { s.Up = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t, newFakeNet())
			s := b.tunnel.Settings()
			change(&s)
			if err := b.tunnel.Configure(s); err != nil {
				t.Fatal(err)
			}
			b.tun.out <- ip4(100)
			eventually(t, "not running", b.tunnelCounter(OutNotRunning), 1)
			a.tun.out <- ip4(100)
			eventually(t, "policy", b.counter(PolicyDrops), 1)
			counters := b.tunnel.Counters()
			if n := counters.OutErrors(); n != 1 {
				t.Errorf("%d output errors, want 1", n)
			}
		})
	}
}

// What can't be read does not end the tunnel.
func TestErrorsOfReading(t *testing.T) {
	t.Parallel()
	a, b := pair(t, newFakeNet())
	for _, err := range []error{tun.ErrTooManySegments, errors.New("unsupported virtio GSO type"), syscall.EIO} {
		a.tun.errs <- err
	}
	eventually(t, "errors", a.tunnelCounter(OutRead), 3)
	a.tun.out <- ip4(100)
	recv(t, b.tun)
}

func TestConfigureErrors(t *testing.T) {
	t.Parallel()
	a, _ := pair(t, newFakeNet())
	other := a.plane.Attach("ipsec1", newFakeTUN())
	for name, c := range map[string]struct {
		s    Settings
		want error
	}{
		"no endpoints": {Settings{Running: true, Up: true}, syscall.EINVAL},
		"two families": {Settings{Src: netip.IPv6Loopback(), Dst: addrB, Running: true}, syscall.EINVAL},
		"taken":        {a.tunnel.Settings(), syscall.EEXIST},
	} {
		if err := other.Configure(c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if got := other.Settings(); got != (Settings{}) {
			t.Errorf("%s: settings are %+v", name, got)
		}
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Configure(Settings{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v, want %v", err, os.ErrClosed)
	}

	refused := New(Config{SAD: a.sad, open: func(kind) (outer, error) { return nil, syscall.EPERM }})
	defer refused.Close()
	tunnel := refused.Attach("ipsec2", newFakeTUN())
	if err := tunnel.Configure(a.tunnel.Settings()); !errors.Is(err, syscall.EPERM) {
		t.Errorf("no socket: %v, want EPERM", err)
	}
}

// Packets pass or are dropped while everything changes; none is lost in the
// counters.
func TestChangesUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := pair(t, newFakeNet())
	const packets = 5000
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-b.tun.in:
			default:
				switch i % 4 {
				case 0:
					b.configure(t, addrB, addrA, 201)
				case 1:
					b.configure(t, addrB, addrA, 200)
				case 2:
					a.configure(t, addrA, addrB, 101)
				case 3:
					a.configure(t, addrA, addrB, 100)
				}
				runtime.Gosched()
			}
		}
	})
	for range packets {
		a.tun.out <- ip4(200)
	}
	eventually(t, "packets out or dropped", func() uint64 {
		c := a.tunnel.Counters()
		return c[OutPackets] + c[OutNoSA]
	}, packets)
	sent := a.tunnel.Counters()[OutPackets]
	eventually(t, "packets in or refused", func() uint64 {
		return b.tunnel.Counters()[InPackets] + b.plane.Counters()[PolicyDrops]
	}, sent)
	close(stop)
	wg.Wait()
}

func TestClosingUnderTraffic(t *testing.T) {
	t.Parallel()
	for range 20 {
		n := newFakeNet()
		a, b := pair(t, n)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, h := range []*testHost{a, b} {
			wg.Go(func() {
				for {
					select {
					case h.tun.out <- ip4(200):
					case <-h.tun.in:
					case <-stop:
						return
					}
				}
			})
		}
		eventually(t, "traffic", func() uint64 { return min(1, b.tunnel.Counters()[InPackets]) }, 1)
		closed := make(chan error, 3)
		go func() { closed <- b.tunnel.Close() }()
		go func() { closed <- b.plane.Close() }()
		go func() { closed <- a.tunnel.Close() }()
		for range 3 {
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("closing does not end")
			}
		}
		close(stop)
		wg.Wait()
	}
}
