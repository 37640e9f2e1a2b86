package main

import (
	"errors"
	"fmt"
	"path"
	"slices"

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
	all, err := c.interfaces()
	if err != nil {
		return err
	}
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
		writeStatus(c.stdout, &all[n], line.Family, o.Format)
	}
	return nil
}

// interfaces returns the status of all interfaces: none without a daemon.
func (c *command) interfaces() ([]control.Interface, error) {
	d, err := c.dial(false)
	if errors.Is(err, rundir.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	result, err := d.Interfaces(control.InterfacesRequest{})
	return result.Interfaces, err
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
