package engine

import (
	"slices"
	"testing"

	"ifipsec/engine/control"
	"ifipsec/engine/host"
)

// The rules of routing are those that the interfaces call for, and go with them.
func TestRulesOfFIBs(t *testing.T) {
	e := start(t)
	create(t, e)
	_, err := e.Create(control.CreateRequest{Name: "ipsec1"})
	must(t, err)
	h, err := host.Open()
	must(t, err)
	defer h.Close()
	want := func(want ...host.Rule) {
		t.Helper()
		got, err := h.Rules()
		must(t, err)
		if len(got) != len(want) || slices.ContainsFunc(want, func(r host.Rule) bool { return !slices.Contains(got, r) }) {
			t.Errorf("the rules are %v, want %v", got, want)
		}
	}
	want()
	outer := host.Rule{Mark: 0x1f5e0007, Table: 7}
	must(t, e.SetTunnelFIB(control.SetTunnelFIBRequest{Name: "ipsec0", FIB: 7}))
	must(t, e.SetTunnelFIB(control.SetTunnelFIBRequest{Name: "ipsec1", FIB: 7}))
	must(t, e.SetFIB(control.SetFIBRequest{Name: "ipsec1", FIB: 8}))
	want(outer, host.Rule{In: "ipsec1", Table: 8})
	must(t, e.Rename(control.RenameRequest{Name: "ipsec1", NewName: "office"}))
	want(outer, host.Rule{In: "office", Table: 8})
	must(t, e.SetFIB(control.SetFIBRequest{Name: "office", FIB: 9}))
	want(outer, host.Rule{In: "office", Table: 9})
	must(t, e.Destroy(control.DestroyRequest{Name: "office"}))
	want(outer)
	must(t, e.SetTunnelFIB(control.SetTunnelFIBRequest{Name: "ipsec0"}))
	want()
	must(t, e.SetFIB(control.SetFIBRequest{Name: "ipsec0", FIB: 8}))
	want(host.Rule{In: "ipsec0", Table: 8})
	// A rule of a process that was killed without a successor goes.
	must(t, h.AddRule(host.Rule{In: "ipsec7", Table: 3}))
	must(t, e.Close())
	want()
}
