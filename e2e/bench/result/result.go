// Package result holds what a run of the benchmark measured, and says what
// follows from it: medians, ranges and ratios, as a table and as a chart.
package result

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Metric is what a measurement has a value of.
type Metric string

const (
	BitsPerSecond    Metric = "bit/s"        // payload received
	PacketsPerSecond Metric = "packets/s"    // datagrams received
	RoundTrip        Metric = "s round trip" // median of the pings of one measurement
	SecondsPerGB     Metric = "s/GB"         // time for 10^9 bytes of payload
	DaemonsPerGB     Metric = "CPU s/GB"     // CPU time of both hosts' daemons for 10^9 bytes of payload
	MachinePerGB     Metric = "busy s/GB"    // the same of the whole machine: senders, receivers, kernel, strangers
	DaemonsLoad      Metric = "CPU s/s"      // CPU time of both hosts' daemons in a second
	Resident         Metric = "bytes"        // resident memory of one daemon
	Fairness         Metric = "least/most"   // what the worst of several equal tunnels gets of what the best gets
)

// Cell is a kind of traffic in one system.
type Cell struct {
	Traffic string `json:"traffic"`
	System  string `json:"system"`
}

// Measurement is what was measured of a cell in one round.
type Measurement struct {
	Round int `json:"round"` // from 0
	Cell
	Values map[Metric]float64 `json:"values"`
}

// Machine is where it was measured.
type Machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	Kernel    string `json:"kernel"`
	TCP       string `json:"tcp"` // congestion control
	Go        string `json:"go"`
	WireGuard string `json:"wireguard"` // version of golang.zx2c4.com/wireguard
}

// Run is everything that one run of the benchmark measured.
type Run struct {
	Time         time.Time     `json:"time"`
	Machine      Machine       `json:"machine"`
	Rounds       int           `json:"rounds"`
	Seconds      int           `json:"seconds"` // of one measurement
	Measurements []Measurement `json:"measurements"`

	// Unavailable says why systems could not be measured.
	Unavailable map[string]string `json:"unavailable,omitempty"`
}

// Write writes the run as JSON.
func (r *Run) Write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	return encoder.Encode(r)
}

// Read reads what [Run.Write] wrote.
func Read(r io.Reader) (*Run, error) {
	run := new(Run)
	if err := json.NewDecoder(r).Decode(run); err != nil {
		return nil, fmt.Errorf("a run's data: %w", err)
	}
	return run, nil
}

// value returns what was measured in a round.
func (r *Run) value(round int, c Cell, m Metric) (float64, bool) {
	for _, measured := range r.Measurements {
		if measured.Round == round && measured.Cell == c {
			v, ok := measured.Values[m]
			return v, ok
		}
	}
	return 0, false
}

// Row is a question that the benchmark answers: how one cell compares with
// another by a metric.
type Row struct {
	Name   string // short, for choosing rows
	Title  string
	Metric Metric
	Of     Cell
	Beside Cell    // the reference in the same round; zero: none
	Goal   float64 // of the ratio, or of the value if there is no reference; 0: none
	Lower  bool    // less is better
}

// Spread is the median of several values and their range.
type Spread struct{ Median, Min, Max float64 }

// SpreadOf returns the spread of values, of which there must be one at least.
// The median of an even number of values is the mean of the middle two.
func SpreadOf(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// Answer is what a run says to a row.
type Answer struct {
	Row
	Value     Spread
	Reference Spread // if the row has one
	Ratio     Spread // of the rounds' ratios, if the row has a reference
	Missing   string // why there is no answer; empty: there is one
}

// NotMeasured is why there is no answer when nobody tried.
const NotMeasured = "not measured"

// Answer answers a row from the rounds in which both cells were measured.
func (r *Run) Answer(row Row) Answer {
	a := Answer{Row: row}
	var values, references, ratios []float64
	for round := range r.Rounds {
		v, ok := r.value(round, row.Of, row.Metric)
		if !ok {
			continue
		}
		if row.Beside != (Cell{}) {
			reference, ok := r.value(round, row.Beside, row.Metric)
			if !ok || reference == 0 {
				continue
			}
			references = append(references, reference)
			ratios = append(ratios, v/reference)
		}
		values = append(values, v)
	}
	if len(values) == 0 {
		a.Missing = NotMeasured
		for _, c := range []Cell{row.Of, row.Beside} {
			if why := r.Unavailable[c.System]; why != "" {
				a.Missing = why
			}
		}
		return a
	}
	a.Value = SpreadOf(values)
	if row.Beside != (Cell{}) {
		a.Reference, a.Ratio = SpreadOf(references), SpreadOf(ratios)
	}
	return a
}

// Judged is what the goal is compared with: the ratio, or the value of a row
// without a reference.
func (a *Answer) Judged() Spread {
	if a.Beside == (Cell{}) {
		return a.Value
	}
	return a.Ratio
}

// Met says whether the median reaches the goal. A row without a goal reaches
// it.
func (a *Answer) Met() bool {
	switch {
	case a.Missing != "":
		return false
	case a.Goal == 0:
		return true
	case a.Lower:
		return a.Judged().Median <= a.Goal
	default:
		return a.Judged().Median >= a.Goal
	}
}
