package ifnet

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	addr         = netip.MustParseAddr
	compareAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
)

// must returns the result of a call that has to succeed.
func must(t *testing.T) func(Interface, error) Interface {
	return func(ifp Interface, err error) Interface {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return ifp
	}
}

func checkErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	var errno syscall.Errno
	if !errors.As(err, &errno) && want != 0 || errno != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestCreatePicksTheLowestFreeUnit(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{"ipsec2": true}
	table := New(Config{NameTaken: func(name string) bool { return taken[name] }})
	for _, step := range []struct {
		create, want string
		errno        syscall.Errno
	}{
		{"ipsec", "ipsec0", 0},
		{"ipsec", "ipsec1", 0},
		{"ipsec", "ipsec3", 0}, // ipsec2 is a link of somebody else's
		{"ipsec2", "", syscall.EEXIST},
		{"ipsec1", "", syscall.EEXIST},
		{"ipsec7", "ipsec7", 0},
		{"ipsec32767", "ipsec32767", 0},
		{"ipsec32768", "", syscall.ENOSPC},
		{"ipsec2147483648", "", syscall.EINVAL},
		{"ipsec00", "", syscall.EINVAL},
		{"ipsec07", "", syscall.EINVAL},
		{"ipsec0x1", "", syscall.EINVAL},
		{"ipsec-1", "", syscall.EINVAL},
		{"gif0", "", syscall.EINVAL},
		{"", "", syscall.EINVAL},
	} {
		ifp, err := table.Create(step.create)
		checkErrno(t, "create "+step.create, err, step.errno)
		if ifp.Name != step.want {
			t.Errorf("create %s made %q, want %q", step.create, ifp.Name, step.want)
		}
	}
	if _, err := table.Destroy("ipsec1"); err != nil {
		t.Fatal(err)
	}
	if ifp := must(t)(table.Create("ipsec")); ifp.Name != "ipsec1" || ifp.Index != 6 {
		t.Errorf("after destroy: %s with index %d, want ipsec1 with a new index", ifp.Name, ifp.Index)
	}
	var names []string
	for _, ifp := range table.All() {
		names = append(names, ifp.Name)
	}
	if want := []string{"ipsec0", "ipsec3", "ipsec7", "ipsec32767", "ipsec1"}; !slices.Equal(names, want) {
		t.Errorf("All = %v, want %v", names, want)
	}
}

func TestANewInterface(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	want := Interface{Name: "ipsec5", Index: 1, Unit: 5, Groups: []string{"all", "ipsec"}}
	if diff := cmp.Diff(want, must(t)(table.Create("ipsec5")), compareAddrs); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
}

func TestNothingIsDoneToWhatIsNotThere(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	for what, f := range map[string]func() (Interface, error){
		"get":             func() (Interface, error) { return table.Get("ipsec0") },
		"destroy":         func() (Interface, error) { return table.Destroy("ipsec0") },
		"rename":          func() (Interface, error) { return table.Rename("ipsec0", "vpn") },
		"set reqid":       func() (Interface, error) { return table.SetReqID("ipsec0", 1) },
		"set tunnel":      func() (Interface, error) { return table.SetTunnel("ipsec0", addr("10.0.0.1"), addr("10.0.0.2")) },
		"delete tunnel":   func() (Interface, error) { return table.DeleteTunnel("ipsec0") },
		"set tunnelfib":   func() (Interface, error) { return table.SetTunnelFIB("ipsec0", 1) },
		"set fib":         func() (Interface, error) { return table.SetFIB("ipsec0", 1) },
		"set metric":      func() (Interface, error) { return table.SetMetric("ipsec0", 1) },
		"set description": func() (Interface, error) { return table.SetDescription("ipsec0", "x") },
		"add group":       func() (Interface, error) { return table.AddGroup("ipsec0", "vpn") },
		"remove group":    func() (Interface, error) { return table.RemoveGroup("ipsec0", "ipsec") },
	} {
		_, err := f()
		checkErrno(t, what, err, syscall.ENXIO)
		if err != nil && !strings.Contains(err.Error(), "ipsec0") {
			t.Errorf("%s: %q does not name the interface", what, err)
		}
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	table := New(Config{NameTaken: func(name string) bool { return name == "eth0" }})
	must(t)(table.Create("ipsec0"))
	must(t)(table.Create("ipsec1"))
	for to, want := range map[string]syscall.Errno{
		"ipsec1": syscall.EEXIST, "eth0": syscall.EEXIST, "ipsec0": 0,
		"": syscall.EINVAL, ".": syscall.EINVAL, "..": syscall.EINVAL, "a/b": syscall.EINVAL, "a b": syscall.EINVAL,
		"a:b": syscall.EINVAL, "-a": syscall.EINVAL, "ü": syscall.EINVAL, "a\x00": syscall.EINVAL, "a%b": syscall.EINVAL,
		"sixteen-letters-": syscall.ENAMETOOLONG,
	} {
		_, err := table.Rename("ipsec0", to)
		checkErrno(t, fmt.Sprintf("rename to %q", to), err, want)
	}
	must(t)(table.Rename("ipsec0", "fifteen-letters"))
	if _, err := table.Get("ipsec0"); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("the old name: %v, want ENXIO", err)
	}
	// The unit stays with the interface, and the name of a unit may be taken.
	_, err := table.Create("ipsec0")
	checkErrno(t, "create with the unit of the renamed", err, syscall.EEXIST)
	must(t)(table.Rename("fifteen-letters", "ipsec2"))
	if ifp := must(t)(table.Create("ipsec")); ifp.Name != "ipsec3" {
		t.Errorf("created %s, want ipsec3: unit 0 and the name ipsec2 are taken", ifp.Name)
	}
}

