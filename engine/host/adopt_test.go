package host

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
)

// What others configured on a device is still there when it is adopted.
func TestAdoptTUN(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		tun := TUN{Name: "ipsec0", MTU: 1400, Offload: true}
		dev, err := h.CreateTUN(tun)
		if err != nil {
			t.Error(err)
			return
		}
		check(t, h.SetUp("ipsec0"))
		check(t, h.AddAddress("ipsec0", v4))
		check(t, h.AddAddress("ipsec0", v6))
		check(t, h.SetMTU("ipsec0", 1300))
		l, err := h.link("ipsec0")
		check(t, err)
		for _, to := range []string{"10.1.0.0/16", "2001:db8:1::/48"} {
			dst, err := netlink.ParseIPNet(to)
			check(t, err)
			check(t, h.netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst}))
		}
		before, err := h.Link("ipsec0")
		check(t, err)
		routesBefore := routes(t, h, "ipsec0")
		check(t, dev.Persist(true))
		_, err = h.AdoptTUN(tun, dev.Index())
		wantErrno(t, err, syscall.EBUSY)
		check(t, dev.Close())

		again, err := h.AdoptTUN(tun, before.Index)
		if err != nil {
			t.Error(err)
			return
		}
		after, err := h.Link("ipsec0")
		check(t, err)
		if diff := cmp.Diff(before, after, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("the link (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(routesBefore, routes(t, h, "ipsec0")); diff != "" || len(routesBefore) != 4 {
			t.Errorf("its routes %v (-before +after):\n%s", routesBefore, diff)
		}
		check(t, again.Persist(false))
		check(t, again.Close())
		_, err = h.Link("ipsec0")
		wantErrno(t, err, syscall.ENXIO)
	})
}

// What is not the device that persisted is left alone.
func TestAdoptTUNOfAnother(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(t *testing.T, h *Host) {
		_, err := h.AdoptTUN(TUN{Name: "ipsec0"}, 5)
		wantErrno(t, err, syscall.ENXIO)
		dev, err := h.CreateTUN(TUN{Name: "ipsec0", MTU: 1400})
		if err != nil {
			t.Error(err)
			return
		}
		check(t, dev.Persist(true))
		check(t, dev.Close())
		_, err = h.AdoptTUN(TUN{Name: "ipsec0"}, dev.Index()+1)
		wantErrno(t, err, syscall.ENXIO)
		_, err = h.AdoptTUN(TUN{Name: "lo"}, 1)
		wantErrno(t, err, syscall.EINVAL)
		links, err := h.Links()
		check(t, err)
		if len(links) != 2 {
			t.Errorf("links %+v, want lo and ipsec0", links)
		}
	})
}
