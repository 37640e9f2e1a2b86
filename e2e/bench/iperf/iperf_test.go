package iperf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The reports are those of iperf 3.12 on loopback.
func TestParse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Result{
		"tcp":  {Bytes: 4573102080, Seconds: 1.000476, Sent: 4573102080},
		"tcp4": {Bytes: 4226088907, Seconds: 1.00032, Sent: 4242800640},
		"tcpr": {Bytes: 3942252544, Seconds: 1.000016, Sent: 3942645760},
		"udp":  {Bytes: 20189632, Seconds: 1.000052, Packets: 315463, Sent: 20883840},
	} {
		report, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(report); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	r := Result{Bytes: 1_000_000, Seconds: 2, Packets: 1000}
	if got, want := r.BitsPerSecond(), 4e6; got != want {
		t.Errorf("BitsPerSecond() = %v, want %v", got, want)
	}
	if got, want := r.PacketsPerSecond(), 500.0; got != want {
		t.Errorf("PacketsPerSecond() = %v, want %v", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	refused, err := os.ReadFile("testdata/refused.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ report, want string }{
		"a failed run":   {string(refused), "iperf3: unable to connect to server: Connection refused"},
		"nothing":        {"", "report of iperf3: unexpected end of JSON input"},
		"no result":      {"{}", "nothing was received"},
		"nothing came":   {`{"end":{"sum_received":{"seconds":1,"bytes":0}}}`, "nothing was received"},
		"no packet size": {`{"start":{"test_start":{"protocol":"UDP"}},"end":{"sum_received":{"seconds":1,"bytes":1}}}`, "datagrams have no size"},
	} {
		if _, err := Parse([]byte(test.report)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error = %v, want %q", name, err, test.want)
		}
	}
}
