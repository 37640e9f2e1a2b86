package e2e

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
)

// The example of if_ipsec(4), to the letter.
const (
	exampleA = `ifconfig ipsec0 create reqid 100
ifconfig ipsec0 inet tunnel 192.168.0.3 192.168.0.5
ifconfig ipsec0 inet 172.16.0.3/16 172.16.0.5
setkey -c <<END
add 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u 100 -E rijndael-cbc "VerySecureKey!!1";
add 192.168.0.5 192.168.0.3 esp 10001 -m tunnel -u 100 -E rijndael-cbc "VerySecureKey!!2";
END
`
	exampleB = `ifconfig ipsec0 create reqid 200
ifconfig ipsec0 inet tunnel 192.168.0.5 192.168.0.3
ifconfig ipsec0 inet 172.16.0.5/16 172.16.0.3
setkey -c <<END
add 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u 200 -E rijndael-cbc "VerySecureKey!!1";
add 192.168.0.5 192.168.0.3 esp 10001 -m tunnel -u 200 -E rijndael-cbc "VerySecureKey!!2";
END
`
)

var (
	innerA = netip.MustParseAddr("172.16.0.3")
	innerB = netip.MustParseAddr("172.16.0.5")
)

// example types the example on two new hosts. Each of its commands succeeds and
// says nothing.
func example(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	a, b = newPair(t)
	quiet(t, a, "set -e\n"+exampleA)
	quiet(t, b, "set -e\n"+exampleB)
	return a, b
}

// exampleESP checks that what was captured is the example's ESP in both
// directions and nothing else.
func exampleESP(t *testing.T, esp map[uint32]int, others []lab.Packet) {
	t.Helper()
	if len(others) > 0 {
		t.Errorf("%d packets on the wire are not ESP, first %v", len(others), others[0])
	}
	for spi, n := range esp {
		if spi != 10000 && spi != 10001 {
			t.Errorf("%d packets on the wire have SPI %d", n, spi)
		}
	}
	for _, spi := range []uint32{10000, 10001} {
		if esp[spi] == 0 {
			t.Errorf("no packet on the wire has SPI %d", spi)
		}
	}
}

func TestExamplePings(t *testing.T) {
	t.Parallel()
	a, b := example(t)
	wire := capture(t, a, "eth0")
	reaches(t, a, innerB)
	reaches(t, b, innerA)
	esp, others := wire()
	exampleESP(t, esp, others)
	// Three requests and three answers each way.
	if want := map[uint32]int{10000: 6, 10001: 6}; !cmp.Equal(want, esp) {
		t.Errorf("packets by SPI: %v, want %v", esp, want)
	}
}

func TestExampleStreams(t *testing.T) {
	t.Parallel()
	a, b := example(t)
	const size = 100 << 20
	wire := capture(t, a, "eth0")
	for _, leg := range []struct {
		from, to *lab.Host
		addr     netip.Addr
	}{{a, b, innerB}, {b, a, innerA}} {
		took, err := lab.Stream(t.Context(), leg.from, leg.to, leg.addr, size)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s to %s: %.0f Mbit/s", leg.from.Name, leg.to.Name, size*8/took.Seconds()/1e6)
	}
	esp, others := wire()
	exampleESP(t, esp, others)
}

// What is shown of the example, after one ping.
func TestExampleShown(t *testing.T) {
	t.Parallel()
	a, _ := example(t)
	if got := pings(t, a, innerB, 1, patience); got != 1 {
		t.Fatal("the ping was not answered")
	}
	for name, command := range map[string]string{
		"ifconfig.txt":    "ifconfig ipsec0",
		"ifconfig-g.txt":  "ifconfig -g ipsec",
		"setkey-D.txt":    "setkey -D",
		"setkey-DP-t.txt": "setkey -DP -t",
		"esp-sa.txt":      "ipsecd -esp-sa",
		"status.txt":      "ipsecd -status",
		// What is counted, not how much of it.
		"status.json":    `ipsecd -status -json | sed 's/: -*[0-9][0-9.e+]*/: N/'`,
		"prometheus.txt": `ipsecd -status -prometheus | sed '/^#/!s/ [^ ]*$/ N/'`,
	} {
		golden(t, name, output(t, a, command))
	}
}

// What differs from run to run, and what takes its place in golden files.
var normal = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d \d{4}`), "TIME"},
	// Since 2020: that of a machine without a wall clock is wrong.
	{regexp.MustCompile(`20[2-9]\d-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`diff: \d+\(s\)`), "diff: N(s)"},
	{regexp.MustCompile(`\bpid=\d+`), "pid=PID"},
}

// normalise takes out of a program's output what differs from run to run.
func normalise(output string) string {
	for _, n := range normal {
		output = n.pattern.ReplaceAllString(output, n.with)
	}
	return output
}

// golden compares output with a file in testdata/e2e.
func golden(t *testing.T, name, output string) {
	t.Helper()
	path := filepath.Join("..", "testdata", "e2e", name)
	got := normalise(output)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// What make demo shows works with these programs.
func TestDemo(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	out, err := exec.CommandContext(t.Context(), "go", "run", "ifipsec/e2e/demo", "-bin", bin).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
