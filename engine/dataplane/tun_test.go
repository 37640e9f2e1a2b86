package dataplane

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"ifipsec/engine/host"
	"ifipsec/engine/sad"
)

// A TCP stream through real TUN devices and sockets, with and without the
// kernel's segmentation, over both families.
func TestStreamThroughTunnel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outer   [2]netip.Addr
		offload bool
		mtu     int // of the inner link
	}{
		"IPv4":             {outer: four, offload: true, mtu: 1400},
		"IPv4, no offload": {outer: four, mtu: 1400},
		"IPv4, fragments":  {outer: four, offload: true, mtu: MaxPacket},
		"IPv6":             {outer: six, offload: true, mtu: 1400},
		"IPv6 link-local":  {outer: linkLocal, offload: true, mtu: 1280},
	} {
		t.Run(name, func(t *testing.T) {
			inner := [2]netip.Addr{netip.MustParseAddr("172.16.0.3"), netip.MustParseAddr("172.16.0.5")}
			var planes [2]*Plane
			var listener net.Listener
			var client net.Conn
			hostUp := func(h int) error {
				linux, err := host.Open()
				if err != nil {
					return err
				}
				defer linux.Close()
				dev, err := linux.CreateTUN(host.TUN{Name: "ipsec0", MTU: c.mtu, Offload: c.offload})
				if err != nil {
					return err
				}
				db := sad.New(sad.Config{})
				addSA(t, db, spec(10000, c.outer[0], c.outer[1], 100))
				addSA(t, db, spec(10001, c.outer[1], c.outer[0], 100))
				planes[h] = New(Config{SAD: db})
				tunnel := planes[h].Attach("ipsec0", dev)
				if err := tunnel.Configure(Settings{Src: c.outer[h], Dst: c.outer[1-h], ReqID: 100, Running: true, Up: true}); err != nil {
					return err
				}
				if err := linux.SetUp("ipsec0"); err != nil {
					return err
				}
				return linux.AddAddress("ipsec0", host.Address{Local: inner[h], Peer: inner[1-h], Bits: 32})
			}
			inHosts(t, 1500, func(h int) error {
				if h == 0 {
					return hostUp(0)
				}
				if err := hostUp(1); err != nil {
					return err
				}
				var err error
				listener, err = net.Listen("tcp", netip.AddrPortFrom(inner[1], 7).String())
				return err
			}, func(h int) error {
				if h == 1 {
					return nil
				}
				var err error
				client, err = net.DialTimeout("tcp", netip.AddrPortFrom(inner[1], 7).String(), 10*time.Second)
				return err
			})
			defer listener.Close()
			defer client.Close()
			for _, p := range planes {
				defer p.Close()
			}

			data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
			go func() {
				client.Write(data)
				client.(*net.TCPConn).CloseWrite()
			}()
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			server.SetDeadline(time.Now().Add(30 * time.Second))
			start, sum := time.Now(), sha256.New()
			n, err := io.Copy(sum, server)
			if err != nil || !bytes.Equal(sum.Sum(nil), hash(data)) {
				t.Errorf("%d of %d octets arrive, or others: %v", n, len(data), err)
			}
			t.Logf("%.1f Gbit/s", float64(n)*8/float64(time.Since(start).Nanoseconds()))
			for h, p := range planes {
				t.Logf("host %d: %s", h, nonzero(p))
			}
		})
	}
}

func hash(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func nonzero(p *Plane) (s string) {
	for c, n := range p.Counters() {
		if n != 0 {
			s += fmt.Sprintf("%d %s; ", n, Counter(c))
		}
	}
	for t := range p.tunnels {
		for c, n := range t.Counters() {
			if n != 0 {
				s += fmt.Sprintf("%d %s; ", n, TunnelCounter(c))
			}
		}
	}
	return s
}
