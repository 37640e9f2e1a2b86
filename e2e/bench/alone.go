package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"ifipsec/e2e/bench/iperf"
	"ifipsec/e2e/bench/proc"
	"ifipsec/e2e/bench/result"
	"ifipsec/e2e/lab"
)

// What ifipsec is measured by itself: many of a kind, tunnels beside others, and
// what it takes when it does nothing.
var (
	manyInterfaces = system{"1,000 interfaces", daemon, setUpInterfaces}
	manySAs        = system{"100,000 SAs", daemon, setUpSAs}
	several        = system{"several tunnels", daemon, setUpSeveral}
	idleGCM        = plain("aes-gcm-16, idle", oneTunnel(gcm))
	idleWireGuard  = system{"wireguard-go, idle", wireGuard.daemon, setUpWireGuard}
)

// The further tunnels of several.
var (
	second = tunnel{unit: 1, outerA: outerA, outerB: outerB, options: gcm,
		innerA: netip.MustParseAddr("172.16.1.3"), innerB: netip.MustParseAddr("172.16.1.5")}
	// Nobody has the address of the dead one's peer.
	dead = tunnel{unit: 2, outerA: outerA, outerB: netip.MustParseAddr("192.168.0.99"), options: gcm,
		innerA: netip.MustParseAddr("172.16.2.3"), innerB: netip.MustParseAddr("172.16.2.5")}
	slow = tunnel{unit: 3, outerA: netip.MustParseAddr("192.168.1.3"), outerB: netip.MustParseAddr("192.168.1.5"), options: gcm,
		innerA: netip.MustParseAddr("172.16.3.3"), innerB: netip.MustParseAddr("172.16.3.5")}
)

const (
	slowRate  = 10e6 / 8   // of the slow tunnel's cable, in bytes a second
	slowQueue = 1500 << 10 // before it, in bytes: a modem's, for more than a second
	floodRate = 2000       // packets of floodSize bytes that a tunnel beside another gets in a second
	floodSize = 1300
)

func setUpInterfaces(ctx context.Context, p *pair) error {
	tunnels := []tunnel{oneTunnel(gcm)}
	for unit := 1; unit < 1000; unit++ {
		t := oneTunnel(gcm)
		t.unit = unit
		t.innerA = netip.AddrFrom4([4]byte{172, 17 + byte(unit>>8), byte(unit), 3})
		t.innerB = netip.AddrFrom4([4]byte{172, 17 + byte(unit>>8), byte(unit), 5})
		tunnels = append(tunnels, t)
	}
	return setUp(ctx, p, tunnels...)
}

func setUpSAs(ctx context.Context, p *pair) error {
	var others strings.Builder
	for i := range 100_000 - 2 {
		src, dst := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), outerB
		if i%2 == 1 {
			src, dst = outerB, src
		}
		others.WriteString(oneTunnel(gcm).add(src, dst, 20_000+i, 1000+i/2))
	}
	for _, h := range []*lab.Host{p.a, p.b} {
		if err := setkey(ctx, h, others.String()); err != nil {
			return err
		}
	}
	return setUp(ctx, p, oneTunnel(gcm))
}

// setUpSeveral makes two tunnels to b, one to nobody, and one over a slow cable.
func setUpSeveral(ctx context.Context, p *pair) error {
	modem, err := lab.New("modem")
	if err != nil {
		return err
	}
	p.others = append(p.others, modem)
	err = lab.Connect(
		lab.Port{Host: p.a, Name: "eth1", Addrs: []netip.Prefix{netip.PrefixFrom(slow.outerA, 24)}},
		lab.Port{Host: modem, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(slow.outerB, 24)}},
		cableMTU,
	)
	if err != nil {
		return err
	}
	err = p.a.Do(func() error {
		link, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT},
			Rate:       slowRate, Limit: slowQueue, Buffer: 10 << 10,
		})
	})
	if err != nil {
		return fmt.Errorf("slow down eth1: %w", err)
	}
	if err := setUp(ctx, p, oneTunnel(gcm), second, dead, slow); err != nil {
		return err
	}
	_, err = p.b.Background(ctx, "iperf3", "-s", "-p", fmt.Sprint(secondServer.Port()))
	return err
}

// secondServer is where another iperf3 serves behind the second tunnel.
var secondServer = netip.AddrPortFrom(second.innerB, 5202)

// beside is TCP through the first tunnel while packets are sent into another.
func beside(name string, other tunnel) traffic {
	return traffic{name, func(ctx context.Context, p *pair, seconds int) (v values, err error) {
		ctx, stop := context.WithCancel(ctx)
		var flooded error
		var wg sync.WaitGroup
		wg.Go(func() { flooded = flood(ctx, p.a, netip.AddrPortFrom(other.innerB, 9)) })
		v, err = tcp.run(ctx, p, seconds)
		stop()
		wg.Wait()
		return v, errors.Join(err, flooded)
	}}
}

// flood sends floodRate packets a second until ctx ends.
func flood(ctx context.Context, h *lab.Host, to netip.AddrPort) error {
	conn, err := h.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return err
	}
	defer conn.Close()
	packet := make([]byte, floodSize)
	const period = 5 * time.Millisecond
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			for range floodRate * period / time.Second {
				// The kernel says so when the tunnel's queue is full.
				if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil && !errors.Is(err, syscall.ENOBUFS) {
					return err
				}
			}
		}
	}
}

// twoTunnels is a TCP stream in each of two tunnels.
var twoTunnels = traffic{"TCP in two tunnels", func(ctx context.Context, p *pair, seconds int) (values, error) {
	var wg sync.WaitGroup
	var first, other iperf.Result
	var errs [2]error
	wg.Go(func() { first, errs[0] = p.iperf(ctx, firstServer, seconds) })
	wg.Go(func() { other, errs[1] = p.iperf(ctx, secondServer, seconds) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	a, b := first.BitsPerSecond(), other.BitsPerSecond()
	return values{result.Fairness: min(a, b) / max(a, b), result.BitsPerSecond: a + b}, nil
}}

// nothing lets time pass.
var nothing = traffic{"nothing", func(ctx context.Context, p *pair, seconds int) (values, error) {
	before, err := p.spent()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Duration(seconds) * time.Second):
	}
	after, err := p.spent()
	if err != nil {
		return nil, err
	}
	memory, err := p.resident()
	return values{
		result.DaemonsLoad: (after.daemons - before.daemons).Seconds() / time.Since(begin).Seconds(),
		result.Resident:    memory,
	}, err
}}

// resident is the resident memory of a host's daemon in bytes, the mean of both
// hosts. Its processes' are added up.
func (p *pair) resident() (float64, error) {
	sum := int64(0)
	for _, pid := range p.daemons {
		now, err := proc.Memory(pid)
		if err != nil {
			return 0, err
		}
		sum += now
	}
	return float64(sum) / 2, nil
}
