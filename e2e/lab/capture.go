package lab

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/afpacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// captureRing is the size in bytes of the ring between the kernel and a capture,
// captureHeader what a packet needs in it beside its data, at most, and
// captureAll the data that is recorded unless less is asked for.
const (
	captureRing   = 16 << 20
	captureHeader = 128
	captureAll    = 16<<10 - captureHeader
)

// capturePoll is how often a capture looks whether it is to stop.
const capturePoll = 5 * time.Millisecond

// Packet is one Ethernet frame that a [Capture] saw.
type Packet struct {
	gopacket.CaptureInfo
	Data []byte // the frame, or its beginning
}

// Decode returns the frame's layers.
func (p Packet) Decode() gopacket.Packet {
	return gopacket.NewPacket(p.Data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
}

// Chatter reports whether the frame is one of those that an idle link carries:
// ARP, and ICMPv6's neighbour discovery and multicast reports.
func (p Packet) Chatter() bool {
	decoded := p.Decode()
	if decoded.Layer(layers.LayerTypeARP) != nil {
		return true
	}
	icmp, ok := decoded.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	if !ok {
		return false
	}
	switch icmp.TypeCode.Type() {
	case layers.ICMPv6TypeRouterSolicitation, layers.ICMPv6TypeRouterAdvertisement,
		layers.ICMPv6TypeNeighborSolicitation, layers.ICMPv6TypeNeighborAdvertisement,
		layers.ICMPv6TypeMLDv1MulticastListenerReportMessage,
		layers.ICMPv6TypeMLDv1MulticastListenerDoneMessage,
		layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		return true
	}
	return false
}

// CountESP counts the ESP packets of a capture by SPI. The others are what is
// neither ESP nor chatter.
func CountESP(packets []Packet) (bySPI map[uint32]int, others []Packet) {
	bySPI = make(map[uint32]int)
	for _, p := range packets {
		if esp, ok := p.Decode().Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP); ok {
			bySPI[esp.SPI]++
		} else if !p.Chatter() {
			others = append(others, p)
		}
	}
	return bySPI, others
}

// String names the frame's layers and addresses, such as
// "Ethernet/IPv4/TCP 192.168.0.3->192.168.0.5", and says what ICMP means.
func (p Packet) String() string {
	var names []string
	decoded := p.Decode()
	for _, l := range decoded.Layers() {
		names = append(names, l.LayerType().String())
	}
	s := strings.Join(names, "/")
	if n := decoded.NetworkLayer(); n != nil {
		s += " " + n.NetworkFlow().String()
	}
	if icmp, ok := decoded.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		s += " " + icmp.TypeCode.String()
	}
	if icmp, ok := decoded.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		s += " " + icmp.TypeCode.String()
	}
	return s
}

// Capture records what an interface sends and receives.
type Capture struct {
	tpacket *afpacket.TPacket
	stopped atomic.Int64 // when, in nanoseconds since 1970; 0: not yet
	done    chan struct{}

	mu      sync.Mutex
	packets []Packet
	err     error
}

// Capture starts to record what an interface of the host sends and receives,
// the first snap bytes of each frame (0: all, but not more than some 16 KiB).
func (h *Host) Capture(ifname string, snap uint32) (*Capture, error) {
	if snap == 0 {
		snap = captureAll
	}
	c := &Capture{done: make(chan struct{})}
	// The smallest power of two: the smaller, the more packets can wait.
	slot := 1 << bits.Len32(snap+captureHeader-1)
	err := h.Do(func() (err error) {
		c.tpacket, err = afpacket.NewTPacket(
			afpacket.OptInterface(ifname),
			// Version 3 would keep packets back until a block of them is full,
			// or for an uncertain time.
			afpacket.TPacketVersion2,
			afpacket.OptFrameSize(slot),
			afpacket.OptBlockSize(max(slot, os.Getpagesize())),
			afpacket.OptNumBlocks(captureRing/max(slot, os.Getpagesize())),
			afpacket.OptPollTimeout(capturePoll),
		)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: capture on %s: %w", h.Name, ifname, err)
	}
	filter, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: snap}})
	if err == nil {
		err = c.tpacket.SetBPF(filter)
	}
	if err != nil {
		c.tpacket.Close()
		return nil, fmt.Errorf("%s: capture on %s: %w", h.Name, ifname, err)
	}
	go func() {
		defer close(c.done)
		defer c.tpacket.Close()
		c.err = c.read()
	}()
	return c, nil
}

// read records until the capture is stopped and what came before is read.
func (c *Capture) read() error {
	for {
		// Looked at first: only a wait that begins after Stop can tell that
		// there is nothing more.
		stopped := c.stopped.Load()
		data, info, err := c.tpacket.ZeroCopyReadPacketData()
		switch {
		case errors.Is(err, afpacket.ErrTimeout):
			if stopped != 0 {
				return c.complete()
			}
			continue
		case errors.Is(err, afpacket.ErrPoll):
			continue // the interface went down, or came back
		case err != nil:
			return err
		case stopped != 0 && info.Timestamp.UnixNano() > stopped:
			return c.complete()
		}
		c.mu.Lock()
		c.packets = append(c.packets, Packet{CaptureInfo: info, Data: slices.Clone(data)})
		c.mu.Unlock()
	}
}

// complete returns an error if the kernel had no room for a packet: nobody may
// conclude from such a capture what was not on the wire.
func (c *Capture) complete() error {
	stats, _, err := c.tpacket.SocketStats()
	if err == nil && stats.Drops() > 0 {
		err = fmt.Errorf("the capture missed %d packets", stats.Drops())
	}
	return err
}

// Packets returns what was captured so far, oldest first.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clip(c.packets)
}

// Stop ends the capture and returns every packet that was on the wire before it
// was called, or an error if the capture is not complete.
func (c *Capture) Stop() ([]Packet, error) {
	c.stopped.CompareAndSwap(0, time.Now().UnixNano())
	<-c.done
	return c.Packets(), c.err
}

// WritePCAP writes packets to a file that tcpdump and Wireshark read.
func WritePCAP(path string, packets []Packet) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := pcapgo.NewWriterNanos(f)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, p := range packets {
		if err := w.WritePacket(p.CaptureInfo, p.Data); err != nil {
			return err
		}
	}
	return f.Close()
}

// Inject sends Ethernet frames out of an interface of the host, as they are.
func (h *Host) Inject(ifname string, frames ...[]byte) error {
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: inject on %s: %w", h.Name, ifname, err)
	}
	return nil
}
