package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
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

// inNamespace runs a test in a network namespace of its own, on a thread that
// dies with it.
func inNamespace(t *testing.T, test func(t *testing.T, h *Host)) {
	t.Helper()
	needRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			t.Errorf("network namespace: %v", err)
			return
		}
		defer ns.Close()
		h, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		test(t, h)
	}()
	<-done
}

// create makes a TUN device that ends with the test. It fails the test without
// ending it, for it is not on the test's goroutine.
func create(t *testing.T, h *Host, name string) (ok bool) {
	t.Helper()
	dev, err := h.CreateTUN(TUN{Name: name, MTU: 1400, Offload: true})
	if err != nil {
		t.Error(err)
		return false
	}
	t.Cleanup(func() { dev.Close() })
	return true
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func wantErrno(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if got, ok := errors.AsType[syscall.Errno](err); !ok || got != want {
		t.Errorf("error %v, want one that wraps %q", err, want)
	}
}

var (
	v4 = Address{Local: netip.MustParseAddr("172.16.0.3"), Peer: netip.MustParseAddr("172.16.0.5"), Bits: 16, Scope: "global"}
	v6 = Address{Local: netip.MustParseAddr("2001:db8::3"), Peer: netip.MustParseAddr("2001:db8::5"), Bits: 128, Scope: "global"}
)

func TestTUNStartsDownWithItsMTU(t *testing.T) {
	t.Parallel()
	for name, offload := range map[string]bool{"offload": true, "no offload": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inNamespace(t, func(t *testing.T, h *Host) {
				dev, err := h.CreateTUN(TUN{Name: "ipsec0", MTU: 1400, Offload: offload})
				if err != nil {
					t.Error(err)
					return
				}
				link, err := h.Link("ipsec0")
				check(t, err)
				if link.Up || link.MTU != 1400 || len(link.Addresses) != 0 {
					t.Errorf("new link is %+v", link)
				}
				if batches := dev.BatchSize() > readAhead; batches != offload {
					t.Errorf("batch size is %d", dev.BatchSize())
				}

				check(t, h.SetUp("ipsec0"))
				link, err = h.Link("ipsec0")
				check(t, err)
				if !link.Up || len(link.Addresses) != 0 {
					t.Errorf("link that is up is %+v, want no automatic address", link)
				}
				check(t, dev.Close())
				_, err = h.Link("ipsec0")
				wantErrno(t, err, syscall.ENXIO)
			})
		})
	}
}

func TestCreateTUNErrors(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		if !create(t, h, "ipsec0") {
			return
		}
		for name, c := range map[string]struct {
			tun  TUN
			want syscall.Errno
		}{
			"name taken":       {TUN{Name: "ipsec0", MTU: 1400}, syscall.EEXIST},
			"other link":       {TUN{Name: "lo", MTU: 1400}, syscall.EEXIST},
			"no name":          {TUN{MTU: 1400}, syscall.EINVAL},
			"name too long":    {TUN{Name: "ipsec01234567890", MTU: 1400}, syscall.EINVAL},
			"name with slash":  {TUN{Name: "ip/sec", MTU: 1400}, syscall.EINVAL},
			"MTU zero":         {TUN{Name: "ipsec1"}, syscall.EINVAL},
			"MTU out of range": {TUN{Name: "ipsec1", MTU: 70000}, syscall.EINVAL},
		} {
			_, err := h.CreateTUN(c.tun)
			if got, ok := errors.AsType[syscall.Errno](err); !ok || got != c.want {
				t.Errorf("%s: error %v, want one that wraps %q", name, err, c.want)
			}
		}
		_, err := h.Link("ipsec1")
		wantErrno(t, err, syscall.ENXIO)
	})
}

// routes returns the destinations of the link's routes that are not the
// kernel's own local and multicast ones.
func routes(t *testing.T, h *Host, name string) (destinations []string) {
	t.Helper()
	l, err := h.link(name)
	check(t, err)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := h.netlink.RouteList(l, family)
		check(t, err)
		for _, r := range all {
			if r.Dst != nil && !r.Dst.IP.IsLinkLocalMulticast() && r.Dst.IP[0] != 0xff {
				destinations = append(destinations, r.Dst.String())
			}
		}
	}
	slices.Sort(destinations)
	return destinations
}

