package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

// The time for a line of a script, and for an SA of a dump, does not grow with
// their number. Times are compared within one run only: rounds of both sizes
// take turns, and their medians are compared.
func TestScriptsOfManyLines(t *testing.T) {
	const few, rounds, slack = 1_000, 3, 1.3
	many := 100_000
	if programs.Race {
		many = 20_000 // the detector makes everything some ten times slower
	}
	h := newHost(t, "hostA")
	dir := t.TempDir()
	script := func(lines int) string {
		var s strings.Builder
		for i := range lines {
			fmt.Fprintf(&s, "add 10.%d.%d.%d 192.0.2.1 esp %d -m tunnel -u 100 -r 4 -E aes-gcm-16 0x%040x;\n",
				i>>16, i>>8&0xff, i&0xff, 4096+i, i)
		}
		path := filepath.Join(dir, fmt.Sprint(lines))
		if err := os.WriteFile(path, []byte(s.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	scripts := map[int]string{few: script(few), many: script(many)}
	timed := func(command string) time.Duration {
		begin := time.Now()
		quiet(t, h, command)
		return time.Since(begin)
	}
	measure := func() (add, dump float64) {
		adds, dumps := map[int][]time.Duration{}, map[int][]time.Duration{}
		for range rounds {
			for _, lines := range []int{few, many} {
				quiet(t, h, "setkey -F")
				adds[lines] = append(adds[lines], timed("setkey -f "+scripts[lines]))
				dumps[lines] = append(dumps[lines], timed("setkey -D >/run/dump"))
				if n := dumped(t, h); n != lines {
					t.Fatalf("setkey -D shows %d SAs, want %d", n, lines)
				}
			}
		}
		if n := strings.Count(output(t, h, "ipsecd -status"), "\nSA "); n != many {
			t.Errorf("ipsecd -status shows %d SAs, want %d", n, many)
		}
		for what, times := range map[string]map[int][]time.Duration{"add": adds, "setkey -D": dumps} {
			t.Logf("%s: %.0f a second of %d, %.0f a second of %d", what,
				few/median(times[few]).Seconds(), few, float64(many)/median(times[many]).Seconds(), many)
		}
		ratio := func(times map[int][]time.Duration) float64 {
			return median(times[many]).Seconds() / float64(many) / (median(times[few]).Seconds() / few)
		}
		return ratio(adds), ratio(dumps)
	}
	add, dump := measure()
	if add > slack || dump > slack {
		add, dump = measure() // somebody else's work may have come in between
	}
	if add > slack || dump > slack {
		t.Errorf("a line of %d takes %.2f times as long as one of %d, an SA of a dump %.2f times; want at most %.1f",
			many, add, few, dump, slack)
	}
}

// dumped counts the SAs in the dump.
func dumped(t *testing.T, h *lab.Host) int {
	t.Helper()
	dump, err := os.ReadFile(h.Path("/run/dump"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(dump), " spi=")
}

func median(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}
