package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

func TestPrintMetrics(t *testing.T) {
	t.Parallel()
	counters := []control.Counter{
		{Name: "packets", Text: "packets", Value: 3},
		{Name: "badauth", Text: "packets dropped; bad authentication detected"},
	}
	sa := func(spi uint32) control.SAStatistics {
		return control.SAStatistics{
			SPI: spi, Src: netip.MustParseAddr("192.168.0.3"), Dst: netip.MustParseAddr("192.168.0.5"), ReqID: 100, Counters: counters,
		}
	}
	var b strings.Builder
	err := printMetrics(&b, control.StatisticsResult{
		Goroutines: 12,
		ESP:        counters[1:],
		Interfaces: []control.InterfaceStatistics{{Name: "ipsec0", Counters: counters[:1]}, {Name: "ipsec1", Counters: counters[:1]}},
		SAs:        []control.SAStatistics{sa(10000), sa(10001)},
	})
	if err != nil {
		t.Fatal(err)
	}
	const of = `dst="192.168.0.5",reqid="100",spi=`
	const src = `,src="192.168.0.3"} `
	const want = "# HELP go_goroutines Number of goroutines that currently exist.\n" +
		"# TYPE go_goroutines gauge\ngo_goroutines 12\n" +
		"# HELP ipsec_esp_badauth_total ESP: packets dropped, bad authentication detected.\n" +
		"# TYPE ipsec_esp_badauth_total counter\nipsec_esp_badauth_total 0\n" +
		"# HELP ipsec_interface_packets_total An interface: packets.\n" +
		"# TYPE ipsec_interface_packets_total counter\n" +
		"ipsec_interface_packets_total{interface=\"ipsec0\"} 3\nipsec_interface_packets_total{interface=\"ipsec1\"} 3\n" +
		"# HELP ipsec_sa_badauth_total An SA: packets dropped, bad authentication detected.\n" +
		"# TYPE ipsec_sa_badauth_total counter\n" +
		"ipsec_sa_badauth_total{" + of + `"10000"` + src + "0\nipsec_sa_badauth_total{" + of + `"10001"` + src + "0\n" +
		"# HELP ipsec_sa_packets_total An SA: packets.\n" +
		"# TYPE ipsec_sa_packets_total counter\n" +
		"ipsec_sa_packets_total{" + of + `"10000"` + src + "3\nipsec_sa_packets_total{" + of + `"10001"` + src + "3\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		status int
		stderr string
	}{
		"-version":                  {0, ""},
		"-h":                        {0, "usage: ipsecd"},
		"-frobnicate":               {2, "flag provided but not defined"},
		"now":                       {2, `unexpected argument "now"`},
		"-json":                     {2, "-json goes with -status"},
		"-n":                        {2, "-n goes with -rc"},
		"-rc a -stop":               {2, "one of -replace, -stop, -status, -esp-sa, -sysctl, -rc and -version"},
		"-rc /nowhere":              {1, "ipsecd: open /nowhere: no such file or directory"},
		"-stop -status":             {2, "one of -replace, -stop, -status, -esp-sa, -sysctl, -rc and -version"},
		"-state-dir here":           {2, "-state-dir wants an absolute path"},
		"-state-dir /here -stop":    {2, "-state-dir is for the daemon"},
		"-prometheus":               {2, "-prometheus goes with -status"},
		"-status -json -prometheus": {2, "one of -json and -prometheus"},
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
