// Package ifconfig parses the command line of FreeBSD's ifconfig(8), as far as
// it is about ipsec interfaces: options, an interface, and commands.
//
// The words are looked up in one table of commands (see table.go). What is
// parsed does nothing yet: a command line with an error in it has no effect at
// all.
package ifconfig

import "net/netip"

// Line is a command line.
type Line struct {
	Options   Options
	Interface string // empty: list interfaces as the options say
	// Family is the address family that was named: of the commands, or of the
	// addresses to show if there are no commands.
	Family Family
	// Commands are in the order in which they take effect: [Create] first, the
	// inner address last, the others as they were written.
	Commands []Command
}

// Options are those before the interface.
type Options struct {
	All       bool   // -a, or nothing else on the line
	NamesOnly bool   // -l
	UpOnly    bool   // -u
	DownOnly  bool   // -d
	Cloners   bool   // -C: list the kinds of interface that can be created
	Members   string // -g without -a: list the members of this group
	Group     string // -a -g: only interfaces in a group that matches this pattern
	NotGroup  string // -a -G: only interfaces in no group that matches this pattern
	Verbose   int    // how many -v
	Format    Format // -f
}

// Family is an address family keyword.
type Family string

// The address families. [Link] is for listing only.
const (
	AnyFamily Family = ""
	Inet      Family = "inet"
	Inet6     Family = "inet6"
	Link      Family = "link"
)

// Position is the index of a command's first word in the arguments.
type Position int

// Pos returns the position.
func (p Position) Pos() int { return int(p) }

// Command is one of the command types of this package, by value.
type Command interface{ Pos() int }

type (
	// Create is "create" or "plumb".
	Create struct{ Position }

	// Destroy is "destroy" or "unplumb".
	Destroy struct{ Position }

	// Tunnel is "tunnel SRC DST".
	Tunnel struct {
		Position
		Family   Family // [Inet] or [Inet6], which the addresses must have
		Src, Dst Host
	}

	// DeleteTunnel is "deletetunnel" or "-tunnel".
	DeleteTunnel struct{ Position }

	// ReqID is "reqid N"; 0 for automatic.
	ReqID struct {
		Position
		ID uint32
	}

	// FIB is "fib N".
	FIB struct {
		Position
		Table uint32
	}

	// TunnelFIB is "tunnelfib N".
	TunnelFIB struct {
		Position
		Table uint32
	}

	// Up is "up" or "down".
	Up struct {
		Position
		Up bool
	}

	// MTU is "mtu N", in bytes.
	MTU struct {
		Position
		Bytes int
	}

	// Metric is "metric N".
	Metric struct {
		Position
		Metric int32
	}

	// Name is "name NEW".
	Name struct {
		Position
		New string
	}

	// Description is "description TEXT", "descr TEXT", or one of them with a
	// minus and no text.
	Description struct {
		Position
		Text string
	}

	// AddGroup is "group NAME".
	AddGroup struct {
		Position
		Group string
	}

	// RemoveGroup is "-group NAME".
	RemoveGroup struct {
		Position
		Group string
	}

	// AddAddress is an inner address with all that is said of it.
	AddAddress struct {
		Position
		Family Family
		Addr   Host
		// Bits is the prefix length, or -1 if there was none: see [ClassBits].
		// Of IPv6 it is 64 if there was none.
		Bits  int
		Peer  Host // no text if there is none
		Alias bool // the addresses that there are stay
	}

	// RemoveAddress is "-alias", "delete" or "remove".
	RemoveAddress struct {
		Position
		Family Family
		Addr   Host // no text: the first address of the family
	}
)

// Host is an address or the name of a host.
type Host struct {
	At   int        // position
	Text string     // as written, without a prefix length
	Addr netip.Addr // invalid if Text is a name that must be looked up
}

// Error is what is wrong with a command line.
type Error struct {
	At      int    // index in the arguments; their number if something is missing
	Message string // empty if [Usage] says all
	Usage   bool   // the usage should be shown
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return "wrong usage"
	}
	return e.Message
}
