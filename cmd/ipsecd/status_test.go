package main

import (
	"strings"
	"testing"

	"ifipsec/engine/control"
)

func TestPrintCounters(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	printCounters(&b, "esp", []control.Counter{
		{Name: "badauth", Text: "packets dropped; bad authentication detected", Value: 3},
		{Name: "replay", Text: "possible replay packets detected"},
		{Name: "input", Text: "packets in", Value: 1 << 40},
	})
	const want = "esp:\n\t3 packets dropped; bad authentication detected\n\t1099511627776 packets in\n"
	if b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		status int
		stderr string
	}{
		"-version":      {0, ""},
		"-h":            {0, "usage: ipsecd"},
		"-frobnicate":   {2, "flag provided but not defined"},
		"now":           {2, `unexpected argument "now"`},
		"-json":         {2, "-json goes with -status"},
		"-n":            {2, "-n goes with -rc"},
		"-rc a -stop":   {2, "one of -stop, -status, -esp-sa, -rc and -version"},
		"-rc /nowhere":  {1, "ipsecd: open /nowhere: no such file or directory"},
		"-stop -status": {2, "one of -stop, -status, -esp-sa, -rc and -version"},
	} {
		var stdout, stderr strings.Builder
		if got := run(strings.Fields(args), &stdout, &stderr); got != want.status {
			t.Errorf("%s: exit status %d, want %d", args, got, want.status)
		}
		if want.stderr == "" && stderr.String() != "" || !strings.Contains(stderr.String(), want.stderr) {
			t.Errorf("%s: standard error %q, want %q", args, stderr.String(), want.stderr)
		}
	}
}
