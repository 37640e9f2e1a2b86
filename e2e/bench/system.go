package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"ifipsec/e2e/lab"
)

// Both ends of the cable and of the tunnel.
var (
	outerA = netip.MustParseAddr("192.168.0.3")
	outerB = netip.MustParseAddr("192.168.0.5")
	innerA = netip.MustParseAddr("172.16.0.3")
	innerB = netip.MustParseAddr("172.16.0.5")
)

const (
	cableMTU  = 1500
	tunnelMTU = 1400 // of an ipsec interface, and given to the reference too
)

// pair is two hosts with a tunnel between them, and an iperf3 that serves on b.
type pair struct {
	a, b    *lab.Host
	others  []*lab.Host // that a system wants too
	daemons []int       // process IDs of both hosts' daemons
}

// system is something that makes tunnels.
type system struct {
	name   string
	daemon string // its program
	setUp  func(context.Context, *pair) error
}

// newPair makes the hosts of a system. Their programs are in bin.
func newPair(ctx context.Context, s system, bin string) (p *pair, err error) {
	p = new(pair)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", s.name, err), p.close())
		}
	}()
	for _, h := range []**lab.Host{&p.a, &p.b} {
		name := map[**lab.Host]string{&p.a: "hostA", &p.b: "hostB"}[h]
		if *h, err = lab.New(name); err != nil {
			return p, err
		}
		if err = (*h).Prepend(bin); err != nil {
			return p, err
		}
	}
	err = lab.Connect(
		lab.Port{Host: p.a, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(outerA, 24)}},
		lab.Port{Host: p.b, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(outerB, 24)}},
		cableMTU,
	)
	if err != nil {
		return p, err
	}
	if err = s.setUp(ctx, p); err != nil {
		return p, err
	}
	for _, h := range []*lab.Host{p.a, p.b} {
		found, err := h.Processes()
		if err != nil {
			return p, err
		}
		before := len(p.daemons)
		for _, process := range found {
			if process.Name == s.daemon {
				p.daemons = append(p.daemons, process.PID)
			}
		}
		if len(p.daemons) == before {
			return p, fmt.Errorf("%s: no process %s", h.Name, s.daemon)
		}
	}
	if _, err = p.b.Background(ctx, "iperf3", "-s"); err != nil {
		return p, err
	}
	return p, p.answers(ctx)
}

// serve starts daemons with options, on both hosts.
func (p *pair) serve(ctx context.Context, options ...string) error {
	for _, h := range []*lab.Host{p.a, p.b} {
		if _, err := h.Background(ctx, append([]string{"ipsecd"}, options...)...); err != nil {
			return err
		}
		err := lab.Until(5*time.Second, func() error {
			r, err := h.Command(ctx, "ipsecd", "-status")
			if err == nil && r.Exit != 0 {
				err = fmt.Errorf("%s: ipsecd does not serve: %s", h.Name, strings.TrimSpace(r.Stderr))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// answers waits until the tunnel carries packets.
func (p *pair) answers(ctx context.Context) error {
	return lab.Until(5*time.Second, func() error {
		r, err := p.a.Ping(ctx, lab.Ping{To: innerB, Timeout: 500 * time.Millisecond})
		if err == nil && r.Received == 0 {
			err = errors.New("no answer through the tunnel")
		}
		return err
	})
}

func (p *pair) close() error {
	var errs []error
	for _, h := range append([]*lab.Host{p.a, p.b}, p.others...) {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// tunnel is an interface on both hosts, with an SA for each direction.
type tunnel struct {
	unit           int
	outerA, outerB netip.Addr
	innerA, innerB netip.Addr
	options        string // setkey's options for both SAs, with a verb for a number, which ends the key
	natt           bool   // ESP in UDP
}

// The algorithms that are measured, as setkey(8) takes them.
const (
	gcm     = "-r 32 -E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f10%08x"
	cbc     = `-E rijndael-cbc "VerySecureK!%04x"`
	cbcHMAC = `-r 32 -E rijndael-cbc "VerySecureK!%04x" -A hmac-sha2-256 0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff`
)

// oneTunnel is ipsec0 with algorithms.
func oneTunnel(options string) tunnel {
	return tunnel{outerA: outerA, outerB: outerB, innerA: innerA, innerB: innerB, options: options}
}

// setUp makes tunnels on both hosts.
func setUp(ctx context.Context, p *pair, tunnels ...tunnel) error {
	for _, h := range []*lab.Host{p.a, p.b} {
		var interfaces, keys strings.Builder
		interfaces.WriteString("set -e\n")
		for _, t := range tunnels {
			local, remote, inner, other := t.outerA, t.outerB, t.innerA, t.innerB
			if h == p.b {
				local, remote, inner, other = remote, local, other, inner
			}
			reqid := 100 + t.unit
			fmt.Fprintf(&interfaces, "ifconfig ipsec%d create reqid %d\n", t.unit, reqid)
			fmt.Fprintf(&interfaces, "ifconfig ipsec%d inet tunnel %s %s\n", t.unit, local, remote)
			fmt.Fprintf(&interfaces, "ifconfig ipsec%d inet %s/32 %s\n", t.unit, inner, other)
			keys.WriteString(t.add(t.outerA, t.outerB, 10000+2*t.unit, reqid))
			keys.WriteString(t.add(t.outerB, t.outerA, 10001+2*t.unit, reqid))
		}
		// Longer than a command line can be.
		if err := succeed(ctx, h, "sh", interfaces.String()); err != nil {
			return err
		}
		if err := setkey(ctx, h, keys.String()); err != nil {
			return err
		}
	}
	return nil
}

// add is the statement that adds one SA. No two have one key.
func (t tunnel) add(src, dst netip.Addr, spi, reqid int) string {
	encapsulation := ""
	if t.natt {
		encapsulation = fmt.Sprintf("-natt %s[4500] %s[4500] ", src, dst)
	}
	return fmt.Sprintf("add %s %s esp %d -m tunnel -u %d %s%s;\n",
		src, dst, spi, reqid, encapsulation, fmt.Sprintf(t.options, spi))
}

// setkey gives a script to the host's setkey.
func setkey(ctx context.Context, h *lab.Host, script string) error {
	return succeed(ctx, h, "setkey -f", script)
}

// succeed gives a script to a command that must succeed.
func succeed(ctx context.Context, h *lab.Host, command, script string) error {
	if err := os.WriteFile(h.Path("/run/script"), []byte(script), 0o600); err != nil {
		return err
	}
	r, err := h.Shell(ctx, command+" /run/script")
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("%s: %s: exit status %d: %s", h.Name, command, r.Exit, strings.TrimSpace(r.Stdout+r.Stderr))
	}
	return err
}