func TestReqIDBelongsToOneInterface(t *testing.T) {
	t.Parallel()
	var auto uint32 = 16384
	table := New(Config{NewReqID: func() uint32 { auto++; return auto - 1 }})
	for range 3 {
		must(t)(table.Create("ipsec"))
	}
	set := func(name string, reqid, want uint32, errno syscall.Errno) {
		t.Helper()
		_, err := table.SetReqID(name, reqid)
		checkErrno(t, fmt.Sprintf("%s reqid %d", name, reqid), err, errno)
		if ifp := must(t)(table.Get(name)); ifp.ReqID != want {
			t.Errorf("%s has reqid %d, want %d", name, ifp.ReqID, want)
		}
	}
	set("ipsec0", 100, 100, 0)
	set("ipsec0", 100, 100, 0)
	set("ipsec1", 100, 0, syscall.EEXIST)
	set("ipsec1", 16384, 16384, 0)
	set("ipsec2", 0, 16385, 0) // 16384 is ipsec1's
	set("ipsec2", 0, 16385, 0) // has one
	set("ipsec0", 0, 100, 0)   // as FreeBSD: 0 does not take it away
	set("ipsec0", 200, 200, 0)
	set("ipsec1", 100, 100, 0) // free again
	must(t)(table.Destroy("ipsec1"))
	set("ipsec0", 100, 100, 0)
}

func TestAutomaticReqIDGivesUp(t *testing.T) {
	t.Parallel()
	table := New(Config{NewReqID: func() uint32 { return 20000 }})
	must(t)(table.Create("ipsec"))
	must(t)(table.Create("ipsec"))
	must(t)(table.SetReqID("ipsec0", 0))
	_, err := table.SetTunnel("ipsec1", addr("10.0.0.1"), addr("10.0.0.2"))
	checkErrno(t, "tunnel without a reqid to have", err, syscall.EEXIST)
	if ifp := must(t)(table.Get("ipsec1")); ifp.HasTunnel() || ifp.ReqID != 0 {
		t.Errorf("after the error: %+v", ifp)
	}
}

