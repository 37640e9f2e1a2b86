package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"ifipsec/engine/control"
	"ifipsec/parser/ifconfig"
)

// writeStatus prints an interface as FreeBSD's ifconfig does. A family limits
// the addresses to those of the family, and leaves out what is of none.
func writeStatus(w io.Writer, ifp *control.Interface, family ifconfig.Family, format ifconfig.Format) {
	fmt.Fprintf(w, "%s: flags=%v metric %d mtu %d\n", ifp.Name, ifp.Flags, ifp.Metric, ifp.MTU)
	if ifp.Description != "" {
		fmt.Fprintf(w, "\tdescription: %s\n", printable(ifp.Description))
	}
	if t := ifp.Tunnel; t != nil {
		kind := ifconfig.Inet
		if t.Src.Is6() {
			kind = ifconfig.Inet6
		}
		fmt.Fprintf(w, "\ttunnel %s %v --> %v\n", kind, t.Src, t.Dst)
	}
	for n := range ifp.Addresses {
		a := &ifp.Addresses[n]
		if family == ifconfig.AnyFamily || family == familyOf(a) {
			writeAddress(w, a, format)
		}
	}
	if family == ifconfig.AnyFamily {
		writeGroups(w, ifp.Groups)
		fmt.Fprintf(w, "\treqid: %d\n", ifp.ReqID)
		if ifp.FIB != 0 {
			fmt.Fprintf(w, "\tfib: %d\n", ifp.FIB)
		}
		if ifp.TunnelFIB != 0 {
			fmt.Fprintf(w, "\ttunnelfib: %d\n", ifp.TunnelFIB)
		}
	}
	if (family == ifconfig.AnyFamily || family == ifconfig.Inet6) && ifp.ND6 != 0 {
		fmt.Fprintf(w, "\tnd6 options=%v\n", ifp.ND6)
	}
}

func familyOf(a *control.Address) ifconfig.Family {
	if a.Addr.Is4() {
		return ifconfig.Inet
	}
	return ifconfig.Inet6
}

func writeAddress(w io.Writer, a *control.Address, format ifconfig.Format) {
	fmt.Fprintf(w, "\t%s %v", familyOf(a), a.Addr)
	if a.Peer.IsValid() {
		fmt.Fprintf(w, " --> %v", a.Peer)
	}
	switch {
	case a.Addr.Is4() && format.Inet == ifconfig.InetCIDR, a.Addr.Is6() && format.Inet6 == ifconfig.Inet6CIDR:
		fmt.Fprintf(w, "/%d", a.Bits)
	case a.Addr.Is6():
		fmt.Fprintf(w, " prefixlen %d", a.Bits)
	default:
		mask := net.CIDRMask(a.Bits, 32)
		if format.Inet == ifconfig.InetDotted {
			fmt.Fprintf(w, " netmask %v", net.IP(mask))
		} else {
			fmt.Fprintf(w, " netmask %#x", binary.BigEndian.Uint32(mask))
		}
	}
	if a.ScopeID != 0 {
		fmt.Fprintf(w, " scopeid %#x", a.ScopeID)
	}
	fmt.Fprintln(w)
}

// writeGroups leaves out the group that every interface is in.
func writeGroups(w io.Writer, groups []string) {
	var list strings.Builder
	for _, g := range groups {
		if g != "all" {
			list.WriteString(" " + g)
		}
	}
	if list.Len() > 0 {
		fmt.Fprintf(w, "\tgroups:%s\n", list.String())
	}
}

// writeNames prints the names of the interfaces that have an address of the
// family. Every one has a link-level one, though none of Ethernet.
func writeNames(w io.Writer, all []control.Interface, family ifconfig.Family) {
	var names []string
	for n := range all {
		has := family == ifconfig.AnyFamily || family == ifconfig.Link
		for m := range all[n].Addresses {
			has = has || familyOf(&all[n].Addresses[m]) == family
		}
		if has {
			names = append(names, all[n].Name)
		}
	}
	fmt.Fprintln(w, strings.Join(names, " "))
}

// printable keeps a description from writing control characters to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
