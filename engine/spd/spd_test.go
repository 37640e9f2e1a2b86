package spd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
)

// clock is a clock that stands still until it is set forward.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) forward(d time.Duration) { c.t = c.t.Add(d) }

func newDB() (*DB, *clock) {
	c := &clock{time.Unix(1_700_000_000, 0)}
	return New(Config{Now: c.now}), c
}

func request(edits ...func(*Request)) Request {
	r := Request{
		Proto: syscall.IPPROTO_ESP, Mode: pfkey.ModeTunnel, Level: pfkey.LevelRequire,
		Src: netip.AddrPortFrom(netip.MustParseAddr("192.168.0.3"), 0),
		Dst: netip.AddrPortFrom(netip.MustParseAddr("192.168.0.5"), 0),
	}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func selector(src, dst string) Selector {
	return Selector{Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst), Proto: AnyProto}
}

// policy is one for outbound packets to 10.0.n.0/24, changed by the edits.
func policy(n int, edits ...func(*Policy)) Policy {
	p := Policy{
		Selector: selector("10.1.0.0/16", fmt.Sprintf("10.0.%d.0/24", n)),
		Dir:      pfkey.DirOut,
		Type:     pfkey.PolicyIPsec,
		Scope:    pfkey.ScopeGlobal,
		Requests: []Request{request()},
	}
	for _, edit := range edits {
		edit(&p)
	}
	return p
}

// interfacePolicies are the four of ipsecN.
func interfacePolicies() []Policy {
	var list []Policy
	for _, dir := range []pfkey.Direction{pfkey.DirIn, pfkey.DirOut} {
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			list = append(list, Policy{
				Selector: selector(all, all), Dir: dir, Type: pfkey.PolicyIPsec, Scope: pfkey.ScopeIfnet,
				Requests: []Request{request(func(r *Request) { r.Level, r.ReqID = pfkey.LevelUnique, 16385 })},
			})
		}
	}
	return list
}

func mustAdd(tb testing.TB, db *DB, p Policy) *Policy {
	tb.Helper()
	added, err := db.Add(p)
	if err != nil {
		tb.Fatalf("Add(%v): %v", p.Selector, err)
	}
	return added
}

func mustSet(tb testing.TB, db *DB, ifname string) []*Policy {
	tb.Helper()
	added, _, err := db.SetInterface(ifname, interfacePolicies())
	if err != nil {
		tb.Fatal(err)
	}
	return added
}

func wantErrno(tb testing.TB, err error, want syscall.Errno) {
	tb.Helper()
	var got syscall.Errno
	if !errors.As(err, &got) || got != want {
		tb.Errorf("error = %v, want one that wraps %q", err, want)
	}
}

