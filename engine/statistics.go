package engine

import (
	"runtime"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/control"
	"ifipsec/engine/dataplane"
	"ifipsec/engine/diagnosis"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// This file is what the engine has counted, and what that says of an interface.

// Statistics implements [control.Handler].
func (e *Engine) Statistics(r control.StatisticsRequest) (control.StatisticsResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	result := control.StatisticsResult{Goroutines: runtime.NumGoroutine()}
	for i, n := range e.plane.Counters() {
		c := dataplane.Counter(i)
		result.ESP = append(result.ESP, control.Counter{Name: c.Name(), Text: c.String(), Value: n})
	}
	for _, ifp := range e.ifs.All() {
		s := control.InterfaceStatistics{Name: ifp.Name}
		for i, n := range e.tunnels[ifp.Index].Counters() {
			c := dataplane.TunnelCounter(i)
			s.Counters = append(s.Counters, control.Counter{Name: c.Name(), Text: c.String(), Value: n})
		}
		result.Interfaces = append(result.Interfaces, s)
	}
	skip := r.SkipSAs
	for sa := range e.sad.All(pfkey.SATypeESP) {
		switch {
		case sa.ESP == nil:
		case skip > 0:
			skip--
		case len(result.SAs) == control.SAsAtOnce:
			result.MoreSAs = true
			return result, nil
		default:
			result.SAs = append(result.SAs, e.saStatistics(sa))
		}
	}
	return result, nil
}

// saStatistics is what an SA has counted, in netstat's words, and when by the wall clock.
func (e *Engine) saStatistics(sa *sad.SA) control.SAStatistics {
	current := sa.Current()
	return control.SAStatistics{
		SPI: sa.SPI, Src: e.named(sa.Src), Dst: e.named(sa.Dst), ReqID: sa.ReqID,
		State: sa.State().String(), Suite: suite(sa), Created: e.clock.Wall(sa.Created), Used: e.clock.Wall(current.LastUsed),
		// It is used one way, and the other number is 0.
		Sequence: max(sa.ESP.Sequence(), sa.ESP.ReplayState().Highest),
		Counters: []control.Counter{
			{Name: "packets", Text: "packets", Value: current.Packets},
			{Name: "bytes", Text: "bytes", Value: current.Bytes},
			{Name: dataplane.Replay.Name(), Text: dataplane.Replay.String(), Value: sa.Refused(sad.RefusedReplay)},
			{Name: dataplane.BadAuth.Name(), Text: dataplane.BadAuth.String(), Value: sa.Refused(sad.RefusedICV)},
			{Name: "malformed", Text: "packets dropped; bad ilen or bad encryption detected", Value: sa.Refused(sad.RefusedMalformed)},
		},
	}
}

// suite names an SA's algorithms.
func suite(sa *sad.SA) string {
	e, ok := algorithm.EncryptionByID(sa.Encrypt)
	if !ok {
		return "?"
	}
	if a, ok := algorithm.AuthenticationByID(sa.Auth); ok && !e.AEAD && a.ICVLen > 0 {
		return e.Name + ", " + a.Name
	}
	if !e.AEAD {
		return e.Name + ", not authenticated"
	}
	return e.Name
}

// Diagnose implements [control.Handler].
func (e *Engine) Diagnose(r control.DiagnoseRequest) (control.DiagnoseResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	link, err := e.link(r.Name)
	if err != nil {
		return control.DiagnoseResult{}, err
	}
	ifp, err := e.ifs.Get(r.Name)
	if err != nil {
		return control.DiagnoseResult{}, err
	}
	counters := e.tunnels[ifp.Index].Counters()
	now := e.sad.Now()
	result := control.DiagnoseResult{Now: e.clock.Wall(now)}
	for i, n := range counters {
		c := dataplane.TunnelCounter(i)
		result.Counters = append(result.Counters, control.Counter{Name: c.Name(), Text: c.String(), Value: n})
	}
	// Without a route there is none, which sending says too.
	result.PathMTU, result.Learned, _ = e.tunnels[ifp.Index].PathMTU()
	var sas []diagnosis.SA
	for sa := range e.sad.All(pfkey.SATypeESP) {
		seen := diagnose(sa)
		sas = append(sas, seen)
		if !seen.Usable || seen.Transport || sa.ReqID != ifp.ReqID {
			continue
		}
		switch {
		case sa.Src == ifp.Src && sa.Dst == ifp.Dst:
			result.Out = append(result.Out, e.saStatistics(sa))
		case sa.Src == ifp.Dst && sa.Dst == ifp.Src:
			result.In = append(result.In, e.saStatistics(sa))
		}
	}
	result.Fault = diagnosis.Explain(diagnosed(ifp, link.Up, counters), sas, now)
	return result, nil
}

// diagnosed is an interface as a diagnosis wants it.
func diagnosed(ifp ifnet.Interface, up bool, counters dataplane.TunnelCounters) diagnosis.Interface {
	return diagnosis.Interface{
		Name: ifp.Name, Up: up, Running: ifp.Running, Src: ifp.Src, Dst: ifp.Dst, ReqID: ifp.ReqID,
		Sent: counters[dataplane.OutPackets], Refused: counters[dataplane.OutSend],
		Looped: counters[dataplane.OutLoop], UsedUp: counters[dataplane.OutSequence],
	}
}

// diagnose is an SA as a diagnosis wants it.
func diagnose(sa *sad.SA) diagnosis.SA {
	current := sa.Current()
	return diagnosis.SA{
		SPI: sa.SPI, Src: sa.Src, Dst: sa.Dst, ReqID: sa.ReqID,
		Transport: sa.Mode == pfkey.ModeTransport,
		Usable:    sa.ESP != nil && (sa.State() == pfkey.StateMature || sa.State() == pfkey.StateDying),
		Packets:   current.Packets, LastUsed: current.LastUsed,
		Replays: sa.Refused(sad.RefusedReplay), BadICVs: sa.Refused(sad.RefusedICV),
		Malformed: sa.Refused(sad.RefusedMalformed),
	}
}
