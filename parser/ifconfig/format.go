package ifconfig

import "strings"

// Format says how addresses are printed.
type Format struct {
	Inet  InetFormat
	Inet6 Inet6Format
}

// InetFormat is how the mask of an IPv4 address is printed.
type InetFormat string

// Inet6Format is how the mask of an IPv6 address is printed.
type Inet6Format string

// The formats. Any other is the default.
const (
	InetHex    InetFormat = "hex"    // netmask 0xffff0000, the default
	InetDotted InetFormat = "dotted" // netmask 255.255.0.0
	InetCIDR   InetFormat = "cidr"   // /16

	Inet6Default Inet6Format = "default" // prefixlen 64
	Inet6CIDR    Inet6Format = "cidr"    // /64
)

// Set changes the formats that a list such as "inet:cidr,inet6:cidr" names, as
// in -f and in the environment's IFCONFIG_FORMAT. The types addr and ether
// and unknown ones are skipped.
func (f *Format) Set(list string) {
	for spec := range strings.SplitSeq(list, ",") {
		switch kind, format, _ := strings.Cut(spec, ":"); kind {
		case "inet":
			f.Inet = InetFormat(format)
		case "inet6":
			f.Inet6 = Inet6Format(format)
		}
	}
}
