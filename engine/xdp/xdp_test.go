package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"ifipsec/e2e/lab"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	lab.Init()
	m.Run()
}

// cable is a link between two network namespaces.
type cable struct {
	handles [2]netns.NsHandle
	index   [2]int
	mac     [2][6]byte
}

// newCable makes one. The namespaces last as long as the test.
func newCable(t testing.TB) *cable {
	t.Helper()
	lab.Require(t)
	lab.RequireXDP(t)
	c := new(cable)
	elsewhere(t, func() error {
		for i := range c.handles {
			var err error
			if c.handles[i], err = netns.New(); err != nil {
				return err
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "veth0", 1500
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "veth0", PeerMTU: 1500, PeerNamespace: netlink.NsFd(c.handles[0])})
	})
	t.Cleanup(func() {
		for _, h := range c.handles {
			h.Close()
		}
	})
	for end := range 2 {
		c.at(t, end, func() error {
			l, err := netlink.LinkByName("veth0")
			if err != nil {
				return err
			}
			c.index[end], c.mac[end] = l.Attrs().Index, [6]byte(l.Attrs().HardwareAddr)
			return netlink.LinkSetUp(l)
		})
	}
	return c
}

// elsewhere calls f on a thread that ends with it.
func elsewhere(t testing.TB, f func() error) {
	t.Helper()
	err := make(chan error)
	go func() {
		runtime.LockOSThread()
		err <- f()
	}()
	if err := <-err; err != nil {
		t.Fatal(err)
	}
}

// at calls f at an end of the cable.
func (c *cable) at(t testing.TB, end int, f func() error) {
	t.Helper()
	elsewhere(t, func() error {
		if err := netns.Set(c.handles[end]); err != nil {
			return err
		}
		return f()
	})
}

// open puts the program on an end of the cable, for what comes from src to dst.
func (c *cable) open(t testing.TB, end int, src, dst netip.Addr) (links *Links, l *Link) {
	t.Helper()
	c.at(t, end, func() error {
		p, err := Load()
		if err != nil {
			return err
		}
		t.Cleanup(func() { p.Close() })
		links = NewLinks(p)
		l, err = links.Open(c.index[end], 1)
		return err
	})
	t.Cleanup(func() { l.Close() })
	if err := l.Take(src, dst, c.mac[end]); err != nil {
		t.Fatal(err)
	}
	return links, l
}

