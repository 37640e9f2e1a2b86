// Package policy is the language of ipsec_set_policy(3), in which setkey and
// key-management programs write security policies:
//
//	out ipsec esp/tunnel/192.168.0.3-192.168.0.5/require ah/transport//use
//
// The grammar is participle's; a type is a production.
package policy

import (
	"errors"
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
	EndPos    lexer.Position
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
	Offset int // bytes from the beginning of the text
	Detail string

	found int // where FreeBSD's parser is when it finds out
}

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

var rules = lexer.MustSimple([]lexer.SimpleRule{
	{Name: "blank", Pattern: `[ \t\n]+`},
	{Name: "Word", Pattern: `[a-zA-Z0-9:.]+(%[a-zA-Z0-9._]+)?`},
	{Name: "Punct", Pattern: `[/-]`},
	{Name: "Other", Pattern: `.`},
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
	var syntax participle.Error
	if err != nil && !errors.As(err, &syntax) {
		return nil, &Error{Kind: ErrArgument, Detail: err.Error()}
	}
	// What comes before what could not be parsed is checked first.
	if parsed != nil {
		result, problem := parsed.compile(text, numeric)
		if problem != nil && (syntax == nil || problem.found < syntax.Position().Offset) {
			return nil, problem
		}
		if syntax == nil {
			return result, nil
		}
	}
	return nil, syntaxError(text, syntax.Position().Offset)
}

// syntaxError says what the policy's language has in place of what was found.
func syntaxError(text string, at int) *Error {
	before := strings.TrimRight(text[:at], " \t\n")
	var expected string
	switch field := before[strings.LastIndexAny(before, " \t\n")+1:]; {
	case before == "":
		expected = "in or out"
	case !strings.ContainsAny(strings.TrimSpace(before), " \t\n"):
		expected = "discard, none or ipsec"
	case protocols[field] != 0:
		expected = "/transport or /tunnel"
	case field != "ipsec" && isAction(field):
		expected = "the end of the policy"
	case strings.Count(field, "/") == 0:
		expected = "esp, ah or ipcomp"
	case strings.HasSuffix(field, "/") && strings.Count(field, "/") == 1:
		expected = "transport or tunnel"
	case strings.HasSuffix(field, "/") && strings.Count(field, "/") == 2:
		expected = "SOURCE-DESTINATION or /LEVEL"
	case strings.HasSuffix(field, "/"):
		expected = levelWords
	case strings.HasSuffix(field, "-"):
		expected = "the tunnel's destination"
	case strings.Count(field, "/") == 2 && !strings.Contains(field, "-"):
		expected = "-DESTINATION"
	default:
		expected = "/ or the next request: esp, ah or ipcomp"
	}
	found := "the policy ends"
	if rest := strings.TrimLeft(text[at:], " \t\n"); rest != "" {
		found = "unexpected " + quoted(rest)
	}
	return &Error{Kind: ErrArgument, Offset: at, Detail: fmt.Sprintf("%s, expected %s", found, expected)}
}

// quoted quotes the word that the text begins with. A long one is not shown: it
// may be a key that went astray.
func quoted(text string) string {
	n := strings.IndexAny(text, " \t\n/-")
	switch {
	case n < 0:
		n = len(text)
	case n == 0:
		n = 1
	}
	if n > len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255") || strings.HasPrefix(text, "0x") {
		return fmt.Sprintf("word of %d characters", n)
	}
	return strconv.Quote(text[:n])
}

const levelWords = "default, use, require, unique or unique:REQID"

var actions = map[string]pfkey.PolicyType{
	"": pfkey.PolicyDiscard, "discard": pfkey.PolicyDiscard, "none": pfkey.PolicyNone, "ipsec": pfkey.PolicyIPsec,
	"bypass": pfkey.PolicyBypass, "entrust": pfkey.PolicyEntrust,
}

func isAction(word string) bool {
	_, ok := actions[word]
	return ok && word != ""
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
	if r.Mode == "" {
		// Only the end of the text shows that there is no mode.
		return nil, &Error{
			Kind: ErrTooFew, Offset: r.Pos.Offset + len(r.Protocol), found: len(text),
			Detail: fmt.Sprintf("%s needs a mode: %s/transport or %s/tunnel", r.Protocol, r.Protocol, r.Protocol),
		}
	}
	result := &pfkey.Request{Proto: protocols[r.Protocol], Mode: pfkey.ModeTransport}
	if r.Mode == "tunnel" {
		result.Mode = pfkey.ModeTunnel
	}
	if r.Endpoints != nil {
		if err := r.Endpoints.compile(result, dir, numeric); err != nil {
			return nil, err
		}
	}
	if r.Level != nil {
		if err := r.Level.compile(result); err != nil {
			return nil, err
		}
	}
	whole := r.EndPos.Line > 0
	if whole && result.Mode == pfkey.ModeTunnel && !result.Src.IsValid() {
		return nil, &Error{
			Kind: ErrAddress, Offset: r.Pos.Offset, found: r.EndPos.Offset,
			Detail: fmt.Sprintf("a tunnel needs its endpoints: %s/tunnel/SOURCE-DESTINATION/LEVEL", r.Protocol),
		}
	}
	return result, nil
}

func fail(at lexer.Position, kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Offset: at.Offset, found: at.Offset, Detail: fmt.Sprintf(format, args...)}
}

// compile fills in a request's endpoints. Those that an IKE daemon finds are
// left out, and good for transport mode only.
func (e *Endpoints) compile(request *pfkey.Request, dir pfkey.Direction, numeric Numeric) *Error {
	switch {
	case e.Src == "me" && e.Dst == "any":
		if dir != pfkey.DirOut {
			return fail(e.Pos, ErrDirection, "me-any is for policies of direction out")
		}
		return nil
	case e.Src == "any" && e.Dst == "me":
		if dir != pfkey.DirIn {
			return fail(e.Pos, ErrDirection, "any-me is for policies of direction in")
		}
		return nil
	case reserved[e.Src] || reserved[e.Dst]:
		return fail(e.Pos, ErrArgument, "unexpected %q, expected SOURCE-DESTINATION", e.Src)
	}
	src, err := numeric(e.Src)
	if err != nil {
		return fail(e.Pos, ErrName, "%v, and names do not resolve in policies", err)
	}
	if e.Dst == "" {
		return nil // it was not parsed further
	}
	dst, err := numeric(e.Dst)
	if err != nil {
		return fail(e.Pos, ErrName, "%v, and names do not resolve in policies", err)
	}
	if src.Is4() != dst.Is4() {
		return fail(e.Pos, ErrAddress, "%v and %v are of different families", src, dst)
	}
	request.Src, request.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	return nil
}

func (l *Level) compile(request *pfkey.Request) *Error {
	word, number, numbered := strings.Cut(l.Text, ":")
	level, known := levels[word]
	if !known || numbered && level != pfkey.LevelUnique {
		return fail(l.Pos, ErrArgument, "unexpected %s, expected %s", quoted(l.Text), levelWords)
	}
	request.Level = level
	if numbered {
		reqid, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return fail(l.Pos, ErrArgument, "unique:%s, expected a decimal number up to 65535 for the reqid", number)
		}
		request.ReqID = uint32(reqid)
	}
	return nil
}
