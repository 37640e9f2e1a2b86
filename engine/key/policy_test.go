package key_test

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/spd"
)

var (
	netA = netip.MustParsePrefix("10.1.0.0/16")
	netB = netip.MustParsePrefix("10.2.0.0/16")
)

func espTunnel(level pfkey.Level, reqID uint32) pfkey.Request {
	return pfkey.Request{
		Proto: syscall.IPPROTO_ESP, Mode: pfkey.ModeTunnel, Level: level, ReqID: reqID,
		Src: netip.AddrPortFrom(hostA, 0), Dst: netip.AddrPortFrom(hostB, 0),
	}
}

// spdadd is a message with the policy `out ipsec esp/tunnel/A-B/require`.
func spdadd(exts ...pfkey.Extension) *pfkey.Message {
	m := message(pfkey.TypeSPDAdd, 0,
		&pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: []pfkey.Request{espTunnel(pfkey.LevelRequire, 0)}},
		address(pfkey.ExtAddressSrc, netA), address(pfkey.ExtAddressDst, netB))
	return with(m, exts...)
}

func spddelete(exts ...pfkey.Extension) *pfkey.Message {
	return with(ofType(spdadd(&pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirOut}), pfkey.TypeSPDDelete), exts...)
}

// interfacePolicies are what an interface has, cut down to one each way.
func interfacePolicies() []spd.Policy {
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	out := espTunnel(pfkey.LevelUnique, 100)
	in := out
	in.Src, in.Dst = out.Dst, out.Src
	selector := spd.Selector{Src: any4, Dst: any4, Proto: spd.AnyProto}
	return []spd.Policy{
		{Selector: selector, Dir: pfkey.DirIn, Type: pfkey.PolicyIPsec, Requests: []spd.Request{in}, Priority: 4},
		{Selector: selector, Dir: pfkey.DirOut, Type: pfkey.PolicyIPsec, Requests: []spd.Request{out}, Priority: 4},
	}
}

