package dataplane

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"

	"golang.zx2c4.com/wireguard/tun"
)

var (
	addrA = netip.MustParseAddr("192.168.0.3")
	addrB = netip.MustParseAddr("192.168.0.5")
	addrC = netip.MustParseAddr("192.168.0.7")
)

// fakeTUN is a TUN device whose kernel is two channels.
type fakeTUN struct {
	out    chan []byte // to the plane
	in     chan []byte // from the plane
	closed chan struct{}
	once   sync.Once
	errs   chan error // of reading
	batch  int
}

func newFakeTUN() *fakeTUN {
	return &fakeTUN{
		out:    make(chan []byte, 256),
		in:     make(chan []byte, 4096),
		closed: make(chan struct{}),
		errs:   make(chan error, 16),
		batch:  128,
	}
}

func (f *fakeTUN) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	select {
	case packet := <-f.out:
		sizes[0] = copy(bufs[0][offset:], packet)
	case err := <-f.errs:
		return 0, err
	case <-f.closed:
		return 0, os.ErrClosed
	}
	for n = 1; n < len(bufs); n++ {
		select {
		case packet := <-f.out:
			sizes[n] = copy(bufs[n][offset:], packet)
		default:
			return n, nil
		}
	}
	return n, nil
}

func (f *fakeTUN) Write(bufs [][]byte, offset int) (n int, err error) {
	for _, b := range bufs {
		if offset < headroomWrite {
			panic("too little room before the packet")
		}
		if cap(b)-offset > maxLen {
			panic("room for more than a packet can have")
		}
		select {
		case f.in <- slices.Clone(b[offset:]):
			n += len(b) - offset
		case <-f.closed:
			return n, os.ErrClosed
		}
	}
	return n, nil
}

func (f *fakeTUN) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

func (f *fakeTUN) File() *os.File           { return nil }
func (f *fakeTUN) MTU() (int, error)        { return 1400, nil }
func (f *fakeTUN) Name() (string, error)    { return "fake", nil }
func (f *fakeTUN) Events() <-chan tun.Event { return nil }
func (f *fakeTUN) BatchSize() int           { return f.batch }

// The ways of ESP right in IP.
var inIPv4, inIPv6 = kind{}, kind{six: true}

// fakeNet connects planes that have one address each.
type fakeNet struct {
	mu      sync.Mutex
	sockets map[netip.AddrPort]*fakeOuter     // with port 0 for ESP right in IP
	alter   func(packet []byte) []byte        // what happens to a packet on its way, nil for nothing
	nat     map[netip.AddrPort]netip.AddrPort // as whom others see who sends
}

func newFakeNet() *fakeNet {
	return &fakeNet{sockets: make(map[netip.AddrPort]*fakeOuter), nat: make(map[netip.AddrPort]netip.AddrPort)}
}

// open is a Config.open for the host with an address.
func (n *fakeNet) open(addr netip.Addr) func(kind) (outer, error) {
	return func(k kind) (outer, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		o := &fakeOuter{net: n, at: netip.AddrPortFrom(addr, k.port), packets: make(chan arrival, 1024), closed: make(chan struct{})}
		n.sockets[o.at] = o
		return o, nil
	}
}

type fakeOuter struct {
	net     *fakeNet
	at      netip.AddrPort
	packets chan arrival
	stopped sync.Once
	closed  chan struct{}
	batch   []arrival
}

func (o *fakeOuter) sender(p path, batch int) (sender, error) { return fakeSender{o, o.net, p}, nil }
func (o *fakeOuter) receiver() receiver                       { return o }

func (o *fakeOuter) stop() { o.stopped.Do(func() { close(o.closed) }) }

func (o *fakeOuter) close() error {
	o.stop()
	o.net.mu.Lock()
	defer o.net.mu.Unlock()
	delete(o.net.sockets, o.at)
	return nil
}

func (o *fakeOuter) receive() ([]arrival, error) {
	o.batch = o.batch[:0]
	select {
	case a := <-o.packets:
		o.batch = append(o.batch, a)
	case <-o.closed:
		return nil, os.ErrClosed
	}
	for len(o.batch) < batchIn {
		select {
		case a := <-o.packets:
			o.batch = append(o.batch, a)
		default:
			return o.batch, nil
		}
	}
	return o.batch, nil
}

type fakeSender struct {
	by   *fakeOuter
	net  *fakeNet
	path path
}

