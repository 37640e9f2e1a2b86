package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/engine/control"
)

func TestWriteDiagnosis(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	counters := func(packets, replays uint64) []control.Counter {
		return []control.Counter{
			{Name: "packets", Text: "packets", Value: packets},
			{Name: "replay", Text: "possible replay packets detected", Value: replays},
		}
	}
	var b strings.Builder
	writeDiagnosis(&b, &control.DiagnoseResult{
		Fault: "the peer 192.168.0.5 has been silent for 2m0s",
		Out:   []control.SAStatistics{{SPI: 10000, Suite: "aes-gcm-16", State: "mature", Created: now.Add(-time.Hour), Used: now.Add(-3400 * time.Millisecond), Counters: counters(12, 0)}},
		In: []control.SAStatistics{
			{SPI: 10003, Suite: "aes-cbc, hmac-sha1", State: "mature", Counters: counters(0, 0)},
			{SPI: 10001, Suite: "aes-gcm-16", State: "dying", Used: now.Add(-2 * time.Minute), Counters: counters(7, 2)},
		},
		Counters: []control.Counter{{Text: "packets out", Value: 12}, {Text: "output dropped; no SA"}},
		Now:      now,
	})
	const want = `	sa out: spi 10000 (aes-gcm-16), mature, age 1h0m0s, 12 packets, last used 3s ago
	sa in: spi 10003 (aes-cbc, hmac-sha1), mature, 0 packets, not used yet
	sa in: spi 10001 (aes-gcm-16), dying, 7 packets, 2 possible replay packets detected, last used 2m0s ago
	12 packets out
	diagnosis: the peer 192.168.0.5 has been silent for 2m0s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	b.Reset()
	writeDiagnosis(&b, &control.DiagnoseResult{})
	if want := "\tdiagnosis: nothing seems wrong\n"; b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}
