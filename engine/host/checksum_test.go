package host

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A datagram whose checksum comes to 0 leaves with ffff, whoever worked it out, and
// one that has none leaves without.
func TestChecksumOfZero(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		offload, none bool
		segments      int
	}{
		"offload":          {offload: true, segments: 1},
		"segments":         {offload: true, segments: 3},
		"no offload":       {segments: 1},
		"offload, none":    {offload: true, none: true, segments: 1},
		"no offload, none": {none: true, segments: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inNamespace(t, func(t *testing.T, h *Host) {
				dev, err := h.CreateTUN(TUN{Name: "ipsec0", MTU: 1400, Offload: c.offload})
				if err != nil {
					t.Error(err)
					return
				}
				defer dev.Close()
				check(t, h.SetUp("ipsec0"))
				check(t, h.AddAddress("ipsec0", v6))
				from, to := netip.AddrPortFrom(v6.Local, 4000), netip.AddrPortFrom(v6.Peer, 5000)
				// The kernel may not have finished its search for duplicates of the address, and
				// until then it can't be bound to otherwise.
				config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
					return conn.Control(func(fd uintptr) {
						check(t, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
						if c.none {
							check(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1))
						}
						if c.segments > 1 {
							check(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 64))
						}
					})
				}}
				socket, err := config.ListenPacket(t.Context(), "udp6", from.String())
				if err != nil {
					t.Error(err)
					return
				}
				defer socket.Close()
				segment, want := datagramOfZero(from, to), uint16(0xffff)
				if c.none {
					segment[0]++
					want = 0
				}
				var payload []byte
				for range c.segments {
					payload = append(payload, segment...)
				}
				if _, err := socket.WriteTo(payload, net.UDPAddrFromAddrPort(to)); err != nil {
					t.Error(err)
					return
				}

				bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
				for i := range bufs {
					bufs[i] = make([]byte, 1<<16)
				}
				for seen := 0; seen < c.segments; {
					n, err := dev.Read(bufs, sizes, 0)
					if err != nil {
						t.Error(err)
						return
					}
					for i := range n {
						packet := bufs[i][:sizes[i]]
						if packet[6] != unix.IPPROTO_UDP { // the kernel's own
							continue
						}
						seen++
						if got := binary.BigEndian.Uint16(packet[headerLen6+6:]); got != want {
							t.Errorf("packet %d has the checksum %04x, want %04x", seen, got, want)
						}
					}
				}
			})
		})
	}
}

// datagramOfZero returns what makes the checksum of a datagram 0.
func datagramOfZero(from, to netip.AddrPort) []byte {
	payload := make([]byte, 64)
	sum := uint64(unix.IPPROTO_UDP + 2*(udpLen+len(payload)) + int(from.Port()) + int(to.Port()))
	for _, a := range []netip.AddrPort{from, to} {
		b := a.Addr().As16()
		for i := 0; i < len(b); i += 2 {
			sum += uint64(binary.BigEndian.Uint16(b[i:]))
		}
	}
	binary.BigEndian.PutUint16(payload, uint16(0xffff-sum%0xffff))
	return payload
}

func TestMendChecksumOfPieces(t *testing.T) {
	t.Parallel()
	packet := make([]byte, headerLen6+udpLen+1)
	packet[0], packet[6] = 6<<4, unix.IPPROTO_UDP
	for n := range packet {
		before := string(packet[:n])
		if mendChecksum(packet[:n]); n < headerLen6+udpLen && string(packet[:n]) != before {
			t.Errorf("%d bytes of a packet have been changed", n)
		}
	}
}