func TestAddressWithDestination(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		if !create(t, h, "ipsec0") {
			return
		}
		compare := func(what string, addresses []Address, destinations []string) {
			t.Helper()
			link, err := h.Link("ipsec0")
			check(t, err)
			if diff := cmp.Diff(addresses, link.Addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s: addresses (-want +got):\n%s", what, diff)
			}
			if diff := cmp.Diff(destinations, routes(t, h, "ipsec0")); diff != "" {
				t.Errorf("%s: routes (-want +got):\n%s", what, diff)
			}
		}

		check(t, h.AddAddress("ipsec0", v4))
		compare("down", []Address{v4}, nil)

		check(t, h.SetUp("ipsec0"))
		check(t, h.AddAddress("ipsec0", v6))
		both := []string{"172.16.0.5/32", "2001:db8::5/128"}
		compare("up", []Address{v4, v6}, both)

		check(t, h.AddAddress("ipsec0", v4))
		compare("the same again", []Address{v4, v6}, both)

		moved := v4
		moved.Peer, moved.Bits = netip.MustParseAddr("172.16.0.9"), 24
		check(t, h.AddAddress("ipsec0", moved))
		compare("another destination", []Address{moved, v6}, []string{"172.16.0.9/32", "2001:db8::5/128"})

		check(t, h.SetDown("ipsec0"))
		check(t, h.SetUp("ipsec0"))
		compare("down and up", []Address{moved}, []string{"172.16.0.9/32"})

		l, err := h.link("ipsec0")
		check(t, err)
		check(t, h.netlink.LinkSetDown(l))
		check(t, h.RestoreRoutes("ipsec0"))
		compare("down by somebody else", []Address{moved}, nil)
		check(t, h.netlink.LinkSetUp(l))
		check(t, h.RestoreRoutes("ipsec0"))
		compare("up by somebody else", []Address{moved}, []string{"172.16.0.9/32"})

		check(t, h.DeleteAddress("ipsec0", moved.Local))
		compare("deleted", nil, nil)
		wantErrno(t, h.DeleteAddress("ipsec0", moved.Local), syscall.EADDRNOTAVAIL)
	})
}

func TestAddressWithoutDestination(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		if !create(t, h, "ipsec0") {
			return
		}
		check(t, h.SetUp("ipsec0"))
		check(t, h.AddAddress("ipsec0", Address{Local: v4.Local, Bits: 16}))
		check(t, h.AddAddress("ipsec0", Address{Local: v6.Local, Bits: 64}))
		want := []string{"172.16.0.0/16", "2001:db8::/64"}
		if diff := cmp.Diff(want, routes(t, h, "ipsec0")); diff != "" {
			t.Errorf("routes (-want +got):\n%s", diff)
		}
		check(t, h.DeleteAddress("ipsec0", v4.Local))
		check(t, h.DeleteAddress("ipsec0", v6.Local))
		if left := routes(t, h, "ipsec0"); len(left) != 0 {
			t.Errorf("routes left: %v", left)
		}
	})
}

func TestAddressThatIsNone(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]Address{
		"no address":              {},
		"prefix too long":         {Local: v4.Local, Bits: 33},
		"prefix negative":         {Local: v4.Local, Bits: -1},
		"two families":            {Local: v4.Local, Peer: v6.Peer, Bits: 32},
		"IPv6 destination and 64": {Local: v6.Local, Peer: v6.Peer, Bits: 64},
	} {
		// It is refused before the link is looked for.
		if err := new(Host).AddAddress("ipsec0", a); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
}

// The kernel gives the addresses of the link that is asked for, and as it does
// when those of all links are asked for.
func TestAddressesOfOneLink(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		for _, name := range []string{"ipsec0", "ipsec1"} {
			if !create(t, h, name) {
				return
			}
		}
		other4, other6 := v4, v6
		other4.Local, other6.Local = netip.MustParseAddr("172.16.0.7"), netip.MustParseAddr("2001:db8::7")
		plain := Address{Local: netip.MustParseAddr("fd00::1"), Bits: 64, Scope: "global"}
		for name, addresses := range map[string][]Address{"ipsec0": {v4, v6, plain}, "ipsec1": {other4, other6}} {
			check(t, h.SetUp(name))
			for _, a := range addresses {
				check(t, h.AddAddress(name, a))
			}
		}
		links, err := h.Links()
		check(t, err)
		for _, want := range links {
			got, err := h.Link(want.Name)
			check(t, err)
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s (-in the list of all +alone):\n%s", want.Name, diff)
			}
			l, err := h.link(want.Name)
			check(t, err)
			answers, err := h.dumpAddrs(l.Attrs().Index)
			check(t, err)
			if len(answers) != len(want.Addresses) {
				t.Errorf("%s: the kernel gives %d addresses, want %d", want.Name, len(answers), len(want.Addresses))
			}
		}
	})
}

