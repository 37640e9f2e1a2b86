package ifnet

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// SetTunnelFIB chooses the routing table of the outer packets. ENXIO.
func (t *Table) SetTunnelFIB(name string, fib uint32) (Interface, error) {
	return t.change(name, "set the tunnelfib of", func(ifp *Interface) error {
		ifp.TunnelFIB = fib
		return nil
	})
}

// SetFIB chooses the routing table of what comes out of the tunnel. ENXIO.
func (t *Table) SetFIB(name string, fib uint32) (Interface, error) {
	return t.change(name, "set the fib of", func(ifp *Interface) error {
		ifp.FIB = fib
		return nil
	})
}

// SetMetric sets the routing metric, which is kept and shown. ENXIO.
func (t *Table) SetMetric(name string, metric int32) (Interface, error) {
	return t.change(name, "set the metric of", func(ifp *Interface) error {
		ifp.Metric = metric
		return nil
	})
}

// SetDescription sets the description, or removes it if text is empty.
// ENAMETOOLONG: over [MaxDescription]. EINVAL: it has a NUL. ENXIO.
func (t *Table) SetDescription(name, text string) (Interface, error) {
	return t.change(name, "describe", func(ifp *Interface) error {
		if len(text) > MaxDescription {
			return fmt.Errorf("%d bytes are over %d: %w", len(text), MaxDescription, syscall.ENAMETOOLONG)
		}
		if strings.Contains(text, "\x00") {
			return fmt.Errorf("the description has a NUL byte: %w", syscall.EINVAL)
		}
		ifp.Description = text
		return nil
	})
}

// AddGroup makes the interface a member of a group. EEXIST: it is one. EINVAL:
// an empty name, one that ends in a digit, or one with space in it.
// ENAMETOOLONG. ENXIO.
func (t *Table) AddGroup(name, group string) (Interface, error) {
	return t.change(name, "add a group to", func(ifp *Interface) error {
		switch {
		case len(group) > MaxName:
			return fmt.Errorf("group %q has over %d bytes: %w", group, MaxName, syscall.ENAMETOOLONG)
		case group == "" || isDigit(group[len(group)-1]):
			return fmt.Errorf("group %q is empty or ends in a digit: %w", group, syscall.EINVAL)
		case !validLinkName(group):
			return fmt.Errorf("%q is no name for a group: %w", group, syscall.EINVAL)
		case slices.Contains(ifp.Groups, group):
			return fmt.Errorf("group %s: %w", group, syscall.EEXIST)
		}
		ifp.Groups = append(ifp.Groups, group)
		return nil
	})
}

// RemoveGroup ends the interface's membership in a group. ENOENT: it is no
// member. ENXIO.
func (t *Table) RemoveGroup(name, group string) (Interface, error) {
	return t.change(name, "remove a group from", func(ifp *Interface) error {
		n := slices.Index(ifp.Groups, group)
		if n < 0 {
			return fmt.Errorf("group %s: %w", group, syscall.ENOENT)
		}
		ifp.Groups = slices.Delete(ifp.Groups, n, n+1)
		return nil
	})
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
