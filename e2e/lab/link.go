package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Port is one end of a link: an interface to be made on a host.
type Port struct {
	Host  *Host
	Name  string         // of the interface
	Addrs []netip.Prefix // addresses with their prefix lengths
}

// Connect joins two hosts with an Ethernet link (a veth pair) of the given MTU
// in bytes. Both ends are up and have their addresses when it returns. The
// interfaces send no packet of their own accord but ARP and ICMPv6 neighbour
// discovery and multicast reports.
func Connect(a, b Port, mtu int) error {
	err := a.Host.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: a.Name, MTU: mtu},
			PeerName:      b.Name,
			PeerMTU:       uint32(mtu),
			PeerNamespace: netlink.NsFd(b.Host.namespaces[unix.CLONE_NEWNET].Fd()),
		})
	})
	if err != nil {
		return fmt.Errorf("connect %s to %s: %w", a.Host.Name, b.Host.Name, err)
	}
	for _, p := range []Port{a, b} {
		// No search for routers, and addresses that work at once.
		for setting, value := range map[string]string{
			"router_solicitations": "0", "accept_ra": "0", "accept_dad": "0",
		} {
			if err := p.Host.Sysctl("net/ipv6/conf/"+p.Name+"/"+setting, value); err != nil {
				return err
			}
		}
		if err := p.Host.SetUp(p.Name); err != nil {
			return err
		}
		for _, addr := range p.Addrs {
			if err := p.Host.AddAddr(p.Name, addr); err != nil {
				return err
			}
		}
	}
	// A veth has a carrier when both ends are up; that can take a moment.
	for _, p := range []Port{a, b} {
		if err := p.Host.waitRunning(p.Name); err != nil {
			return err
		}
	}
	return nil
}

// AddAddr adds an address to an interface of the host.
func (h *Host) AddAddr(ifname string, addr netip.Prefix) error {
	return h.onLink(ifname, "add address "+addr.String(), func(link netlink.Link) error {
		return netlink.AddrAdd(link, linkAddr(addr))
	})
}

// DelAddr removes an address from an interface of the host.
func (h *Host) DelAddr(ifname string, addr netip.Prefix) error {
	return h.onLink(ifname, "remove address "+addr.String(), func(link netlink.Link) error {
		return netlink.AddrDel(link, linkAddr(addr))
	})
}

// SetUp brings an interface of the host up.
func (h *Host) SetUp(ifname string) error {
	return h.onLink(ifname, "bring up", netlink.LinkSetUp)
}

// DelLink deletes an interface of the host, and its other end if it has one.
func (h *Host) DelLink(ifname string) error {
	return h.onLink(ifname, "delete", netlink.LinkDel)
}

// AddRoute routes dst through an interface, to the router via if that is valid.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr, ifname string) error {
	return h.onLink(ifname, "add route "+dst.String(), func(link netlink.Link) error {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst)}
		if via.IsValid() {
			route.Gw = via.AsSlice()
		}
		return netlink.RouteAdd(route)
	})
}

// Links returns the names of the host's interfaces, in the order of their
// indices.
func (h *Host) Links() (names []string, err error) {
	err = h.Do(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			names = append(names, link.Attrs().Name)
		}
		return err
	})
	return names, err
}

// Routes returns the host's routes, of all tables but the local one, as text.
func (h *Host) Routes() (routes []string, err error) {
	err = h.Do(func() error {
		all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		for _, r := range all {
			if r.Table != unix.RT_TABLE_LOCAL {
				routes = append(routes, r.String())
			}
		}
		return err
	})
	return routes, err
}

// Sysctl writes a kernel setting of the host, such as "net/ipv4/ip_forward".
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	})
}

func (h *Host) onLink(ifname, what string, f func(netlink.Link) error) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		return f(link)
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %s: %w", h.Name, ifname, what, err)
	}
	return nil
}

func (h *Host) waitRunning(ifname string) error {
	return h.onLink(ifname, "wait for the carrier", func(link netlink.Link) error {
		return Until(10*time.Second, func() error {
			link, err := netlink.LinkByIndex(link.Attrs().Index)
			if err == nil && link.Attrs().OperState != netlink.OperUp {
				err = fmt.Errorf("state is %v", link.Attrs().OperState)
			}
			return err
		})
	})
}

func linkAddr(p netip.Prefix) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
