// Package compile gives setkey's statements their meaning: it turns each into
// the PF_KEY messages that FreeBSD's setkey sends for it, or says what is wrong
// with it.
//
// What FreeBSD's setkey cuts off or overlooks without a word (a number that
// does not fit its field, an impossible prefix length) is refused here.
package compile

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"ifipsec/engine/pfkey"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

// Result is what a statement comes to.
type Result struct {
	// Messages are to be sent in this order. There are none if Errors has one
	// that is not a warning.
	Messages []*pfkey.Message
	// Errors are in the order in which FreeBSD's setkey prints them.
	Errors []*setkey.Error
}

// Failed says whether the statement has no effect.
func (r *Result) Failed() bool {
	for _, e := range r.Errors {
		if !e.Warning {
			return true
		}
	}
	return false
}

// Statement compiles a statement that the reader has returned, with the error
// that came with it, if any: what is wrong before the place of that error is
// what FreeBSD's setkey reports then.
func Statement(r *setkey.Reader, s *setkey.Statement, syntax *setkey.Error, names Names) Result {
	c := &compiler{reader: r, names: names}
	err := c.statement(s)
	var broken *stop
	switch {
	case errors.As(err, &broken) && (syntax == nil || broken.at.Offset < syntax.Pos.Offset):
		c.report(broken, false)
	case syntax != nil:
		c.result.Errors = append(c.result.Errors, syntax)
	}
	if c.result.Failed() {
		c.result.Messages = nil
	}
	return c.result
}

type compiler struct {
	reader *setkey.Reader
	names  Names
	result Result
}

// stop is what is wrong with a statement, in FreeBSD's words and in ours.
// Without FreeBSD's words nothing is printed but "parse failed".
type stop struct {
	at      lexer.Position // of the token that FreeBSD's setkey shows: the last that it has read
	place   lexer.Position // of what is wrong
	message string
	detail  string
}

// Error implements error.
func (s *stop) Error() string { return s.detail }

// errIncomplete ends the work on a statement that was parsed this far only.
var errIncomplete = errors.New("the statement is not complete")

// fail is for what is wrong with the token that was read last.
func fail(token lexer.Token, message, format string, args ...any) error {
	return failAt(token, token.Pos, message, format, args...)
}

// failAt is for what is found to be wrong when a later token was read.
func failAt(read lexer.Token, place lexer.Position, message, format string, args ...any) error {
	return &stop{at: read.Pos, place: place, message: message, detail: fmt.Sprintf(format, args...)}
}

func (c *compiler) warn(read lexer.Token, place lexer.Position, message, format string, args ...any) {
	c.report(&stop{at: read.Pos, place: place, message: message, detail: fmt.Sprintf(format, args...)}, true)
}

func (c *compiler) report(s *stop, warning bool) {
	t := c.reader.Token(s.at)
	c.result.Errors = append(c.result.Errors, &setkey.Error{
		Pos: s.place, Line: t.Line, Message: s.message, Shown: t.Shown, Detail: s.detail, Warning: warning,
	})
}

func missing(t lexer.Token) bool { return t.Type == 0 }

func (c *compiler) statement(s *setkey.Statement) error {
	if s == nil {
		return errIncomplete
	}
	switch {
	case s.Add != nil:
		return c.add(s.Add, s.End)
	case s.Get != nil:
		return c.one(pfkey.TypeGet, s.Get.SA, s.End)
	case s.Delete != nil:
		return c.one(pfkey.TypeDelete, s.Delete.SA, s.End)
	case s.DeleteAll != nil:
		return c.deleteAll(s.DeleteAll, s.End)
	case s.Flush != nil:
		return c.whole(pfkey.TypeFlush, s.Flush.Protocol, s.End)
	case s.Dump != nil:
		return c.whole(pfkey.TypeDump, s.Dump.Protocol, s.End)
	case s.SPDAdd != nil:
		return c.spdAdd(s.SPDAdd, s.End)
	case s.SPDDelete != nil:
		return c.spdStatement(pfkey.TypeSPDDelete, s.SPDDelete.Selector, s.SPDDelete.Policy, s.End)
	case s.SPDFlush:
		return c.whole(pfkey.TypeSPDFlush, lexer.Token{}, s.End)
	case s.SPDDump:
		return c.whole(pfkey.TypeSPDDump, lexer.Token{}, s.End)
	}
	return errIncomplete
}

// send adds a message.
func (c *compiler) send(t pfkey.MsgType, satype pfkey.SAType, exts ...pfkey.Extension) {
	c.result.Messages = append(c.result.Messages, &pfkey.Message{Type: t, SAType: satype, Exts: exts})
}

// whole is a statement about a whole database, or a protocol's part of it.
func (c *compiler) whole(t pfkey.MsgType, protocol, end lexer.Token) error {
	if missing(end) {
		return errIncomplete
	}
	c.send(t, saTypes[protocol.Value])
	return nil
}

var saTypes = map[string]pfkey.SAType{
	"": pfkey.SATypeUnspec, "esp": pfkey.SATypeESP, "esp-old": pfkey.SATypeESP, "ah": pfkey.SATypeAH, "ah-old": pfkey.SATypeAH,
	"ipcomp": pfkey.SATypeIPComp, "tcp": pfkey.SATypeTCPSignature,
}

// isOld says whether a protocol is of RFC 1825's generation.
func isOld(protocol lexer.Token) bool { return strings.HasSuffix(protocol.Value, "-old") }

func addresses(proto uint8, src, dst netip.AddrPort, srcBits, dstBits uint8) (*pfkey.Address, *pfkey.Address) {
	return &pfkey.Address{Kind: pfkey.ExtAddressSrc, Proto: proto, PrefixLen: srcBits, Addr: src},
		&pfkey.Address{Kind: pfkey.ExtAddressDst, Proto: proto, PrefixLen: dstBits, Addr: dst}
}

// number reads a decimal number of at most so many bits.
func number(t lexer.Token, bits int, what string) (uint64, error) {
	n, err := strconv.ParseUint(t.Value, 10, bits)
	if err != nil {
		return 0, fail(t, "Invalid argument", "%s is too big for %s, expected at most %d", t.Value, what, uint64(math.MaxUint64)>>(64-bits))
	}
	return n, nil
}
