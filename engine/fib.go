package engine

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
)

// This file is FreeBSD's FIBs. FIB n is Linux's routing table n, of both
// families, and FIB 0 is what Linux does by itself. Rules of routing (ip rule)
// lead there: what comes in by an interface with a fib, and outer packets of one
// with a tunnelfib, which have a mark.

const (
	// maxFIB is the highest of FreeBSD's (RT_MAXFIBS).
	maxFIB = 0xffff
	// fibMark is what the marks of outer packets have in their upper half. The
	// lower half is the FIB.
	fibMark = 0x1f5e0000
)

// checkFIB refuses what FreeBSD has not, and the tables that Linux has for
// itself: default, main and local.
func checkFIB(name string, fib uint32) error {
	switch {
	case fib > maxFIB:
		return fmt.Errorf("%s: fib %d, want 0 to %d: %w", name, fib, maxFIB, syscall.EINVAL)
	case fib >= syscall.RT_TABLE_DEFAULT && fib <= syscall.RT_TABLE_LOCAL:
		return fmt.Errorf("%s: routing table %d is one of Linux's own; fib 0 stands for them: %w", name, fib, syscall.EINVAL)
	}
	return nil
}

// markOf is the mark of the outer packets for a tunnelfib.
func markOf(tunnelFIB uint32) uint32 {
	if tunnelFIB == 0 {
		return 0
	}
	return fibMark | tunnelFIB
}

// SetTunnelFIB implements [control.Handler].
func (e *Engine) SetTunnelFIB(r control.SetTunnelFIBRequest) error {
	return e.setFIB(r.Name, r.FIB, func() (ifnet.Interface, error) { return e.ifs.SetTunnelFIB(r.Name, r.FIB) })
}

// SetFIB implements [control.Handler].
func (e *Engine) SetFIB(r control.SetFIBRequest) error {
	return e.setFIB(r.Name, r.FIB, func() (ifnet.Interface, error) { return e.ifs.SetFIB(r.Name, r.FIB) })
}

// setFIB makes a change of a FIB. Rules that are wanted come before the packets
// that want them, and the others go after.
func (e *Engine) setFIB(name string, fib uint32, change func() (ifnet.Interface, error)) error {
	if err := checkFIB(name, fib); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	before, err := e.ifs.Get(name)
	if err != nil {
		return err
	}
	after, err := change()
	if err != nil {
		return err
	}
	err = e.addRules()
	if err == nil {
		err = e.configure(after)
	}
	if err != nil {
		e.ifs.Restore(before)
		return errors.Join(err, e.deleteRules())
	}
	return e.deleteRules()
}

// wantedRules are those that the interfaces call for.
func (e *Engine) wantedRules() []host.Rule {
	var rules []host.Rule
	for _, ifp := range e.ifs.All() {
		if ifp.FIB != 0 {
			rules = append(rules, host.Rule{In: ifp.Name, Table: ifp.FIB})
		}
		outer := host.Rule{Mark: markOf(ifp.TunnelFIB), Table: ifp.TunnelFIB}
		if ifp.TunnelFIB != 0 && !slices.Contains(rules, outer) {
			rules = append(rules, outer)
		}
	}
	return rules
}

// addRules adds those that are wanted.
func (e *Engine) addRules() error {
	there, err := e.host.Rules()
	for _, r := range e.wantedRules() {
		if err == nil && !slices.Contains(there, r) {
			err = e.host.AddRule(r)
		}
	}
	return err
}

// deleteRules deletes those that are not wanted, be they of a process before.
func (e *Engine) deleteRules() error {
	there, err := e.host.Rules()
	if err != nil {
		return err
	}
	wanted := e.wantedRules()
	for _, r := range there {
		if !slices.Contains(wanted, r) {
			err = errors.Join(err, e.host.DeleteRule(r))
		}
	}
	return err
}

// forgetRules deletes the rules of an interface that was destroyed.
func (e *Engine) forgetRules(ifp ifnet.Interface) {
	if ifp.FIB != 0 || ifp.TunnelFIB != 0 {
		e.updateRules()
	}
}

// updateRules follows a change of interfaces that nobody can be told of.
func (e *Engine) updateRules() {
	if err := errors.Join(e.addRules(), e.deleteRules()); err != nil {
		e.log.Error("the rules of routing are not those of the interfaces", "error", err)
	}
}
