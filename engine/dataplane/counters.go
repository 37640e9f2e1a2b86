package dataplane

import (
	"sync/atomic"
	"unsafe"
)

// Counter is one of the counters of a plane. They are those of FreeBSD's
// struct espstat (sys/netipsec/esp_var.h) for which there is a cause here.
type Counter uint8

const (
	HeaderDrops  Counter = iota // hdrops: too short for an ESP header
	NoFamily                    // nopf: neither IPv4 nor IPv6 inside
	NoSA                        // notdb: no SA has the SPI and destination
	BadLength                   // badilen: too short for the SA, or not whole blocks
	Wrap                        // wrap: the SA's sequence numbers are used up
	BadEncrypt                  // badenc: bad padding after decryption
	BadAuth                     // badauth: the ICV is not the packet's
	Replay                      // replay: received before, or too old for the window
	Input                       // input: ESP packets in
	Output                      // output: ESP packets out
	InputBytes                  // ibytes: octets of decrypted payload
	OutputBytes                 // obytes: octets of payload to encrypt
	TooBig                      // toobig: larger than can be sent
	PolicyDrops                 // pdrops: no running tunnel has the SA's endpoints and reqid, or somebody else sent it
	TunnelSanity                // tunnel: the inner IP header contradicts the packet
	Dummies                     // dummy packets (RFC 4303, section 2.6), dropped as they should be
	NonESP                      // in UDP, with the non-ESP marker: a key daemon's (RFC 3948, section 2.2)
	Keepalives                  // in UDP, NAT-keepalives (RFC 3948, section 2.3)
	Congestion                  // marked as congested on its way, which the inner packet can't express (RFC 6040, section 4.2)
	Reports                     // ICMP errors about packets that were too big, believed
	BadReports                  // the same, not believed: about packets that were never sent, or senseless
	InNotKept                   // above what the SA's bounds allow, see esp.Bounds

	counterCount
)

// Name returns the name of the counter, FreeBSD's where it has one.
func (c Counter) Name() string {
	return [counterCount]string{
		"hdrops", "nopf", "notdb", "badilen", "wrap", "badenc", "badauth", "replay", "input", "output",
		"ibytes", "obytes", "toobig", "pdrops", "tunnel", "dummies", "nonesp", "keepalives", "congestion",
		"toobig_reports", "toobig_forged", "not_kept",
	}[c]
}

// String returns what netstat(1) prints after the number.
func (c Counter) String() string {
	return [counterCount]string{
		"packets shorter than header shows",
		"packets dropped; protocol family not supported",
		"packets dropped; no TDB",
		"packets dropped; bad ilen",
		"replay counter wraps",
		"packets dropped; bad encryption detected",
		"packets dropped; bad authentication detected",
		"possible replay packets detected",
		"packets in",
		"packets out",
		"bytes in",
		"bytes out",
		"packets dropped; larger than IP_MAXPACKET",
		"packets blocked due to policy",
		"tunnel sanity check failures",
		"dummy packets dropped",
		"packets dropped; non-ESP marker",
		"NAT-keepalives in",
		"packets dropped; congestion that the inner packet can't express",
		"ICMP errors about packets too big for the path",
		"ICMP errors ignored; about packets that were not sent",
		"packets dropped; sequence number not kept on the disk yet",
	}[c]
}

// Counters are the values of a plane's counters, indexed by [Counter].
type Counters [counterCount]uint64

// TunnelCounter is one of the counters of a tunnel.
type TunnelCounter uint8

const (
	InPackets     TunnelCounter = iota // packets given to the kernel
	InBytes                            // their octets, with the inner IP header
	InErrors                           // packets that the kernel did not take
	OutPackets                         // packets sent to the peer
	OutBytes                           // their octets, with the inner IP header
	OutNotRunning                      // dropped: the interface was down or not running
	OutNoSA                            // dropped: no SA
	OutFamily                          // dropped: neither IPv4 nor IPv6
	OutLoop                            // dropped: an outer packet of this host's tunnels, routed in circles or through too many
	OutTooBig                          // dropped: larger than MaxPacket, or too large when sealed
	OutSequence                        // dropped: the SA's sequence numbers are used up
	OutSend                            // dropped: the kernel did not send it
	OutRead                            // errors of reading from the TUN device
	OutPathMTU                         // dropped: larger than the path takes in one piece; the sender was told
	OutNotKept                         // dropped: above what the SA's bounds allow, see esp.Bounds

	tunnelCounterCount
)

// Name returns the name of the counter.
func (c TunnelCounter) Name() string {
	return [tunnelCounterCount]string{
		"ipackets", "ibytes", "ierrors", "opackets", "obytes", "not_running", "no_sa", "family", "loop",
		"too_big", "sequence", "not_sent", "read_errors", "path_mtu",
		"not_kept",
	}[c]
}

// String returns words for logs and statistics.
func (c TunnelCounter) String() string {
	return [tunnelCounterCount]string{
		"packets in",
		"bytes in",
		"input errors",
		"packets out",
		"bytes out",
		"output dropped; not running",
		"output dropped; no SA",
		"output dropped; neither IPv4 nor IPv6",
		"output dropped; outer packet routed in circles, or through too many tunnels",
		"output dropped; too big",
		"output dropped; sequence numbers used up",
		"output dropped; not sent",
		"errors of reading from the interface",
		"output dropped; too big for the path, and the sender was told",
		"output dropped; sequence number not kept on the disk yet",
	}[c]
}

// TunnelCounters are the values of a tunnel's counters, indexed by
// [TunnelCounter].
type TunnelCounters [tunnelCounterCount]uint64

// OutErrors is the interface's output errors: packets dropped on the way out,
// of whatever cause.
func (c *TunnelCounters) OutErrors() (n uint64) {
	for _, dropped := range c[OutNotRunning:] {
		n += dropped
	}
	return n
}

// CountersSize is the bytes that the counters of a plane or a tunnel take: those
// of [Counters] or [TunnelCounters], one after the other, each a uint64.
const CountersSize = 8 * max(int(counterCount), int(tunnelCounterCount))

// countersIn returns where counters are in memory, or in new memory if that is
// nil.
func countersIn(memory []byte) unsafe.Pointer {
	if memory == nil {
		return unsafe.Pointer(new([CountersSize / 8]atomic.Uint64))
	}
	return unsafe.Pointer(unsafe.SliceData(memory[:CountersSize]))
}

// counters is what goroutines add their batches' counts to.
type counters [counterCount]atomic.Uint64

func (c *counters) add(batch *Counters) {
	for i, n := range batch {
		if n != 0 {
			c[i].Add(n)
		}
	}
}

func (c *counters) snapshot() (s Counters) {
	for i := range c {
		s[i] = c[i].Load()
	}
	return s
}

type tunnelCounters [tunnelCounterCount]atomic.Uint64

func (c *tunnelCounters) add(batch *TunnelCounters) {
	for i, n := range batch {
		if n != 0 {
			c[i].Add(n)
		}
	}
}

func (c *tunnelCounters) snapshot() (s TunnelCounters) {
	for i := range c {
		s[i] = c[i].Load()
	}
	return s
}
