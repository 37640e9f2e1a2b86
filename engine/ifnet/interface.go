package ifnet

import (
	"net/netip"
	"slices"
)

// Interface is a snapshot of one interface. What Linux's link holds (inner
// addresses, MTU, UP) is not here.
type Interface struct {
	Name  string // as renamed
	Index int    // 1 and up in order of creation, never used again
	Unit  int    // N of the ipsecN that was created; a new name does not free it

	ReqID    uint32     // 0 until one is set or a tunnel needs one
	Src, Dst netip.Addr // outer endpoints, both valid or both not
	Running  bool       // there is a tunnel and Src is an address of this host

	TunnelFIB   uint32 // routing table of the outer packets, 0 for the default
	FIB         uint32 // routing table of what comes out of the tunnel, 0 for the default
	Metric      int32
	Description string
	Groups      []string // in order of joining; "all" and "ipsec" at first
}

// HasTunnel says whether the outer endpoints are set.
func (i *Interface) HasTunnel() bool { return i.Src.IsValid() }

// Policy is one of an interface's security policies, of scope ifnet: any
// protocol from Selector to Selector needs esp/tunnel/Src-Dst/unique:ReqID.
type Policy struct {
	Inbound  bool
	Selector netip.Prefix // source and destination: 0.0.0.0/0 or ::/0
	Src, Dst netip.Addr   // endpoints; of an inbound policy Src is the peer
	ReqID    uint32
}

// Policies returns the four policies of an interface with a tunnel, in the
// order in which FreeBSD's if_ipsec(4) installs them, and none without.
func (i *Interface) Policies() []Policy {
	if !i.HasTunnel() {
		return nil
	}
	all := make([]Policy, 0, 4)
	for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		every := netip.PrefixFrom(family, 0)
		all = append(all,
			Policy{Inbound: true, Selector: every, Src: i.Dst, Dst: i.Src, ReqID: i.ReqID},
			Policy{Selector: every, Src: i.Src, Dst: i.Dst, ReqID: i.ReqID})
	}
	return all
}

// snapshot returns a copy that shares nothing with the table.
func (i *Interface) snapshot() Interface {
	c := *i
	c.Groups = slices.Clone(i.Groups)
	return c
}
