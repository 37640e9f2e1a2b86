package setkey_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
	"github.com/google/go-cmp/cmp"
)

const esp = "add 10.0.0.1 10.0.0.2 esp 1000 "

// TestSyntaxErrors is about our words and places; FreeBSD's are in the corpus.
func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, detail string }{
		{"a word that is no statement", "frobnicate;", `unexpected "frobnicate", expected add, get, delete, deleteall, flush, dump, spdadd, spddelete, spdflush, spddump, update or spdupdate`},
		{"a misspelt statement", "flsuh;", `unexpected "flsuh", expected add, get, delete, deleteall, flush, dump, spdadd, spddelete, spdflush, spddump, update or spdupdate; did you mean flush?`},
		{"no address", "add esp 1;", `unexpected "esp", expected -4, -6, -n or an address`},
		{"one address", "add -4 1.1.1.1;", `unexpected ";", expected an address`},
		{"no SPI", "add 10.0.0.1 10.0.0.2 esp -m tunnel;", `unexpected "-m", expected an SPI`},
		{"another protocol", "add 10.0.0.1 10.0.0.2 esq 1;", `unexpected "esq", expected esp, esp-old, ah, ah-old, ipcomp, tcp or an SPI; did you mean esp?`},
		{"no algorithm", esp + ";", `unexpected ";", expected -m, -r, -u, -f, -lh, -ls, -natt, -natt_mtu, -esn, -hwif, -E, -A or -C`},
		{"a misspelt mode", esp + "-m tunel;", `unexpected "tunel", expected transport, tunnel or any; did you mean tunnel?`},
		{"a misspelt option of ESP", esp + "-f zeropad;", `unexpected "zeropad", expected zero-pad, random-pad, seq-pad or nocyclic-seq; did you mean zero-pad?`},
		{"a word for a number", esp + "-u x;", `unexpected "x", expected a number`},
		{"a number in hexadecimal", esp + "-u 0x10;", `unexpected "0x10", expected a number`},
		{"a misspelt cipher", esp + "-E aes-gcm 0x00;", `unexpected "aes-gcm", expected an encryption algorithm`},
		{"a cipher with letters swapped", esp + "-E rijndeal-cbc 0x00;", `unexpected "rijndeal-cbc", expected an encryption algorithm; did you mean rijndael-cbc?`},
		{"a misspelt MAC", esp + "-E null \"\" -A hmac_sha1 0x00;", `unexpected "hmac", expected an authentication algorithm`},
		{"another MAC", esp + "-E null \"\" -A hmac-sha 0x00;", `unexpected "hmac-sha", expected an authentication algorithm; did you mean hmac-sha1?`},
		{"another compression", esp + "-C zip;", `unexpected "zip", expected deflate, lzs or oui`},
		{"a key without quotes", esp + "-E aes-cbc VerySecureKey1;", `unexpected word of 14 characters, expected a key, "text" or 0x and hexadecimal digits`},
		{"no key", esp + "-E aes-cbc;", `unexpected ";", expected a key, "text" or 0x and hexadecimal digits`},
		{"two keys", esp + "-E null \"\" \"second\";", `unexpected quoted string, expected -A or ;`},
		{"no semicolon", "flush\nspdflush;", `unexpected "spdflush", expected esp, esp-old, ah, ah-old, ipcomp, tcp or ;; is the semicolon before "spdflush" missing?`},
		{"an end in the middle", esp + "-E null \"\"", `the script ends inside a statement, expected -A or ;`},
		{"no end of a quoted string", esp + `-E null "abc`, `the quoted string has no end`},
		{"encapsulation without a port", esp + "-natt 1.1.1.1 2.2.2.2;", `unexpected "2.2.2.2", expected [PORT]`},
		{"encapsulation with a service", esp + "-natt 1.1.1.1[any];", `unexpected "any", expected a port`},
		{"an interface's number", esp + "-hwif 1;", `unexpected "1", expected an interface`},
		{"a prefix length in words", "spdadd ::1/x ::1 any -P out none;", `unexpected "x", expected a prefix length`},
		{"an empty port", "spdadd ::1[] ::1 any -P out none;", `unexpected "]", expected any, a service or a port`},
		{"an open port", "spdadd ::1[1 ::1 any -P out none;", `unexpected "::1", expected ]`},
		{"no protocol of a selector", "spdadd ::1 ::2 -P out none;", `unexpected "-P", expected esp, tcp, any, a protocol, a protocol's number, /PREFIXLEN or [PORT]`},
		{"no policy", "spdadd ::1 ::2 any;", `unexpected ";", expected an ICMPv6 type or -P`},
		{"a policy in quotes", "spdadd ::1 ::2 any -P \"out none\";", `unexpected quoted string, expected ;`},
		{"an empty statement", ";", `unexpected ";", expected add, get, delete, deleteall, flush, dump, spdadd, spddelete, spdflush, spddump, update or spdupdate`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := setkey.NewReader("file", strings.NewReader(c.script)).Next()
			var e *setkey.Error
			if !errors.As(err, &e) {
				t.Fatalf("%s\nerror %v", c.script, err)
			}
			if diff := cmp.Diff(c.detail, e.Detail); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", c.script, diff)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, want string }{
		{"the first line", "frobnicate;", "file:1:1\nfrobnicate;\n^\n"},
		{"a later line", "flush;\n# comment\nadd 1.1.1.1\n\t2.2.2.2 esp x;", "file:4:14\n\t2.2.2.2 esp x;\n\t            ^\n"},
		{"the second statement of a line", "flush; spdflsh;", "file:1:8\n spdflsh;\n ^\n"},
		{"the end", "flush", "file:1:6\nflush\n     ^\n"},
		{"as far as it was read", "flush @ more", "file:1:7\nflush @\n      ^\n"},
		{"a key", esp + `-E aes-cbc "VerySecureKey!!1" x;`, "file:1:62\n" + esp + `-E aes-cbc ****************** *;` + "\n" + strings.Repeat(" ", 61) + "^\n"},
		{"a key of two lines", esp + "-E aes-cbc \"Very\nSecure\" esp;", "file:2:9\n******* ***;\n        ^\n"},
		{"a hexadecimal key", esp + "-E aes-cbc 0x00112233445566 x;", "file:1:60\n" + esp + "-E aes-cbc **************** *;\n" + strings.Repeat(" ", 59) + "^\n"},
		{"a key without quotes", esp + "-E aes-cbc VerySecure Key;", "file:1:43\n" + esp + "-E aes-cbc ********** ***;\n" + strings.Repeat(" ", 42) + "^\n"},
		{"a key of an unknown algorithm", esp + "-E aes VerySecure;", "file:1:35\n" + esp + "-E aes **********;\n" + strings.Repeat(" ", 34) + "^\n"},
		{"a key in a policy", esp + "-P out\t0x00112233445566;", "file:1:32\n" + esp + "-P out\t****************;\n" + strings.Repeat(" ", 31) + "^\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := setkey.NewReader("file", strings.NewReader(c.script))
			var e *setkey.Error
			for {
				if _, err := r.Next(); errors.As(err, &e) {
					break
				} else if errors.Is(err, io.EOF) {
					t.Fatalf("%q has no error", c.script)
				}
			}
			if diff := cmp.Diff(c.want, fmt.Sprintf("%v\n%s", e.Pos, r.Excerpt(e.Pos))); diff != "" {
				t.Errorf("%q (-want +got):\n%s", c.script, diff)
			}
		})
	}
}

