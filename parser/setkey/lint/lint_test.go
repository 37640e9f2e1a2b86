package lint_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
	"ifipsec/parser/setkey/lint"

	"github.com/google/go-cmp/cmp"
)

// warnings returns LINE NAME of everything that is unwise in a script without
// errors and without names, but that policies are for one way.
func warnings(t *testing.T, script string) []string {
	t.Helper()
	r := setkey.NewReader("script", strings.NewReader(script))
	var linter lint.Linter
	var found []lint.Warning
	for {
		s, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		result := compile.Statement(r, s, nil, nil)
		if result.Failed() {
			t.Fatal(result.Errors[0])
		}
		found = append(found, linter.Statement(r, s, result)...)
	}
	var names []string
	for _, w := range append(found, linter.End()...) {
		if w.Name == lint.OneWay {
			continue
		}
		names = append(names, fmt.Sprint(w.Pos.Line, " ", w.Name))
	}
	return names
}

const key = "0x031425364758697a8b9cadbecfe0f102132435"

// What the script leaves in the databases decides, as they would have it.
func TestDatabases(t *testing.T) {
	t.Parallel()
	const (
		esp      = "add 192.0.2.3 192.0.2.5 esp 4096 -m transport -r 4 -E aes-gcm-16 " + key + "01;\n"
		ours     = "add 192.0.2.3 192.0.2.5 esp 4096 -m transport -u 1 -r 4 -E aes-gcm-16 " + key + "01;\n"
		again    = "add 192.0.2.3 192.0.2.5 esp 4096 -m transport -u 1 -r 4 -E aes-gcm-16 " + key + "02;\n"
		tcp      = "add 192.0.2.3 192.0.2.5 tcp 4096 -A tcp-md5 \"a password\";\n"
		tunnel   = "add 192.0.2.3 192.0.2.5 esp 4096 -m tunnel -r 4 -E aes-gcm-16 " + key + "01;\n"
		anyMode  = "add 192.0.2.3 192.0.2.5 esp 4096 -r 4 -E aes-gcm-16 " + key + "01;\n"
		selector = "192.0.2.0/24 192.0.2.5 any -P out"
	)
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"sockets find TCP-MD5 SAs", tcp, nil},
		{"a TCP-MD5 SA gets another SPI", ours + tcp + again, []string{"3 duplicate-spi"}},
		{"a TCP-MD5 SA has the SPI", tcp + again, []string{"2 duplicate-spi"}},
		{"it is deleted by its addresses", tcp + "delete 192.0.2.3 192.0.2.5 tcp 1;\n" + again, nil},

		{"flush of its protocol", ours + "flush esp;\n" + again, nil},
		{"flush of another protocol", ours + "flush ah;\n" + again, []string{"3 duplicate-spi"}},
		{"flush of all", ours + "flush;\n" + again, nil},
		{"delete", ours + "delete 192.0.2.3 192.0.2.5 esp 4096;\n" + again, nil},
		{"delete of another protocol", ours + "delete 192.0.2.3 192.0.2.5 ah 4096;\n" + again, []string{"3 duplicate-spi"}},
		{"delete between other addresses", ours + "delete 192.0.2.5 192.0.2.3 esp 4096;\n" + again, []string{"3 duplicate-spi"}},
		{"delete of another SPI", ours + "delete 192.0.2.3 192.0.2.5 esp 4097;\n" + again, []string{"3 duplicate-spi"}},
		{"deleteall", ours + "deleteall 192.0.2.3 192.0.2.5 esp;\n" + again, nil},
		{"deleteall of another protocol", ours + "deleteall 192.0.2.3 192.0.2.5 ah;\n" + again, []string{"3 duplicate-spi"}},

		{"nothing asks for it", esp, []string{"1 unused-sa"}},
		{"an interface may", ours, nil},
		{"a policy asks", esp + "spdadd " + selector + " ipsec esp/transport//require;\n", nil},
		{"for another protocol", esp + "spdadd " + selector + " ipsec ah/transport//require;\n", []string{"1 unused-sa"}},
		{"for other packets", esp + "spdadd 192.0.2.0/24 192.0.2.6 any -P out ipsec esp/transport//require;\n", []string{"1 unused-sa"}},
		{"for packets of the other family", esp + "spdadd ::/0 ::/0 any -P out ipsec esp/transport//require;\n", []string{"1 unused-sa"}},
		{"for its addresses", esp + "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport/192.0.2.3-192.0.2.5/require;\n", nil},
		{"for a tunnel", esp + "spdadd " + selector + " ipsec esp/tunnel/192.0.2.3-192.0.2.5/require;\n", []string{"1 unused-sa"}},
		{"the tunnel", tunnel + "spdadd " + selector + " ipsec esp/tunnel/192.0.2.3-192.0.2.5/require;\n", nil},
		{"no tunnel", tunnel + "spdadd " + selector + " ipsec esp/transport//require;\n", []string{"1 unused-sa"}},
		{"any mode, a tunnel", anyMode + "spdadd " + selector + " ipsec esp/tunnel/192.0.2.3-192.0.2.5/require;\n", nil},
		{"any mode, transport", anyMode + "spdadd " + selector + " ipsec esp/transport//require;\n", nil},
		{"the policy is deleted", esp + "spdadd " + selector + " ipsec esp/transport//require;\nspddelete " + selector + ";\n", []string{"1 unused-sa"}},
		{"the policy is flushed", esp + "spdadd " + selector + " ipsec esp/transport//require;\nspdflush;\n", []string{"1 unused-sa"}},
		{
			"the policy is replaced",
			esp + "spdadd " + selector + " ipsec esp/transport//require;\nspdupdate " + selector + " none;\n",
			[]string{"1 unused-sa"},
		},
		{"the SA is gone", esp + "flush;\n", nil},
		{
			"link-local addresses",
			"add fe80::3%1 fe80::5%1 esp 4096 -m transport -r 4 -E aes-gcm-16 " + key + "01;\n" +
				"spdadd fe80::%1/64 fe80::5%1 any -P out ipsec esp/transport//require;\n",
			nil,
		},

		{
			"AES counts alike in CTR and GCM",
			ours + "add 192.0.2.5 192.0.2.3 esp 4097 -u 1 -r 4 -E aes-ctr " + key + "01 -A hmac-sha1 " + key + "01;\n",
			[]string{"2 reused-key"},
		},
		{"another salt", ours + strings.Replace(again, "4096", "4097", 1), nil},
		{"a key stays used", ours + "flush;\n" + ours, []string{"3 reused-key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, warnings(t, c.script)); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, c.script)
			}
		})
	}
}

