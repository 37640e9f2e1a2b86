package main

import (
	"log/slog"
	"os"

	"ifipsec/engine/rundir"
	"ifipsec/engine/xdp"
)

// xdpEnv tells a daemon that its parent gave it the program for AF_XDP, from
// rundir.InheritedFD on. The parent has loaded it before it gave up the privilege for
// that, and has it for every daemon that it starts.
const xdpEnv = "IFIPSEC_XDP"

// loadXDP loads the program, if it is wanted, for the daemons that this process
// starts. Where that can't be done they do without.
func loadXDP(wanted bool, log *slog.Logger) []*os.File {
	os.Unsetenv(xdpEnv)
	if !wanted {
		return nil
	}
	program, err := xdp.Load()
	if err == nil {
		defer program.Close()
		var files []*os.File
		if files, err = program.Files(); err == nil {
			os.Setenv(xdpEnv, "1")
			return files
		}
	}
	log.Warn("ESP does not pass by AF_XDP", "error", err)
	return nil
}

// ownXDP returns the program that the daemon's parent has loaded or, where systemd is
// the parent, that it loads itself. nil: there is none.
func ownXDP(log *slog.Logger) *xdp.Program {
	load := func() (*xdp.Program, error) { return xdp.Inherit(rundir.InheritedFD) }
	switch {
	case os.Getenv(xdpEnv) != "":
	case rundir.SystemdsOwn():
		load = xdp.Load
	default:
		return nil // the parent has said why
	}
	program, err := load()
	if err != nil {
		log.Warn("ESP does not pass by AF_XDP", "error", err)
		return nil
	}
	return program
}
