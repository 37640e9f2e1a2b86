// Package rcconf reads files in the language of FreeBSD's rc.conf(5), and says
// which commands FreeBSD's start-up scripts would run for what they declare of
// IPsec: interfaces, associations and policies, and routes.
//
// An rc.conf is a script of sh(1) that consists of assignments. It is read here
// without a shell: quoting, continued lines, comments, and the values of
// variables that were assigned before mean what they mean in sh, and anything
// that is not an assignment is an error.
package rcconf

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// maxFile bounds a file, in bytes.
	maxFile = 1 << 20
	// maxValue bounds a value, in bytes: those of variables that contain one
	// another can double in length with each line.
	maxValue = 64 << 10
)

// Value is what a variable was assigned last.
type Value struct {
	Text string
	Pos  Position // of the assignment
}

// Position is a place in a file.
type Position struct {
	File         string
	Line, Column int // from 1; columns are characters
}

// String returns file:line:column.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is what is wrong with a file.
type Error struct {
	Pos    Position
	Detail string // what was found and what was expected
}

// Error returns the position and what is wrong.
func (e *Error) Error() string { return fmt.Sprintf("%v: %s", e.Pos, e.Detail) }

// Variables are what files have assigned. The zero value has none.
type Variables struct{ values map[string]Value }

// Get returns the value of a variable, and whether it has one.
func (v *Variables) Get(name string) (Value, bool) {
	value, ok := v.values[name]
	return value, ok
}

// Read makes the assignments of a file. Those of an earlier one stand unless they
// are made again. An error is of type [*Error], and then no assignment of this
// file is made.
func (v *Variables) Read(file string, text []byte) error {
	s := &scanner{file: file, text: string(text), values: map[string]Value{}, earlier: v.values}
	if err := s.read(); err != nil {
		return err
	}
	if v.values == nil {
		v.values = map[string]Value{}
	}
	for name, value := range s.values {
		v.values[name] = value
	}
	return nil
}

// scanner reads one file.
type scanner struct {
	file    string
	text    string
	at      int              // offset of what comes next
	values  map[string]Value // nil: there are no variables
	earlier map[string]Value
}

func (s *scanner) position(at int) Position {
	before := s.text[:at]
	line := strings.LastIndexByte(before, '\n') + 1
	return Position{s.file, strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[line:]) + 1}
}

func (s *scanner) fail(at int, format string, args ...any) error {
	return &Error{s.position(at), fmt.Sprintf(format, args...)}
}

// next returns the next byte, 0 at the end. A file has no byte 0.
func (s *scanner) next() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// continued says whether the line goes on with the next one, and goes there.
func (s *scanner) continued() bool {
	if strings.HasPrefix(s.text[s.at:], "\\\n") {
		s.at += 2
		return true
	}
	return false
}

func (s *scanner) read() error {
	if len(s.text) > maxFile {
		return s.fail(0, "the file has %d bytes, the most is %d", len(s.text), maxFile)
	}
	if at := strings.IndexAny(s.text, "\x00\r"); at >= 0 {
		return s.fail(at, "found the character %q, expected text with lines that end as Unix has it", s.text[at])
	}
	for {
		switch c := s.next(); {
		case s.at == len(s.text):
			return nil
		case isBlank(c), c == '\n', c == ';':
			s.at++
		case s.continued():
		case c == '#':
			s.comment()
		default:
			if err := s.assignment(); err != nil {
				return err
			}
		}
	}
}

func (s *scanner) comment() {
	if end := strings.IndexByte(s.text[s.at:], '\n'); end >= 0 {
		s.at += end
	} else {
		s.at = len(s.text)
	}
}

func (s *scanner) assignment() error {
	begin := s.at
	name := s.name()
	if name == "" || s.next() != '=' {
		word := s.text[begin:]
		if end := strings.IndexAny(word, " \t\n;"); end >= 0 {
			word = word[:end]
		}
		return s.fail(begin, "found %s, expected an assignment, as in NAME=\"VALUE\"", quote(word))
	}
	s.at++
	value, err := s.word()
	if err != nil {
		return err
	}
	s.values[name] = Value{value, s.position(begin)}
	return nil
}

