package ifconfig

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// address gathers what the words say of the inner address.
type address struct {
	family Family
	at     Position // of the first word
	said   bool     // there was a word
	addr   Host
	peer   Host
	bits   int // of a prefix; valid if masked
	masked bool
	action action
}

// action is what is to be done with the address.
type action int

const (
	replace action = iota
	keep
	remove
)

func (a *address) start(at Position) {
	if !a.said {
		a.said, a.at = true, at
	}
}

// word takes a word that is no command: the address, and when there is one,
// the destination.
func (a *address) word(at Position, text string) error {
	if a.addr.Text != "" {
		return a.destination(at, int(at), text)
	}
	a.start(at)
	before, width, found := cutLast(text, "/")
	if found {
		n, ok := parseUint(width, 10, 8)
		if !ok || int(n) > a.maxBits() {
			return badValue(int(at), text, fmt.Sprintf("width not from 0 to %d", a.maxBits()))
		}
		a.bits, a.masked = int(n), true
	}
	var err error
	a.addr, err = a.host(int(at), before)
	return err
}

func (a *address) destination(at Position, hostAt int, text string) error {
	a.start(at)
	var err error
	a.peer, err = a.host(hostAt, text)
	return err
}

func (a *address) keep(at Position) error { return a.act(at, keep) }

func (a *address) remove(at Position) error { return a.act(at, remove) }

func (a *address) act(at Position, what action) error {
	a.start(at)
	if a.action != replace && a.action != what {
		return &Error{At: int(at), Message: "an address is either added or removed, not both"}
	}
	a.action = what
	return nil
}

func (a *address) netmask(w words) error {
	a.start(w.pos())
	mask, err := a.host(w.at+1, w.args[0])
	if err != nil {
		return err
	}
	if !mask.Addr.IsValid() {
		return badValue(mask.At, mask.Text, "")
	}
	n, ok := maskBits(mask.Addr)
	if !ok {
		return badValue(mask.At, mask.Text, "the mask is not contiguous")
	}
	a.bits, a.masked = n, true
	return nil
}

func (a *address) prefixLen(w words) error {
	a.start(w.pos())
	if a.family != Inet6 {
		return &Error{At: w.at, Message: "prefixlen is for inet6 addresses"}
	}
	n, ok := parseUint(w.args[0], 10, 8)
	if !ok || int(n) > a.maxBits() {
		return badValue(w.at+1, w.args[0], "")
	}
	a.bits, a.masked = int(n), true
	return nil
}

// command returns what all the words come to, nil if there were none.
func (a *address) command() (Command, error) {
	switch {
	case !a.said:
		return nil, nil
	case a.action == remove:
		return RemoveAddress{Position: a.at, Family: a.family, Addr: a.addr}, nil
	case a.addr.Text == "":
		return nil, &Error{At: int(a.at), Message: "there is no address to add"}
	}
	c := AddAddress{
		Position: a.at, Family: a.family, Addr: a.addr, Bits: a.bits, Peer: a.peer,
		Alias: a.action == keep,
	}
	if !a.masked {
		c.Bits = -1
		if a.family == Inet6 {
			c.Bits = 64
		}
	}
	return c, nil
}

func (a *address) maxBits() int {
	if a.family == Inet6 {
		return 128
	}
	return 32
}

// host parses a host of the address's family.
func (a *address) host(at int, text string) (Host, error) {
	h, err := parseHost(at, text)
	if err == nil && h.Addr.IsValid() && h.Addr.Is6() != (a.family == Inet6) {
		err = badValue(at, text, fmt.Sprintf("not an %s address", a.family))
	}
	return h, err
}

// parseHost parses an address of any family or takes the text for a name.
func parseHost(at int, text string) (Host, error) {
	h := Host{At: at, Text: text}
	if addr, ok := parseInet(text); ok {
		h.Addr = addr
		return h, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Is6() {
		h.Addr = addr
		return h, nil
	}
	if !validHostName(text) {
		return Host{}, badValue(at, text, "")
	}
	return h, nil
}

// validHostName says whether it makes sense to look a name up.
func validHostName(s string) bool {
	return s != "" && len(s) <= 253 && s[0] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/:%", r) })
}

// parseInet reads an IPv4 address in the notations of inet_aton(3): one to
// four numbers, the last of which fills the rest of the address.
func parseInet(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var addr uint64
	for n, part := range parts {
		width := 8
		if n == len(parts)-1 {
			width = 32 - 8*n
		}
		value, ok := parseUint(part, 0, width)
		if !ok {
			return netip.Addr{}, false
		}
		addr = addr<<width | value
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}), true
}

// maskBits counts the ones that a mask starts with. It fails if others follow.
func maskBits(mask netip.Addr) (n int, ok bool) {
	ended := false
	for _, b := range mask.AsSlice() {
		ones := bits.LeadingZeros8(^b)
		if b<<ones != 0 || ended && ones > 0 {
			return 0, false
		}
		n += ones
		ended = ended || ones < 8
	}
	return n, true
}

// ClassBits returns the prefix length that an IPv4 address has by its class if
// none is given: 8, 16 or 24.
func ClassBits(a netip.Addr) int {
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	default:
		return 24
	}
}