func ids(db *DB) []uint32 {
	var list []uint32
	for p := range db.All() {
		list = append(list, p.ID)
	}
	return list
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	edit := func(edit func(*Request)) func(*Policy) {
		return func(p *Policy) { edit(&p.Requests[0]) }
	}
	tests := map[string]struct {
		edit func(*Policy)
		want syscall.Errno
	}{
		"the same selector":    {func(p *Policy) { p.Dst = netip.MustParsePrefix("10.0.1.0/24") }, syscall.EEXIST},
		"the same, other type": {func(p *Policy) { *p = policy(1); p.Type, p.Priority = pfkey.PolicyNone, 7 }, syscall.EEXIST},
		"no direction":         {func(p *Policy) { p.Dir = pfkey.DirAny }, syscall.EINVAL},
		"forward direction":    {func(p *Policy) { p.Dir = 3 }, syscall.EINVAL},
		"type entrust":         {func(p *Policy) { p.Type = pfkey.PolicyEntrust }, syscall.EINVAL},
		"type bypass":          {func(p *Policy) { p.Type = pfkey.PolicyBypass }, syscall.EINVAL},
		"scope ifnet":          {func(p *Policy) { p.Scope = pfkey.ScopeIfnet }, syscall.EINVAL},
		"scope pcb":            {func(p *Policy) { p.Scope = pfkey.ScopePCB }, syscall.EINVAL},
		"no source":            {func(p *Policy) { p.Src = netip.Prefix{} }, syscall.EINVAL},
		"two families":         {func(p *Policy) { p.Src = netip.MustParsePrefix("::/0") }, syscall.EINVAL},
		"no requests":          {func(p *Policy) { p.Requests = nil }, syscall.EINVAL},
		"five requests":        {func(p *Policy) { p.Requests = slices.Repeat(p.Requests, 5) }, syscall.EINVAL},
		"second request bad":   {func(p *Policy) { p.Requests = append(p.Requests, Request{}) }, syscall.EPROTONOSUPPORT},
		"protocol":             {edit(func(r *Request) { r.Proto = syscall.IPPROTO_TCP }), syscall.EPROTONOSUPPORT},
		"mode any":             {edit(func(r *Request) { r.Mode = pfkey.ModeAny }), syscall.EINVAL},
		"level":                {edit(func(r *Request) { r.Level = 9 }), syscall.EINVAL},
		"one endpoint":         {edit(func(r *Request) { r.Dst = netip.AddrPort{} }), syscall.EINVAL},
		"no endpoints":         {edit(func(r *Request) { r.Src, r.Dst = netip.AddrPort{}, netip.AddrPort{} }), syscall.EINVAL},
		"endpoints of two families": {edit(func(r *Request) {
			r.Dst = netip.MustParseAddrPort("[2001:db8::1]:0")
		}), syscall.EINVAL},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := newDB()
			mustAdd(t, db, policy(1))
			for what, add := range map[string]func(Policy) (*Policy, error){"Add": db.Add, "Update": db.Update} {
				if what == "Update" && tt.want == syscall.EEXIST {
					continue
				}
				p, err := add(policy(2, tt.edit))
				wantErrno(t, err, tt.want)
				if p != nil {
					t.Errorf("%s: a policy came with the error", what)
				}
				if got := ids(db); !slices.Equal(got, []uint32{1}) {
					t.Errorf("%s: the database has policies %v", what, got)
				}
			}
		})
	}
}

func TestAddTakes(t *testing.T) {
	t.Parallel()
	tests := map[string]Policy{
		"other destination": policy(2),
		"other direction":   policy(1, func(p *Policy) { p.Dir = pfkey.DirIn }),
		"other protocol":    policy(1, func(p *Policy) { p.Proto = syscall.IPPROTO_TCP }),
		"other port":        policy(1, func(p *Policy) { p.DstPort = 80 }),
		"host bits set":     policy(1, func(p *Policy) { p.Dst = netip.MustParsePrefix("10.0.1.1/24") }),
		"discard":           policy(2, func(p *Policy) { p.Type, p.Requests = pfkey.PolicyDiscard, nil }),
		"none":              policy(2, func(p *Policy) { p.Type, p.Requests = pfkey.PolicyNone, nil }),
		"scope not given":   policy(2, func(p *Policy) { p.Scope = 0 }),
		"transport without endpoints": policy(2, func(p *Policy) {
			p.Requests = []Request{{Proto: syscall.IPPROTO_AH, Mode: pfkey.ModeTransport, Level: pfkey.LevelUse}}
		}),
		"four requests": policy(2, func(p *Policy) { p.Requests = slices.Repeat(p.Requests, MaxRequests) }),
		"IPv6":          policy(2, func(p *Policy) { p.Selector = selector("2001:db8::/32", "::/0") }),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c := newDB()
			mustAdd(t, db, policy(1))
			p := mustAdd(t, db, want)
			if p.ID != 2 || !p.Created.Equal(c.t) || !p.LastUsed().Equal(c.t) || p.Scope != pfkey.ScopeGlobal {
				t.Errorf("ID %d, scope %v, created %v, used %v", p.ID, p.Scope, p.Created, p.LastUsed())
			}
			if p.Selector != want.Selector || p.Dir != want.Dir || p.Type != want.Type || !slices.Equal(p.Requests, want.Requests) {
				t.Errorf("%+v, want %+v", p, want)
			}
			if got, err := db.Get(2); err != nil || got != p {
				t.Errorf("Get = %v, %v", got, err)
			}
		})
	}
}

func TestAddCopiesRequests(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	mine := policy(1)
	p := mustAdd(t, db, mine)
	mine.Requests[0].Proto = 0
	if p.Requests[0].Proto != syscall.IPPROTO_ESP {
		t.Errorf("the database shares the caller's requests")
	}
	discard := mustAdd(t, db, policy(2, func(p *Policy) { p.Type = pfkey.PolicyDiscard }))
	if discard.Requests != nil {
		t.Errorf("a discard policy has requests %v", discard.Requests)
	}
}

