package result

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", name, diff)
	}
}

// example is a run of three rounds.
func example(t *testing.T) *Run {
	t.Helper()
	f, err := os.Open("testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

var (
	ours  = Cell{"TCP", "aes-gcm-16"}
	wg    = Cell{"TCP", "wireguard-go"}
	inUDP = Cell{"TCP", "aes-gcm-16 in UDP"}
	rows  = []Row{
		{Name: "tcp", Title: "TCP, aes-gcm-16", Metric: BitsPerSecond, Of: ours, Beside: wg, Goal: 1},
		{Name: "encap", Title: "TCP, ESP in UDP", Metric: BitsPerSecond, Of: inUDP, Beside: wg, Goal: 1.7},
		{Name: "packets", Title: "UDP of 64 bytes", Metric: PacketsPerSecond, Of: ours, Beside: wg, Goal: 2},
		{Name: "cpu", Title: "CPU of the daemons", Metric: DaemonsPerGB, Of: ours, Beside: wg, Goal: 1, Lower: true},
		{Name: "ping", Title: "ping, idle <&>", Metric: RoundTrip, Of: ours, Beside: wg, Goal: 1, Lower: true},
		{Name: "fair", Title: "two tunnels", Metric: Fairness, Of: ours, Goal: 0.8},
		{Name: "memory", Title: "resident memory", Metric: Resident, Of: ours, Beside: wg, Lower: true},
		{Name: "idle", Title: "an idle daemon", Metric: DaemonsLoad, Of: ours, Goal: 0.01, Lower: true},
		{Name: "other", Title: "never measured", Metric: BitsPerSecond, Of: Cell{"SCTP", "aes-gcm-16"}, Beside: wg, Goal: 1},
	}
)

func answers(t *testing.T, run *Run) (all []Answer) {
	for _, row := range rows {
		all = append(all, run.Answer(row))
	}
	return all
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	all := answers(t, example(t))
	// Rounds: 1.5/2, 2.0/2.5 and 2.4/2.
	if got, want := all[0].Ratio, (Spread{Median: 0.8, Min: 0.75, Max: 1.2}); got != want {
		t.Errorf("ratio = %v, want %v: the median of the rounds' ratios, not the ratio of the medians", got, want)
	}
	if got, want := all[0].Value, (Spread{Median: 2e9, Min: 1.5e9, Max: 2.4e9}); got != want {
		t.Errorf("value = %v, want %v", got, want)
	}
	// In the last round the reference has no value.
	if got, want := all[2].Ratio, (Spread{Median: 2.25, Min: 2, Max: 2.5}); got != want {
		t.Errorf("ratio of two rounds = %v, want %v", got, want)
	}
	met := make(map[string]bool)
	missing := make(map[string]string)
	for _, a := range all {
		met[a.Name], missing[a.Name] = a.Met(), a.Missing
	}
	wantMet := map[string]bool{
		"tcp": false, "encap": false, "packets": true, "cpu": false, "ping": true, "fair": true,
		"memory": true, "idle": true, "other": false,
	}
	if diff := cmp.Diff(wantMet, met); diff != "" {
		t.Errorf("met (-want +got):\n%s", diff)
	}
	wantMissing := map[string]string{
		"tcp": "", "encap": "no answer through the tunnel", "packets": "", "cpu": "", "ping": "",
		"fair": "", "memory": "", "idle": "", "other": "not measured",
	}
	if diff := cmp.Diff(wantMissing, missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

func TestSpreadOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 1}, Spread{2.5, 1, 4}},
		{[]float64{9, 1, 5}, Spread{5, 1, 9}},
		{[]float64{9, 1, 5, 7}, Spread{6, 1, 9}},
	} {
		if got := SpreadOf(test.values); got != test.want {
			t.Errorf("SpreadOf(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	run := example(t)
	all := answers(t, run)
	golden(t, "table.txt", run.Text(all))
	golden(t, "table.md", run.Markdown(all))
	chart, err := run.Chart(all)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "chart.svg", chart)
	var data bytes.Buffer
	if err := run.Write(&data); err != nil {
		t.Fatal(err)
	}
	golden(t, "run.json", data.String())
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	if run, err := Read(strings.NewReader("{")); err == nil {
		t.Errorf("%+v, want an error", run)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	document := "# Title\n" + markerBegin + "\nold\n" + markerEnd + "\nrest\n"
	want := "# Title\n" + markerBegin + "\nnew\n" + markerEnd + "\nrest\n"
	if got, err := Replace(document, "new\n"); err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", markerBegin + "\n", markerEnd + "\n" + markerBegin + "\n"} {
		if got, err := Replace(bad, "new\n"); err == nil {
			t.Errorf("%q: %q, want an error", bad, got)
		}
	}
}
