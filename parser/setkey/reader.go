// Package setkey is the language of setkey(8): it turns a script into
// statements, one at a time, because that is how they take effect. What a
// statement means is the business of package compile.
package setkey

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// Reader reads the statements of a script.
type Reader struct {
	scanner *scanner
	tokens  []Token // of the statement that was read last
	source  string
}

// NewReader returns a Reader of a script. The filename is for positions.
func NewReader(filename string, script io.Reader) *Reader {
	return &Reader{scanner: newScanner(filename, script)}
}

// Next returns the next statement, or io.EOF when there is none.
//
// A statement that is not of the language comes with a [*Error], and with as
// much of it as was understood: what is wrong with that is reported first. The
// statements after it can be read nevertheless.
func (r *Reader) Next() (*Statement, error) {
	r.tokens = r.tokens[:0]
	r.scanner.source.Reset()
	for {
		t := r.scanner.next()
		r.tokens = append(r.tokens, t)
		if t.Kind == lexer.EOF || t.Kind == kindEOT || t.Kind == kindInvalid {
			break
		}
	}
	r.source = r.scanner.source.String()
	if r.scanner.err != nil {
		return nil, fmt.Errorf("%s: %w", r.scanner.pos.Filename, r.scanner.err)
	}
	if len(r.tokens) == 1 && r.tokens[0].Kind == lexer.EOF {
		return nil, io.EOF
	}
	peeking, err := lexer.Upgrade(&replay{tokens: r.tokens})
	if err != nil {
		return nil, err
	}
	s, err := grammar.ParseFromLexer(peeking)
	if err == nil {
		return s, nil
	}
	return s, r.syntaxError(err)
}

// End returns the last token that was read of the statement.
func (r *Reader) End() Token { return r.tokens[len(r.tokens)-1] }

// Token returns the token of the last statement at a position.
func (r *Reader) Token(pos lexer.Position) Token {
	for _, t := range r.tokens {
		if t.Pos.Offset == pos.Offset {
			return t
		}
	}
	return r.End()
}

// Excerpt shows the line of the last statement that a position is in, as far
// as it was read, with a caret under the position. Keys are blotted out.
func (r *Reader) Excerpt(pos lexer.Position) string {
	source := []byte(r.source)
	start := r.scanner.pos.Offset - len(source)
	for _, t := range r.tokens {
		if t.Kind == kindQuoted || t.Kind == kindHex && len(t.Text) > len("0xffffffff") {
			for i := range t.Text {
				if at := t.Pos.Offset - start + i; source[at] != '\n' {
					source[at] = '*'
				}
			}
		}
	}
	at := min(max(pos.Offset-start, 0), len(source))
	begin := bytes.LastIndexByte(source[:at], '\n') + 1
	line, _, _ := bytes.Cut(source[begin:], []byte("\n"))
	// Tabs stay, so that the caret is under its place.
	indent := strings.Map(func(c rune) rune {
		if c == '\t' {
			return c
		}
		return ' '
	}, string(source[begin:at]))
	return fmt.Sprintf("%s\n%s^\n", line, indent)
}

var grammar = participle.MustBuild[Statement](
	participle.Lexer(definition{symbols}),
	participle.UseLookahead(0),
)

// definition tells participle the kinds of tokens. Scripts are cut into tokens
// by the scanner, whose rules depend on what came before.
type definition struct{ symbols map[string]lexer.TokenType }

func (d definition) Symbols() map[string]lexer.TokenType { return d.symbols }

func (definition) Lex(filename string, script io.Reader) (lexer.Lexer, error) {
	return nil, errors.New("setkey scripts are read with a Reader")
}

// replay gives participle tokens that were read before.
type replay struct {
	tokens []Token
	n      int
}

func (l *replay) Next() (lexer.Token, error) {
	if l.n == len(l.tokens) {
		return lexer.EOFToken(l.tokens[l.n-1].Pos), nil
	}
	t := l.tokens[l.n]
	l.n++
	return lexer.Token{Type: t.Kind, Value: t.Text, Pos: t.Pos}, nil
}

// Error is what is wrong with a script.
type Error struct {
	Pos lexer.Position
	// Line, Message and Shown are what FreeBSD's setkey prints:
	// "line LINE: MESSAGE at [SHOWN]". An empty Message prints nothing.
	Line           int
	Message, Shown string
	// Fatal ends FreeBSD's setkey on the spot, without its last line.
	Fatal bool
	// Warning does not keep the statement from taking effect.
	Warning bool

	// Detail is what was found and what was expected, without keys.
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%v: %s", e.Pos, e.Detail) }

func (r *Reader) syntaxError(err error) error {
	var unexpected *participle.UnexpectedTokenError
	if !errors.As(err, &unexpected) {
		return err
	}
	t := r.Token(unexpected.Unexpected.Pos)
	e := &Error{Pos: t.Pos, Line: t.Line, Message: "syntax error", Shown: t.Shown}
	switch t.Kind {
	case lexer.EOF:
		e.Detail = "the script ends inside a statement"
	case kindInvalid:
		e.Message, e.Fatal = "Syntax error", true
		e.Detail = fmt.Sprintf("no token begins with %q", t.Text)
		if t.Text == `"` {
			e.Detail = "the quoted string has no end"
		}
	case kindQuoted:
		// It may be a key.
		e.Detail = "unexpected quoted string"
	case kindHex:
		e.Detail = "unexpected hexadecimal number"
	default:
		e.Detail = fmt.Sprintf("unexpected %q", t.Text)
	}
	if unexpected.Expect != "" {
		e.Detail += ", expected " + unexpected.Expect
	}
	return e
}