func TestTunnelEndpoints(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	must(t)(table.Create("ipsec0"))
	none := netip.Addr{}
	for _, ends := range []struct {
		src, dst netip.Addr
		want     syscall.Errno
	}{
		{addr("10.0.0.1"), addr("2001:db8::1"), syscall.EINVAL},
		{addr("0.0.0.0"), addr("10.0.0.2"), syscall.EADDRNOTAVAIL},
		{addr("10.0.0.1"), addr("0.0.0.0"), syscall.EADDRNOTAVAIL},
		{addr("::"), addr("2001:db8::2"), syscall.EADDRNOTAVAIL},
		{addr("::ffff:10.0.0.1"), addr("::ffff:10.0.0.2"), syscall.EADDRNOTAVAIL},
		{none, none, syscall.EADDRNOTAVAIL},
		{addr("10.0.0.1"), none, syscall.EINVAL},
	} {
		_, err := table.SetTunnel("ipsec0", ends.src, ends.dst)
		checkErrno(t, fmt.Sprint(ends.src, " ", ends.dst), err, ends.want)
	}
	if ifp := must(t)(table.Get("ipsec0")); ifp.HasTunnel() || ifp.ReqID != 0 {
		t.Errorf("after errors only: %+v", ifp)
	}
	ifp := must(t)(table.SetTunnel("ipsec0", addr("10.0.0.1"), addr("10.0.0.2")))
	if ifp.ReqID != MinAutoReqID {
		t.Errorf("reqid %d, want an automatic one", ifp.ReqID)
	}
	again := must(t)(table.SetTunnel("ipsec0", addr("10.0.0.1"), addr("10.0.0.2")))
	if diff := cmp.Diff(ifp, again, compareAddrs); diff != "" {
		t.Errorf("the same endpoints changed something:\n%s", diff)
	}
	// Another family, other endpoints, and the same ones as another interface.
	must(t)(table.SetTunnel("ipsec0", addr("fe80::1%2"), addr("fe80::2%2")))
	ifp = must(t)(table.SetTunnel("ipsec0", addr("2001:db8::1%2"), addr("2001:db8::2")))
	if ifp.Src != addr("2001:db8::1") {
		t.Errorf("Src = %v, want it without a zone", ifp.Src)
	}
	must(t)(table.Create("ipsec1"))
	other := must(t)(table.SetTunnel("ipsec1", ifp.Src, ifp.Dst))
	if other.ReqID == ifp.ReqID {
		t.Errorf("two interfaces with reqid %d", ifp.ReqID)
	}
	ifp = must(t)(table.DeleteTunnel("ipsec0"))
	if ifp.HasTunnel() || ifp.Running || ifp.ReqID != MinAutoReqID {
		t.Errorf("after deletetunnel: %+v, want the reqid and no tunnel", ifp)
	}
	must(t)(table.DeleteTunnel("ipsec0"))
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	ifp := must(t)(table.Create("ipsec0"))
	if got := ifp.Policies(); got != nil {
		t.Errorf("policies without a tunnel: %v", got)
	}
	must(t)(table.SetReqID("ipsec0", 100))
	ifp = must(t)(table.SetTunnel("ipsec0", addr("192.168.0.3"), addr("192.168.0.5")))
	here, there := ifp.Src, ifp.Dst
	v4, v6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	want := []Policy{
		{true, v4, there, here, 100}, {false, v4, here, there, 100},
		{true, v6, there, here, 100}, {false, v6, here, there, 100},
	}
	if diff := cmp.Diff(want, ifp.Policies(), compareAddrs); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}

