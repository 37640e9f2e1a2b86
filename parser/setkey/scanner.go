package setkey

import (
	"errors"
	"io"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

// scanner cuts a script into tokens as setkey's lexer does. By hand: the
// script's few rules are cheaper that way than as regular expressions, which a
// script of 100,000 lines feels.
//
// It never reads further than it needs to know where a token ends, so that a
// statement takes effect when its semicolon is typed.
type scanner struct {
	in  io.Reader
	end error // of in, io.EOF or another

	buf   []byte // what was read and is not done with
	start int    // of the statement in buf
	at    int    // of what comes next in buf
	pos   lexer.Position
	line  int // as FreeBSD counts

	expectEnc, expectAuth bool // after -E and -A
	inPolicy              bool // between -P and ;
	afterPolicy           bool // directly
	begin                 bool // of a statement
}

func newScanner(filename string, r io.Reader) *scanner {
	return &scanner{
		in:    r,
		buf:   make([]byte, 0, 64<<10),
		pos:   lexer.Position{Filename: filename, Line: 1, Column: 1},
		line:  1,
		begin: true,
	}
}

// more reads more of the script, and returns false at its end.
func (s *scanner) more() bool {
	if s.end != nil {
		return false
	}
	if len(s.buf) == cap(s.buf) {
		into := s.buf
		if s.start < len(s.buf)/2 {
			into = make([]byte, 0, 2*cap(s.buf))
		}
		s.buf = append(into[:0], s.buf[s.start:]...)
		s.at -= s.start
		s.start = 0
	}
	for range 100 {
		n, err := s.in.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		s.end = err
		if n > 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
	s.end = io.ErrNoProgress
	return false
}

// err is why reading ended, if not at the end.
func (s *scanner) err() error {
	if errors.Is(s.end, io.EOF) {
		return nil
	}
	return s.end
}

// peek returns the n-th byte from here, and false at the end.
func (s *scanner) peek(n int) (byte, bool) {
	for s.at+n >= len(s.buf) {
		if !s.more() {
			return 0, false
		}
	}
	return s.buf[s.at+n], true
}

// starts says whether the script goes on with a text.
func (s *scanner) starts(text string) bool {
	for i := range len(text) {
		if c, ok := s.peek(i); !ok || c != text[i] {
			return false
		}
	}
	return true
}

// run returns how many bytes from the n-th on are of a class.
func (s *scanner) run(n int, class func(byte) bool) int {
	start := n
	for {
		c, ok := s.peek(n)
		if !ok || !class(c) {
			return n - start
		}
		n++
	}
}

// take consumes n bytes and returns how many of them were line breaks.
func (s *scanner) take(n int) (breaks int) {
	for _, c := range s.buf[s.at : s.at+n] {
		if c == '\n' {
			breaks++
			s.pos.Column = 0
		}
		s.pos.Column++
	}
	s.pos.Line += breaks
	s.pos.Offset += n
	s.at += n
	return breaks
}

// statement appends the tokens up to the next semicolon, or to where the script
// ends or has what no token begins with. It returns the text that they are in.
func (s *scanner) statement(tokens []Token) ([]Token, string) {
	s.start = s.at
	start := s.pos.Offset
	first := len(tokens)
	for {
		t := s.next()
		tokens = append(tokens, t)
		if t.Kind == lexer.EOF || t.Kind == kindEOT || t.Kind == kindInvalid {
			break
		}
	}
	source := string(s.buf[s.start:s.at])
	for i := range tokens[first:] {
		t := &tokens[first+i]
		from := t.Pos.Offset - start
		t.Text = source[from : from+t.size]
		t.Shown = t.Text
		switch {
		case t.Kind == lexer.EOF:
		case t.afterPolicy && t.Kind == kindQuoted:
			// It looks for the quote from the policy's second byte on.
			t.Shown = tokens[first+i-1].Text[1:]
		case t.afterPolicy:
			t.Shown = tokens[first+i-1].Text + t.Text
		case t.Kind == kindQuoted:
			t.Shown = t.Text[1 : len(t.Text)-1]
		case t.Kind == kindInvalid:
			// FreeBSD prints it as a C string.
			t.Shown = strings.TrimRight(t.Text, "\x00")
		}
	}
	return tokens, source
}

// next returns the next token, still without its texts.
func (s *scanner) next() Token {
	s.skip()
	t := Token{Kind: lexer.EOF, Pos: s.pos, afterPolicy: s.afterPolicy}
	s.afterPolicy = false
	if _, ok := s.peek(0); ok {
		t.Kind, t.size = s.classify()
	}
	breaks := s.take(t.size)
	switch t.Kind {
	case kindPolicy:
		s.line += breaks
		s.afterPolicy = true
	case kindEOT:
		s.inPolicy = false
	case kindOption, kindNumber:
		letter := s.buf[s.at-1]
		s.expectEnc, s.expectAuth, s.inPolicy = letter == 'E', letter == 'A', letter == 'P'
	case kindEncAlg, kindKeylessEnc, kindAuthAlg, kindKeylessAuth:
		s.expectEnc, s.expectAuth = false, false
	}
	s.begin = t.Kind == kindEOT
	t.Line = s.line
	return t
}

// skip consumes what stands between tokens.
func (s *scanner) skip() {
	for {
		c, ok := s.peek(0)
		switch {
		case !ok || s.inPolicy && isPolicyStart(c):
			return
		case isBlank(c):
			s.take(s.run(0, isBlank))
		case c == '\n':
			s.line += s.take(1)
		case c == '#':
			s.take(s.run(0, func(c byte) bool { return c != '\n' }))
		default:
			return
		}
		// What flex discards takes the policy's text that it keeps along.
		s.afterPolicy = false
	}
}

// classify says what comes next and how long it is.
func (s *scanner) classify() (kind, int) {
	c, _ := s.peek(0)
	switch {
	case s.inPolicy && isPolicyStart(c):
		return kindPolicy, s.run(0, isPolicy)
	case c == ';':
		return kindEOT, 1
	case c == '/':
		return kindSlash, 1
	case c == '[':
		return kindLBracket, 1
	case c == ']':
		return kindRBracket, 1
	case c == '"':
		n := s.run(1, func(c byte) bool { return c != '"' })
		if _, closed := s.peek(1 + n); closed {
			return kindQuoted, n + 2
		}
		return kindInvalid, 1
	case c == '-':
		return s.classifyOption()
	case isWordStart(c):
		return s.classifyWord()
	case c == ',':
		return kindWord, s.run(0, isNumberList)
	}
	return kindInvalid, 1
}

// classifyOption finds the longest option that comes next: values may stand
// right behind them.
func (s *scanner) classifyOption() (kind, int) {
	found := reserved{kind: kindInvalid, word: "-"}
	for _, o := range options {
		if len(o.word) > len(found.word) && s.starts(o.word) {
			found = o
		}
	}
	if found.kind == kindInvalid {
		if n := s.run(1, isAddrFlag); n > 0 {
			return kindAddrFlags, 1 + n
		}
	}
	return found.kind, len(found.word)
}

func (s *scanner) classifyWord() (kind, int) {
	n := s.run(0, isWord)
	if list := s.run(0, isNumberList); list > n {
		return kindWord, list
	}
	word := s.buf[s.at : s.at+n]
	switch {
	case all(word, isDigit):
		return kindDecimal, n
	case n > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X') && all(word[2:], isHexDigit):
		return kindHex, n
	}
	if s.expectEnc {
		if k, ok := encryption(string(word)); ok {
			return k, n
		}
	}
	if s.expectAuth {
		if k, ok := authentication(string(word)); ok {
			return k, n
		}
	}
	if k, ok := keywordKinds[string(word)]; ok {
		return k, n
	}
	if k, ok := additionKinds[string(word)]; ok && s.begin {
		return k, n
	}
	return kindWord, n
}

func all(text []byte, class func(byte) bool) bool {
	for _, c := range text {
		if !class(c) {
			return false
		}
	}
	return true
}