func TestReqIDs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		level       pfkey.Level
		given, want uint32
	}{
		"unique":                 {pfkey.LevelUnique, 0, MaxManualReqID + 1},
		"unique, manual":         {pfkey.LevelUnique, 100, 100},
		"unique, highest":        {pfkey.LevelUnique, MaxManualReqID, MaxManualReqID},
		"unique, too high":       {pfkey.LevelUnique, MaxManualReqID + 100, MaxManualReqID + 1},
		"require, means nothing": {pfkey.LevelRequire, 100, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := newDB()
			p := mustAdd(t, db, policy(1, func(p *Policy) {
				p.Requests[0].Level, p.Requests[0].ReqID = tt.level, tt.given
			}))
			if got := p.Requests[0].ReqID; got != tt.want {
				t.Errorf("reqid %d, want %d", got, tt.want)
			}
		})
	}
}

func TestReqIDsAreShared(t *testing.T) {
	t.Parallel()
	var shared ReqIDs
	if got := shared.Next(); got != 16384 {
		t.Errorf("first reqid %d, want 16384", got)
	}
	db := New(Config{NewReqID: shared.Next})
	unique := func(p *Policy) {
		r := request(func(r *Request) { r.Level = pfkey.LevelUnique })
		p.Requests = []Request{r, r}
	}
	p := mustAdd(t, db, policy(1, unique))
	if a, b, c := p.Requests[0].ReqID, p.Requests[1].ReqID, shared.Next(); a != 16385 || b != 16386 || c != 16387 {
		t.Errorf("reqids %d, %d, then %d", a, b, c)
	}
	if _, err := db.Add(policy(1, unique)); err == nil || shared.Next() != 16388 {
		t.Errorf("a refused policy took reqids")
	}
	shared.count.Store(1<<32 - 16384)
	if got := shared.Next(); got != 16384 {
		t.Errorf("reqid %d after the last one, want 16384", got)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	old := mustAdd(t, db, policy(1))
	mustAdd(t, db, policy(2))
	p, err := db.Update(policy(1, func(p *Policy) { p.Type = pfkey.PolicyDiscard }))
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != 3 || p.Type != pfkey.PolicyDiscard {
		t.Errorf("ID %d, type %v", p.ID, p.Type)
	}
	if got := ids(db); !slices.Equal(got, []uint32{2, 3}) {
		t.Errorf("policies %v", got)
	}
	_, err = db.Get(old.ID)
	wantErrno(t, err, syscall.ENOENT)
	if p, err := db.Update(policy(3)); err != nil || p.ID != 4 {
		t.Errorf("update of what is not there: %v, %v", p, err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	p := mustAdd(t, db, policy(1))
	ifnet := mustSet(t, db, "ipsec0")

	_, err := db.Delete(pfkey.DirIn, p.Selector)
	wantErrno(t, err, syscall.ENOENT)
	_, err = db.Delete(pfkey.DirOut, policy(2).Selector)
	wantErrno(t, err, syscall.ENOENT)
	_, err = db.Delete(pfkey.DirAny, p.Selector)
	wantErrno(t, err, syscall.EINVAL)
	_, err = db.Delete(pfkey.DirOut, ifnet[2].Selector)
	wantErrno(t, err, syscall.ENOENT)
	_, err = db.DeleteID(ifnet[2].ID)
	wantErrno(t, err, syscall.EACCES)
	_, err = db.DeleteID(99)
	wantErrno(t, err, syscall.ENOENT)

	if got, err := db.Delete(pfkey.DirOut, p.Selector); err != nil || got != p {
		t.Errorf("Delete = %v, %v", got, err)
	}
	again := mustAdd(t, db, policy(1))
	if got, err := db.DeleteID(again.ID); err != nil || got != again {
		t.Errorf("DeleteID = %v, %v", got, err)
	}
	if got := ids(db); len(got) != 4 {
		t.Errorf("policies %v", got)
	}
}

func TestFlushKeepsInterfaces(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	mustSet(t, db, "ipsec0")
	p := mustAdd(t, db, policy(1, func(p *Policy) { p.AddTime = 10 }))
	mustAdd(t, db, policy(1, func(p *Policy) { p.Dir = pfkey.DirIn }))
	if n := db.Flush(); n != 2 {
		t.Errorf("flushed %d, want 2", n)
	}
	if got := ids(db); !slices.Equal(got, []uint32{1, 2, 3, 4}) {
		t.Errorf("policies %v", got)
	}
	_, err := db.Get(p.ID)
	wantErrno(t, err, syscall.ENOENT)
	if _, ok := db.NextDeadline(); ok {
		t.Errorf("a flushed policy has a deadline")
	}
	if again := mustAdd(t, db, policy(1)); again.ID != 7 {
		t.Errorf("ID %d, want 7", again.ID)
	}
}

func TestInterfaces(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	first := mustSet(t, db, "ipsec0")
	mustSet(t, db, "ipsec1")
	for i, p := range first {
		if p.ID != uint32(i+1) || p.Scope != pfkey.ScopeIfnet || p.IfName != "ipsec0" || p.Requests[0].ReqID != 16385 {
			t.Errorf("policy %+v", p)
		}
	}
	added, removed, err := db.SetInterface("ipsec0", interfacePolicies())
	if err != nil || len(added) != 4 || !slices.Equal(removed, first) {
		t.Errorf("SetInterface: %v, %v, %v", added, removed, err)
	}
	if got := ids(db); !slices.Equal(got, []uint32{5, 6, 9, 10, 7, 8, 11, 12}) {
		t.Errorf("policies %v", got)
	}
	bad := interfacePolicies()
	bad[3].Requests = nil
	_, _, err = db.SetInterface("ipsec1", bad)
	wantErrno(t, err, syscall.EINVAL)
	if got := len(ids(db)); got != 8 {
		t.Errorf("%d policies after one that was refused", got)
	}
	// A global policy may have the same selector.
	global := interfacePolicies()[0]
	global.Scope = pfkey.ScopeGlobal
	mustAdd(t, db, global)

	if got := db.ClearInterface("ipsec0"); !slices.Equal(got, added) {
		t.Errorf("cleared %v", got)
	}
	if got := db.ClearInterface("ipsec9"); got != nil {
		t.Errorf("cleared %v", got)
	}
	if got := ids(db); !slices.Equal(got, []uint32{13, 5, 6, 7, 8}) {
		t.Errorf("policies %v", got)
	}
}

func TestDumpOrder(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	for i, p := range []struct {
		dir      pfkey.Direction
		priority uint32
	}{
		{pfkey.DirOut, 5}, {pfkey.DirIn, 5}, {pfkey.DirOut, 0}, {pfkey.DirOut, 5}, {pfkey.DirIn, 9}, {pfkey.DirIn, 5}, {pfkey.DirOut, 1 << 31},
	} {
		mustAdd(t, db, policy(i, func(q *Policy) { q.Dir, q.Priority = p.dir, p.priority }))
	}
	mustSet(t, db, "ipsec0")
	want := []uint32{2, 6, 5, 8, 9, 3, 1, 4, 7, 10, 11}
	if got := ids(db); !slices.Equal(got, want) {
		t.Errorf("policies %v, want %v", got, want)
	}
	for p := range db.All() {
		if _, err := db.DeleteID(p.ID); err != nil && p.Scope == pfkey.ScopeGlobal {
			t.Errorf("a policy cannot be deleted while all are listed: %v", err)
		}
		if p.ID == 3 {
			break
		}
	}
	if got := ids(db); !slices.Equal(got, []uint32{8, 9, 1, 4, 7, 10, 11}) {
		t.Errorf("left: %v", got)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	mustSet(t, db, "ipsec0") // matches everything, and no packet
	web := mustAdd(t, db, policy(1, func(p *Policy) { p.Proto, p.DstPort, p.Priority = syscall.IPPROTO_TCP, 80, 10 }))
	from := mustAdd(t, db, policy(1, func(p *Policy) { p.SrcPort, p.Priority = 53, 20 }))
	rest := mustAdd(t, db, policy(1, func(p *Policy) { p.Priority = 30 }))
	in := mustAdd(t, db, policy(1, func(p *Policy) { p.Dir = pfkey.DirIn }))
	local := mustAdd(t, db, policy(0, func(p *Policy) { p.Selector = selector("fe80::/10", "fe80::/10") }))
	packet := func(dst string, proto uint8, sport, dport uint16) Packet {
		return Packet{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr(dst), sport, dport, proto}
	}
	tests := map[string]struct {
		dir    pfkey.Direction
		packet Packet
		want   *Policy
	}{
		"first by priority": {pfkey.DirOut, packet("10.0.1.9", syscall.IPPROTO_TCP, 53, 80), web},
		"other port":        {pfkey.DirOut, packet("10.0.1.9", syscall.IPPROTO_TCP, 53, 81), from},
		"other protocol":    {pfkey.DirOut, packet("10.0.1.9", syscall.IPPROTO_UDP, 1, 80), rest},
		"in":                {pfkey.DirIn, packet("10.0.1.9", syscall.IPPROTO_TCP, 53, 80), in},
		"other destination": {pfkey.DirOut, packet("10.0.2.9", syscall.IPPROTO_TCP, 53, 80), nil},
		"other source":      {pfkey.DirOut, Packet{Src: netip.MustParseAddr("10.2.0.1"), Dst: netip.MustParseAddr("10.0.1.9")}, nil},
		"scoped":            {pfkey.DirOut, Packet{Src: netip.MustParseAddr("fe80::1%2"), Dst: netip.MustParseAddr("fe80::2%2")}, local},
		"no address":        {pfkey.DirOut, Packet{}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := db.Match(tt.dir, tt.packet); got != tt.want {
				t.Errorf("Match = %v", got)
			}
		})
	}
}

func TestExpire(t *testing.T) {
	t.Parallel()
	db, c := newDB()
	start := c.t
	packet := Packet{Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.0.2.1")}
	mustAdd(t, db, policy(0))
	added := mustAdd(t, db, policy(1, func(p *Policy) { p.AddTime = 30 }))
	used := mustAdd(t, db, policy(2, func(p *Policy) { p.UseTime = 20 }))
	both := mustAdd(t, db, policy(3, func(p *Policy) { p.AddTime, p.UseTime = 1<<64-1, 30 }))
	deadline := func(seconds int) {
		t.Helper()
		if got, ok := db.NextDeadline(); !ok || got.Sub(start) != time.Duration(seconds)*time.Second {
			t.Errorf("deadline after %v, %v, want %d s", got.Sub(start), ok, seconds)
		}
	}
	deadline(20)
	c.forward(19 * time.Second)
	if db.Match(pfkey.DirOut, packet) != used || !used.LastUsed().Equal(c.t) {
		t.Errorf("last used %v", used.LastUsed())
	}
	deadline(30)
	c.forward(10 * time.Second)
	if got := db.Expire(c.t); len(got) != 0 {
		t.Errorf("after 29 s: %v", got)
	}
	c.forward(time.Second)
	if got := db.Expire(c.t); !slices.Equal(got, []*Policy{added, both}) {
		t.Errorf("after 30 s: %v", got)
	}
	deadline(39)
	c.forward(9 * time.Second)
	if got := db.Expire(c.t); !slices.Equal(got, []*Policy{used}) {
		t.Errorf("after 39 s: %v", got)
	}
	if _, ok := db.NextDeadline(); ok || !slices.Equal(ids(db), []uint32{1}) {
		t.Errorf("left: %v", ids(db))
	}
}

func TestIDsAreNotGivenTwice(t *testing.T) {
	t.Parallel()
	db, _ := newDB()
	mustAdd(t, db, policy(1))
	db.lastID = 1<<32 - 2
	if p := mustAdd(t, db, policy(2)); p.ID != 2 {
		t.Errorf("ID %d after the last one, want 2", p.ID)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	db := New(Config{})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 200 {
				p := policy(i%10, func(p *Policy) { p.SrcPort, p.UseTime = uint16(w), 1000 })
				if _, err := db.Update(p); err != nil {
					t.Error(err)
				}
				db.Match(pfkey.DirOut, Packet{Src: p.Src.Addr(), Dst: p.Dst.Addr(), SrcPort: uint16(w)})
				for p := range db.All() {
					p.LastUsed()
				}
				db.Expire(time.Now())
				if i%50 == 0 {
					if _, _, err := db.SetInterface("ipsec0", interfacePolicies()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if got := len(ids(db)); got != 44 {
		t.Errorf("%d policies, want 44", got)
	}
}