func TestRunningFollowsTheLocalAddress(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	here, linkLocal := addr("10.0.0.1"), addr("fe80::1%2")
	if changed := table.SetLocalAddrs(slices.Values([]netip.Addr{here, addr("127.0.0.1")})); changed != nil {
		t.Errorf("without interfaces: %v changed", changed)
	}
	for range 3 {
		must(t)(table.Create("ipsec"))
	}
	if ifp := must(t)(table.SetTunnel("ipsec0", here, addr("10.0.0.2"))); !ifp.Running {
		t.Error("ipsec0 does not run although its source is local")
	}
	if ifp := must(t)(table.SetTunnel("ipsec1", linkLocal, addr("fe80::2%2"))); ifp.Running {
		t.Error("ipsec1 runs although its source is not local")
	}
	names := func(changed []Interface) string {
		var s []string
		for _, ifp := range changed {
			s = append(s, fmt.Sprintf("%s %v", ifp.Name, ifp.Running))
		}
		return strings.Join(s, ", ")
	}
	for _, step := range []struct {
		what  string
		local []netip.Addr
		want  string
	}{
		{"another link's address", []netip.Addr{here, addr("fe80::1%3")}, ""},
		{"the link's address", []netip.Addr{here, linkLocal}, "ipsec1 true"},
		{"the same again", []netip.Addr{linkLocal, here}, ""},
		{"a source goes", []netip.Addr{linkLocal}, "ipsec0 false"},
		{"another address comes", []netip.Addr{linkLocal, addr("10.0.0.2")}, ""},
		{"the source comes back", []netip.Addr{linkLocal, here}, "ipsec0 true"},
		{"all go", nil, "ipsec0 false, ipsec1 false"},
		{"all come back", []netip.Addr{linkLocal, here}, "ipsec0 true, ipsec1 true"},
	} {
		if got := names(table.SetLocalAddrs(slices.Values(step.local))); got != step.want {
			t.Errorf("%s: changed %q, want %q", step.what, got, step.want)
		}
	}
	table.SetLocalAddrs(slices.Values([]netip.Addr{here}))
	for _, step := range []struct {
		local netip.Addr
		want  string
	}{
		{addr("fe80::1%3"), ""},
		{linkLocal, "ipsec1 true"},
		{linkLocal, ""},
		{here, ""},
	} {
		if got := names(table.AddLocalAddr(step.local)); got != step.want {
			t.Errorf("%v comes: changed %q, want %q", step.local, got, step.want)
		}
	}
	if got, want := names(table.SetLocalAddrs(slices.Values([]netip.Addr{linkLocal}))), "ipsec0 false"; got != want {
		t.Errorf("a source goes after another came: changed %q, want %q", got, want)
	}
	if ifp := must(t)(table.SetTunnel("ipsec0", addr("10.9.9.9"), addr("10.0.0.2"))); ifp.Running {
		t.Error("ipsec0 runs with a source that is not local")
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	must(t)(table.Create("ipsec0"))
	for group, want := range map[string]syscall.Errno{
		"ipsec": syscall.EEXIST, "all": syscall.EEXIST, "": syscall.EINVAL, "vpn1": syscall.EINVAL, "a b": syscall.EINVAL,
		"sixteen-letters-": syscall.ENAMETOOLONG,
	} {
		_, err := table.AddGroup("ipsec0", group)
		checkErrno(t, fmt.Sprintf("group %q", group), err, want)
	}
	before := must(t)(table.AddGroup("ipsec0", "vpn"))
	_, err := table.RemoveGroup("ipsec0", "office")
	checkErrno(t, "-group office", err, syscall.ENOENT)
	after := must(t)(table.RemoveGroup("ipsec0", "ipsec"))
	if !slices.Equal(before.Groups, []string{"all", "ipsec", "vpn"}) || !slices.Equal(after.Groups, []string{"all", "vpn"}) {
		t.Errorf("groups %v, then %v", before.Groups, after.Groups)
	}
}

func TestDescription(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	must(t)(table.Create("ipsec0"))
	longest := strings.Repeat("x", MaxDescription)
	must(t)(table.SetDescription("ipsec0", longest))
	_, err := table.SetDescription("ipsec0", longest+"x")
	checkErrno(t, "too long", err, syscall.ENAMETOOLONG)
	_, err = table.SetDescription("ipsec0", "a\x00b")
	checkErrno(t, "with NUL", err, syscall.EINVAL)
	if ifp := must(t)(table.Get("ipsec0")); ifp.Description != longest {
		t.Error("an error changed the description")
	}
	if ifp := must(t)(table.SetDescription("ipsec0", "")); ifp.Description != "" {
		t.Error("the description is still there")
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	table := New(Config{})
	before := must(t)(table.Create("ipsec0"))
	must(t)(table.SetTunnel("ipsec0", addr("10.0.0.1"), addr("10.0.0.2")))
	must(t)(table.Rename("ipsec0", "vpn"))
	table.Restore(before)
	if diff := cmp.Diff([]Interface{before}, table.All(), compareAddrs); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	must(t)(table.Destroy("ipsec0"))
	table.Restore(before)
	if all := table.All(); len(all) != 0 {
		t.Errorf("a destroyed interface came back: %v", all)
	}
}

// Any order of calls keeps what must always be true.
func TestInvariantsUnderRandomChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			next := uint32(MinAutoReqID)
			table := New(Config{
				NewReqID:  func() uint32 { next = MinAutoReqID + (next+1)%40; return next },
				NameTaken: func(name string) bool { return name == "ipsec3" },
			})
			addrs := []netip.Addr{
				addr("10.0.0.1"), addr("10.0.0.2"), addr("0.0.0.0"), addr("2001:db8::1"), addr("2001:db8::2"),
				addr("fe80::1%a"), addr("fe80::1%b"), addr("::"), {},
			}
			names := []string{"ipsec0", "ipsec1", "ipsec2", "ipsec3", "ipsec4", "vpn", "x", "no/name"}
			local := map[netip.Addr]bool{}
			name := func() string { return names[r.IntN(len(names))] }
			pick := func() netip.Addr { return addrs[r.IntN(len(addrs))] }
			for range 2000 {
				before := table.All()
				var err error
				switch r.IntN(11) {
				case 0:
					_, err = table.Create("ipsec")
				case 1:
					_, err = table.Create(name())
				case 2:
					_, err = table.Destroy(name())
				case 3:
					_, err = table.Rename(name(), name())
				case 4:
					_, err = table.SetReqID(name(), r.Uint32N(6))
				case 5, 6:
					_, err = table.SetTunnel(name(), pick(), pick())
				case 7:
					_, err = table.DeleteTunnel(name())
				case 8:
					local[pick()] = true
					table.SetLocalAddrs(maps.Keys(local))
				case 9:
					delete(local, pick())
					table.SetLocalAddrs(maps.Keys(local))
				case 10:
					_, err = table.AddGroup(name(), "vpn")
				}
				if err != nil {
					if after := table.All(); !reflect.DeepEqual(before, after) {
						t.Fatalf("%v, and still something changed:\n%s", err, cmp.Diff(before, after, compareAddrs))
					}
				}
				checkInvariants(t, table, local)
			}
		})
	}
}

