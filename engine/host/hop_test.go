package host

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestHop(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "veth0", 1500
		check(t, h.netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "veth1"}))
		link, err := h.link("veth0")
		check(t, err)
		far, err := h.link("veth1")
		check(t, err)
		lo, err := h.link("lo")
		check(t, err)
		for _, l := range []netlink.Link{link, far, lo} {
			check(t, h.netlink.LinkSetUp(l))
		}
		index := link.Attrs().Index
		for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
			addr, err := netlink.ParseAddr(a)
			check(t, err)
			addr.Flags = unix.IFA_F_NODAD
			check(t, h.netlink.AddrAdd(link, addr))
		}
		changed := make(chan struct{}, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		check(t, h.WatchHops(ctx, func() { changed <- struct{}{} }))

		ip := netip.MustParseAddr
		mac, own := net.HardwareAddr{2, 0, 0, 0, 0, 9}, [6]byte(link.Attrs().HardwareAddr)
		neighbour := func(a string, state int) {
			t.Helper()
			for len(changed) > 0 {
				<-changed
			}
			check(t, h.netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: net.ParseIP(a), State: state, HardwareAddr: mac}))
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Errorf("nothing was told of neighbour %s", a)
			}
		}
		want := func(src, dst string, mark uint32, mtu int) {
			t.Helper()
			got, err := h.Hop(ip(src), ip(dst), mark)
			check(t, err)
			if want := (Hop{Link: index, Own: own, Queues: link.Attrs().NumRxQueues, Address: [6]byte(mac), MTU: mtu}); got != want {
				t.Errorf("%s: %+v, want %+v", dst, got, want)
			}
		}
		wantNot := func(src, dst string, mark uint32, errno syscall.Errno) {
			t.Helper()
			_, err := h.Hop(ip(src), ip(dst), mark)
			wantErrno(t, err, errno)
		}

		wantNot("192.0.2.1", "192.0.2.2", 0, syscall.EOPNOTSUPP) // never heard of
		neighbour("192.0.2.2", netlink.NUD_STALE)
		want("192.0.2.1", "192.0.2.2", 0, 1500)
		neighbour("192.0.2.2", netlink.NUD_FAILED)
		wantNot("192.0.2.1", "192.0.2.2", 0, syscall.EOPNOTSUPP)

		route := func(dst, gateway string, r netlink.Route) {
			t.Helper()
			_, r.Dst, err = net.ParseCIDR(dst)
			check(t, err)
			if r.Gw = net.ParseIP(gateway); r.Gw != nil {
				r.LinkIndex = index
			}
			check(t, h.netlink.RouteAdd(&r))
		}
		neighbour("192.0.2.3", netlink.NUD_PERMANENT)
		neighbour("2001:db8::3", netlink.NUD_PERMANENT)
		route("198.51.100.0/24", "192.0.2.3", netlink.Route{})
		route("203.0.113.0/25", "192.0.2.3", netlink.Route{MTU: 1300})
		route("203.0.113.128/25", "", netlink.Route{Type: unix.RTN_PROHIBIT})
		route("2001:db8:1::/48", "2001:db8::3", netlink.Route{})
		want("192.0.2.1", "198.51.100.7", 0, 1500)
		want("192.0.2.1", "203.0.113.7", 0, 1300)
		wantNot("192.0.2.1", "203.0.113.200", 0, syscall.EACCES)
		want("2001:db8::1", "2001:db8::3", 0, 1500)
		want("2001:db8::1", "2001:db8:1::9", 0, 1500)
		wantNot("192.0.2.1", "192.0.2.1", 0, syscall.EOPNOTSUPP)   // the host itself
		wantNot("fe80::1%2", "fe80::2%2", 0, syscall.EOPNOTSUPP)   // left to the kernel
		wantNot("192.0.2.1", "100.64.0.1", 0, syscall.ENETUNREACH) // no route
		check(t, h.AddRule(Rule{Mark: 7, Table: 1000}))
		route("192.0.2.3/32", "", netlink.Route{Type: unix.RTN_PROHIBIT, Table: 1000})
		want("192.0.2.1", "192.0.2.3", 0, 1500)
		wantNot("192.0.2.1", "192.0.2.3", 7, syscall.EACCES)
	})
}
