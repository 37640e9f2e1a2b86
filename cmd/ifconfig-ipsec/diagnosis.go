package main

import (
	"fmt"
	"io"
	"time"

	"ifipsec/engine/control"
)

// writeDiagnosis prints what -v adds, which is ours: which SAs serve the
// interface now, the MTU of their path, what was counted, and in one line what is wrong.
func writeDiagnosis(w io.Writer, d *control.DiagnoseResult) {
	for _, way := range []struct {
		what string
		sas  []control.SAStatistics
	}{{"out", d.Out}, {"in", d.In}} {
		for n := range way.sas {
			writeSA(w, way.what, &way.sas[n], d.Now)
		}
	}
	switch {
	case d.Learned:
		fmt.Fprintf(w, "\tpath mtu: %d, as a router on the way says\n", d.PathMTU)
	case d.PathMTU != 0:
		fmt.Fprintf(w, "\tpath mtu: %d, as the first link has it\n", d.PathMTU)
	}
	for _, c := range d.Counters {
		if c.Value != 0 {
			fmt.Fprintf(w, "\t%d %s\n", c.Value, c.Text)
		}
	}
	fault := d.Fault
	if fault == "" {
		fault = "nothing seems wrong"
	}
	fmt.Fprintf(w, "\tdiagnosis: %s\n", fault)
}

func writeSA(w io.Writer, way string, sa *control.SAStatistics, now time.Time) {
	fmt.Fprintf(w, "\tsa %s: spi %d (%s), %s", way, sa.SPI, sa.Suite, sa.State)
	if !sa.Created.IsZero() {
		fmt.Fprintf(w, ", age %v", max(0, now.Sub(sa.Created)).Round(time.Second))
	}
	for _, c := range sa.Counters {
		if c.Value != 0 || c.Name == "packets" {
			fmt.Fprintf(w, ", %d %s", c.Value, c.Text)
		}
	}
	if sa.Used.IsZero() {
		fmt.Fprint(w, ", not used yet")
	} else {
		fmt.Fprintf(w, ", last used %v ago", max(0, now.Sub(sa.Used)).Round(time.Second))
	}
	fmt.Fprintln(w)
}
