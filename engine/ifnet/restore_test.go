package ifnet

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// shelf is a store as a file would be.
type shelf struct {
	kept map[int][]byte
	full bool
}

func (s *shelf) Put(i Interface) error {
	if s.full {
		return syscall.ENOSPC
	}
	b, err := i.Append(nil)
	if err != nil {
		return err
	}
	s.kept[i.Index] = b
	return nil
}

func (s *shelf) Delete(index int) { delete(s.kept, index) }

func (s *shelf) interfaces(t *testing.T) (all []Interface) {
	t.Helper()
	for _, b := range s.kept {
		i, err := DecodeInterface(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

func TestLoad(t *testing.T) {
	t.Parallel()
	s := &shelf{kept: map[int][]byte{}}
	a, b := netip.MustParseAddr("192.168.0.3"), netip.MustParseAddr("fe80::1%5")
	table := New(Config{Store: s})
	local := slices.Values([]netip.Addr{a})
	table.SetLocalAddrs(local)
	do := func(_ Interface, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		do(table.Create("ipsec"))
	}
	do(table.SetTunnel("ipsec0", a, netip.MustParseAddr("192.168.0.5")))
	do(table.SetReqID("ipsec1", 100))
	do(table.SetTunnel("ipsec1", b, b))
	do(table.Rename("ipsec1", "office"))
	do(table.SetDescription("office", "über alles"))
	do(table.AddGroup("office", "vpn"))
	do(table.SetTunnelFIB("ipsec2", 3))
	do(table.SetMetric("ipsec2", 9))
	do(table.Destroy("ipsec3"))

	again := New(Config{Store: s})
	if err := again.Load(s.interfaces(t)); err != nil {
		t.Fatal(err)
	}
	again.SetLocalAddrs(local)
	if diff := cmp.Diff(table.All(), again.All(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("interfaces (-before +after):\n%s", diff)
	}
	if _, err := again.SetReqID("ipsec2", 100); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a reqid that is taken: %v, want EEXIST", err)
	}
	i, err := again.Create("ipsec")
	if err != nil || i.Name != "ipsec3" || i.Index <= 3 {
		t.Errorf("the next interface is %+v (%v)", i, err)
	}
}

func TestTableStoreFull(t *testing.T) {
	t.Parallel()
	s := &shelf{kept: map[int][]byte{}}
	table := New(Config{Store: s})
	if _, err := table.Create("ipsec0"); err != nil {
		t.Fatal(err)
	}
	before := table.All()
	s.full = true
	_, err1 := table.Create("ipsec")
	_, err2 := table.SetReqID("ipsec0", 5)
	_, err3 := table.SetDescription("ipsec0", "?")
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v, want ENOSPC", err)
		}
	}
	if diff := cmp.Diff(before, table.All(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("interfaces (-before +after):\n%s", diff)
	}
	if _, err := table.Get("ipsec0"); err != nil {
		t.Errorf("what changes nothing needs no room: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	good := Interface{Name: "ipsec0", Index: 1, ReqID: 100}
	a := netip.MustParseAddr("192.168.0.3")
	for what, bad := range map[string]Interface{
		"name twice":   {Name: "ipsec0", Index: 2, Unit: 1},
		"unit twice":   {Name: "ipsec1", Index: 2, Unit: 0},
		"reqid twice":  {Name: "ipsec1", Index: 2, Unit: 1, ReqID: 100},
		"index twice":  {Name: "ipsec1", Index: 1, Unit: 1},
		"no index":     {Name: "ipsec1", Unit: 1},
		"no name":      {Index: 2, Unit: 1},
		"unit":         {Name: "ipsec1", Index: 2, Unit: -1},
		"one endpoint": {Name: "ipsec1", Index: 2, Unit: 1, Src: a},
		"families":     {Name: "ipsec1", Index: 2, Unit: 1, Src: a, Dst: netip.IPv6Unspecified()},
	} {
		table := New(Config{})
		if err := table.Load([]Interface{good, bad}); err == nil || len(table.All()) > 0 {
			t.Errorf("%s: error %v and interfaces %v, want an error and none", what, err, table.All())
		}
	}
}
