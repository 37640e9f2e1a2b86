package main

import (
	"context"
	"errors"
	"regexp"
	"slices"

	"ifipsec/e2e/bench/result"
)

const daemon = "ipsecd"

// The systems that are measured, each on a pair of hosts of its own.
var (
	wireGuard = system{"wireguard-go", "wireguard-go", setUpWireGuard}
	espGCM    = plain("aes-gcm-16", oneTunnel(gcm))
	espCBC    = plain("rijndael-cbc", oneTunnel(cbc))
	espHMAC   = plain("rijndael-cbc, hmac-sha2-256", oneTunnel(cbcHMAC))
	espUDP    = plain("aes-gcm-16 in UDP", inUDP(oneTunnel(gcm)))

	linkGCM  = served("aes-gcm-16, packet socket", "-packet-socket", oneTunnel(gcm))
	linkCBC  = served("rijndael-cbc, packet socket", "-packet-socket", oneTunnel(cbc))
	linkHMAC = served("rijndael-cbc, hmac-sha2-256, packet socket", "-packet-socket", oneTunnel(cbcHMAC))

	xdpGCM = served("aes-gcm-16, AF_XDP", "-xdp", oneTunnel(gcm))
)

// plain is ifipsec with one tunnel.
func plain(name string, t tunnel) system {
	return system{name, daemon, func(ctx context.Context, p *pair) error { return setUp(ctx, p, t) }}
}

// served is plain with daemons that have an option.
func served(name, option string, t tunnel) system {
	return system{name, daemon, func(ctx context.Context, p *pair) error {
		return errors.Join(p.serve(ctx, option), setUp(ctx, p, t))
	}}
}

func inUDP(t tunnel) tunnel {
	t.natt = true
	return t
}

// experiment is a row of the result, and how its two cells are measured.
type experiment struct {
	name, title string
	metric      result.Metric
	traffic     traffic
	system      system
	beside      traffic // zero: the same
	reference   *system // nil: none
	goal        float64
	lower       bool
}

