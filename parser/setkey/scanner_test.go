package setkey

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/alecthomas/participle/v2/lexer"
	"github.com/google/go-cmp/cmp"
)

func kindName(k kind) string {
	for name, other := range symbols {
		if other == k {
			return name
		}
	}
	return "?"
}

// scan returns the tokens of a whole script as KIND:TEXT.
func scan(s *scanner) []string {
	var words []string
	for {
		tokens, _ := s.statement(nil)
		for _, t := range tokens {
			words = append(words, kindName(t.Kind)+":"+t.Text)
		}
		if last := tokens[len(tokens)-1].Kind; last == lexer.EOF || last == kindInvalid {
			return words
		}
	}
}

func TestScanner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "", []string{"EOF:"}},
		{"comment", "# flush;\n", []string{"EOF:"}},
		{"statements on a line", "flush;spdflush;", []string{"Statement:flush", "EOT:;", "Statement:spdflush", "EOT:;", "EOF:"}},
		{"keyword and number glued", "flush1;", []string{"Word:flush1", "EOT:;", "EOF:"}},
		{"update at the beginning only", "update update;", []string{"Add:update", "Word:update", "EOT:;", "EOF:"}},
		{"value glued to an option", "-mtunnel -u100 -lh3", []string{"Option:-m", "Mode:tunnel", "Number:-u", "Decimal:100", "Number:-lh", "Decimal:3", "EOF:"}},
		{"longest option", "-natt -natt_mtu -n -n46 -l", []string{"Option:-natt", "Number:-natt_mtu", "AddrFlags:-n", "AddrFlags:-n46", "Invalid:-"}},
		{"algorithm after its option only", "-E aes-cbc aes-cbc -A hmac-sha1 -E hmac-sha1", []string{
			"Option:-E", "EncAlg:aes-cbc", "Word:aes-cbc", "Option:-A", "AuthAlg:hmac-sha1", "Option:-E", "Word:hmac-sha1", "EOF:",
		}},
		{"algorithms without a key", "-E simple -A null -E null", []string{
			"Option:-E", "KeylessEnc:simple", "Option:-A", "KeylessAuth:null", "Option:-E", "EncAlg:null", "EOF:",
		}},
		{"numbers", "10 0x1F 0X1f 0x 0xg 10.0.0.1 1,2 ,2 1,2x", []string{
			"Decimal:10", "Hex:0x1F", "Hex:0X1f", "Word:0x", "Word:0xg", "Word:10.0.0.1", "Word:1,2", "Word:,2", "Word:1,2", "Word:x", "EOF:",
		}},
		{"addresses", "fe80::1%em0 ::1[80] 10.0.0.0/8", []string{
			"Word:fe80::1%em0", "Word:::1", "LBracket:[", "Decimal:80", "RBracket:]", "Word:10.0.0.0", "Slash:/", "Decimal:8", "EOF:",
		}},
		{"quoted string", "\"a;\nb\" \"\"", []string{"Quoted:\"a;\nb\"", `Quoted:""`, "EOF:"}},
		{"quoted string without an end", `"abc`, []string{`Invalid:"`}},
		{"policy", "-P out ipsec\n esp/tunnel//use;flush;", []string{"Option:-P", "Policy: out ipsec\n esp/tunnel//use", "EOT:;", "Statement:flush", "EOT:;", "EOF:"}},
		{"comment in a policy", "-P out # none\n none;", []string{"Option:-P", "Policy: out ", "Policy:\n none", "EOT:;", "EOF:"}},
		{"bytes that begin nothing", "flush @", []string{"Statement:flush", "Invalid:@"}},
		{"zero byte", "\x00", []string{"Invalid:\x00"}},
		{"carriage return", "flush\r\n;", []string{"Statement:flush", "Invalid:\r"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, scan(newScanner("", strings.NewReader(c.script)))); diff != "" {
				t.Errorf("in one piece (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, scan(newScanner("", iotest.OneByteReader(strings.NewReader(c.script))))); diff != "" {
				t.Errorf("byte by byte (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScannerPositions(t *testing.T) {
	t.Parallel()
	s := newScanner("file", strings.NewReader("flush # one\n;\n\tadd \"a\nb\" x"))
	first, source := s.statement(nil)
	if source != "flush # one\n;" {
		t.Errorf("the first statement is in %q", source)
	}
	second, _ := s.statement(nil)
	type place struct {
		text                 string
		offset, line, column int
		freeBSD              int
	}
	var got []place
	for _, token := range append(first, second...) {
		got = append(got, place{token.Text, token.Pos.Offset, token.Pos.Line, token.Pos.Column, token.Line})
	}
	want := []place{
		{"flush", 0, 1, 1, 1}, {";", 12, 2, 1, 2},
		{"add", 15, 3, 2, 3}, {"\"a\nb\"", 19, 3, 6, 3},
		// FreeBSD does not count the line break in quotes.
		{"x", 25, 4, 4, 3}, {"", 26, 4, 5, 3},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(place{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A statement must be known when its semicolon is, whatever comes later.
func TestScannerReadsNoFurther(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"flush;", "add 1.1.1.1 2.2.2.2 ipcomp 1 -C deflate -R;", "spdadd ::1 ::1 any -P out none;"} {
		typed, typing := io.Pipe()
		go io.WriteString(typing, script)
		tokens, _ := newScanner("", typed).statement(nil)
		if last := tokens[len(tokens)-1]; last.Kind != kindEOT {
			t.Errorf("%s: the last token is %v", script, last)
		}
		typing.Close()
	}
}

// What does not fit the buffer makes it grow, and what is done with leaves it.
func TestScannerLongTokens(t *testing.T) {
	t.Parallel()
	quoted := `"` + strings.Repeat("k", 200_000) + `"`
	s := newScanner("", strings.NewReader(strings.Repeat("flush;\n", 50_000)+quoted+";"))
	n := 0
	for {
		tokens, _ := s.statement(nil)
		if tokens[0].Kind == kindQuoted {
			if tokens[0].Text != quoted {
				t.Errorf("quoted string of %d bytes, want %d", len(tokens[0].Text), len(quoted))
			}
			break
		}
		if len(tokens) != 2 || tokens[0].Text != "flush" {
			t.Fatalf("statement %d is %v", n, tokens)
		}
		n++
	}
	if n != 50_000 {
		t.Errorf("%d statements, want 50000", n)
	}
	if len(s.buf) > 400_000 {
		t.Errorf("the buffer has grown to %d bytes", len(s.buf))
	}
}

func TestReaderFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	r := NewReader("file", io.MultiReader(strings.NewReader("flush; fl"), iotest.ErrReader(broken)))
	if _, err := r.Next(); err != nil {
		t.Errorf("the statement before the failure: %v", err)
	}
	if _, err := r.Next(); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if _, err := NewReader("", noProgress{}).Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want %v", err, io.ErrNoProgress)
	}
}

type noProgress struct{}

func (noProgress) Read([]byte) (int, error) { return 0, nil }
