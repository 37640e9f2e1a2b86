package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/host"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that makes a network namespace where that can't be done,
// or fails it where a skipped test would go unseen.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "":
		t.Fatal("needs root, to make a network namespace")
	default:
		t.Skip("SKIPPED: needs root, to make a network namespace")
	}
}

// inHosts makes two network namespaces with a veth pair between them and runs
// every step in the first and in the second. The namespaces last as long as a
// socket that was opened there.
func inHosts(t *testing.T, mtu int, steps ...func(h int) error) {
	t.Helper()
	needRoot(t)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		errs <- func() error {
			var handles [2]netns.NsHandle
			for i := range handles {
				var err error
				if handles[i], err = netns.New(); err != nil {
					return err
				}
				defer handles[i].Close()
			}
			// The thread is in the second.
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = "veth0", mtu
			pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "veth0", PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(handles[0])}
			if err := netlink.LinkAdd(pair); err != nil {
				return err
			}
			for _, do := range append([]func(int) error{address, settle}, steps...) {
				for h := range handles {
					if err := netns.Set(handles[h]); err != nil {
						return err
					}
					if err := do(h); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// The addresses of the two hosts, by family.
var (
	four      = [2]netip.Addr{addrA, addrB}
	six       = [2]netip.Addr{netip.MustParseAddr("2001:db8::3"), netip.MustParseAddr("2001:db8::5")}
	linkLocal = [2]netip.Addr{netip.MustParseAddr("fe80::3%2"), netip.MustParseAddr("fe80::5%2")}
)

// address gives host h its addresses, in its namespace.
func address(h int) error {
	link, err := netlink.LinkByName("veth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if link.Attrs().Index != 2 {
		return fmt.Errorf("veth0 has the number %d, want 2, as in the addresses' zones", link.Attrs().Index)
	}
	for _, a := range []netip.Addr{four[h], six[h], linkLocal[h]} {
		bits := 64
		if a.Is4() {
			bits = 24
		}
		err := netlink.AddrAdd(link, &netlink.Addr{
			IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
			Flags: unix.IFA_F_NODAD,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle waits until a host's addresses can be used, which they can't before both ends
// of the cable are up, and a little later.
func settle(h int) error {
	link, err := netlink.LinkByName("veth0")
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		tentative := func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 }
		if !slices.ContainsFunc(addrs, tentative) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("addresses of host %d can't be used: %v", h, addrs)
		}
	}
}

// sockets opens a socket of a kind in two hosts, of which another program may
// have the port.
func sockets(t *testing.T, k kind, mtu int, shared bool) (hosts [2]outer) {
	t.Helper()
	inHosts(t, mtu, func(h int) (err error) {
		if shared {
			owner, err := bindUDP(k)
			if err != nil {
				return err
			}
			t.Cleanup(func() { owner.close() })
		}
		hosts[h], err = openOuter(k)
		if err == nil {
			t.Cleanup(func() { hosts[h].close() })
		}
		return err
	})
	return hosts
}

// get receives until it has n packets.
func get(t *testing.T, r receiver, n int) (packets []arrival) {
	t.Helper()
	for len(packets) < n {
		got, err := r.receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range got {
			a.buf = bytes.Clone(a.buf)
			packets = append(packets, a)
		}
	}
	return packets
}

func TestRawSockets(t *testing.T) {
	t.Parallel()
	udp4, udp6 := kind{port: 4500}, kind{six: true, port: 4500}
	for name, c := range map[string]struct {
		kind   kind
		addrs  [2]netip.Addr
		mark   uint32
		shared bool // the port is another program's
	}{
		"UDP":                {kind: udp4, addrs: four},
		"UDP, mark":          {kind: udp4, addrs: four, mark: 7},
		"UDP6":               {kind: udp6, addrs: six},
		"UDP6 link-local":    {kind: udp6, addrs: linkLocal},
		"UDP shared":         {kind: udp4, addrs: four, shared: true},
		"UDP6 shared":        {kind: udp6, addrs: six, shared: true},
		"UDP6 shared, local": {kind: udp6, addrs: linkLocal, shared: true},

		"IPv4":            {kind: inIPv4, addrs: four},
		"IPv4, mark":      {kind: inIPv4, addrs: four, mark: 7},
		"IPv6":            {kind: inIPv6, addrs: six},
		"IPv6, mark":      {kind: inIPv6, addrs: six, mark: 7},
		"IPv6 link-local": {kind: inIPv6, addrs: linkLocal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts := sockets(t, c.kind, 1500, c.shared)
			way := path{kind: c.kind, src: c.addrs[0], dst: c.addrs[1], peerPort: c.kind.port, mark: c.mark}
			s, err := hosts[0].sender(way, 128)
			if err != nil {
				t.Fatal(err)
			}
			r := hosts[1].receiver()
			from := netip.AddrPortFrom(c.addrs[0], c.kind.port)
			// From packets without anything to such as have to be cut.
			sizes := []int{8, 100, 1400, 1500, 3000, 8192, 100, 1400, 1400, 1400, 1400, 1000, 100}
			classes := []uint8{0, 0xb8, 0, 0x28, 0, 0xb8, 0, 0, 0, 0, 0x28, 0x28, 0}
			for round := range 3 {
				var batch []departure
				for i, size := range sizes {
					batch = append(batch, departure{packet: bytes.Repeat([]byte{byte(i + round + 1)}, size), class: classes[i]})
				}
				if err := s.send(batch); err != nil {
					t.Fatal(err)
				}
				for i, a := range get(t, r, len(sizes)) {
					if !batch[i].sent {
						t.Errorf("packet %d is not marked as sent", i)
					}
					if !bytes.Equal(a.buf[a.off:a.end], batch[i].packet) {
						t.Errorf("packet %d arrives with %d octets, want %d", i, a.end-a.off, len(batch[i].packet))
					}
					if a.src != from || a.dst != c.addrs[1] || a.class != classes[i] {
						t.Errorf("packet %d arrives from %v to %v with class %#x; want %v, %v, %#x",
							i, a.src, a.dst, a.class, from, c.addrs[1], classes[i])
					}
				}
			}
		})
	}
}

// Nothing leaves with a source that the host does not have, and a packet that
// the kernel refuses does not keep back the others.
func TestRawSocketsRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  kind
		addrs [2]netip.Addr
		other netip.Addr
	}{
		"IPv4": {inIPv4, four, addrC},
		"IPv6": {inIPv6, six, netip.MustParseAddr("2001:db8::7")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts := sockets(t, c.kind, 1500, false)
			s, err := hosts[0].sender(path{kind: c.kind, src: c.other, dst: c.addrs[1]}, 2)
			if err != nil {
				t.Fatal(err)
			}
			batch := []departure{{packet: make([]byte, 100)}, {packet: make([]byte, 100)}}
			if err := s.send(batch); err == nil || batch[0].sent || batch[1].sent {
				t.Errorf("sent from an address that is not ours: %v", err)
			}

			s, err = hosts[0].sender(path{kind: c.kind, src: c.addrs[0], dst: c.addrs[1]}, 3)
			if err != nil {
				t.Fatal(err)
			}
			batch = []departure{{packet: make([]byte, 100)}, {packet: make([]byte, 70000)}, {packet: make([]byte, 101)}}
			err = s.send(batch)
			if !errors.Is(err, syscall.EMSGSIZE) || !batch[0].sent || batch[1].sent || !batch[2].sent {
				t.Errorf("one of three is too large: %v, sent %v %v %v", err, batch[0].sent, batch[1].sent, batch[2].sent)
			}
			got := get(t, hosts[1].receiver(), 2)
			if n, m := got[0].end-got[0].off, got[1].end-got[1].off; n != 100 || m != 101 {
				t.Errorf("packets of %d and %d octets arrive, want 100 and 101", n, m)
			}
		})
	}
}

