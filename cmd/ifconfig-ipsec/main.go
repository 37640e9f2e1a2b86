// Ifconfig-ipsec configures ipsec interfaces with the command line of FreeBSD's
// ifconfig(8). Under the name ifconfig it hands over to the system's ifconfig
// whatever is about other interfaces.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/rundir"
	"ifipsec/parser/ifconfig"
)

func main() {
	c := command{
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		format:   os.Getenv("IFCONFIG_FORMAT"),
		dial:     dial,
		handOver: handOver,
		linkExists: func(name string) bool {
			_, err := net.InterfaceByName(name)
			return err == nil
		},
		resolve: resolve,
	}
	os.Exit(c.run(os.Args[1:]))
}

// daemon is what is asked for everything: a [control.Client].
type daemon interface {
	control.Handler
	io.Closer
}

// command is one run of the program with what it needs from outside.
type command struct {
	stdout, stderr io.Writer
	format         string // of addresses, as in IFCONFIG_FORMAT

	// dial connects to the daemon and starts it if none runs and it may. If
	// none runs the error wraps [rundir.ErrNotRunning].
	dial func(start bool) (daemon, error)
	// handOver becomes the system's ifconfig. It returns only if it fails, with
	// an error that wraps ErrNotExist if there is no other ifconfig.
	handOver   func(args []string) error
	linkExists func(name string) bool
	resolve    func(family ifconfig.Family, host string) ([]netip.Addr, error)
}

func dial(start bool) (daemon, error) {
	dir, err := rundir.Current()
	if err != nil {
		return nil, err
	}
	connect := func() (*control.Client, error) { return control.Dial(dir.Control()) }
	var client *control.Client
	if start {
		client, err = rundir.Dial(dir, connect)
	} else {
		client, err = connect()
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, rundir.ErrNotRunning
		}
	}
	if err != nil {
		return nil, err
	}
	return client, nil
}

// run is the program: it returns the exit status.
func (c *command) run(args []string) int {
	var format ifconfig.Format
	format.Set(c.format)
	line, err := ifconfig.Parse(args, format)
	if err != nil && c.isForeign(args) {
		// The system's ifconfig may understand what this one does not.
		return c.foreign(args[0], args)
	}
	if err == nil && line.Interface == "" {
		err = c.list(line)
	} else if err == nil {
		var status int
		if status, err = c.configure(line, args); err == nil {
			return status
		}
	}
	return c.report(err)
}

// report prints an error and returns the exit status.
func (c *command) report(err error) int {
	if err == nil {
		return 0
	}
	var wrong *ifconfig.Error
	isUsage := errors.As(err, &wrong) && wrong.Usage
	if !isUsage || wrong.Message != "" {
		fmt.Fprintln(c.stderr, "ifconfig:", err)
	}
	if isUsage {
		fmt.Fprint(c.stderr, ifconfig.Usage)
	}
	return 1
}

// configure changes or shows one interface.
func (c *command) configure(line *ifconfig.Line, args []string) (status int, err error) {
	name := line.Interface
	d, err := c.dial(false)
	if err != nil && !errors.Is(err, rundir.ErrNotRunning) {
		return 0, err
	}
	var found []control.Interface
	if d != nil {
		defer d.Close()
		result, err := d.Interfaces(control.InterfacesRequest{Name: name})
		if err != nil && !errors.Is(err, syscall.ENXIO) {
			return 0, err
		}
		found = result.Interfaces
	}
	creates := len(line.Commands) > 0 && isCreate(line.Commands[0])
	switch {
	case len(found) > 0 && creates && len(line.Commands) == 1:
		return 0, alreadyExists(name)
	case len(found) > 0 && creates:
		return 0, c.apply(d, name, line.Commands[1:])
	case len(found) > 0 && len(line.Commands) > 0:
		return 0, c.apply(d, name, line.Commands)
	case len(found) > 0:
		if shown(&found[0], &line.Options) {
			return 0, c.show(d, &found[0], line)
		}
		return 0, nil
	case creates && isCloneName(name):
		if d == nil {
			if d, err = c.dial(true); err != nil {
				return 0, failed("SIOCIFCREATE2", err)
			}
			defer d.Close()
		}
		return 0, c.apply(d, name, line.Commands)
	case c.handsOver(name):
		return c.foreign(name, args), nil
	}
	return 0, noInterface(name)
}

func isCreate(cmd ifconfig.Command) bool {
	_, ok := cmd.(ifconfig.Create)
	return ok
}

func noInterface(name string) error {
	return fmt.Errorf("interface %s does not exist", name)
}

func alreadyExists(name string) error {
	return fmt.Errorf("interface %s already exists", name)
}

// isCloneName says whether create makes an ipsec interface of this name, or
// refuses to.
func isCloneName(name string) bool {
	unit, ok := strings.CutPrefix(name, "ipsec")
	return ok && strings.Trim(unit, "0123456789") == ""
}

// handsOver says whether an interface that the daemon does not have is for the
// system's ifconfig: one that could be ours is so only if the host has it.
func (c *command) handsOver(name string) bool {
	return !isCloneName(name) || c.linkExists(name)
}

// isForeign says whether the arguments start with an interface that is not
// ours.
func (c *command) isForeign(args []string) bool {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || !c.handsOver(args[0]) {
		return false
	}
	d, err := c.dial(false)
	if err != nil {
		return errors.Is(err, rundir.ErrNotRunning)
	}
	defer d.Close()
	_, err = d.Interfaces(control.InterfacesRequest{Name: args[0]})
	return errors.Is(err, syscall.ENXIO)
}

// foreign hands over to the system's ifconfig.
func (c *command) foreign(name string, args []string) int {
	err := c.handOver(args)
	if errors.Is(err, os.ErrNotExist) {
		err = noInterface(name)
	}
	return c.report(err)
}
