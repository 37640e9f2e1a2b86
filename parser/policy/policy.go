// Package policy is the language of ipsec_set_policy(3), in which setkey and
// key-management programs write security policies:
//
//	out ipsec esp/tunnel/192.168.0.3-192.168.0.5/require ah/transport//use
//
// The grammar is participle's; a type is a production.
package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"ifipsec/engine/pfkey"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// Policy is a direction, an action, and the requests of an ipsec action.
type Policy struct {
	Direction string     `parser:"@( 'in' | 'out' )"`
	Action    string     `parser:"( @( 'discard' | 'none' | 'ipsec' | 'bypass' | 'entrust' )"`
	Requests  []*Request `parser:"@@* )?"`
}

// Request is protocol/mode/source-destination/level. What is missing at the end
// is a default.
type Request struct {
	Pos       lexer.Position
	Protocol  string     `parser:"@( 'esp' | 'ah' | 'ipcomp' )"`
	Slash     bool       `parser:"( @'/'"`
	Mode      string     `parser:"( @( 'transport' | 'tunnel' )"`
	Endpoints *Endpoints `parser:"( '/' @@?"`
	Level     *Level     `parser:"( '/' @@ )? )? )? )?"`
}

// Endpoints are a tunnel's. me-any and any-me stand for those that an IKE
// daemon finds.
type Endpoints struct {
	Pos lexer.Position
	Src string `parser:"@Word"`
	Dst string `parser:"'-' @Word"`
}

// Level says how much the request matters. A unique one may name a reqid.
type Level struct {
	Pos  lexer.Position
	Text string `parser:"@Word"`
}

// Kind is what is wrong in the words of FreeBSD's ipsec_strerror(3).
type Kind string

// Error implements error.
func (k Kind) Error() string { return string(k) }

// The kinds that a policy's text can be wrong in.
const (
	ErrArgument  Kind = "Invalid argument"
	ErrTooFew    Kind = "Too few arguments"
	ErrAddress   Kind = "Invalid address specification"
	ErrDirection Kind = "Invalid direction"
	ErrName      Kind = "Name does not resolve"
)

