package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/rundir"
)

// status prints what the daemon of this namespace has counted, as netstat(1)
// does: a counter that is zero is not shown. As JSON and as metrics all are.
func status(w io.Writer, as format) error {
	dir, err := rundir.Current()
	if err != nil {
		return err
	}
	client, err := control.Dial(dir.Control())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return rundir.ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer client.Close()
	statistics, err := client.AllStatistics()
	if err != nil {
		return err
	}
	switch as {
	case inJSON:
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "\t")
		return encoder.Encode(statistics)
	case asMetrics:
		return printMetrics(w, statistics)
	}
	printCounters(w, "esp", statistics.ESP)
	for _, ifp := range statistics.Interfaces {
		printCounters(w, ifp.Name, ifp.Counters)
	}
	for _, sa := range statistics.SAs {
		printCounters(w, fmt.Sprintf("SA %d (%v -> %v, reqid %d, %s)", sa.SPI, sa.Src, sa.Dst, sa.ReqID, sa.State), sa.Counters)
	}
	return nil
}

// format is how statistics are printed.
type format int

const (
	inText format = iota
	inJSON
	asMetrics // Prometheus's
)

func printCounters(w io.Writer, of string, counters []control.Counter) {
	fmt.Fprintf(w, "%s:\n", of)
	for _, c := range counters {
		if c.Value != 0 {
			fmt.Fprintf(w, "\t%d %s\n", c.Value, c.Text)
		}
	}
}
