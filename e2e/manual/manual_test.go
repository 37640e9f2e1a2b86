// Package manual runs the examples of the manual pages as they are printed there.
package manual

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }

// step is one example of a page: how a reader would try it, and what must come
// of it.
type step struct {
	first  string // line of the example, so that a new one is not overlooked
	on     string // the host, "A" or "B"
	before string // a script that makes what the example takes for granted
	script func(example string) string
	want   string // a regular expression for all that is printed
	then   func(t *testing.T, a, b *lab.Host)
}

// statements are typed into setkey -c.
func statements(example string) string { return "setkey -c <<'^D'\n" + example + "^D\n" }

// forAWhile runs what does not end by itself, and shows what it has printed when
// that has something.
func forAWhile(example string) string {
	return ": >/run/out; { " + strings.TrimSpace(example) + ` ; } >/run/out 2>&1 & pid=$!
until grep -q . /run/out; do sleep 0.05; done
kill $pid; cat /run/out`
}

// pages are the examples of each page, in their order.
var pages = map[string][]step{
	"if_ipsec.4": {
		{first: "ifconfig ipsec0 create reqid 100", on: "A", script: typed},
		{first: "ifconfig ipsec0 create reqid 200", on: "B", script: typed, then: func(t *testing.T, a, b *lab.Host) {
			answers(t, a, "172.16.0.5")
			answers(t, b, "172.16.0.3")
		}},
		{first: "ip route add 10.2.0.0/16 dev ipsec0", on: "A", then: func(t *testing.T, a, b *lab.Host) {
			programs.Output(t, b, "ip addr add 10.2.0.1/16 dev lo")
			answers(t, a, "10.2.0.1")
		}},
	},
	"ifconfig-ipsec.8": {
		{first: "ifconfig ipsec0 create reqid 100 tunnel 192.0.2.3 192.0.2.5 \\", on: "A"},
		{first: "ifconfig ipsec0 inet6 2001:db8::3/64", on: "A",
			want: `ipsec0: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> (?s:.*)\tinet 172.16.0.1 --> 172.16.0.2/30\n(?s:.*)\tinet6 2001:db8::3/64\n(?s:.*)`},
		{first: `ifconfig ipsec create name office group vpn description "to the office"`, on: "A", want: `office\noffice\n`,
			then: func(t *testing.T, a, b *lab.Host) {
				if left := programs.Output(t, a, "ifconfig -l"); strings.Contains(left, "office") {
					t.Errorf("after it was destroyed, office is one of the interfaces %q", left)
				}
			}},
	},
	"ipsecd.8": {
		{first: "ipsecd -v", on: "A", script: forAWhile, want: `time=.* msg="ipsecd serves" (?s:.*)`},
		{first: "tail -f /run/ifipsec/net-$(stat -L -c %i /proc/self/ns/net)/log", on: "B", before: "ifconfig ipsec0 create >/dev/null",
			script: forAWhile, want: `time=.* msg="ipsecd serves" (?s:.*)`},
		{first: "ipsecd -status", on: "B", want: `esp:\nipsec0:\n`},
		{first: "ip netns exec blue ipsecd -stop", on: "B", before: "ip netns add blue && ip netns exec blue ifconfig ipsec7 create",
			then: func(t *testing.T, a, b *lab.Host) {
				if r := programs.Shell(t, b, "ip netns exec blue ipsecd -status"); r.Exit != 1 {
					t.Errorf("in blue, something serves: %+v", r)
				}
				if got := programs.Output(t, b, "ifconfig -l"); !strings.Contains(got, "ipsec0") {
					t.Errorf("the daemon beside blue's has %q", got)
				}
			}},
	},
	"setkey.8": {
		{first: "add 192.0.2.3 192.0.2.5 esp 0x1003 -m tunnel -u 100 -r 32", on: "A", script: statements},
		{first: `echo 0x$(od -An -tx1 -N20 /dev/urandom | tr -d ' \n')`, on: "A", want: `0x[0-9a-f]{40}\n`},
		{first: "add 2001:db8::3 2001:db8::5 esp 0x2003 -m tunnel -u 101 -r 32", on: "A", script: statements},
		{first: "get 2001:db8::3 2001:db8::5 esp 0x2003;", on: "A", script: statements,
			want: `2001:db8::3 2001:db8::5\n\tesp mode=tunnel spi=8195\(0x00002003\) reqid=101\(0x00000065\)\n(?s:.*)` +
				`192.0.2.[35] 192.0.2.[35]\n(?s:.*)192.0.2.[35] 192.0.2.[35]\n(?s:.*)`},
		{first: "spdadd ::/0 ::/0 icmp6 135,0 -P in none;", on: "A", script: statements},
		{first: "setkey -n -f /etc/ipsec.conf", on: "A", before: "mount -t tmpfs etc /etc && echo 'flush; spdflush;' >/etc/ipsec.conf"},
		{first: "setkey -DPt", on: "A", before: "ifconfig ipsec0 create reqid 100 tunnel 192.0.2.3 192.0.2.5",
			want: `(?s:.*esp/tunnel/192.0.2.3-192.0.2.5/unique:100.*)`},
	},
}