// The script of a large site is checked while somebody waits: four times as many lines
// take four times as long. With a search among all SAs or policies it would be sixteen.
func TestLongScript(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, because it takes seconds")
	}
	const few, many = 4_000, 16_000
	short, long := longScript(few), longScript(many)
	checked := func(script string) time.Duration {
		start := time.Now()
		if found := warnings(t, script); len(found) > 0 {
			t.Errorf("%d warnings, the first of which is %s", len(found), found[0])
		}
		return time.Since(start)
	}
	checked(short) // what is slow the first time
	if a, b := checked(short), checked(long); b > 9*a {
		t.Errorf("4 × %d lines took %v, 4 × %d lines %v", few, a, many, b)
	}
}

// longScript is a script of four times n lines.
func longScript(n int) string {
	var script strings.Builder
	for i := range n {
		src, dst := fmt.Sprintf("10.0.%d.%d", i>>8, i&255), fmt.Sprintf("10.1.%d.%d", i>>8, i&255)
		fmt.Fprintf(&script, "add %s %s esp %d -m transport -r 4 -E aes-gcm-16 %s%02x%04x;\n", src, dst, 4096+i, key[:36], i&1, i)
		fmt.Fprintf(&script, "spdadd %s %s any -P out ipsec esp/transport//require;\n", src, dst)
	}
	for i := range n {
		fmt.Fprintf(&script, "add 10.2.0.1 10.2.0.2 esp %d -u 1 -r 4 -E aes-gcm-16 %s%02x%04x;\n", 4096+n+i, key[:36], 2+i&1, i)
	}
	for i := range n {
		fmt.Fprintf(&script, "delete 10.2.0.1 10.2.0.2 esp %d;\n", 4096+n+i)
	}
	return script.String()
}
