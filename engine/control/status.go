package control

import "net/netip"

// Interface is the status of one interface: all that ifconfig prints.
type Interface struct {
	Name        string    `json:"name"`
	Flags       Flags     `json:"flags"`
	Metric      int32     `json:"metric"`
	MTU         int       `json:"mtu"` // bytes
	FIB         uint32    `json:"fib"`
	Description string    `json:"description,omitzero"`
	Tunnel      *Tunnel   `json:"tunnel,omitzero"`
	TunnelFIB   uint32    `json:"tunnel_fib"`
	Addresses   []Address `json:"addresses,omitzero"` // in the order in which they were added
	Groups      []string  `json:"groups,omitzero"`    // in order of joining
	ReqID       uint32    `json:"reqid"`
	ND6         ND6Flags  `json:"nd6"`
}

// Tunnel is the outer endpoints.
type Tunnel struct {
	Src netip.Addr `json:"src"`
	Dst netip.Addr `json:"dst"`
}

// Address is an inner address. A link-local one has its link as zone.
type Address struct {
	Addr netip.Addr `json:"addr"`
	Bits int        `json:"bits"` // prefix length
	// Peer is the destination of a point-to-point address, invalid if none.
	Peer netip.Addr `json:"peer,omitzero"`
	// ScopeID is the link's number in the status of a link-local address.
	ScopeID int `json:"scope_id,omitzero"`
}

// Prefix returns the address with its prefix length, host bits and all.
func (a *Address) Prefix() netip.Prefix { return netip.PrefixFrom(a.Addr, a.Bits) }

// Flags are an interface's flags with FreeBSD's numbers (net/if.h).
type Flags uint32

// The flags that an ipsec interface can have.
const (
	FlagUp           Flags = 0x1
	FlagPointToPoint Flags = 0x10
	FlagRunning      Flags = 0x40
	FlagMulticast    Flags = 0x8000
)

var flagNames = []flagName{
	{uint32(FlagUp), "UP"},
	{uint32(FlagPointToPoint), "POINTOPOINT"},
	{uint32(FlagRunning), "RUNNING"},
	{uint32(FlagMulticast), "MULTICAST"},
}

// String is ifconfig's notation: "8051<UP,POINTOPOINT,RUNNING,MULTICAST>".
func (f Flags) String() string { return flagString(uint32(f), flagNames) }

// ND6Flags are an interface's neighbour discovery options with FreeBSD's
// numbers (netinet6/nd6.h).
type ND6Flags uint32

// The neighbour discovery options that an ipsec interface can have.
const (
	ND6PerformNUD    ND6Flags = 0x1
	ND6IfDisabled    ND6Flags = 0x8
	ND6AutoLinkLocal ND6Flags = 0x20
	ND6NoDAD         ND6Flags = 0x100
	ND6Default                = ND6PerformNUD | ND6AutoLinkLocal
)

var nd6Names = []flagName{
	{uint32(ND6PerformNUD), "PERFORMNUD"},
	{uint32(ND6IfDisabled), "IFDISABLED"},
	{uint32(ND6AutoLinkLocal), "AUTO_LINKLOCAL"},
	{uint32(ND6NoDAD), "NO_DAD"},
}

// String is ifconfig's notation: "21<PERFORMNUD,AUTO_LINKLOCAL>".
func (f ND6Flags) String() string { return flagString(uint32(f), nd6Names) }
