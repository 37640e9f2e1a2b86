package interop

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
	"ifipsec/engine/control"
)

// counters returns what the daemon on a host has counted about ESP, by the short
// names of ipsecd -status -json.
func counters(t *testing.T, h *lab.Host) map[string]uint64 {
	t.Helper()
	var statistics control.StatisticsResult
	if err := json.Unmarshal([]byte(programs.Output(t, h, "ipsecd -status -json")), &statistics); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]uint64)
	for _, c := range statistics.ESP {
		all[c.Name] = c.Value
	}
	return all
}

// linuxCounters returns the errors that the kernel's IPsec has counted, by the
// names of /proc/net/xfrm_stat.
func linuxCounters(t *testing.T, l *uml.Kernel) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	for line := range strings.Lines(shown(t, l, "cat /proc/net/xfrm_stat")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			t.Fatalf("/proc/net/xfrm_stat: %q: %v", line, err)
		}
		all[name] = n
	}
	return all
}

// grown returns by how much each counter has grown, without those that have not.
func grown(before, after map[string]uint64) map[string]uint64 {
	by := make(map[string]uint64)
	for name, n := range after {
		by[name] = n - before[name]
	}
	maps.DeleteFunc(by, func(_ string, n uint64) bool { return n == 0 })
	return by
}