func (s fakeSender) send(packets []departure) error {
	select {
	case <-s.by.closed:
		return os.ErrClosed
	default:
	}
	from := netip.AddrPortFrom(s.path.src, s.path.kind.port)
	at := netip.AddrPortFrom(s.path.dst, s.path.peerPort)
	s.net.mu.Lock()
	for inside, outside := range s.net.nat {
		if at == outside {
			at = inside
		}
	}
	to, alter := s.net.sockets[at], s.net.alter
	if outside, ok := s.net.nat[from]; ok {
		from = outside
	}
	s.net.mu.Unlock()
	for i := range packets {
		packets[i].sent = true
		packet := slices.Clone(packets[i].packet)
		if alter != nil {
			packet = alter(packet)
		}
		if to == nil {
			continue
		}
		a := arrive(packet, from.Addr(), at.Addr())
		a.src = from
		a.class = packets[i].class
		select {
		case to.packets <- a:
		case <-to.closed:
		}
	}
	return nil
}

// arrive puts an ESP packet into a buffer as a receiver does.
func arrive(packet []byte, src, dst netip.Addr) arrival {
	buf := make([]byte, headroomIn+len(packet), strideIn)
	copy(buf[headroomIn:], packet)
	return arrival{buf: buf, off: headroomIn, end: len(buf), src: netip.AddrPortFrom(src, 0), dst: dst}
}

// ip4 is an IPv4 packet of a size.
func ip4(size int) []byte {
	p := make([]byte, size)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	p[8], p[9] = 64, 17
	copy(p[12:], []byte{172, 16, 0, 3, 172, 16, 0, 5})
	var sum uint32
	for i := 0; i < headerLen4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	for i := headerLen4; i < size; i++ {
		p[i] = byte(i)
	}
	return p
}

// ip6 is an IPv6 packet of a size.
func ip6(size int) []byte {
	p := make([]byte, size)
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(size-headerLen6))
	p[6], p[7] = 17, 64
	p[8], p[24] = 0x20, 0x20
	for i := headerLen6; i < size; i++ {
		p[i] = byte(i)
	}
	return p
}

// spec is an SA from src to dst with AES-GCM.
func spec(spi uint32, src, dst netip.Addr, reqid uint32) sad.Spec {
	return sad.Spec{
		SPI: spi, SAType: pfkey.SATypeESP, Src: src, Dst: dst, Mode: pfkey.ModeTunnel, ReqID: reqid,
		Encrypt: algorithm.EncryptAESGCM16, EncryptKey: []byte("0123456789abcdef0123"),
		Replay: 64,
	}
}

// cbc makes an SA one with AES-CBC and HMAC-SHA-256.
func cbc(s *sad.Spec) {
	s.Encrypt, s.EncryptKey = algorithm.EncryptAESCBC, []byte("VerySecureKey!!1")
	s.Auth, s.AuthKey = algorithm.AuthHMACSHA256, make([]byte, 32)
}

func addSA(t testing.TB, db *sad.DB, s sad.Spec) *sad.SA {
	t.Helper()
	sa, err := db.Add(s)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// testHost is a plane with one tunnel.
type testHost struct {
	sad    *sad.DB
	plane  *Plane
	tun    *fakeTUN
	tunnel *Tunnel
}

func newHost(t testing.TB, n *fakeNet, addr netip.Addr) *testHost {
	t.Helper()
	return newHostWith(t, n, addr, sad.Config{})
}

func newHostWith(t testing.TB, n *fakeNet, addr netip.Addr, c sad.Config) *testHost {
	t.Helper()
	h := &testHost{tun: newFakeTUN()}
	c.Encapsulated = func(sa *sad.SA, usable bool) { h.plane.Encapsulated(sa, usable) }
	h.sad = sad.New(c)
	h.plane = New(Config{SAD: h.sad, open: n.open(addr)})
	h.tunnel = h.plane.Attach("ipsec0", h.tun)
	t.Cleanup(func() {
		if err := h.plane.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *testHost) configure(t testing.TB, src, dst netip.Addr, reqid uint32) {
	t.Helper()
	if err := h.tunnel.Configure(Settings{Src: src, Dst: dst, ReqID: reqid, Running: true, Up: true}); err != nil {
		t.Fatal(err)
	}
}

// pair is the two hosts of the manual page's example.
func pair(t testing.TB, n *fakeNet) (a, b *testHost) {
	t.Helper()
	a, b = newHost(t, n, addrA), newHost(t, n, addrB)
	for h, reqid := range map[*testHost]uint32{a: 100, b: 200} {
		addSA(t, h.sad, spec(10000, addrA, addrB, reqid))
		addSA(t, h.sad, spec(10001, addrB, addrA, reqid))
	}
	a.configure(t, addrA, addrB, 100)
	b.configure(t, addrB, addrA, 200)
	return a, b
}
