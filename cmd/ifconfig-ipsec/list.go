package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/rundir"
	"ifipsec/parser/ifconfig"
)

// list shows what the options ask for, of our interfaces only.
func (c *command) list(line *ifconfig.Line) error {
	o := line.Options
	if o.Cloners {
		fmt.Fprintln(c.stdout, "ipsec")
		return nil
	}
	d, err := c.dial(false)
	if errors.Is(err, rundir.ErrNotRunning) {
		return c.listAll(nil, nil, line) // there are none
	}
	if err != nil {
		return err
	}
	defer d.Close()
	result, err := d.Interfaces(control.InterfacesRequest{})
	if err != nil {
		return err
	}
	return c.listAll(d, result.Interfaces, line)
}

// listAll shows those of all interfaces that the options choose.
func (c *command) listAll(d daemon, all []control.Interface, line *ifconfig.Line) error {
	o := line.Options
	if o.Members != "" {
		for n := range all {
			if slices.Contains(all[n].Groups, o.Members) {
				fmt.Fprintln(c.stdout, all[n].Name)
			}
		}
		return nil
	}
	all = slices.DeleteFunc(all, func(ifp control.Interface) bool { return !shown(&ifp, &o) })
	if o.NamesOnly {
		writeNames(c.stdout, all, line.Family)
		return nil
	}
	for n := range all {
		if err := c.show(d, &all[n], line); err != nil {
			return err
		}
	}
	return nil
}

// show prints an interface, with -v how it is doing.
func (c *command) show(d daemon, ifp *control.Interface, line *ifconfig.Line) error {
	writeStatus(c.stdout, ifp, line.Family, line.Options.Format)
	if line.Options.Verbose == 0 {
		return nil
	}
	diagnosis, err := d.Diagnose(control.DiagnoseRequest{Name: ifp.Name})
	if errors.Is(err, syscall.ENXIO) {
		return nil // it has gone meanwhile
	}
	if err != nil {
		return err
	}
	writeDiagnosis(c.stdout, &diagnosis)
	return nil
}

// shown says whether an interface is one of those that the options choose.
func shown(ifp *control.Interface, o *ifconfig.Options) bool {
	up := ifp.Flags&control.FlagUp != 0
	return !(o.UpOnly && !up) && !(o.DownOnly && up) &&
		(o.Group == "" || inGroup(ifp, o.Group)) &&
		(o.NotGroup == "" || !inGroup(ifp, o.NotGroup))
}

// inGroup says whether a group of the interface matches a shell pattern.
func inGroup(ifp *control.Interface, pattern string) bool {
	return slices.ContainsFunc(ifp.Groups, func(group string) bool {
		matches, err := path.Match(pattern, group)
		return matches && err == nil
	})
}