// Error is what is wrong with a policy's text.
type Error struct {
	Kind   Kind
	Offset int   // bytes from the beginning of the text
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

var rules = lexer.MustSimple([]lexer.SimpleRule{
	{Name: "blank", Pattern: `[ \t\n]+`},
	{Name: "Word", Pattern: `[a-zA-Z0-9:.]+(%[a-zA-Z0-9._]+)?`},
	{Name: "Punct", Pattern: `[/-]`},
})

var grammar = participle.MustBuild[Policy](
	participle.Lexer(rules),
	participle.Elide("blank"),
	participle.UseLookahead(0),
)

// Numeric turns a numeric address, with a scope or without, into an address.
type Numeric func(string) (netip.Addr, error)

// Parse parses the text of a policy. An error is an [*Error].
func Parse(text string, numeric Numeric) (*pfkey.Policy, error) {
	parsed, err := grammar.ParseString("", text)
	// What comes before what could not be parsed is checked first.
	if parsed != nil {
		result, problem := parsed.compile(text, numeric)
		if problem != nil && (err == nil || problem.Offset < offset(err)) {
			return nil, problem
		}
		if err == nil {
			return result, nil
		}
	}
	return nil, &Error{Kind: ErrArgument, Offset: offset(err), Detail: err.(participle.Error).Message()}
}

func offset(err error) int { return err.(participle.Error).Position().Offset }

var actions = map[string]pfkey.PolicyType{
	"": pfkey.PolicyDiscard, "discard": pfkey.PolicyDiscard, "none": pfkey.PolicyNone, "ipsec": pfkey.PolicyIPsec,
	"bypass": pfkey.PolicyBypass, "entrust": pfkey.PolicyEntrust,
}

var protocols = map[string]uint16{"esp": 50, "ah": 51, "ipcomp": 108}

var levels = map[string]pfkey.Level{
	"default": pfkey.LevelDefault, "use": pfkey.LevelUse, "require": pfkey.LevelRequire, "unique": pfkey.LevelUnique,
}

// reserved are the words that are no addresses.
var reserved = map[string]bool{
	"in": true, "out": true, "discard": true, "none": true, "ipsec": true, "bypass": true, "entrust": true,
	"esp": true, "ah": true, "ipcomp": true, "transport": true, "tunnel": true, "me": true, "any": true,
	"default": true, "use": true, "require": true, "unique": true,
}

func (p *Policy) compile(text string, numeric Numeric) (*pfkey.Policy, *Error) {
	result := &pfkey.Policy{Type: actions[p.Action], Dir: pfkey.DirIn}
	if p.Direction == "out" {
		result.Dir = pfkey.DirOut
	}
	for _, r := range p.Requests {
		request, err := r.compile(text, result.Dir, numeric)
		if err != nil {
			return nil, err
		}
		result.Requests = append(result.Requests, *request)
	}
	return result, nil
}

func (r *Request) compile(text string, dir pfkey.Direction, numeric Numeric) (*pfkey.Request, *Error) {
	fail := func(kind Kind, at lexer.Position, format string, args ...any) (*pfkey.Request, *Error) {
		return nil, &Error{Kind: kind, Offset: at.Offset, Detail: fmt.Sprintf(format, args...)}
	}
	if r.Mode == "" {
		// Only the end of the text shows that there is no mode.
		return fail(ErrTooFew, lexer.Position{Offset: len(text)}, "%s needs a mode: %s/transport or %s/tunnel", r.Protocol, r.Protocol, r.Protocol)
	}
	result := &pfkey.Request{Proto: protocols[r.Protocol], Mode: pfkey.ModeTransport}
	if r.Mode == "tunnel" {
		result.Mode = pfkey.ModeTunnel
	}
	if e := r.Endpoints; e != nil {
		switch {
		case e.Src == "me" && e.Dst == "any":
			if dir != pfkey.DirOut {
				return fail(ErrDirection, e.Pos, "me-any is for policies of direction out")
			}
		case e.Src == "any" && e.Dst == "me":
			if dir != pfkey.DirIn {
				return fail(ErrDirection, e.Pos, "any-me is for policies of direction in")
			}
		case reserved[e.Src] || reserved[e.Dst]:
			return fail(ErrArgument, e.Pos, "%s-%s, expected SOURCE-DESTINATION", e.Src, e.Dst)
		default:
			src, err := numeric(e.Src)
			if err != nil {
				return fail(ErrName, e.Pos, "%q is no numeric address", e.Src)
			}
			// Without its second half it is not the grammar's.
			if e.Dst == "" {
				return result, nil
			}
			dst, err := numeric(e.Dst)
			if err != nil {
				return fail(ErrName, e.Pos, "%q is no numeric address", e.Dst)
			}
			if src.Is4() != dst.Is4() {
				return fail(ErrAddress, e.Pos, "%v and %v are of different families", src, dst)
			}
			result.Src, result.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
		}
	}
	if r.Level != nil {
		word, number, numbered := strings.Cut(r.Level.Text, ":")
		level, known := levels[word]
		if !known || numbered && level != pfkey.LevelUnique {
			return fail(ErrArgument, r.Level.Pos, "%q is no level, expected default, use, require, unique or unique:REQID", r.Level.Text)
		}
		result.Level = level
		if numbered {
			reqid, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return fail(ErrArgument, r.Level.Pos, "reqid %q, expected a decimal number up to 65535", number)
			}
			result.ReqID = uint32(reqid)
		}
	}
	if result.Mode == pfkey.ModeTunnel && !result.Src.IsValid() {
		return fail(ErrAddress, r.Pos, "a tunnel needs its endpoints: %s/tunnel/SOURCE-DESTINATION/LEVEL", r.Protocol)
	}
	return result, nil
}