// experiments is everything that can be measured, in the order of the table.
var experiments = []experiment{
	{name: "tcp", title: "TCP, aes-gcm-16",
		metric: result.BitsPerSecond, traffic: tcp, system: espGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-four", title: "TCP, four streams, aes-gcm-16",
		metric: result.BitsPerSecond, traffic: tcpFour, system: espGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-reverse", title: "TCP, reverse, aes-gcm-16",
		metric: result.BitsPerSecond, traffic: tcpReverse, system: espGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-cbc", title: "TCP, rijndael-cbc",
		metric: result.BitsPerSecond, traffic: tcp, system: espCBC, reference: &wireGuard, goal: 0.8},
	{name: "tcp-cbc-hmac", title: "TCP, rijndael-cbc and hmac-sha2-256",
		metric: result.BitsPerSecond, traffic: tcp, system: espHMAC, reference: &wireGuard, goal: 0.6},
	{name: "tcp-udp-encap", title: "TCP, aes-gcm-16, ESP in UDP",
		metric: result.BitsPerSecond, traffic: tcp, system: espUDP, reference: &wireGuard, goal: 1.7},
	{name: "udp-1300", title: "UDP of 1300 bytes, flood, aes-gcm-16",
		metric: result.BitsPerSecond, traffic: udpLarge, system: espGCM, reference: &wireGuard, goal: 2},
	{name: "udp-64", title: "UDP of 64 bytes, flood, aes-gcm-16",
		metric: result.PacketsPerSecond, traffic: udpSmall, system: espGCM, reference: &wireGuard, goal: 2},
	{name: "ping", title: "ping, idle, aes-gcm-16",
		metric: result.RoundTrip, traffic: idlePing, system: espGCM, reference: &wireGuard, goal: 1, lower: true},
	{name: "ping-load", title: "ping beside TCP, aes-gcm-16",
		metric: result.RoundTrip, traffic: loadedPing, system: espGCM, reference: &wireGuard, goal: 3, lower: true},
	{name: "cpu", title: "CPU of the daemons, TCP, aes-gcm-16",
		metric: result.DaemonsPerGB, traffic: tcp, system: espGCM, reference: &wireGuard, goal: 1, lower: true},
	{name: "cpu-machine", title: "CPU of the machine, TCP, aes-gcm-16",
		metric: result.MachinePerGB, traffic: tcp, system: espGCM, reference: &wireGuard, goal: 1, lower: true},
	{name: "cpu-udp-encap", title: "CPU of the daemons, TCP, ESP in UDP",
		metric: result.DaemonsPerGB, traffic: tcp, system: espUDP, reference: &wireGuard, goal: 0.6, lower: true},
	{name: "cpu-machine-udp-encap", title: "CPU of the machine, TCP, ESP in UDP",
		metric: result.MachinePerGB, traffic: tcp, system: espUDP, reference: &wireGuard, goal: 0.6, lower: true},

	{name: "tcp-link", title: "TCP, aes-gcm-16, -packet-socket",
		metric: result.BitsPerSecond, traffic: tcp, system: linkGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-link-four", title: "TCP, four streams, aes-gcm-16, -packet-socket",
		metric: result.BitsPerSecond, traffic: tcpFour, system: linkGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-link-reverse", title: "TCP, reverse, aes-gcm-16, -packet-socket",
		metric: result.BitsPerSecond, traffic: tcpReverse, system: linkGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-link-cbc", title: "TCP, rijndael-cbc, -packet-socket",
		metric: result.BitsPerSecond, traffic: tcp, system: linkCBC, reference: &wireGuard, goal: 0.8},
	{name: "tcp-link-cbc-hmac", title: "TCP, rijndael-cbc and hmac-sha2-256, -packet-socket",
		metric: result.BitsPerSecond, traffic: tcp, system: linkHMAC, reference: &wireGuard, goal: 0.6},
	{name: "udp-link-1300", title: "UDP of 1300 bytes, flood, aes-gcm-16, -packet-socket",
		metric: result.BitsPerSecond, traffic: udpLarge, system: linkGCM, reference: &wireGuard, goal: 2},
	{name: "udp-link-64", title: "UDP of 64 bytes, flood, aes-gcm-16, -packet-socket",
		metric: result.PacketsPerSecond, traffic: udpSmall, system: linkGCM, reference: &wireGuard, goal: 2},
	{name: "ping-link-load", title: "ping beside TCP, aes-gcm-16, -packet-socket",
		metric: result.RoundTrip, traffic: loadedPing, system: linkGCM, reference: &wireGuard, goal: 3, lower: true},
	{name: "cpu-link", title: "CPU of the daemons, TCP, aes-gcm-16, -packet-socket",
		metric: result.DaemonsPerGB, traffic: tcp, system: linkGCM, reference: &wireGuard, goal: 1, lower: true},

	{name: "tcp-xdp", title: "TCP, aes-gcm-16, -xdp",
		metric: result.BitsPerSecond, traffic: tcp, system: xdpGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-xdp-four", title: "TCP, four streams, aes-gcm-16, -xdp",
		metric: result.BitsPerSecond, traffic: tcpFour, system: xdpGCM, reference: &wireGuard, goal: 1},
	{name: "tcp-xdp-reverse", title: "TCP, reverse, aes-gcm-16, -xdp",
		metric: result.BitsPerSecond, traffic: tcpReverse, system: xdpGCM, reference: &wireGuard, goal: 1},
	{name: "udp-xdp-1300", title: "UDP of 1300 bytes, flood, aes-gcm-16, -xdp",
		metric: result.BitsPerSecond, traffic: udpLarge, system: xdpGCM, reference: &wireGuard, goal: 2},
	{name: "udp-xdp-64", title: "UDP of 64 bytes, flood, aes-gcm-16, -xdp",
		metric: result.PacketsPerSecond, traffic: udpSmall, system: xdpGCM, reference: &wireGuard, goal: 2},
	{name: "ping-xdp-load", title: "ping beside TCP, aes-gcm-16, -xdp",
		metric: result.RoundTrip, traffic: loadedPing, system: xdpGCM, reference: &wireGuard, goal: 3, lower: true},
	{name: "cpu-xdp", title: "CPU of the daemons, TCP, aes-gcm-16, -xdp",
		metric: result.DaemonsPerGB, traffic: tcp, system: xdpGCM, reference: &wireGuard, goal: 1, lower: true},

	{name: "interfaces", title: "time for a packet, 1,000 interfaces beside one",
		metric: result.SecondsPerGB, traffic: tcp, system: manyInterfaces, reference: &espGCM, goal: 1.1, lower: true},
	{name: "sas", title: "time for a packet, 100,000 SAs beside two",
		metric: result.SecondsPerGB, traffic: tcp, system: manySAs, reference: &espGCM, goal: 1.1, lower: true},
	{name: "dead", title: "TCP, another tunnel's peer is dead, beside TCP alone",
		metric: result.BitsPerSecond, traffic: beside("TCP beside a dead tunnel", dead), system: several,
		beside: tcp, reference: &several, goal: 0.9},
	{name: "slow", title: "TCP, another tunnel's cable is full, beside TCP alone",
		metric: result.BitsPerSecond, traffic: beside("TCP beside a slow tunnel", slow), system: several,
		beside: tcp, reference: &several, goal: 0.9},
	{name: "fair", title: "TCP in each of two tunnels, the lesser to the greater",
		metric: result.Fairness, traffic: twoTunnels, system: several, goal: 0.8},
	{name: "idle-cpu", title: "CPU of both daemons, idle",
		metric: result.DaemonsLoad, traffic: nothing, system: idleGCM, goal: 0.005, lower: true},
	{name: "idle-memory", title: "resident memory of a daemon, idle",
		metric: result.Resident, traffic: nothing, system: idleGCM, reference: &idleWireGuard, lower: true},
	{name: "memory", title: "resident memory of a daemon, after TCP",
		metric: result.Resident, traffic: tcp, system: espGCM, reference: &wireGuard, lower: true},
}