func TestErrorsOfPolicyRequests(t *testing.T) {
	t.Parallel()
	policy := func(p pfkey.Policy) *pfkey.Policy { return &p }
	requests := func(n int) []pfkey.Request {
		var r []pfkey.Request
		for range n {
			r = append(r, espTunnel(pfkey.LevelRequire, 0))
		}
		return r
	}
	ah6 := espTunnel(pfkey.LevelRequire, 0)
	ah6.Proto = 6
	tcp := address(pfkey.ExtAddressDst, netB)
	tcp.Proto = 6
	six := address(pfkey.ExtAddressDst, netip.MustParsePrefix("2001:db8::/32"))
	other := address(pfkey.ExtAddressDst, netip.MustParsePrefix("10.3.0.0/16"))
	get := func(id uint32) *pfkey.Message { return message(pfkey.TypeSPDGet, 0, &pfkey.Policy{ID: id}) }

	// In the database of each case are an interface's policies, 1 and 2, and
	// that of spdadd(), 3.
	for name, c := range map[string]struct {
		m    *pfkey.Message
		want syscall.Errno
	}{
		"add":                        {spdadd(other), 0},
		"add, again":                 {spdadd(), syscall.EEXIST},
		"add, with an SA type":       {ofSAType(spdadd(other), pfkey.SATypeESP), syscall.EINVAL},
		"add, no source":             {without(spdadd(), pfkey.ExtAddressSrc), syscall.EINVAL},
		"add, no destination":        {without(spdadd(), pfkey.ExtAddressDst), syscall.EINVAL},
		"add, no policy":             {without(spdadd(), pfkey.ExtPolicy), syscall.EINVAL},
		"add, no direction":          {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyNone})), syscall.EINVAL},
		"add, forward":               {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyNone, Dir: 3})), syscall.EINVAL},
		"add, in, selector taken":    {spdadd(policy(pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirIn})), 0},
		"add, entrust":               {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyEntrust, Dir: pfkey.DirOut})), syscall.EINVAL},
		"add, bypass":                {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyBypass, Dir: pfkey.DirOut})), syscall.EINVAL},
		"add, ipsec without request": {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut})), syscall.EINVAL},
		"add, four requests":         {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: requests(4)})), 0},
		"add, five requests":         {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: requests(5)})), syscall.EINVAL},
		"add, protocol 6":            {spdadd(other, policy(pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: []pfkey.Request{ah6}})), syscall.EPROTONOSUPPORT},
		"add, two families":          {spdadd(six), syscall.EINVAL},
		"add, two protocols":         {spdadd(tcp), syscall.EINVAL},
		"setidx":                     {ofType(spdadd(other), pfkey.TypeSPDSetIdx), 0},
		"setidx, again":              {ofType(spdadd(), pfkey.TypeSPDSetIdx), syscall.EEXIST},
		"update":                     {ofType(spdadd(), pfkey.TypeSPDUpdate), 0},
		"update, none there":         {ofType(spdadd(other), pfkey.TypeSPDUpdate), 0},
		"delete":                     {spddelete(), 0},
		"delete, none there":         {spddelete(other), syscall.ENOENT},
		"delete, other direction":    {spddelete(policy(pfkey.Policy{Dir: pfkey.DirIn})), syscall.ENOENT},
		"delete, no direction":       {spddelete(policy(pfkey.Policy{})), syscall.EINVAL},
		"delete, entrust":            {spddelete(policy(pfkey.Policy{Type: pfkey.PolicyEntrust, Dir: pfkey.DirOut})), syscall.EINVAL},
		"delete, no policy":          {without(spddelete(), pfkey.ExtPolicy), syscall.EINVAL},
		"delete, no source":          {without(spddelete(), pfkey.ExtAddressSrc), syscall.EINVAL},
		"get":                        {get(3), 0},
		"get, an interface's":        {get(2), 0},
		"get, none there":            {get(4), syscall.ENOENT},
		"get, no policy":             {without(get(3), pfkey.ExtPolicy), syscall.EINVAL},
		"delete2":                    {ofType(get(3), pfkey.TypeSPDDelete2), 0},
		"delete2, an interface's":    {ofType(get(1), pfkey.TypeSPDDelete2), syscall.EACCES},
		"delete2, none there":        {ofType(get(4), pfkey.TypeSPDDelete2), syscall.ENOENT},
		"delete2, no policy":         {without(ofType(get(3), pfkey.TypeSPDDelete2), pfkey.ExtPolicy), syscall.EINVAL},
		"flush":                      {message(pfkey.TypeSPDFlush, 0), 0},
		"flush, with extension":      {message(pfkey.TypeSPDFlush, 0, src(hostA)), syscall.EINVAL},
		"flush, with an SA type":     {message(pfkey.TypeSPDFlush, pfkey.SATypeESP), syscall.EINVAL},
		"dump, scope pcb":            {message(pfkey.TypeSPDDump, pfkey.SAType(pfkey.ScopePCB)), syscall.ENOENT},
		"dump, scope 8":              {message(pfkey.TypeSPDDump, 8), syscall.EINVAL},
		"spdacquire":                 {message(pfkey.TypeSPDAcquire, 0), syscall.EINVAL},
		"spdexpire":                  {message(pfkey.TypeSPDExpire, 0), syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if _, _, err := f.spd.SetInterface("ipsec0", interfacePolicies()); err != nil {
				t.Fatal(err)
			}
			s, listener := f.open(t), f.open(t)
			s.ok(spdadd())
			listener.take()
			s.fails(c.m, c.want)
			if c.want == 0 {
				return
			}
			if heard := listener.take(); len(heard) != 0 {
				t.Errorf("others heard of a failure: %v", heard)
			}
			if n := len(s.all(message(pfkey.TypeSPDDump, 0))); n != 3 {
				t.Errorf("%d policies after a failure, want the 3 of before", n)
			}
		})
	}
}

