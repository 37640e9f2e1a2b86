package main

import (
	"errors"
	"log/slog"
	"time"

	"ifipsec/engine"
	"ifipsec/engine/journal"
	"ifipsec/engine/rundir"
)

// stopDaemon ends the daemon of this namespace. What a daemon left that died,
// and that nobody started again, goes as well.
func stopDaemon() error {
	dir, err := rundir.Current()
	if err != nil {
		return err
	}
	// One that died may be on its way back: its parent takes half a second at
	// most to start it.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err = dir.Stop(stopTimeout)
		left := journal.Exists(dir.State()) || journal.HasMemory(dir.State())
		switch {
		case !left, err != nil && !errors.Is(err, rundir.ErrNotRunning):
			return err
		case err == nil || time.Now().After(deadline):
			return tidyUp(dir)
		}
	}
}

// tidyUp takes the place of the daemon that died, and ends as it should have.
func tidyUp(dir rundir.Dir) error {
	lock, err := dir.Lock()
	if err != nil {
		return err
	}
	permanent, err := dir.Permanent()
	if err != nil {
		return errors.Join(err, lock.Release())
	}
	e, err := engine.New(engine.Config{Log: slog.New(slog.DiscardHandler), Offload: true, StateDir: dir.State(), PermanentDir: permanent})
	if err == nil {
		err = e.Close()
	}
	return errors.Join(err, lock.Release())
}
