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

	// PathMTU is how large outer packets to the peer may be, in bytes, 0 if that
	// is not known; Learned says that somebody on the path told it.
	PathMTU int  `json:"path_mtu,omitzero"`
	Learned bool `json:"path_mtu_learned,omitzero"`

	Now time.Time `json:"now"` // by the clock of the SAs' times
}
