package setkey

import (
	"fmt"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

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

func (r *Reader) syntaxError(pos lexer.Position) error {
	i := r.index(pos)
	t := r.tokens[i]
	e := &Error{Pos: t.Pos, Line: t.Line, Message: "syntax error", Shown: t.Shown}
	switch {
	case t.Kind == lexer.EOF:
		e.Detail = "the script ends inside a statement"
	case t.Kind == kindInvalid:
		e.Message, e.Fatal = "Syntax error", true
		e.Detail = fmt.Sprintf("no word begins with %q", t.Text)
		if t.Text == `"` {
			e.Detail = "the quoted string has no end"
		}
		return e
	case t.Kind == kindQuoted:
		e.Detail = "unexpected quoted string"
	case r.secret(i):
		// Somebody's key in the wrong form.
		e.Detail = fmt.Sprintf("unexpected word of %d characters", len(t.Text))
	case t.Kind == kindPolicy:
		e.Detail = "unexpected policy"
	default:
		e.Detail = fmt.Sprintf("unexpected %q", t.Text)
	}
	wanted := r.wanted(i)
	if len(wanted) > 0 {
		e.Detail += ", expected " + list(wanted)
	}
	if t.Kind != kindQuoted && !r.secret(i) {
		e.Detail += hint(t, wanted)
	}
	return e
}

// secret says whether a token is a key or may be meant as one: what is long and
// hexadecimal, and everything between an algorithm and the next option.
func (r *Reader) secret(i int) bool {
	t := r.tokens[i]
	switch t.Kind {
	case kindQuoted:
		return true
	case kindPolicy, kindEOT, kindOption, kindNumber, kindAddrFlags, kindInvalid, lexer.EOF:
		return false
	}
	if looksLikeKey(t.Text) {
		return true
	}
	// The word after -E or -A is the algorithm, known or not.
	for before := i - 1; before > 0; before-- {
		if o := r.tokens[before]; o.Kind == kindOption || o.Kind == kindNumber {
			return before < i-1 && (o.Text == "-E" || o.Text == "-A")
		}
	}
	return false
}

func looksLikeKey(word string) bool {
	return len(word) > len("0xffffffff") && word[0] == '0' && (word[1] == 'x' || word[1] == 'X')
}

// Excerpt shows the line of the last statement that a position is in, as far
// as it was read, with a caret under the position. Keys are blotted out.
func (r *Reader) Excerpt(pos lexer.Position) string {
	source := []byte(r.source)
	start := r.scanner.pos.Offset - len(source)
	blot := func(from, to int) {
		for i := from; i < to; i++ {
			if source[i] != '\n' {
				source[i] = '*'
			}
		}
	}
	for i, t := range r.tokens {
		from := t.Pos.Offset - start
		switch {
		case r.secret(i):
			blot(from, from+len(t.Text))
		case t.Kind == kindPolicy:
			// Whoever forgets the semicolon before -P, or takes it for -p.
			at := 0
			for word := range strings.FieldsSeq(t.Text) {
				at += strings.Index(t.Text[at:], word)
				if looksLikeKey(word) {
					blot(from+at, from+at+len(word))
				}
				at += len(word)
			}
		}
	}
	at := min(max(pos.Offset-start, 0), len(source))
	begin := strings.LastIndexByte(r.source[:at], '\n') + 1
	line, _, _ := strings.Cut(string(source[begin:]), "\n")
	// Tabs stay, so that the caret is under its place.
	indent := strings.Map(func(c rune) rune {
		if c == '\t' {
			return c
		}
		return ' '
	}, string(source[begin:at]))
	return fmt.Sprintf("%s\n%s^\n", line, indent)
}
