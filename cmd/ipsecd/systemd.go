package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Names of the sockets in the units.
const (
	controlSocket = "control"
	pfkeySocket   = "pfkey"
)

// activated are the sockets that systemd made and gave to this process: other
// names of those in the run directory, which don't change with the namespace.
type activated struct{ controls, keys []*net.UnixListener }

// activatedSockets takes them. The caller closes them.
func activatedSockets() (a activated, err error) {
	listeners, err := activation.ListenersWithNames()
	if err != nil {
		return a, fmt.Errorf("sockets from systemd: %w", err)
	}
	var unknown []error
	for name, all := range listeners {
		for _, l := range all {
			u, ok := l.(*net.UnixListener)
			switch {
			case ok && name == controlSocket && l.Addr().Network() == "unix":
				a.controls = append(a.controls, u)
			case ok && name == pfkeySocket && l.Addr().Network() == "unixpacket":
				a.keys = append(a.keys, u)
			default:
				unknown = append(unknown, fmt.Errorf("socket %v (%s, FileDescriptorName=%s) from systemd, expected a Unix socket: %s of ListenStream or %s of ListenSequentialPacket",
					l.Addr(), l.Addr().Network(), name, controlSocket, pfkeySocket))
				l.Close()
			}
		}
	}
	if unknown != nil {
		return activated{}, errors.Join(errors.Join(unknown...), a.close())
	}
	return a, nil
}

func (a activated) close() error {
	var errs []error
	for _, l := range append(a.controls, a.keys...) {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// tell tells systemd, if it started this process, what state the daemon is in.
// A systemd that does not listen is not the daemon's problem.
func tell(state string) { _, _ = daemon.SdNotify(false, state) }
