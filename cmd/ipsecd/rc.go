package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"

	"ifipsec/engine/rundir"
	"ifipsec/parser/rcconf"
)

// programs are what the steps of a plan are done with.
var programs = map[string]string{"ifconfig": "ifconfig-ipsec", "setkey": "setkey"}

// rc does what a file in the language of rc.conf says, as FreeBSD's start-up
// scripts do: with the commands that a person would type.
type rc struct {
	stdout, stderr io.Writer
	show           bool // print the commands
	dry            bool // and run none

	run    func(program string, args []string) error
	exists func(link string) bool
	add    func(rcconf.Route) error
}

func newRC(stdout, stderr io.Writer, show, dry bool) rc {
	return rc{
		stdout: stdout, stderr: stderr, show: show, dry: dry,
		run: func(program string, args []string) error {
			path, err := rundir.FindProgram(programs[program])
			if err != nil {
				return err
			}
			cmd := exec.Command(path, args...)
			cmd.Args[0] = program
			cmd.Stdout, cmd.Stderr = stdout, stderr
			return cmd.Run()
		},
		exists: func(link string) bool {
			_, err := net.InterfaceByName(link)
			return err == nil
		},
		add: addRoute,
	}
}

// apply does it, and returns the exit status. A file with an error changes
// nothing. A step that fails does not keep back those after it.
func (r rc) apply(file string) (status int) {
	text, err := os.ReadFile(file)
	var vars rcconf.Variables
	if err == nil {
		err = vars.Read(file, text)
	}
	if err != nil {
		fmt.Fprintln(r.stderr, "ipsecd:", err)
		return 1
	}
	plan := vars.Plan()
	for _, w := range plan.Warnings {
		fmt.Fprintln(r.stderr, "ipsecd: warning:", w)
	}
	for _, e := range plan.Errors {
		fmt.Fprintln(r.stderr, "ipsecd:", e)
	}
	if plan.Errors != nil {
		return 1
	}
	for _, step := range plan.Steps {
		if r.needless(step) {
			continue
		}
		if r.show {
			fmt.Fprintln(r.stdout, step)
		}
		if r.dry {
			continue
		}
		if step.Program == "route" {
			err = r.add(step.Route)
		} else {
			err = r.run(step.Program, step.Args)
		}
		if err != nil {
			fmt.Fprintf(r.stderr, "ipsecd: %v: %s: %v: %v\n", step.Pos, step.Variable, step, err)
			status = 1
		}
	}
	return status
}

func (r rc) needless(step rcconf.Step) bool {
	for _, link := range step.Unless {
		if r.exists(link) {
			return true
		}
	}
	return false
}

// addRoute adds a route, or replaces the one to the same destination.
func addRoute(r rcconf.Route) error {
	route := &netlink.Route{Dst: &net.IPNet{
		IP: r.Dst.Addr().AsSlice(), Mask: net.CIDRMask(r.Dst.Bits(), r.Dst.Addr().BitLen()),
	}}
	if r.Interface == "" {
		route.Gw = r.Gateway.AsSlice()
		return netlink.RouteReplace(route)
	}
	link, err := netlink.LinkByName(r.Interface)
	if err != nil {
		return err
	}
	route.LinkIndex, route.Scope = link.Attrs().Index, netlink.SCOPE_LINK
	return netlink.RouteReplace(route)
}