func TestPolicyChangesAreHeard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	added := s.ok(spdadd(
		&pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Priority: 5, Requests: []pfkey.Request{espTunnel(pfkey.LevelUnique, 0)}},
		&pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, AddTime: 60, UseTime: 30}))
	wantKinds(t, added, pfkey.ExtPolicy, pfkey.ExtLifetimeHard, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	if p := pfkey.Find[*pfkey.Policy](added); p.ID != 1 || p.Priority != 5 || len(p.Requests) != 1 || p.Requests[0].ReqID != spd.MaxManualReqID+1 {
		t.Errorf("policy %+v, want ID 1 and a reqid of its own", p)
	}
	deleted := s.ok(spddelete())
	wantKinds(t, deleted, pfkey.ExtPolicy, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	if p := pfkey.Find[*pfkey.Policy](deleted); p.ID != 1 {
		t.Errorf("policy %+v, want ID 1", p)
	}
	updated := s.ok(ofType(spdadd(), pfkey.TypeSPDUpdate))
	deleted2 := s.ok(message(pfkey.TypeSPDDelete2, 0, &pfkey.Policy{ID: pfkey.Find[*pfkey.Policy](updated).ID}))
	wantKinds(t, deleted2, pfkey.ExtPolicy)
	flushed := s.ok(message(pfkey.TypeSPDFlush, 0))
	heard := other.take()
	for i, want := range []*pfkey.Message{added, deleted, updated, deleted2, flushed} {
		if i >= len(heard) || heard[i] != want {
			t.Fatalf("others heard %v, want %v at %d", heard, want.Type, i)
		}
	}
}

func TestPolicyDump(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	s.fails(message(pfkey.TypeSPDDump, 0), syscall.ENOENT)
	web := address(pfkey.ExtAddressDst, netB)
	web.Proto, web.Addr = 6, netip.AddrPortFrom(netB.Addr(), 80)
	from := address(pfkey.ExtAddressSrc, netA)
	from.Proto = 6
	s.ok(spdadd(web, from, &pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, AddTime: 60}))
	if _, _, err := f.spd.SetInterface("ipsec0", interfacePolicies()); err != nil {
		t.Fatal(err)
	}
	other.take()

	for scope, want := range map[pfkey.Scope]int{
		0: 3, pfkey.ScopeGlobal: 1, pfkey.ScopeIfnet: 2, pfkey.ScopeGlobal | pfkey.ScopeIfnet: 3,
	} {
		answers := s.all(message(pfkey.TypeSPDDump, pfkey.SAType(scope)))
		if len(answers) != want {
			t.Fatalf("scope %v: %d answers, want %d", scope, len(answers), want)
		}
		for i, a := range answers {
			p := pfkey.Find[*pfkey.Policy](a)
			if a.Type != pfkey.TypeSPDDump || a.SAType != 0 || a.Seq != uint32(want-1-i) || a.PID != 1234 || a.Reserved != 1 {
				t.Errorf("scope %v: answer %+v", scope, a)
			}
			if scope != 0 && p.Scope&scope == 0 {
				t.Errorf("scope %v: policy %+v", scope, p)
			}
		}
	}
	global := s.one(message(pfkey.TypeSPDDump, pfkey.SAType(pfkey.ScopeGlobal)))
	wantKinds(t, global, pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtPolicy, pfkey.ExtLifetimeCurrent, pfkey.ExtLifetimeHard)
	if *global.Dst() != *web {
		t.Errorf("destination %+v, want %+v", global.Dst(), web)
	}
	if *global.Current() != (pfkey.Lifetime{Kind: pfkey.ExtLifetimeCurrent, AddTime: 1700000000, UseTime: 1700000000}) {
		t.Errorf("current lifetime %+v", global.Current())
	}
	if len(other.take()) != 0 {
		t.Error("others heard a dump")
	}
}

func TestInterfacesPoliciesAreHeard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open(t)
	added, _, err := f.spd.SetInterface("ipsec0", interfacePolicies())
	if err != nil {
		t.Fatal(err)
	}
	f.PoliciesChanged(added, nil)
	again, removed, err := f.spd.SetInterface("ipsec0", interfacePolicies())
	if err != nil {
		t.Fatal(err)
	}
	f.PoliciesChanged(again, removed)
	heard := s.take()
	if len(heard) != 6 {
		t.Fatalf("heard %d messages, want 6", len(heard))
	}
	for i, want := range []struct {
		kind pfkey.MsgType
		id   uint32
	}{
		{pfkey.TypeSPDAdd, 1}, {pfkey.TypeSPDAdd, 2}, {pfkey.TypeSPDDelete, 1}, {pfkey.TypeSPDDelete, 2},
		{pfkey.TypeSPDAdd, 3}, {pfkey.TypeSPDAdd, 4},
	} {
		p := pfkey.Find[*pfkey.Policy](heard[i])
		if heard[i].Type != want.kind || p.ID != want.id || p.Scope != pfkey.ScopeIfnet || p.Priority != 4 {
			t.Errorf("message %d: %v of %+v, want %v of policy %d", i, heard[i].Type, p, want.kind, want.id)
		}
	}
}

func TestPolicyExpires(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, ike := f.open(t), f.open(t)
	s.ok(spdadd(&pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, AddTime: 60}))
	ike.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	s.take()
	ike.take()
	f.now = f.now.Add(60 * time.Second)
	f.Expire(f.now)
	heard := ike.take()
	if len(heard) != 1 {
		t.Fatalf("heard %v, want SPDEXPIRE", heard)
	}
	wantKinds(t, heard[0], pfkey.ExtLifetimeCurrent, pfkey.ExtLifetimeHard, pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtPolicy)
	if heard[0].Type != pfkey.TypeSPDExpire {
		t.Errorf("heard %v", heard[0].Type)
	}
	if len(s.take()) != 0 {
		t.Error("heard without having registered")
	}
}
