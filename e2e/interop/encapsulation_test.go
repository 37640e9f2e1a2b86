package interop

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
)

// ESP in UDP (RFC 3948), from another port to the one of key daemons.
func TestESPInUDP(t *testing.T) {
	t.Parallel()
	const portA, portL = 4501, 4500
	for _, outer := range families {
		t.Run(outer, func(t *testing.T) {
			t.Parallel()
			a, l := newLinux(t)
			tn := newTunnel(0, outer)
			tn.setUp(t, a, l)
			if err := l.ListenESPInUDP(t.Context(), netip.AddrPortFrom(tn.outerL, portL)); err != nil {
				t.Fatal(err)
			}
			there := [2]string{
				fmt.Sprintf("-natt %v[%d] %v[%d]", tn.outerA, portA, tn.outerL, portL),
				fmt.Sprintf("encap espinudp %d %d 0.0.0.0", portA, portL),
			}
			back := [2]string{
				fmt.Sprintf("-natt %v[%d] %v[%d]", tn.outerL, portL, tn.outerA, portA),
				fmt.Sprintf("encap espinudp %d %d 0.0.0.0", portL, portA),
			}
			for name, protect := range map[string]func(uint32) protection{"aes-gcm-16": gcm, "aes-cbc hmac-sha2-256": sha, "chacha20-poly1305": chacha} {
				t.Run(name, func(t *testing.T) {
					keyed(t, a, l, tn, protect(1).with(there[0], there[1]), protect(3).with(back[0], back[1]))
					wire, err := a.Capture("eth0", 96)
					if err != nil {
						t.Fatal(err)
					}
					for _, inner := range families {
						err := carries(t, a, l, []tunnel{tn}, inner)
						cells.Set(name+", ESP in UDP", column(outer, inner), err == nil)
						if err != nil {
							t.Error(err)
						}
					}
					packets, err := wire.Stop()
					if err != nil {
						t.Fatal(err)
					}
					ports := make(map[[2]int]bool)
					for _, p := range packets {
						if udp, ok := p.Decode().Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
							ports[[2]int{int(udp.SrcPort), int(udp.DstPort)}] = true
						} else if !p.Chatter() {
							t.Errorf("not UDP: %v", p)
						}
					}
					if want := map[[2]int]bool{{portA, portL}: true, {portL, portA}: true}; !cmp.Equal(want, ports) {
						t.Errorf("datagrams had the ports %v, want %v", ports, want)
					}
				})
			}
			t.Run("TCP", func(t *testing.T) {
				keyed(t, a, l, tn, gcm(1).with(there[0], there[1]), gcm(2).with(back[0], back[1]))
				streams(t, a, l, tn)
			})
		})
	}
}
