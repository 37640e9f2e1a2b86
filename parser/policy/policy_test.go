package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ifipsec/engine/pfkey"
	"ifipsec/parser/policy"

	"github.com/google/go-cmp/cmp"
)

func numeric(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%q is no numeric address", text)
	}
	return a, nil
}

// words writes a policy as the language has it, in full.
func words(p *pfkey.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v", p.Dir, p.Type)
	for _, r := range p.Requests {
		ends := ""
		if r.Src.IsValid() {
			ends = fmt.Sprintf("%v-%v", r.Src.Addr(), r.Dst.Addr())
		}
		fmt.Fprintf(&b, " %s/%v/%s/%v", map[uint16]string{50: "esp", 51: "ah", 108: "ipcomp"}[r.Proto], r.Mode, ends, r.Level)
		if r.ReqID != 0 {
			fmt.Fprintf(&b, ":%d", r.ReqID)
		}
	}
	return b.String()
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"in none":        "in none",
		"out\n\tdiscard": "out discard",
		"out bypass":     "out bypass",
		"in entrust":     "in entrust",
		"in":             "in discard",
		"in ipsec":       "in ipsec",
		"out ipsec esp/tunnel/192.168.0.3-192.168.0.5/require ah/transport//use": "out ipsec esp/tunnel/192.168.0.3-192.168.0.5/require ah/transport//use",
		"out ipsec ipcomp/transport":                            "out ipsec ipcomp/transport//default",
		"out ipsec esp/transport/":                              "out ipsec esp/transport//default",
		"out ipsec esp / transport / / unique:65535":            "out ipsec esp/transport//unique:65535",
		"out ipsec esp/transport/1.1.1.1-2.2.2.2/default":       "out ipsec esp/transport/1.1.1.1-2.2.2.2/default",
		"out ipsec esp/transport/me-any/require":                "out ipsec esp/transport//require",
		"in ipsec esp/transport/any-me/require":                 "in ipsec esp/transport//require",
		"out ipsec esp/tunnel/fe80::1%em0-fe80::2%em0/unique:1": "out ipsec esp/tunnel/fe80::1%em0-fe80::2%em0/unique:1",
	} {
		p, err := policy.Parse(text, numeric)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := words(p); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		kind   policy.Kind
		offset int
		detail string
	}{
		{"", policy.ErrArgument, 0, "the policy ends, expected in or out"},
		{" fwd none", policy.ErrArgument, 1, `unexpected "fwd", expected in or out`},
		{"out foo", policy.ErrArgument, 4, `unexpected "foo", expected discard, none or ipsec`},
		{"out none none", policy.ErrArgument, 9, `unexpected "none", expected the end of the policy`},
		{"out ipsec udp/transport", policy.ErrArgument, 10, `unexpected "udp", expected esp, ah or ipcomp`},
		{"out ipsec esp-old/transport", policy.ErrArgument, 13, `unexpected "-", expected /transport or /tunnel`},
		{"out ipsec esp", policy.ErrTooFew, 13, "esp needs a mode: esp/transport or esp/tunnel"},
		{"out ipsec esp/foo", policy.ErrArgument, 14, `unexpected "foo", expected transport or tunnel`},
		{"out ipsec esp/tunnel", policy.ErrAddress, 10, "a tunnel needs its endpoints: esp/tunnel/SOURCE-DESTINATION/LEVEL"},
		{"out ipsec esp/tunnel//use", policy.ErrAddress, 10, "a tunnel needs its endpoints: esp/tunnel/SOURCE-DESTINATION/LEVEL"},
		{"out ipsec esp/tunnel/-2.2.2.2/use", policy.ErrArgument, 21, `unexpected "-", expected SOURCE-DESTINATION or /LEVEL`},
		{"out ipsec esp/tunnel/1.1.1.1/use", policy.ErrArgument, 28, `unexpected "/", expected -DESTINATION`},
		{"out ipsec esp/tunnel/1.1.1.1-/use", policy.ErrArgument, 29, `unexpected "/", expected the tunnel's destination`},
		{"out ipsec esp/tunnel/gw-2.2.2.2/use", policy.ErrName, 21, `"gw" is no numeric address, and names do not resolve in policies`},
		{"out ipsec esp/tunnel/1.1.1.1-gw/use", policy.ErrName, 21, `"gw" is no numeric address, and names do not resolve in policies`},
		{"out ipsec esp/tunnel/1.1.1.1-::1/use", policy.ErrAddress, 21, "1.1.1.1 and ::1 are of different families"},
		{"out ipsec esp/tunnel/any-me/use", policy.ErrDirection, 21, "any-me is for policies of direction in"},
		{"in ipsec esp/tunnel/me-any/use", policy.ErrDirection, 20, "me-any is for policies of direction out"},
		{"out ipsec esp/tunnel/me-any/use", policy.ErrAddress, 10, "a tunnel needs its endpoints: esp/tunnel/SOURCE-DESTINATION/LEVEL"},
		{"out ipsec esp/tunnel/me-me/use", policy.ErrArgument, 21, `unexpected "me", expected SOURCE-DESTINATION`},
		{"out ipsec esp/transport//", policy.ErrArgument, 25, "the policy ends, expected default, use, require, unique or unique:REQID"},
		{"out ipsec esp/transport//foo", policy.ErrArgument, 25, `unexpected "foo", expected default, use, require, unique or unique:REQID`},
		{"out ipsec esp/transport//use:1", policy.ErrArgument, 25, `unexpected "use:1", expected default, use, require, unique or unique:REQID`},
		{"out ipsec esp/transport//unique:65536", policy.ErrArgument, 25, "unique:65536, expected a decimal number up to 65535 for the reqid"},
		{"out ipsec esp/transport//unique:", policy.ErrArgument, 25, "unique:, expected a decimal number up to 65535 for the reqid"},
		{"out ipsec esp/transport//use % x", policy.ErrArgument, 29, `unexpected "%", expected / or the next request: esp, ah or ipcomp`},
		{"out ipsec esp/transport//foo bar", policy.ErrArgument, 25, `unexpected "foo", expected default, use, require, unique or unique:REQID`},
		{"out 0x0011223344", policy.ErrArgument, 4, "unexpected word of 12 characters, expected discard, none or ipsec"},
	} {
		_, err := policy.Parse(c.text, numeric)
		var e *policy.Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an error", c.text, err)
			continue
		}
		if e.Kind != c.kind || !errors.Is(err, c.kind) || e.Offset != c.offset || e.Detail != c.detail {
			t.Errorf("%q: %s\n%v", c.text, cmp.Diff(fmt.Sprintf("%v at %d: %s", c.kind, c.offset, c.detail), fmt.Sprintf("%v at %d: %s", e.Kind, e.Offset, e.Detail)), err)
		}
	}
}

// FuzzPolicy: whatever the text, there is either a policy that says the same
// when it is written out, or an error inside the text.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		"", "in", "out none", "in ipsec esp/transport//require ah/transport//unique:7", "out ipsec esp/tunnel/1.1.1.1-2.2.2.2/use",
		"out ipsec esp/tunnel/fe80::1%em0-fe80::2%1/default", "in ipsec esp/transport/any-me/require", "out ipsec esp/tunnel/-2.2.2.2/require",
		"out ipsec esp/transport//require % foo", "out ipsec esp", "out\x00", "in ipsec \xff", "out bypass esp/transport",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := policy.Parse(text, numeric)
		var e *policy.Error
		if errors.As(err, &e) {
			if e.Offset < 0 || e.Offset > len(text) || e.Detail == "" || e.Kind == "" {
				t.Errorf("%q: error %+v", text, e)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		full := words(p)
		again, err := policy.Parse(full, numeric)
		if err != nil {
			t.Fatalf("%q is %q: %v", text, full, err)
		}
		if diff := cmp.Diff(full, words(again)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	})
}
