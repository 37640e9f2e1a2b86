package dataplane

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// linkHost sends right to the link, to a hop that a test sets.
type linkHost struct {
	t      *testing.T
	sender *linkSender
	hop    atomic.Pointer[knownHop] // what the plane is told
	now    time.Time
	sent   byte // number of packets, which is in each
}

// packets sends packets of some sizes, which must be taken.
func (h *linkHost) packets(class uint8, sizes ...int) {
	h.t.Helper()
	var batch []departure
	for _, size := range sizes {
		h.sent++
		batch = append(batch, departure{packet: bytes.Repeat([]byte{h.sent}, size), class: class})
	}
	if err := h.sender.send(batch); err != nil {
		h.t.Fatal(err)
	}
	for i, d := range batch {
		if !d.sent {
			h.t.Errorf("packet %d of %d is not marked as sent", i+1, len(batch))
		}
	}
}

// learns sends a packet the ordinary way, with which the sender asks for the hop,
// and waits until it knows it.
func (h *linkHost) learns() {
	h.t.Helper()
	want := h.sender.plane.changes.Load()
	h.packets(0, 100)
	eventually(h.t, "changes that are known", func() uint64 {
		if hop := h.sender.hop.Load(); hop != nil && !h.sender.asking.Load() {
			return hop.changes
		}
		return ^uint64(0)
	}, want)
}

// changes has the plane told of another hop, and of that.
func (h *linkHost) changes(hop knownHop) {
	h.hop.Store(&hop)
	h.sender.plane.HopsChanged()
	h.learns()
}

func TestLinkSender(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  kind
		addrs [2]netip.Addr
	}{
		"IPv4": {inIPv4, four},
		"IPv6": {inIPv6, six},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &linkHost{t: t, now: time.Unix(1e9, 0)}
			var hosts [2]outer
			var macs [2][6]byte
			var plane *Plane
			inHosts(t, 1500, func(i int) (err error) {
				link, err := netlink.LinkByName("veth0")
				if err != nil {
					return err
				}
				macs[i] = [6]byte(link.Attrs().HardwareAddr)
				if hosts[i], err = openOuter(c.kind); err != nil {
					return err
				}
				t.Cleanup(func() { hosts[i].close() })
				return nil
			}, func(i int) (err error) {
				if i != 0 {
					return nil
				}
				plane = New(Config{
					now: func() time.Time { return h.now },
					Hop: func(src, dst netip.Addr, mark uint32) (Hop, error) {
						if src != c.addrs[0] || dst != c.addrs[1] || mark != 7 {
							t.Errorf("asked for the hop from %v to %v with mark %d", src, dst, mark)
						}
						known := h.hop.Load()
						return known.Hop, known.err
					},
				})
				way := path{kind: c.kind, src: c.addrs[0], dst: c.addrs[1], mark: 7}
				ordinary, err := hosts[0].sender(way, 8)
				if err == nil {
					h.sender, err = plane.linkSender(way, 8, ordinary, hosts[0].(raw).out)
				}
				return err
			})
			t.Cleanup(func() { plane.Close() })

			peer := Hop{Link: 2, Address: macs[1], MTU: 1500}
			nobody := Hop{Link: 2, Address: [6]byte{0: 2, 5: 9}, MTU: 1500}

			// The kernel keeps packets until it knows the neighbour.
			r := hosts[1].receiver()
			if err := h.sender.ordinary.send([]departure{{packet: make([]byte, 8)}}); err != nil {
				t.Fatal(err)
			}
			get(t, r, 1)

			var arrive []byte
			arrives := func() { arrive = append(arrive, h.sent) }

			h.changes(knownHop{err: syscall.EOPNOTSUPP})
			arrives()
			h.packets(0, 100) // by the kernel: there is no hop
			arrives()

			h.changes(knownHop{Hop: peer})
			arrives()
			h.packets(0, 8)
			arrives()
			h.packets(0xb9, 1400)
			arrives()

			h.changes(knownHop{Hop: nobody})
			arrives()
			h.packets(0, 100) // to the link, where nobody takes it
			h.packets(0, 3000)
			arrives()         // by the kernel: it has to be cut
			h.packets(0, 100) // lost again
			h.now = h.now.Add(ordinaryEvery + 1)
			h.packets(0, 100)
			arrives()         // by the kernel, for once
			h.packets(0, 100) // lost again
			h.changes(knownHop{Hop: peer})
			arrives()
			h.packets(0, 100)
			arrives()

			classes := map[byte]uint8{}
			var got []byte
			for _, a := range get(t, r, len(arrive)) {
				packet := a.buf[a.off:a.end]
				if want := bytes.Repeat(packet[:1], len(packet)); !bytes.Equal(packet, want) {
					t.Errorf("packet %d has changed", packet[0])
				}
				if a.src.Addr() != c.addrs[0] || a.dst != c.addrs[1] {
					t.Errorf("packet %d arrives from %v to %v", packet[0], a.src, a.dst)
				}
				got = append(got, packet[0])
				classes[packet[0]] = a.class
			}
			if !bytes.Equal(got, arrive) {
				t.Errorf("packets %v arrive, want %v", got, arrive)
			}
			if class := classes[arrive[4]]; class != 0xb9 {
				t.Errorf("the class is %#x, want 0xb9", class)
			}
		})
	}
}

func TestHeaderChecksum(t *testing.T) {
	t.Parallel()
	h := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	if sum := headerChecksum(h); sum != 0xb861 {
		t.Errorf("the checksum is %#x, want 0xb861", sum)
	}
}
