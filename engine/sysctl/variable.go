// Package sysctl is the switches that FreeBSD's kernel has for IPsec as
// sysctl(8) variables: their names, values and rules. It does nothing with
// them; who depends on a variable reads it from the [Table].
package sysctl

import (
	"iter"
	"math"
)

// Variable is one of the variables.
type Variable uint8

// The variables, in the order in which they are listed.
const (
	DFBit            Variable = iota // what the DF bit of IPv4 outside is: one of the DF constants
	ECN                              // with IPv4 outside: one of the ECN constants
	PathMTUDiscovery                 // 1 to learn the path's MTU from ICMP errors, 0 to ignore them
	ECN6                             // as ECN, with IPv6 outside
	BlockAcqLifetime                 // seconds after which an SA that is missing is asked for again
	LarvalLifetime                   // seconds for which an SPI is reserved
	PreferredOldSA                   // 1 to send with the oldest SA, 0 with the newest
	MaxNesting                       // tunnels that a packet may go through, one in the other

	count
)

// Values of [DFBit].
const (
	DFClear = 0
	DFSet   = 1
	DFCopy  = 2 // as the inner header has it; with IPv6 inside it is set
)

// Values of [ECN] and [ECN6] (netinet/ip_ecn.h).
const (
	ECNIgnore    = -1 // the inner field is copied outside, and the outer one not read
	ECNForbidden = 0  // the outer field says that the tunnel does not carry ECN, and is not read
	ECNAllowed   = 1  // RFC 6040's normal mode
)

// description is what a variable is.
type description struct {
	name     string
	standard int64
	min, max int64
	text     string // FreeBSD's, where it has one
}

// maxSeconds keeps a time.Duration from overflowing, as FreeBSD's int does.
const maxSeconds = math.MaxInt32

var variables = [count]description{
	DFBit:            {"net.inet.ipsec.dfbit", DFClear, DFClear, DFCopy, "Do not fragment bit on encap."},
	ECN:              {"net.inet.ipsec.ecn", ECNForbidden, ECNIgnore, ECNAllowed, "Explicit Congestion Notification handling."},
	PathMTUDiscovery: {"net.inet.ipsec.path_mtu_discovery", 1, 0, 1, "Learn the MTU of a tunnel's path from ICMP errors."},
	ECN6:             {"net.inet6.ipsec6.ecn", ECNForbidden, ECNIgnore, ECNAllowed, "Explicit Congestion Notification handling."},
	BlockAcqLifetime: {"net.key.blockacq_lifetime", 5, 0, maxSeconds, "Seconds until a missing SA is asked for again."},
	LarvalLifetime:   {"net.key.larval_lifetime", 30, 0, maxSeconds, "Seconds for which an SPI is reserved."},
	PreferredOldSA:   {"net.key.preferred_oldsa", 0, 0, 1, "Send with the oldest SA, not the newest."},
	MaxNesting:       {"net.link.ipsec.max_nesting", 4, 1, 16, "Tunnels that a packet may go through, one in the other."},
}

// All returns the variables in the order in which they are listed.
func All() iter.Seq[Variable] {
	return func(yield func(Variable) bool) {
		for v := range count {
			if !yield(v) {
				return
			}
		}
	}
}

// Find returns the variable with a name.
func Find(name string) (Variable, bool) {
	for v := range All() {
		if v.String() == name {
			return v, true
		}
	}
	return 0, false
}

// String returns the variable's name.
func (v Variable) String() string { return variables[v].name }

// Description returns what the variable is about, in a line.
func (v Variable) Description() string { return variables[v].text }

// Default returns the value that the variable has at first.
func (v Variable) Default() int64 { return variables[v].standard }

// Range returns the smallest and the largest value of the variable.
func (v Variable) Range() (min, max int64) { return variables[v].min, variables[v].max }
