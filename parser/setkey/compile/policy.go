package compile

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"ifipsec/engine/pfkey"
	"ifipsec/parser/policy"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

func (c *compiler) spdAdd(s *setkey.SPDAddStatement, end lexer.Token) error {
	t := pfkey.TypeSPDAdd
	if s.Verb.Value == "spdupdate" {
		t = pfkey.TypeSPDUpdate
	}
	if missing(s.Tag) {
		return c.spdStatement(t, s.Selector, s.Policy, end)
	}
	if _, err := c.policy(s.Policy, true); err != nil {
		return err
	}
	if missing(end) {
		return errIncomplete
	}
	return failAt(end, s.Tag.Pos, "", "policies for tagged packets do not exist here, as on FreeBSD")
}

// policy compiles a policy's text. Without an action it can only name a policy
// to delete.
func (c *compiler) policy(t lexer.Token, add bool) (*pfkey.Policy, error) {
	if missing(t) {
		return nil, errIncomplete
	}
	parsed, err := policy.Parse(t.Value, c.numeric)
	var wrong *policy.Error
	if errors.As(err, &wrong) {
		return nil, failAt(t, inside(t, wrong.Offset), string(wrong.Kind), "policy: %s", wrong.Detail)
	}
	if text := strings.TrimRight(t.Value, " \t\n"); add && !strings.ContainsAny(strings.TrimSpace(text), " \t\n") {
		return nil, failAt(t, inside(t, len(text)), string(policy.ErrArgument),
			"policy: no action, which FreeBSD takes for discard: expected discard, none or ipsec after the direction")
	}
	return parsed, err
}

// inside returns the position of a byte of a token.
func inside(t lexer.Token, offset int) lexer.Position {
	pos := t.Pos
	pos.Advance(t.Value[:min(offset, len(t.Value))])
	return pos
}

func (c *compiler) spdStatement(t pfkey.MsgType, s *setkey.Selector, text, end lexer.Token) error {
	if s == nil {
		return errIncomplete
	}
	proto, err := upperSpec(s.Upper)
	if err != nil {
		return err
	}
	pol, err := c.policy(text, t != pfkey.TypeSPDDelete)
	if err != nil {
		return err
	}
	if missing(end) {
		return errIncomplete
	}
	src, dst := portOf(s.Src), portOf(s.Dst)
	if misc := s.UpperMisc; !missing(misc) {
		if proto != protocols["icmp6"] {
			return failAt(end, misc.Pos, "", "%q after the protocol: only icmp6 has a type and a code", misc.Value)
		}
		src.place, dst.place = misc.Pos, misc.Pos
		var both bool
		src.text, dst.text, both = strings.Cut(misc.Value, ",")
		switch {
		case !both:
			dst.text = "0"
		case dst.text == "":
			return failAt(end, misc.Pos, "invalid an upper layer protocol spec", "%q, expected TYPE,CODE", misc.Value)
		}
	}
	how := lookups(s.Flags)
	from, srcErr := c.lookUp(s.Src, src, how, end)
	to, dstErr := c.lookUp(s.Dst, dst, how, end)
	if srcErr != nil {
		// FreeBSD's setkey looks at both before it gives up.
		var first *stop
		if dstErr != nil && errors.As(srcErr, &first) {
			c.report(first, false)
			return dstErr
		}
		return srcErr
	}
	if dstErr != nil {
		return dstErr
	}
	for _, e := range []struct {
		found *found
		addr  lexer.Token
	}{{from, s.Src.Addr}, {to, s.Dst.Addr}} {
		if len(e.found.addrs) > 1 {
			return failAt(end, e.addr.Pos, "multiple address specified", "%q has several addresses, expected one", e.addr.Value)
		}
	}
	srcBits, err := from.prefix(s.Src.Prefix)
	if err != nil {
		return err
	}
	dstBits, err := to.prefix(s.Dst.Prefix)
	if err != nil {
		return err
	}
	if from.addrs[0].Is4() != to.addrs[0].Is4() {
		return failAt(end, s.Dst.Addr.Pos, "", "%v and %v are of different families", from.addrs[0], to.addrs[0])
	}
	srcAddr, dstAddr := addresses(proto, netip.AddrPortFrom(from.addrs[0], from.port), netip.AddrPortFrom(to.addrs[0], to.port), srcBits, dstBits)
	c.send(t, pfkey.SATypeUnspec, pol, srcAddr, dstAddr)
	return nil
}

// port is what a selector says of a port.
type port struct {
	text  string
	place lexer.Position
}

func portOf(e *setkey.Endpoint) port {
	if missing(e.Port) || e.Port.Value == "any" {
		return port{text: "0", place: e.Addr.Pos}
	}
	return port{text: e.Port.Value, place: e.Port.Pos}
}

func upperSpec(t lexer.Token) (uint8, error) {
	switch {
	case missing(t):
		return 0, errIncomplete
	case t.Value == "any":
		return pfkey.ProtoAny, nil
	case isNumber(t.Value):
		n, err := strconv.ParseUint(t.Value, 10, 8)
		if err != nil {
			return 0, fail(t, "invalid upper layer protocol", "protocol %s, expected at most 255", t.Value)
		}
		return uint8(n), nil
	}
	if n, ok := protocol(t.Value); ok {
		return n, nil
	}
	return 0, fail(t, "invalid upper layer protocol", "%q is no protocol, expected any, a number up to 255, or a name such as tcp, udp or icmp6", t.Value)
}

func isNumber(text string) bool { return strings.Trim(text, "0123456789") == "" }

// found is what one end of a selector comes to.
type found struct {
	addrs []netip.Addr
	port  uint16
}

// lookUp looks the port up first, as getaddrinfo(3) does.
func (c *compiler) lookUp(e *setkey.Endpoint, p port, how lookup, end lexer.Token) (*found, error) {
	number, err := c.port(p.text)
	if err != nil {
		return nil, failAt(end, p.place, "Service was not recognized for socket type", "%v", err)
	}
	addrs, err := c.host(e.Addr.Value, how)
	if err != nil {
		return nil, failAt(end, e.Addr.Pos, string(policy.ErrName), "%v", err)
	}
	return &found{addrs, number}, nil
}

func (f *found) prefix(t lexer.Token) (uint8, error) {
	bits := f.addrs[0].BitLen()
	if missing(t) {
		return uint8(bits), nil
	}
	n, err := strconv.ParseUint(t.Value, 10, 8)
	if err != nil || int(n) > bits {
		return 0, fail(t, "Invalid argument", "prefix length %s, expected at most %d", t.Value, bits)
	}
	return uint8(n), nil
}

func (c *compiler) port(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err == nil:
		return uint16(n), nil
	case text != "" && isNumber(text):
		return 0, fmt.Errorf("port %s, expected at most 65535", text)
	}
	service, err := c.names.Service(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no port and no service: %w", text, err)
	}
	return service, nil
}