// The statements after a wrong one can be read.
func TestReaderGoesOn(t *testing.T) {
	t.Parallel()
	r := setkey.NewReader("", strings.NewReader("flush x y; spdflush; dump esp;"))
	var e *setkey.Error
	if _, err := r.Next(); !errors.As(err, &e) {
		t.Errorf("error %v, want a syntax error", err)
	}
	if s, err := r.Next(); err != nil || !s.SPDFlush {
		t.Errorf("the second statement is %+v, %v", s, err)
	}
	if s, err := r.Next(); err != nil || s.Dump == nil || s.Dump.Protocol.Value != "esp" {
		t.Errorf("the third statement is %+v, %v", s, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last statement: %v", err)
	}
}

// A statement that is wrong comes with what was understood of it.
func TestPartialStatement(t *testing.T) {
	t.Parallel()
	s, err := setkey.NewReader("", strings.NewReader(esp+"-m tunnel -u 7 -natt 1.1.1.1[4500] 2.2.2.2[x];")).Next()
	if err == nil {
		t.Fatal("no error")
	}
	if s.Add == nil || s.Add.SA == nil {
		t.Fatalf("partial statement %+v", s)
	}
	var words []string
	add := func(tokens ...lexer.Token) {
		for _, t := range tokens {
			words = append(words, t.Value)
		}
	}
	sa := s.Add.SA
	add(sa.Ends.Src, sa.Ends.Dst, sa.Protocol, sa.SPI)
	for _, e := range sa.Extensions {
		switch {
		case e.Number != nil:
			add(e.Number.Option, e.Number.Value)
		case e.NATT != nil:
			add(e.NATT.Src, e.NATT.SrcPort, e.NATT.Dst, e.NATT.DstPort)
		default:
			add(e.Mode)
		}
	}
	if diff := cmp.Diff([]string{
		"10.0.0.1", "10.0.0.2", "esp", "1000", "tunnel", "-u", "7", "1.1.1.1", "4500", "2.2.2.2", "",
	}, words); diff != "" {
		t.Errorf("what was understood (-want +got):\n%s", diff)
	}
}

// A long statement after short ones needs more room for its tokens.
func TestManyTokens(t *testing.T) {
	t.Parallel()
	long := esp + strings.Repeat("-u 1 ", 1000) + `-E null "";`
	r := setkey.NewReader("", strings.NewReader("flush;"+long+"flush;"+long))
	for _, want := range []int{-1, 1000, -1, 1000} {
		s, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		got := -1
		if s.Add != nil {
			got = len(s.Add.SA.Extensions)
		}
		if got != want {
			t.Errorf("%d extensions, want %d", got, want)
		}
	}
}