func TestRenameAndMTU(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		if !create(t, h, "ipsec0") || !create(t, h, "ipsec1") {
			return
		}
		wantErrno(t, h.Rename("ipsec0", "ipsec1"), syscall.EEXIST)
		wantErrno(t, h.Rename("ipsec7", "vpn"), syscall.ENXIO)
		check(t, h.Rename("ipsec0", "vpn"))
		check(t, h.SetMTU("vpn", 8192))
		wantErrno(t, h.SetMTU("vpn", 0), syscall.EINVAL)
		link, err := h.Link("vpn")
		check(t, err)
		if link.MTU != 8192 {
			t.Errorf("MTU is %d, want 8192", link.MTU)
		}
		links, err := h.Links()
		check(t, err)
		var names []string
		for _, l := range links {
			names = append(names, l.Name)
		}
		if !slices.Contains(names, "vpn") || slices.Contains(names, "ipsec0") || !slices.Contains(names, "lo") {
			t.Errorf("links are %v", names)
		}
	})
}

func TestLocalAddrs(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		if !create(t, h, "ipsec0") {
			return
		}
		check(t, h.SetUp("lo"))
		check(t, h.SetUp("ipsec0"))
		check(t, h.AddAddress("ipsec0", v4))
		check(t, h.AddAddress("ipsec0", Address{Local: netip.MustParseAddr("fe80::3"), Bits: 64}))
		got, err := h.LocalAddrs()
		check(t, err)
		link, err := h.Link("ipsec0")
		check(t, err)
		want := map[netip.Addr]struct{}{}
		for _, a := range []string{"127.0.0.1", "::1", "172.16.0.3", fmt.Sprint("fe80::3%", link.Index)} {
			want[netip.MustParseAddr(a)] = struct{}{}
		}
		if name, err := h.LinkName(link.Index); name != "ipsec0" || err != nil {
			t.Errorf("LinkName(%d) = %q, %v", link.Index, name, err)
		}
		if name, err := h.LinkName(1 << 20); !errors.Is(err, syscall.ENXIO) {
			t.Errorf("LinkName of no link = %q, %v, want ENXIO", name, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		events, err := h.Watch(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		expect := func(want Event) {
			t.Helper()
			for timeout := time.After(5 * time.Second); ; {
				select {
				case e := <-events:
					e.Index = 0
					if e == want {
						return
					}
				case <-timeout:
					t.Errorf("no event %v %+v", want.Kind, want)
					return
				}
			}
		}
		dev, err := h.CreateTUN(TUN{Name: "ipsec0", MTU: 1400})
		if err != nil {
			t.Error(err)
			return
		}
		expect(Event{Kind: LinkChanged, Name: "ipsec0"})
		check(t, h.SetUp("ipsec0"))
		expect(Event{Kind: LinkChanged, Name: "ipsec0", Up: true})
		check(t, h.AddAddress("ipsec0", v4))
		expect(Event{Kind: AddressAdded, Name: "ipsec0", Addr: v4.Local})
		check(t, h.AddAddress("ipsec0", v6))
		expect(Event{Kind: AddressAdded, Name: "ipsec0", Addr: v6.Local})
		check(t, h.Rename("ipsec0", "vpn"))
		expect(Event{Kind: LinkChanged, Name: "vpn", Up: true})
		linkLocal := netip.MustParseAddr("fe80::3")
		link, err := h.Link("vpn")
		check(t, err)
		check(t, h.AddAddress("vpn", Address{Local: linkLocal, Bits: 64}))
		expect(Event{Kind: AddressAdded, Name: "vpn", Addr: linkLocal.WithZone(strconv.Itoa(link.Index))})
		check(t, h.DeleteAddress("vpn", v4.Local))
		expect(Event{Kind: AddressRemoved, Name: "vpn", Addr: v4.Local})
		check(t, dev.Close())
		expect(Event{Kind: LinkDeleted, Name: "vpn"})
	})
}

func TestWatchAfterLostChanges(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		events, err := h.Watch(t.Context())
		if err != nil || !create(t, h, "ipsec0") {
			t.Error(err)
			return
		}
		// Nobody receives until the kernel has no room left.
		l, err := h.link("ipsec0")
		check(t, err)
		for range 2000 {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(32, 32)}}
			check(t, h.netlink.AddrAdd(l, a))
			check(t, h.netlink.AddrDel(l, a))
			if t.Failed() {
				return
			}
		}
		for timeout := time.After(5 * time.Second); ; {
			select {
			case e := <-events:
				if e.Kind == Resync {
					return
				}
			case <-timeout:
				t.Error("no event says that changes were lost")
				return
			}
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		var events <-chan Event
		t.Run("watch", func(t *testing.T) {
			var err error
			events, err = h.Watch(t.Context())
			check(t, err)
		})
		select {
		case _, open := <-events:
			if open {
				t.Error("an event, want a closed channel")
			}
		case <-time.After(5 * time.Second):
			t.Error("the channel stays open")
		}
	})
}