// typed is what a terminal makes of an example: ^D ends the input of a command.
func typed(example string) string {
	return "set -e\n" + strings.ReplaceAll(example, "setkey -c\n", "setkey -c <<'^D'\n")
}

// examples are the literal displays of a page's EXAMPLES, as a reader sees them.
func examples(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n.Sh EXAMPLES\n")
	section, _, _ := strings.Cut(after, "\n.Sh ")
	for _, display := range regexp.MustCompile(`(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed$`).FindAllStringSubmatch(section, -1) {
		all = append(all, strings.ReplaceAll(display[1], `\e`, `\`))
	}
	return all
}

func answers(t *testing.T, from *lab.Host, to string) {
	t.Helper()
	r, err := from.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr(to), Count: 3, Timeout: 5 * time.Second})
	if err != nil || r.Received != 3 {
		t.Errorf("%s: %d of 3 pings to %s were answered (%v)", from.Name, r.Received, to, err)
	}
}

func TestExamples(t *testing.T) {
	t.Parallel()
	found, err := filepath.Glob("../../docs/*.[1-9]")
	if err != nil || len(found) != len(pages) {
		t.Fatalf("the pages %v (%v), of which %d have examples here", found, err, len(pages))
	}
	for page, steps := range pages {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			printed := examples(t, page)
			if len(printed) != len(steps) {
				t.Fatalf("%s has %d examples, and %d are run", page, len(printed), len(steps))
			}
			a, b := hosts(t)
			for i, s := range steps {
				first, _, _ := strings.Cut(printed[i], "\n")
				if first != s.first {
					t.Fatalf("example %d of %s begins with %q, want %q", i+1, page, first, s.first)
				}
				h := map[string]*lab.Host{"A": a, "B": b}[s.on]
				if s.before != "" {
					if r := programs.Shell(t, h, s.before); r.Exit != 0 {
						t.Fatalf("before %q: %+v", first, r)
					}
				}
				script := printed[i]
				if s.script != nil {
					script = s.script(script)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				r, err := h.Shell(ctx, script)
				cancel()
				if err != nil || r.Exit != 0 || r.Stderr != "" || !regexp.MustCompile(`\A(?:`+s.want+`)\z`).MatchString(r.Stdout) {
					t.Fatalf("%q: exit status %d (%v), printed %q and %q, want %q", first, r.Exit, err, r.Stdout, r.Stderr, s.want)
				}
				if s.then != nil {
					s.then(t, a, b)
				}
			}
		})
	}
}

// hosts are joined by a cable, with the addresses of all examples.
func hosts(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	a, b = programs.NewHost(t, "hostA"), programs.NewHost(t, "hostB")
	addrs := func(last int) (all []netip.Prefix) {
		for _, p := range []string{"192.168.0.%d/24", "192.0.2.%d/24", "fd00::%d/64"} {
			all = append(all, netip.MustParsePrefix(fmt.Sprintf(p, last)))
		}
		return all
	}
	err := lab.Connect(lab.Port{Host: a, Name: "eth0", Addrs: addrs(3)}, lab.Port{Host: b, Name: "eth0", Addrs: addrs(5)}, 1500)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}