// name reads the name of a variable; it is empty if there is none.
func (s *scanner) name() string {
	begin := s.at
	for c := s.next(); c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || s.at > begin && c >= '0' && c <= '9'; c = s.next() {
		s.at++
	}
	return s.text[begin:s.at]
}

// word reads a value up to an unquoted blank.
func (s *scanner) word() (string, error) {
	var b strings.Builder
	begin := s.at
	for {
		if b.Len() > maxValue {
			return "", s.fail(begin, "the value has over %d bytes", maxValue)
		}
		c := s.next()
		switch {
		case s.at == len(s.text), isBlank(c), c == '\n', c == ';':
			return b.String(), nil
		case s.continued():
		case c == '\'':
			quoted, after, ended := strings.Cut(s.text[s.at+1:], "'")
			if !ended {
				return "", s.fail(s.at, "the quoted string has no end")
			}
			b.WriteString(quoted)
			s.at = len(s.text) - len(after)
		case c == '"':
			if err := s.doubleQuoted(&b); err != nil {
				return "", err
			}
		case c == '\\' && s.at+1 < len(s.text):
			b.WriteByte(s.text[s.at+1])
			s.at += 2
		case c == '$', c == '`':
			if err := s.expansion(&b); err != nil {
				return "", err
			}
		case strings.IndexByte("&|<>()", c) >= 0:
			return "", s.fail(s.at, "found %q, which is for a shell, and there is none: quote it", c)
		default:
			b.WriteByte(c)
			s.at++
		}
	}
}

func (s *scanner) doubleQuoted(b *strings.Builder) error {
	begin := s.at
	s.at++
	for b.Len() <= maxValue {
		c := s.next()
		switch {
		case s.at == len(s.text):
			return s.fail(begin, "the quoted string has no end")
		case c == '"':
			s.at++
			return nil
		case s.continued():
		case c == '\\' && s.at+1 < len(s.text) && strings.IndexByte("$`\"\\", s.text[s.at+1]) >= 0:
			b.WriteByte(s.text[s.at+1])
			s.at += 2
		case c == '$', c == '`':
			if err := s.expansion(b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
			s.at++
		}
	}
	return nil // word complains
}

// expansion reads $NAME or ${NAME}.
func (s *scanner) expansion(b *strings.Builder) error {
	begin := s.at
	if s.next() == '`' {
		return s.fail(begin, "found a command in backquotes: no command is run here")
	}
	s.at++
	braces := s.next() == '{'
	switch {
	case s.next() == '(':
		return s.fail(begin, "found a command or an expression after $: neither is possible here")
	case braces:
		s.at++
	}
	name := s.name()
	switch {
	case braces && (name == "" || s.next() != '}'):
		return s.fail(begin, "found ${, expected ${NAME} with the name of a variable alone")
	case braces:
		s.at++
	case name == "" && strings.IndexByte("@*#?-$!0123456789", s.next()) >= 0 && s.at < len(s.text):
		return s.fail(begin, "found $%c, which only a shell has", s.next())
	case name == "":
		b.WriteByte('$')
		return nil
	}
	if s.values == nil {
		return s.fail(begin, "found $%s, which would be replaced only now: write it without the backslash or the single quotes", name)
	}
	value, ok := s.values[name]
	if !ok {
		value = s.earlier[name]
	}
	b.WriteString(value.Text)
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// quote quotes what was found for an error.
func quote(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// words splits a value as eval(1) would: what is quoted in it stays together.
func (v Value) words() ([]string, error) {
	var all []string
	s := &scanner{file: v.Pos.File, text: strings.ReplaceAll(v.Text, "\n", " ")}
	for {
		for isBlank(s.next()) {
			s.at++
		}
		if s.at == len(s.text) {
			return all, nil
		}
		word, err := s.word()
		if err == nil && s.next() == ';' {
			err = s.fail(s.at, "found \";\", which is for a shell, and there is none: quote it")
		}
		if err != nil {
			return nil, &Error{v.Pos, fmt.Sprintf("in the value, at character %d: %s", err.(*Error).Pos.Column, err.(*Error).Detail)}
		}
		all = append(all, word)
	}
}
