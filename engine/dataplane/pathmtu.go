package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"ifipsec/engine/icmp"
	"ifipsec/engine/sad"
	"ifipsec/engine/sysctl"

	"golang.org/x/sys/unix"
)

// This file is how large a packet may be on its way to the peer: what routers say
// of it in ICMP errors, how much of that is believed, and for how long.

// pathMTULife is how long an MTU is believed. Then larger packets are tried
// again (RFC 1191, section 6.3; RFC 8201, section 4).
const pathMTULife = 10 * time.Minute

// What an ICMP error can't get the MTU of a path below, in bytes. With IPv6 no
// link has less; with IPv4 those that have are not worth being slowed down by
// everybody else's forgeries.
const (
	minPathMTU4 = 576
	minPathMTU6 = icmp.MinMTU6
)

// recentPackets is how old a packet may be that a router speaks of, in packets
// sent after it: some seconds' worth.
const recentPackets = 1 << 18

// pathMTU is what is known of a path.
type pathMTU struct {
	way   path
	mtu   int // bytes
	until time.Time
}

// pathMTU returns what is known of a path, 0 if nothing is.
func (t *Tunnel) pathMTU(way path) int {
	known := t.mtu.Load()
	if known == nil || known.way != way {
		return 0
	}
	if t.plane.now().After(known.until) {
		t.mtu.CompareAndSwap(known, nil)
		return 0
	}
	return known.mtu
}

// PathMTU returns how large the packets to the peer may be, in bytes with the outer
// header, and whether that was learned from somebody on the path; else it is what
// the first link takes. 0: the tunnel does not serve.
func (t *Tunnel) PathMTU() (mtu int, learned bool, err error) {
	s := t.settings.Load()
	if !s.serves() {
		return 0, false, nil
	}
	if known := t.mtu.Load(); known != nil && !t.plane.now().After(known.until) {
		return known.mtu, true, nil
	}
	i := s.index()
	mtu, err = linkMTU(path{kind: kind{six: i.Dst.Is6()}, src: i.Src, dst: i.Dst, mark: s.Mark})
	return mtu, false, err
}

// linkMTU asks the kernel how large packets to the peer may be.
func linkMTU(way path) (mtu int, err error) {
	const port = 9 // nothing is sent there
	domain, level, name := unix.AF_INET, unix.SOL_IP, unix.IP_MTU
	var src, dst unix.Sockaddr
	if way.kind.six {
		domain, level, name = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU
		zone := func(a netip.Addr) uint32 {
			n, _ := strconv.ParseUint(a.Zone(), 10, 32)
			return uint32(n)
		}
		src = &unix.SockaddrInet6{Addr: way.src.As16(), ZoneId: zone(way.src)}
		dst = &unix.SockaddrInet6{Addr: way.dst.As16(), ZoneId: zone(way.dst), Port: port}
	} else {
		src = &unix.SockaddrInet4{Addr: way.src.As4()}
		dst = &unix.SockaddrInet4{Addr: way.dst.As4(), Port: port}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if way.mark != 0 {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(way.mark))
	}
	if err = errors.Join(err, unix.Bind(fd, src), unix.Connect(fd, dst)); err != nil {
		return 0, err
	}
	return unix.GetsockoptInt(fd, level, name)
}

// learn notes the MTU of a path, if it is less than what is known.
func (t *Tunnel) learn(way path, mtu int) {
	floor := minPathMTU4
	if way.kind.six {
		floor = minPathMTU6
	}
	mtu = max(mtu, floor)
	if known := t.pathMTU(way); known != 0 && known <= mtu {
		return
	}
	t.mtu.Store(&pathMTU{way: way, mtu: mtu, until: t.plane.now().Add(pathMTULife)})
	t.plane.log.Info("the path to the peer takes smaller packets", "interface", t.name, "peer", way.dst, "mtu", mtu)
}

// reported hears that a packet was too big. It believes who knows the SPI and the
// sequence number of a packet that was sent a short while ago: that is a router
// on the path, or somebody who sees what it sees.
func (p *Plane) reported(r icmp.Report) {
	if p.sysctl.Get(sysctl.PathMTUDiscovery) == 0 {
		return
	}
	mtu, sound := r.PathMTU()
	t, way := p.sent(r)
	if !sound || t == nil {
		p.counters[BadReports].Add(1)
		return
	}
	p.counters[Reports].Add(1)
	t.learn(way, mtu)
}

// sent returns the tunnel that sent a packet, and its path, or nil.
func (p *Plane) sent(r icmp.Report) (*Tunnel, path) {
	sa := p.sad.Inbound(r.SPI, r.Dst.Addr())
	if sa == nil || sa.Src != r.Src.Addr() {
		return nil, path{}
	}
	last := sa.ESP.Sequence()
	if age := uint32(last) - r.Sequence; uint64(age) >= min(last, recentPackets) {
		return nil, path{}
	}
	t := p.serving.Load().tunnels[sad.Index{Src: sa.Src, Dst: sa.Dst, ReqID: sa.ReqID}]
	if t == nil {
		return nil, path{}
	}
	way := pathOf(sa, t.moved.Load(), t.settings.Load().Mark)
	if way.kind.port != r.Src.Port() || way.peerPort != r.Dst.Port() || way.dst != r.Dst.Addr() {
		return nil, path{}
	}
	return t, way
}

// listen hears the ICMP errors of a family, until the plane closes.
func (p *Plane) listen(six bool) error {
	s, err := openReports(six)
	if err != nil {
		return err
	}
	p.reports = append(p.reports, s)
	p.receives.Go(func() { p.hear(s, six) })
	return nil
}

// openReports opens a socket that receives the errors about packets that are too
// big, and with IPv4 what shares their type.
func openReports(six bool) (*socket, error) {
	domain, proto, name := unix.AF_INET, unix.IPPROTO_ICMP, "ICMP errors"
	if six {
		domain, proto, name = unix.AF_INET6, unix.IPPROTO_ICMPV6, "ICMPv6 errors"
	}
	s, err := openSocket(domain, unix.SOCK_RAW, proto, name)
	if err != nil {
		return nil, err
	}
	err = s.use(func(fd int) error {
		if six {
			var blocked unix.ICMPv6Filter
			for i := range blocked.Data {
				blocked.Data[i] = ^uint32(0)
			}
			blocked.Data[0] &^= 1 << 2
			return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &blocked)
		}
		const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
		blocked := ^uint32(1 << 3)
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(blocked)))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("filter of the socket for %s: %w", name, err), s.close())
	}
	return s, nil
}

func (p *Plane) hear(s *socket, six bool) {
	b := make([]byte, 1<<16)
	m := newMessages(s, 1, 1)
	m.setPiece(0, b)
	for {
		_, err := m.receiveSome()
		n := int(m.headers[0].Len)
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return
			}
			p.log.Warn("ICMP errors are not received", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		message := b[:n]
		parse := icmp.ParseTooBig6
		if !six {
			// Raw sockets get the IPv4 header, and not the IPv6 header.
			header := 0
			if n > 0 {
				header = int(b[0]&0xf) * 4
			}
			message, parse = b[min(header, n):n], icmp.ParseTooBig4
		}
		if r, ok := parse(message); ok {
			p.reported(r)
		}
	}
}
