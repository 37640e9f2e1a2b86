package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"ifipsec/e2e/bench/iperf"
	"ifipsec/e2e/bench/proc"
	"ifipsec/e2e/bench/result"
	"ifipsec/e2e/lab"
)

// values are what was measured of one kind of traffic.
type values map[result.Metric]float64

// traffic is something to send through a tunnel and to measure.
type traffic struct {
	name string
	run  func(ctx context.Context, p *pair, seconds int) (values, error)
}

// Bulk traffic, from a to b unless it is told otherwise.
var (
	tcp        = bulk("TCP")
	tcpFour    = bulk("TCP, four streams", "-P", "4")
	tcpReverse = bulk("TCP, reverse", "-R")
	udpLarge   = bulk("UDP 1300 bytes, flood", "-u", "-b", "0", "-l", "1300")
	udpSmall   = bulk("UDP 64 bytes, flood", "-u", "-b", "0", "-l", "64")
)

// bulk is what iperf3 sends with some options.
func bulk(name string, options ...string) traffic {
	return traffic{name: name, run: func(ctx context.Context, p *pair, seconds int) (values, error) {
		return p.costs(func() (iperf.Result, error) { return p.iperf(ctx, firstServer, seconds, options...) })
	}}
}

// firstServer is where iperf3 serves on b.
var firstServer = netip.AddrPortFrom(innerB, 5201)

// iperf runs iperf3 from a to where one serves on b.
func (p *pair) iperf(ctx context.Context, to netip.AddrPort, seconds int, options ...string) (iperf.Result, error) {
	// A run that does not end in time never will: what controls it was lost.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+20*time.Second)
	defer cancel()
	argv := append([]string{"iperf3", "-J", "-i", "0", "-c", to.Addr().String(), "-p", fmt.Sprint(to.Port()), "-t", strconv.Itoa(seconds)}, options...)
	r, err := p.a.Command(ctx, argv...)
	if err != nil {
		return iperf.Result{}, err
	}
	return iperf.Parse([]byte(r.Stdout))
}

// costs measures what CPU time it takes to carry what run sends.
func (p *pair) costs(run func() (iperf.Result, error)) (values, error) {
	before, err := p.spent()
	if err != nil {
		return nil, err
	}
	r, err := run()
	if err != nil {
		return nil, err
	}
	after, err := p.spent()
	if err != nil {
		return nil, err
	}
	memory, err := p.resident()
	if err != nil {
		return nil, err
	}
	gigabytes := float64(r.Bytes) / 1e9
	v := values{
		result.Resident:      memory,
		result.BitsPerSecond: r.BitsPerSecond(),
		result.SecondsPerGB:  r.Seconds / gigabytes,
		result.DaemonsPerGB:  (after.daemons - before.daemons).Seconds() / gigabytes,
		result.MachinePerGB:  (after.machine - before.machine).Seconds() / gigabytes,
	}
	if r.Packets > 0 {
		v[result.PacketsPerSecond] = r.PacketsPerSecond()
	}
	return v, nil
}

// spent is CPU time.
type spent struct{ daemons, machine time.Duration }

func (p *pair) spent() (s spent, err error) {
	for _, pid := range p.daemons {
		t, err := proc.CPU(pid)
		if err != nil {
			return s, err
		}
		s.daemons += t
	}
	s.machine, err = proc.Busy()
	return s, err
}

// pingInterval is short enough for many pings in a second, and long enough for
// hosts to be idle in between.
const pingInterval = 10 * time.Millisecond

// idlePing is the round trip through a tunnel that carries nothing else.
var idlePing = traffic{name: "ping", run: func(ctx context.Context, p *pair, seconds int) (values, error) {
	return p.roundTrip(ctx, seconds)
}}

// loadedPing is the round trip beside a TCP stream.
var loadedPing = traffic{name: "ping beside TCP", run: func(ctx context.Context, p *pair, seconds int) (values, error) {
	var wg sync.WaitGroup
	var load error
	wg.Go(func() { _, load = p.iperf(ctx, firstServer, seconds+1) })
	time.Sleep(500 * time.Millisecond) // the stream finds its rate
	v, err := p.roundTrip(ctx, seconds)
	wg.Wait()
	if err == nil {
		err = load
	}
	return v, err
}}

// roundTrip is the median round trip of pings.
func (p *pair) roundTrip(ctx context.Context, seconds int) (values, error) {
	var times []float64
	_, err := p.a.Ping(ctx, lab.Ping{
		To: innerB, Count: int(time.Duration(seconds) * time.Second / pingInterval), Interval: pingInterval,
		Answered: func(t time.Duration) { times = append(times, t.Seconds()) },
	})
	if err == nil && len(times) == 0 {
		err = fmt.Errorf("%s: no ping was answered", p.a.Name)
	}
	if err != nil {
		return nil, err
	}
	return values{result.RoundTrip: result.SpreadOf(times).Median}, nil
}