// Rules can choose the routing table of outer packets by their mark.
func TestRawSocketsMark(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  kind
		addrs [2]netip.Addr
	}{
		"IPv4": {inIPv4, four},
		"IPv6": {inIPv6, six},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o outer
			inHosts(t, 1500, func(h int) (err error) {
				if h != 0 {
					return nil
				}
				linux, err := host.Open()
				if err != nil {
					return err
				}
				defer linux.Close()
				if err := linux.AddRule(host.Rule{Mark: 7, Table: 1000}); err != nil {
					return err
				}
				to := &net.IPNet{IP: c.addrs[1].AsSlice(), Mask: net.CIDRMask(c.addrs[1].BitLen(), c.addrs[1].BitLen())}
				if err := netlink.RouteAdd(&netlink.Route{Dst: to, Table: 1000, Type: unix.RTN_PROHIBIT}); err != nil {
					return err
				}
				o, err = openOuter(c.kind)
				return err
			})
			defer o.close()
			for mark, want := range map[uint32]error{0: nil, 6: nil, 7: syscall.EACCES} {
				s, err := o.sender(path{kind: c.kind, src: c.addrs[0], dst: c.addrs[1], mark: mark}, 1)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.send([]departure{{packet: make([]byte, 100)}}); !errors.Is(err, want) {
					t.Errorf("mark %d: %v, want %v", mark, err, want)
				}
			}
		})
	}
}

func TestRawSocketsClose(t *testing.T) {
	t.Parallel()
	hosts := sockets(t, inIPv4, 1500, false)
	r := hosts[0].receiver()
	closed := make(chan error)
	time.AfterFunc(10*time.Millisecond, func() { closed <- hosts[0].close() })
	if _, err := r.receive(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("received after closing: %v, want %v", err, os.ErrClosed)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	s, err := hosts[0].sender(path{kind: inIPv4, src: addrA, dst: addrB}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.send([]departure{{packet: make([]byte, 8)}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("sent after closing: %v, want %v", err, os.ErrClosed)
	}
}

// Packets that the kernel has joined are told apart without its help.
func TestSegmentLen(t *testing.T) {
	t.Parallel()
	esp := func(seq byte, size int) []byte {
		return append([]byte{0, 0, 1, 0, 0, 0, 0, seq}, make([]byte, size-8)...)
	}
	for name, c := range map[string]struct {
		packets [][]byte
		want    int
	}{
		"one":           {[][]byte{esp(1, 1400)}, 0},
		"two":           {[][]byte{esp(1, 1400), esp(2, 1400)}, 1400},
		"a shorter one": {[][]byte{esp(1, 1400), esp(2, 60)}, 1400},
		"many":          {[][]byte{esp(254, 100), esp(255, 100), esp(0, 100)}, 100},
		"other numbers": {[][]byte{esp(1, 100), esp(3, 100)}, 0},
		"tiny":          {[][]byte{esp(1, 8)}, 0},
		"keepalive":     {[][]byte{{0xff}}, 0},
	} {
		if got := segmentLen(slices.Concat(c.packets...)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