// ordinary opens a socket at an end of the cable that receives what the host does.
func (c *cable) ordinary(t testing.TB, end int) (fd int) {
	t.Helper()
	c.at(t, end, func() (err error) {
		all := uint16(unix.ETH_P_ALL)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all>>8|all<<8))
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

var (
	a4, b4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// frame is one from end 0 to end 1 with an IP packet that says protocol is inside, and
// size octets behind its header.
func (c *cable) frame(src, dst netip.Addr, protocol byte, size int) []byte {
	f := append(append(make([]byte, 0, 64+size), c.mac[1][:]...), c.mac[0][:]...)
	if src.Is4() {
		f = append(f, 0x08, 0, 0x45, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(ip4Len+size))
		f = append(f, 0, 0, 0, 0, 64, protocol, 0, 0)
	} else {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(size))
		f = append(f, protocol, 64)
	}
	f = append(append(f, src.AsSlice()...), dst.AsSlice()...)
	return append(f, bytes.Repeat([]byte{0xa5}, size)...)
}

// change is a copy of a frame with an octet changed.
func change(frame []byte, at int, to byte) []byte {
	f := slices.Clone(frame)
	f[at] = to
	return f
}

// Whole ESP packets between the pair come to the socket, and everything else to the host.
func TestProgramPicks(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	_, far := c.open(t, 1, a4, b4)
	if err := far.Take(a6, b6, c.mac[1]); err != nil {
		t.Fatal(err)
	}
	_, near := c.open(t, 0, b4, a4)
	host := c.ordinary(t, 1)
	esp4, esp6 := c.frame(a4, b4, unix.IPPROTO_ESP, 100), c.frame(a6, b6, unix.IPPROTO_ESP, 100)
	for name, tc := range map[string]struct {
		frame []byte
		taken bool
	}{
		"ESP in IPv4":               {esp4, true},
		"ESP in IPv6":               {esp6, true},
		"nothing behind the header": {c.frame(a4, b4, unix.IPPROTO_ESP, 0), true},
		"the largest":               {c.frame(a4, b4, unix.IPPROTO_ESP, 1480), true},
		"DF":                        {change(esp4, etherLen+ip4Fragment, 0x40), true},
		"to another station":        {change(esp4, 3, ^esp4[3]), false},
		"to yet another":            {change(esp4, 5, ^esp4[5]), false},
		"from somebody else":        {c.frame(b4, b4, unix.IPPROTO_ESP, 100), false},
		"to somebody else":          {c.frame(a6, a6, unix.IPPROTO_ESP, 100), false},
		"the other way":             {c.frame(b4, a4, unix.IPPROTO_ESP, 100), false},
		"UDP":                       {c.frame(a4, b4, unix.IPPROTO_UDP, 100), false},
		"UDP in IPv6":               {c.frame(a6, b6, unix.IPPROTO_UDP, 100), false},
		"a first fragment":          {change(esp4, etherLen+ip4Fragment, 0x20), false},
		"a later fragment":          {change(esp4, etherLen+ip4Fragment+1, 1), false},
		"a fragment of IPv6":        {change(esp6, etherLen+ip6Next, unix.IPPROTO_FRAGMENT), false},
		"options":                   {change(esp4, etherLen, 0x46), false},
		"ARP":                       {change(esp4, etherType+1, 6), false},
		"half a header":             {esp4[:etherLen+ip4Len-1], false},
		"half a header of IPv6":     {esp6[:etherLen+ip6Len-1], false},
	} {
		if n, err := near.Sockets[0].Send(1, func(i int, f []byte) int { return copy(f, tc.frame) }); n != 1 || err != nil {
			t.Fatalf("%s: %d sent: %v", name, n, err)
		}
		var got [2][]byte // of the host and of the socket
		for deadline := time.Now().Add(5 * time.Second); got[0] == nil && got[1] == nil; {
			far.Sockets[0].Receive(func(f []byte) bool { got[1] = slices.Clone(f); return true })
			buf := make([]byte, 2048)
			if n, err := unix.Read(host, buf); err == nil && bytes.Equal(buf[:min(n, 14)], tc.frame[:14]) {
				got[0] = buf[:n]
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nothing arrives", name)
			}
		}
		to := 0
		if tc.taken {
			to = 1
		}
		if !bytes.Equal(got[to], tc.frame) || got[1-to] != nil {
			t.Errorf("%s: taken is %v, want %v; %x", name, got[1] != nil, tc.taken, got)
		}
	}
}

// What is more than the ring holds passes in its order.
func TestManyFrames(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	_, far := c.open(t, 1, a4, b4)
	_, near := c.open(t, 0, b4, a4)
	frame := c.frame(a4, b4, unix.IPPROTO_ESP, 1400)
	const batch, total = 700, 20 * 700
	next := uint32(0)
	for sent := 0; sent < total; sent += batch {
		n, err := near.Sockets[0].Send(batch, func(i int, f []byte) int {
			binary.BigEndian.PutUint32(frame[40:], uint32(sent+i))
			return copy(f, frame)
		})
		if n != batch || err != nil {
			t.Fatalf("%d of %d frames are sent: %v", n, batch, err)
		}
		for deadline := time.Now().Add(5 * time.Second); next < uint32(sent+batch); {
			far.Sockets[0].Receive(func(f []byte) bool {
				if got := binary.BigEndian.Uint32(f[40:]); got != next || len(f) != len(frame) {
					t.Fatalf("frame %d arrives, want %d", got, next)
				}
				next++
				return true
			})
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d frames arrive", next, sent+batch)
			}
		}
	}
}

// One process at a time has a link. When it is gone, or has detached, the next one can
// have it, and the host gets what nobody takes.
func TestWhoHasALink(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	_, first := c.open(t, 1, a4, b4)
	_, near := c.open(t, 0, b4, a4)
	c.at(t, 1, func() error {
		p, err := Load()
		if err != nil {
			return err
		}
		defer p.Close()
		others := NewLinks(p)
		if l, err := others.Open(c.index[1], 1); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("a link that somebody has: %v, %v", l, err)
		}
		host := c.ordinary(t, 1)
		if err := first.Detach(); err != nil {
			return err
		}
		esp := c.frame(a4, b4, unix.IPPROTO_ESP, 100)
		if _, err := near.Sockets[0].Send(1, func(i int, f []byte) int { return copy(f, esp) }); err != nil {
			return err
		}
		for deadline := time.Now().Add(5 * time.Second); ; {
			buf := make([]byte, 2048)
			if n, err := unix.Read(host, buf); err == nil && bytes.Equal(buf[:n], esp) {
				break
			}
			if time.Now().After(deadline) {
				t.Error("what nobody takes does not arrive")
				break
			}
		}
		if err := first.Close(); err != nil {
			return err
		}
		// The kernel lets go of a socket's queue a little later.
		var l *Link
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			if l, err = others.Open(c.index[1], 1); err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			return err
		}
		return l.Close()
	})
}

