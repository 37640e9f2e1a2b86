package rcconf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Route is a route to add, as route(8) has it.
type Route struct {
	Dst       netip.Prefix
	Gateway   netip.Addr // invalid if Interface is set
	Interface string
}

// parseRoute reads the arguments of route(8) after the word add.
func parseRoute(args []string) (r Route, err error) {
	var positional []string
	var net, host, iface, six bool
	bits := -1
	for len(args) > 0 {
		option := args[0]
		args = args[1:]
		if !strings.HasPrefix(option, "-") {
			positional = append(positional, option)
			continue
		}
		switch option {
		case "-net":
			net = true
		case "-host":
			host = true
		case "-inet6", "-6":
			six = true
		case "-inet", "-4":
		case "-interface", "-iface":
			iface = true
		case "-netmask", "-prefixlen":
			if len(args) == 0 {
				return r, fmt.Errorf("%s has no value", option)
			}
			if bits, err = maskBits(args[0], option == "-prefixlen"); err != nil {
				return r, err
			}
			args = args[1:]
		default:
			return r, fmt.Errorf("unknown option %s, expected -net, -host, -inet, -inet6, -interface, -netmask or -prefixlen", quote(option))
		}
	}
	switch {
	case len(positional) < 2:
		return r, errors.New("expected a destination and a gateway")
	case len(positional) == 3 && bits < 0:
		if bits, err = maskBits(positional[2], false); err != nil {
			return r, err
		}
	case len(positional) > 2:
		return r, fmt.Errorf("unexpected %s after the gateway", quote(positional[2]))
	}
	if r.Dst, err = destination(positional[0], bits, net, host, six); err != nil {
		return r, err
	}
	if iface {
		r.Interface = positional[1]
		return r, nil
	}
	if r.Gateway, err = netip.ParseAddr(positional[1]); err != nil {
		return r, fmt.Errorf("gateway %s is no address", quote(positional[1]))
	}
	if r.Gateway.Is4() != r.Dst.Addr().Is4() {
		return r, fmt.Errorf("gateway %v is not of the family of the destination %v", r.Gateway, r.Dst)
	}
	return r, nil
}

// destination reads where a route leads. Without a length that is a host, or one
// of the networks that addresses had before they had lengths.
func destination(text string, bits int, net, host, six bool) (netip.Prefix, error) {
	if text == "default" {
		if six {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	}
	address, length, given := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Is4In6() || addr.Is4() == six {
		family := "IPv4"
		if six {
			family = "IPv6"
		}
		return netip.Prefix{}, fmt.Errorf("destination %s is no %s address", quote(text), family)
	}
	if given {
		if bits, err = maskBits(length, true); err != nil {
			return netip.Prefix{}, err
		}
	}
	switch {
	case host:
		bits = addr.BitLen()
	case bits < 0 && addr.Is6():
		bits = 128
		if net {
			bits = 64
		}
	case bits < 0:
		bits = classBits(addr)
		if !net && netip.PrefixFrom(addr, bits).Masked().Addr() != addr {
			bits = 32
		}
	}
	p := netip.PrefixFrom(addr, bits)
	if !p.IsValid() {
		return p, fmt.Errorf("destination %s has a prefix of %d bits, the most is %d", quote(text), bits, addr.BitLen())
	}
	return p.Masked(), nil
}

// classBits is the prefix length of an address's class.
func classBits(a netip.Addr) int {
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	default:
		return 24
	}
}

// maskBits reads a prefix length, or a netmask of IPv4's.
func maskBits(text string, length bool) (int, error) {
	if length {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || n > 128 {
			return 0, fmt.Errorf("%s is no prefix length", quote(text))
		}
		return int(n), nil
	}
	var mask uint32
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			return 0, fmt.Errorf("%s is no netmask", quote(text))
		}
		mask = uint32(n)
	} else {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return 0, fmt.Errorf("%s is no netmask", quote(text))
		}
		b := a.As4()
		mask = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	n := 0
	for ; mask&(1<<31) != 0; mask <<= 1 {
		n++
	}
	if mask != 0 {
		return 0, fmt.Errorf("%s is no netmask: its ones are not in a row", quote(text))
	}
	return n, nil
}