func checkInvariants(t *testing.T, table *Table, local map[netip.Addr]bool) {
	t.Helper()
	seenName, seenUnit, seenReqID := map[string]bool{}, map[int]bool{}, map[uint32]bool{}
	lastIndex := 0
	for _, ifp := range table.All() {
		switch {
		case seenName[ifp.Name]:
			t.Fatalf("two interfaces are called %s", ifp.Name)
		case seenUnit[ifp.Unit]:
			t.Fatalf("two interfaces have unit %d", ifp.Unit)
		case ifp.ReqID != 0 && seenReqID[ifp.ReqID]:
			t.Fatalf("two interfaces have reqid %d", ifp.ReqID)
		case ifp.Index <= lastIndex:
			t.Fatalf("%s with index %d comes after %d", ifp.Name, ifp.Index, lastIndex)
		case ifp.Src.IsValid() != ifp.Dst.IsValid(), ifp.Src.Is4() != ifp.Dst.Is4():
			t.Fatalf("%s goes from %v to %v", ifp.Name, ifp.Src, ifp.Dst)
		case ifp.HasTunnel() && ifp.ReqID == 0:
			t.Fatalf("%s has a tunnel without a reqid", ifp.Name)
		case ifp.Running != (ifp.HasTunnel() && local[ifp.Src]):
			t.Fatalf("%s running %v, local addresses %v", ifp.Name, ifp.Running, slices.Collect(maps.Keys(local)))
		case !slices.Contains(ifp.Groups, "all"):
			t.Fatalf("%s is in %v", ifp.Name, ifp.Groups)
		}
		seenName[ifp.Name], seenUnit[ifp.Unit], seenReqID[ifp.ReqID] = true, true, true
		lastIndex = ifp.Index
		want := 0
		if ifp.HasTunnel() {
			want = 4
		}
		policies := ifp.Policies()
		if len(policies) != want {
			t.Fatalf("%s has %d policies, want %d", ifp.Name, len(policies), want)
		}
		for _, p := range policies {
			src, dst := p.Src, p.Dst
			if p.Inbound {
				src, dst = dst, src
			}
			if src != ifp.Src || dst != ifp.Dst || p.ReqID != ifp.ReqID {
				t.Fatalf("%s has the policy %+v", ifp.Name, p)
			}
		}
	}
}