// chosen returns the experiments whose names match.
func chosen(rows *regexp.Regexp) (all []experiment) {
	for _, e := range experiments {
		if rows.MatchString(e.name) {
			all = append(all, e)
		}
	}
	return all
}

// cell is what an experiment measures.
func (e *experiment) cell() cell { return cell{e.traffic, e.system} }

// other is what it is compared with, if anything.
func (e *experiment) other() (cell, bool) {
	if e.reference == nil {
		return cell{}, false
	}
	c := cell{e.traffic, *e.reference}
	if e.beside.run != nil {
		c.traffic = e.beside
	}
	return c, true
}

// row is what the result is asked.
func (e *experiment) row() result.Row {
	row := result.Row{Name: e.name, Title: e.title, Metric: e.metric, Of: e.cell().key(), Goal: e.goal, Lower: e.lower}
	if other, ok := e.other(); ok {
		row.Beside = other.key()
	}
	return row
}

// cell is a kind of traffic through a system.
type cell struct {
	traffic traffic
	system  system
}

func (c cell) key() result.Cell { return result.Cell{Traffic: c.traffic.name, System: c.system.name} }

// cells returns the cells of experiments, each once, those that are compared
// with one another in a row: the less time between two measurements, the less
// else is different.
func cells(all []experiment) (groups [][]cell) {
	seen := make(map[result.Cell]int)
	for _, e := range all {
		add := []cell{e.cell()}
		if other, ok := e.other(); ok {
			add = []cell{other, e.cell()}
		}
		group := len(groups)
		for _, c := range add {
			if g, ok := seen[c.key()]; ok {
				group = g
			}
		}
		if group == len(groups) {
			groups = append(groups, nil)
		}
		for _, c := range add {
			if _, ok := seen[c.key()]; !ok {
				seen[c.key()] = group
				groups[group] = append(groups[group], c)
			}
		}
	}
	return groups
}

// systems returns the systems that cells need, each once.
func systems(groups [][]cell) (all []system) {
	for _, group := range groups {
		for _, c := range group {
			if !slices.ContainsFunc(all, func(s system) bool { return s.name == c.system.name }) {
				all = append(all, c.system)
			}
		}
	}
	return all
}
