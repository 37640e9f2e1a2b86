// Package iperf reads what iperf3 -J prints.
package iperf

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Result is what arrived at the receiving end of one run, by its own clock.
type Result struct {
	Bytes   int64   // payload received
	Seconds float64 // that the receiver was at it
	Packets int64   // datagrams received; 0 for TCP
	Sent    int64   // bytes that the sender gave to its kernel
}

// BitsPerSecond is the rate at which payload arrived.
func (r Result) BitsPerSecond() float64 { return float64(r.Bytes) * 8 / r.Seconds }

// PacketsPerSecond is the rate at which datagrams arrived.
func (r Result) PacketsPerSecond() float64 { return float64(r.Packets) / r.Seconds }

// output is the part of iperf3's report that is used.
type output struct {
	Error string `json:"error"`
	Start struct {
		TestStart struct {
			Protocol  string `json:"protocol"`
			BlockSize int64  `json:"blksize"`
		} `json:"test_start"`
	} `json:"start"`
	End struct {
		Sent     sum `json:"sum_sent"`
		Received sum `json:"sum_received"`
	} `json:"end"`
}

type sum struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
}

// Parse reads the report of a client. It returns an error if the report is
// none, if it is of a failed run, or if nothing arrived.
func Parse(report []byte) (Result, error) {
	var out output
	if err := json.Unmarshal(report, &out); err != nil {
		return Result{}, fmt.Errorf("report of iperf3: %w", err)
	}
	if out.Error != "" {
		return Result{}, fmt.Errorf("iperf3: %s", out.Error)
	}
	received := out.End.Received
	if received.Bytes <= 0 || received.Seconds <= 0 {
		return Result{}, errors.New("report of iperf3: nothing was received")
	}
	result := Result{Bytes: received.Bytes, Seconds: received.Seconds, Sent: out.End.Sent.Bytes}
	// Lost packets are counted by gaps, so those after the last that arrived
	// are missing there. What arrived is counted as it comes.
	if out.Start.TestStart.Protocol == "UDP" {
		if out.Start.TestStart.BlockSize <= 0 {
			return Result{}, errors.New("report of iperf3: datagrams have no size")
		}
		result.Packets = received.Bytes / out.Start.TestStart.BlockSize
	}
	return result, nil
}
