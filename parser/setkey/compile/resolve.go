package compile

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

// Names answers for what scripts say in words.
type Names interface {
	// Host returns a name's addresses, in order of preference.
	Host(name string) ([]netip.Addr, error)
	// Service returns the port of a UDP service, which is where FreeBSD's
	// setkey looks whatever the protocol is.
	Service(name string) (uint16, error)
	// Interface returns an interface's number, for scopes.
	Interface(name string) (int, error)
}

// System is the Names of this host.
type System struct{}

// Host implements [Names].
func (System) Host(name string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// Service implements [Names].
func (System) Service(name string) (uint16, error) {
	port, err := net.LookupPort("udp", name)
	return uint16(port), err
}

// Interface implements [Names].
func (System) Interface(name string) (int, error) {
	ifp, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return ifp.Index, nil
}

// lookup is the family and the flags that a statement's -4, -6 and -n ask for.
type lookup struct {
	want6, want4 bool
	numeric      bool
}

func lookups(flags []lexer.Token) (how lookup) {
	for _, f := range flags {
		for _, letter := range f.Value[1:] {
			switch letter {
			case '4':
				how.want4, how.want6 = true, false
			case '6':
				how.want4, how.want6 = false, true
			case 'n':
				how.numeric = true
			}
		}
	}
	return how
}

func (l lookup) wants(a netip.Addr) bool { return a.Is4() && !l.want6 || a.Is6() && !l.want4 }

// host turns what was written into addresses of the family that is asked for.
func (c *compiler) host(text string, how lookup) ([]netip.Addr, error) {
	resolved, err := c.resolve(text, how)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(resolved))
	for _, a := range resolved {
		if how.wants(a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%q has no address of the family that the statement asks for", text)
	}
	return addrs, nil
}

func (c *compiler) resolve(text string, how lookup) ([]netip.Addr, error) {
	if a, err := c.numeric(text); err == nil {
		return []netip.Addr{a}, nil
	} else if how.numeric || strings.Contains(text, ":") {
		return nil, err
	}
	return c.names.Host(text)
}

// numeric reads an address as inet_aton(3) and inet_pton(3) do: IPv4 may have
// fewer than four parts, and parts in octal and hexadecimal. The zone of a
// link-local address becomes the interface's number.
func (c *compiler) numeric(text string) (netip.Addr, error) {
	plain, zone, scoped := strings.Cut(text, "%")
	// This has no other IPv4 addresses than inet_aton has.
	a, err := netip.ParseAddr(plain)
	switch {
	case err == nil && !scoped:
		return a, nil
	case !scoped:
		if a, ok := parseIPv4(text); ok {
			return a, nil
		}
		fallthrough
	case err != nil || a.Is4():
		return netip.Addr{}, fmt.Errorf("%q is no numeric address", text)
	case !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast():
		return netip.Addr{}, fmt.Errorf("%v is not link-local and has no scope", a)
	}
	index, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		n, err := c.names.Interface(zone)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("scope of %q: %w", text, err)
		}
		index = uint64(n)
	}
	return a.WithZone(strconv.FormatUint(index, 10)), nil
}

// parseIPv4 reads the address forms of inet_aton(3).
func parseIPv4(text string) (netip.Addr, bool) {
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		base, digits := 10, part
		switch {
		case len(part) > 2 && part[0] == '0' && (part[1] == 'x' || part[1] == 'X'):
			base, digits = 16, part[2:]
		case len(part) > 1 && part[0] == '0':
			base, digits = 8, part[1:]
		}
		n, err := strconv.ParseUint(digits, base, 32)
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if err != nil || n>>bits != 0 {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}
