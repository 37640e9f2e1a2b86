package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"ifipsec/engine/handover"
	"ifipsec/engine/rundir"
)

// replaceDaemon starts this program as the daemon in place of the one that runs.
func replaceDaemon(args []string) error {
	dir, err := rundir.Current()
	if err != nil {
		return err
	}
	return dir.Replace(args...)
}

// withoutReplace are the arguments for a daemon that is started again after it
// took over.
func withoutReplace(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		return name == "replace"
	})
}

// takeOver takes what the running daemon has open. That one has let go of all
// else when it returns.
func takeOver(dir rundir.Dir) (*handover.Successor, *handover.Descriptors, error) {
	successor, files, err := handover.Take(dir.Handover())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = rundir.ErrNotRunning
	}
	return successor, files, err
}

// errSucceeded ends a daemon that another one takes over from.
var errSucceeded = errors.New("another ipsecd takes over")

// errSystemds is why a daemon of systemd's is not taken over from.
var errSystemds = errors.New("systemd runs it and would start it again; " +
	"systemctl kill -s KILL makes systemd start the new version, which goes on where the old one was")

// acceptSuccessor waits for a daemon that takes over, and returns it with
// errSucceeded, or nothing when ctx ends.
func acceptSuccessor(ctx context.Context, l *net.UnixListener) (*handover.Predecessor, error) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		p, err := handover.Accept(l)
		switch {
		case ctx.Err() != nil:
			if p != nil {
				p.Refuse(errors.New("it is about to end"))
			}
			return nil, nil
		case err != nil:
			return nil, err
		case rundir.SystemdsOwn():
			p.Refuse(errSystemds)
		default:
			l.Close() // the successor makes its own
			return p, errSucceeded
		}
	}
}
