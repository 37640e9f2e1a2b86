// Package diagnosis says in one line why an interface passes no traffic, from
// what is known of it and of the SAs: what whoever set it up got wrong, or what
// the peer does not do. It asks nobody and knows no clock.
package diagnosis

import (
	"fmt"
	"net/netip"
	"time"
)

// Interface is what is known of an ipsec interface.
type Interface struct {
	Name     string
	Up       bool
	Running  bool       // Src is an address of the host
	Src, Dst netip.Addr // invalid if no tunnel is set
	ReqID    uint32
	Sent     uint64 // packets that left through it
	Refused  uint64 // packets that the kernel did not send
	Looped   uint64 // outer packets of the host's tunnels that were routed into it
	UsedUp   uint64 // packets for which an SA had no sequence number left
}

// SA is what is known of one of the host's ESP SAs.
type SA struct {
	SPI       uint32
	Src, Dst  netip.Addr
	ReqID     uint32
	Transport bool // of transport mode
	Usable    bool // mature or dying
	Packets   uint64
	LastUsed  time.Time // zero if never
	Replays   uint64    // packets that the replay window refused
	BadICVs   uint64    // packets that did not authenticate
	Malformed uint64    // packets that made no sense, as those of another key do without authentication
}

// Silence is how long a peer that is being sent to may send nothing before that
// is worth a word.
const Silence = time.Minute

// Explain returns why the interface passes no traffic, or what to be wary of,
// in words for whoever runs the host. It is empty if nothing seems wrong.
func Explain(ifp Interface, sas []SA, now time.Time) string {
	switch {
	case !ifp.Src.IsValid():
		return "no tunnel is set"
	case !ifp.Running:
		return fmt.Sprintf("%v is not an address of this host", ifp.Src)
	case !ifp.Up:
		return "the interface is down"
	}
	out, why := serving(ifp, sas, ifp.Src, ifp.Dst)
	if why != "" {
		return "nothing is sent: " + why
	}
	in, why := serving(ifp, sas, ifp.Dst, ifp.Src)
	if why != "" {
		return "nothing is received: " + why
	}
	if ifp.Refused > 0 && ifp.Sent == 0 {
		return fmt.Sprintf("this host does not send the outer packets to %v: %d were refused; the daemon's log says why", ifp.Dst, ifp.Refused)
	}
	if fault := received(ifp, out, in, now); fault != "" || ifp.Sent > 0 {
		return fault
	}
	switch {
	case ifp.Looped > 0:
		return fmt.Sprintf("outer packets of this host's tunnels are routed into %s (%d so far), and dropped: the route to %v leads into a tunnel", ifp.Name, ifp.Looped, ifp.Dst)
	case ifp.UsedUp > 0:
		return fmt.Sprintf("nothing is sent: the sequence numbers of the SA are used up (%d packets so far), so it needs new keys", ifp.UsedUp)
	}
	return ""
}

// received judges by what arrives.
func received(ifp Interface, out, in []SA, now time.Time) string {
	var packets uint64
	var last time.Time
	worst := in[0]
	for _, sa := range in {
		packets += sa.Packets
		if sa.LastUsed.After(last) {
			last = sa.LastUsed
		}
		if sa.BadICVs+sa.Replays+sa.Malformed > worst.BadICVs+worst.Replays+worst.Malformed {
			worst = sa
		}
	}
	sending := false
	for _, sa := range out {
		sending = sending || sa.LastUsed.After(last.Add(Silence)) || last.IsZero() && sa.Packets > 0
	}
	quiet := last.IsZero() || now.Sub(last) > Silence
	switch {
	case quiet && worst.BadICVs > 0:
		return fmt.Sprintf("packets with SPI %d do not authenticate (%d so far): the peer has another key or algorithm, or somebody changes them", worst.SPI, worst.BadICVs)
	case quiet && worst.Malformed > 0:
		return fmt.Sprintf("packets with SPI %d make no sense when decrypted (%d so far): the peer has another key or algorithm", worst.SPI, worst.Malformed)
	case quiet && worst.Replays > 0:
		return fmt.Sprintf("the replay window refuses the packets with SPI %d (%d so far): the peer has begun to count anew, so both need new SAs", worst.SPI, worst.Replays)
	case last.IsZero() && sending:
		return fmt.Sprintf("the peer %v has sent nothing that has an SA here", ifp.Dst)
	case quiet && sending:
		return fmt.Sprintf("the peer %v has been silent for %v", ifp.Dst, now.Sub(last).Round(time.Second))
	}
	return ""
}

// serving returns the SAs for one way, or why there are none.
func serving(ifp Interface, sas []SA, src, dst netip.Addr) (found []SA, why string) {
	var other string // the best guess at what was meant
	better := 0
	guess := func(rank int, format string, args ...any) {
		if rank > better {
			better, other = rank, fmt.Sprintf(format, args...)
		}
	}
	for _, sa := range sas {
		ends := sa.Src == src && sa.Dst == dst
		switch {
		case ends && sa.ReqID == ifp.ReqID && sa.Usable && !sa.Transport:
			found = append(found, sa)
		case ends && sa.ReqID == ifp.ReqID && sa.Transport:
			guess(4, "SPI %d is of transport mode, and the interface wants tunnel mode", sa.SPI)
		case ends && sa.ReqID == ifp.ReqID:
			guess(3, "SPI %d is not complete yet", sa.SPI)
		case ends && sa.ReqID == 0:
			guess(2, "SPI %d has no reqid, and the interface wants %d", sa.SPI, ifp.ReqID)
		case ends:
			guess(2, "SPI %d has reqid %d, and the interface wants %d", sa.SPI, sa.ReqID, ifp.ReqID)
		case sa.ReqID == ifp.ReqID && !(sa.Src == dst && sa.Dst == src):
			guess(1, "SPI %d with reqid %d is from %v to %v", sa.SPI, sa.ReqID, sa.Src, sa.Dst)
		}
	}
	if len(found) > 0 {
		return found, ""
	}
	why = fmt.Sprintf("no SA from %v to %v has reqid %d", src, dst, ifp.ReqID)
	if other != "" {
		why += "; " + other
	}
	return nil, why
}
