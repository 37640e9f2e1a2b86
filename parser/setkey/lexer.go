package setkey

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"ifipsec/engine/algorithm"

	"github.com/alecthomas/participle/v2/lexer"
)

// scanner cuts a script into tokens as setkey's lexer does. By hand: the
// script's few rules are cheaper that way than as regular expressions, which a
// script of 100,000 lines feels.
type scanner struct {
	in   *bufio.Reader
	err  error // of reading, other than io.EOF
	pos  lexer.Position
	line int // as FreeBSD counts

	expectEnc, expectAuth bool // after -E and -A
	inPolicy              bool // between -P and ;
	policyText            string
	begin                 bool // of a statement
	source                strings.Builder
}

func newScanner(filename string, r io.Reader) *scanner {
	return &scanner{
		in:    bufio.NewReaderSize(r, 64<<10),
		pos:   lexer.Position{Filename: filename, Line: 1, Column: 1},
		line:  1,
		begin: true,
	}
}

// peek returns the n-th byte from here, and false at the end.
func (s *scanner) peek(n int) (byte, bool) {
	b, err := s.in.Peek(n + 1)
	if len(b) <= n {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			s.err = err
		}
		return 0, false
	}
	return b[n], true
}

// take consumes n bytes and returns them.
func (s *scanner) take(n int) string {
	b, _ := s.in.Peek(n)
	text := string(b)
	_, _ = s.in.Discard(n)
	for i := range len(text) {
		if text[i] == '\n' {
			s.pos.Line++
			s.pos.Column = 0
		}
		s.pos.Column++
	}
	s.pos.Offset += n
	s.source.WriteString(text)
	return text
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

// next returns the next token.
func (s *scanner) next() Token {
	policy := s.policyText
	s.policyText = ""
	for {
		c, ok := s.peek(0)
		if !ok {
			return Token{Kind: lexer.EOF, Pos: s.pos, Line: s.line}
		}
		if s.inPolicy && isPolicyStart(c) {
			break
		}
		// What flex discards takes the policy's text that it keeps along.
		switch c {
		case ' ', '\t':
			s.take(s.run(0, func(c byte) bool { return c == ' ' || c == '\t' }))
			policy = ""
			continue
		case '\n':
			s.take(1)
			s.line++
			policy = ""
			continue
		case '#':
			s.take(s.run(0, func(c byte) bool { return c != '\n' }))
			policy = ""
			continue
		}
		break
	}

	t := Token{Pos: s.pos}
	n := 0
	t.Kind, n = s.classify()
	t.Text = s.take(n)
	t.Shown = policy + t.Text
	switch t.Kind {
	case kindPolicy:
		s.line += strings.Count(t.Text, "\n")
		s.policyText = t.Text
	case kindQuoted:
		t.Shown = t.Text[1 : len(t.Text)-1]
		if policy != "" {
			t.Shown = policy[1:]
		}
	case kindEOT:
		s.inPolicy = false
	case kindOption:
		s.expectEnc = t.Text == "-E"
		s.expectAuth = t.Text == "-A"
		s.inPolicy = t.Text == "-P"
	case kindEncAlg, kindAuthAlg:
		s.expectEnc, s.expectAuth = false, false
	case kindInvalid:
		// FreeBSD prints it as a C string.
		t.Shown = strings.TrimRight(t.Shown, "\x00")
	}
	s.begin = t.Kind == kindEOT
	t.Line = s.line
	return t
}

// classify says what comes next and how long it is.
func (s *scanner) classify() (kind, int) {
	c, _ := s.peek(0)
	switch {
	case s.inPolicy && isPolicyStart(c):
		return kindPolicy, s.run(0, func(c byte) bool { return isPolicyStart(c) || c == '%' })
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

func (s *scanner) classifyOption() (kind, int) {
	for _, o := range options {
		if b, _ := s.in.Peek(len(o)); string(b) == o {
			return kindOption, len(o)
		}
	}
	if n := s.run(1, func(c byte) bool { return c == 'n' || c == '4' || c == '6' }); n > 0 {
		return kindAddrFlags, 1 + n
	}
	return kindInvalid, 1
}

func (s *scanner) classifyWord() (kind, int) {
	n := s.run(0, isWord)
	list := s.run(0, isNumberList)
	if list > n {
		return kindWord, list
	}
	b, _ := s.in.Peek(n)
	word := string(b)
	switch {
	case strings.Trim(word, "0123456789") == "":
		return kindDecimal, n
	case isHex(word):
		return kindHex, n
	case s.expectEnc && isEncryption(word):
		return kindEncAlg, n
	case s.expectAuth && isAuthentication(word):
		return kindAuthAlg, n
	case keywords[word], s.begin && additions[word]:
		return kindKeyword, n
	}
	return kindWord, n
}

func isEncryption(word string) bool {
	_, ok := algorithm.EncryptionByName(word)
	return ok
}

func isAuthentication(word string) bool {
	_, ok := algorithm.AuthenticationByName(word)
	return ok
}

func isHex(word string) bool {
	return len(word) > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X') &&
		strings.Trim(word[2:], "0123456789abcdefABCDEF") == ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isWordStart(c byte) bool { return isAlnum(c) || c == ':' }

func isWord(c byte) bool { return isWordStart(c) || c == '%' || c == '.' || c == '-' }

func isNumberList(c byte) bool { return c >= '0' && c <= '9' || c == ',' }

func isPolicyStart(c byte) bool {
	return isAlnum(c) || strings.IndexByte(":.-_/ \n\t", c) >= 0
}