// A program goes from process to process, and forgets.
func TestInherit(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	loaded, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if err := loaded.take(a4, b4, place{Link: 1}); err != nil {
		t.Fatal(err)
	}
	files, err := loaded.Files()
	if err != nil {
		t.Fatal(err)
	}
	// As a process gets them that was given ExtraFiles: side by side.
	const first = 900
	for i, f := range files {
		if err := unix.Dup3(int(f.Fd()), first+i, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	p, err := Inherit(first)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var key pair
	var at place
	if p.pairs.Iterate().Next(&key, &at) {
		t.Errorf("it remembers %v", key)
	}
	c.at(t, 1, func() error {
		l, err := NewLinks(p).Open(c.index[1], 1)
		if err != nil {
			return err
		}
		return errors.Join(l.Take(a4, b4, c.mac[1]), l.Close())
	})
	if p, err := Inherit(first + 10); err == nil {
		t.Errorf("made of nothing: %v", p)
	}
}

// A link that goes away is told.
func TestLinkGoes(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	_, l := c.open(t, 1, a4, b4)
	if err := l.Sockets[0].Err(); err != nil {
		t.Fatal(err)
	}
	c.at(t, 1, func() error {
		v, err := netlink.LinkByName("veth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(v)
	})
	if err := l.Sockets[0].Err(); !errors.Is(err, syscall.ENXIO) && !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("the error is %v", err)
	}
}

// Beside what a packet costs otherwise: the time of the sender's thread, with the
// peer's half of the kernel, and the time of who receives.
func BenchmarkPacket(b *testing.B) {
	for name, by := range map[string]bool{"AF_XDP": true, "packet to raw": false} {
		b.Run(name, func(b *testing.B) { benchmarkPacket(b, by) })
	}
}

func benchmarkPacket(b *testing.B, by bool) {
	const batch = 32
	c := newCable(b)
	frame := c.frame(a4, b4, unix.IPPROTO_ESP, 1424)
	var send, receive func() int
	if by {
		_, far := c.open(b, 1, a4, b4)
		_, near := c.open(b, 0, b4, a4)
		put := func(i int, f []byte) int { return copy(f, frame) }
		send = func() int { n, _ := near.Sockets[0].Send(batch, put); return n }
		buf := make([]byte, 2048)
		take := func(f []byte) bool { copy(buf, f); return true }
		receive = func() int { return far.Sockets[0].Receive(take) }
	} else {
		var out, in int
		c.at(b, 0, func() (err error) {
			out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			return err
		})
		c.at(b, 1, func() (err error) {
			l, err := netlink.LinkByName("veth0")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(b4.AsSlice())}); err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: netlink.NewIPNet(a4.AsSlice())}); err != nil {
				return err
			}
			in, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ESP)
			return errors.Join(err, unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
		})
		binary.BigEndian.PutUint16(frame[24:], checksum(frame[14:34]))
		to := &unix.SockaddrLinklayer{Ifindex: c.index[0], Halen: 6}
		var out32, in32 [batch]unix.Mmsghdr
		var vecs [2][batch]unix.Iovec
		var name unix.RawSockaddrLinklayer
		name.Family, name.Ifindex, name.Halen = unix.AF_PACKET, int32(to.Ifindex), 6
		buf := make([]byte, batch*2048)
		for i := range batch {
			vecs[0][i].Base, vecs[1][i].Base = &frame[0], &buf[i*2048]
			vecs[0][i].SetLen(len(frame))
			vecs[1][i].SetLen(2048)
			out32[i].Hdr = unix.Msghdr{Iov: &vecs[0][i], Iovlen: 1, Name: (*byte)(ptr(&name)), Namelen: unix.SizeofSockaddrLinklayer}
			in32[i].Hdr = unix.Msghdr{Iov: &vecs[1][i], Iovlen: 1}
		}
		send = func() int {
			n, _, _ := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(out), uintptr(ptr(&out32[0])), batch, 0, 0, 0)
			return int(n)
		}
		receive = func() int {
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(in), uintptr(ptr(&in32[0])), batch, unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 {
				return 0
			}
			return int(n)
		}
	}
	var sending, receiving time.Duration
	sent, received := 0, 0
	for b.Loop() {
		t := time.Now()
		sent += send()
		u := time.Now()
		for {
			n := receive()
			if received += n; n == 0 {
				break
			}
		}
		sending += u.Sub(t)
		receiving += time.Since(u)
	}
	if received < sent/2 {
		b.Errorf("%d sent, %d received", sent, received)
	}
	b.ReportMetric(float64(sending.Nanoseconds())/float64(sent), "ns/sent")
	b.ReportMetric(float64(receiving.Nanoseconds())/float64(received), "ns/received")
	b.ReportMetric(0, "ns/op")
}

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

func checksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}
