package control

import "net/netip"

// CreateRequest creates an interface (SIOCIFCREATE2): "ipsec" for any unit, or
// "ipsecN". ReqID is not part of it: as on FreeBSD it is a request of its own.
type CreateRequest struct {
	Name string `json:"name"`
}

// CreateResult names the interface that was created.
type CreateResult struct {
	Name string `json:"name"`
}

// DestroyRequest removes an interface with all it has (SIOCIFDESTROY).
type DestroyRequest struct {
	Name string `json:"name"`
}

// SetTunnelRequest sets the outer endpoints (SIOCSIFPHYADDR). A link-local
// address carries its link's name as zone.
type SetTunnelRequest struct {
	Name string     `json:"name"`
	Src  netip.Addr `json:"src"`
	Dst  netip.Addr `json:"dst"`
}

// DeleteTunnelRequest removes the outer endpoints (SIOCDIFPHYADDR).
type DeleteTunnelRequest struct {
	Name string `json:"name"`
}

// SetReqIDRequest sets the reqid (IPSECSREQID). 0 asks for an automatic one if
// there is none.
type SetReqIDRequest struct {
	Name  string `json:"name"`
	ReqID uint32 `json:"reqid"`
}

// SetTunnelFIBRequest chooses the routing table of outer packets (SIOCSTUNFIB).
type SetTunnelFIBRequest struct {
	Name string `json:"name"`
	FIB  uint32 `json:"fib"`
}

// SetFIBRequest chooses the routing table of inner packets (SIOCSIFFIB).
type SetFIBRequest struct {
	Name string `json:"name"`
	FIB  uint32 `json:"fib"`
}

// AddAddressRequest gives an interface an inner address (SIOCAIFADDR,
// SIOCAIFADDR_IN6) and brings it up. An address that it has already gets the
// new prefix length and peer.
type AddAddressRequest struct {
	Name string `json:"name"`
	Address
	// Replace takes away the first IPv4 address that the interface had, if it
	// had one. IPv6 addresses are always added to those that there are.
	Replace bool `json:"replace,omitzero"`
}

// RemoveAddressRequest takes an inner address away (SIOCDIFADDR,
// SIOCDIFADDR_IN6). EADDRNOTAVAIL: the interface does not have it.
type RemoveAddressRequest struct {
	Name string `json:"name"`
	// Addr is the address; 0.0.0.0 or :: stands for the first of its family.
	Addr netip.Addr `json:"addr"`
}

// SetUpRequest sets or clears UP (SIOCSIFFLAGS).
type SetUpRequest struct {
	Name string `json:"name"`
	Up   bool   `json:"up"`
}

// The MTU that an interface may have, in bytes. EINVAL otherwise.
const (
	MinMTU     = 1280
	MaxMTU     = 8192
	DefaultMTU = 1400
)

// SetMTURequest sets the MTU (SIOCSIFMTU), from [MinMTU] to [MaxMTU] bytes.
type SetMTURequest struct {
	Name string `json:"name"`
	MTU  int    `json:"mtu"`
}

// RenameRequest renames an interface (SIOCSIFNAME).
type RenameRequest struct {
	Name    string `json:"name"`
	NewName string `json:"new_name"`
}

// SetDescriptionRequest sets the description (SIOCSIFDESCR); empty removes it.
type SetDescriptionRequest struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// AddGroupRequest joins a group (SIOCAIFGROUP). EEXIST: is a member.
type AddGroupRequest struct {
	Name  string `json:"name"`
	Group string `json:"group"`
}

// RemoveGroupRequest leaves a group (SIOCDIFGROUP). ENOENT: is no member.
type RemoveGroupRequest struct {
	Name  string `json:"name"`
	Group string `json:"group"`
}

// SetMetricRequest sets the routing metric (SIOCSIFMETRIC).
type SetMetricRequest struct {
	Name   string `json:"name"`
	Metric int32  `json:"metric"`
}

// InterfacesRequest asks for the status of interfaces (getifaddrs(3) and the
// SIOCG requests).
type InterfacesRequest struct {
	// Name is the one to show; ENXIO if there is none. Empty: all.
	Name string `json:"name,omitzero"`
}

// InterfacesResult is the status of the interfaces in order of creation.
type InterfacesResult struct {
	Interfaces []Interface `json:"interfaces"`
}
