package control

import "time"

// DiagnoseRequest asks how an interface is doing. ENXIO: there is none.
type DiagnoseRequest struct {
	Name string `json:"name"`
}

// DiagnoseResult is how it is doing.
type DiagnoseResult struct {
	// Fault is why it passes no traffic, in one line; empty if nothing seems
	// wrong.
	Fault    string         `json:"fault,omitzero"`
	Out      []SAStatistics `json:"out,omitzero"` // the SAs that serve it, the one that sends first
	In       []SAStatistics `json:"in,omitzero"`
	Counters []Counter      `json:"counters"`
	Now      time.Time      `json:"now"` // by the clock of the SAs' times
}
