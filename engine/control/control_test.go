package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ifipsec/engine/peer"
)

// recorder is a handler that remembers the last request and answers as told.
type recorder struct {
	mu         sync.Mutex
	last       any
	err        error
	status     InterfacesResult
	statistics StatisticsResult
	diagnosis  DiagnoseResult
	sas        int // seven at a time, in place of statistics
}

func (h *recorder) got(q any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = q
	return h.err
}

func (h *recorder) Create(q CreateRequest) (CreateResult, error) {
	return CreateResult{Name: "ipsec4"}, h.got(q)
}
func (h *recorder) Destroy(q DestroyRequest) error               { return h.got(q) }
func (h *recorder) SetTunnel(q SetTunnelRequest) error           { return h.got(q) }
func (h *recorder) DeleteTunnel(q DeleteTunnelRequest) error     { return h.got(q) }
func (h *recorder) SetReqID(q SetReqIDRequest) error             { return h.got(q) }
func (h *recorder) SetTunnelFIB(q SetTunnelFIBRequest) error     { return h.got(q) }
func (h *recorder) SetFIB(q SetFIBRequest) error                 { return h.got(q) }
func (h *recorder) AddAddress(q AddAddressRequest) error         { return h.got(q) }
func (h *recorder) RemoveAddress(q RemoveAddressRequest) error   { return h.got(q) }
func (h *recorder) SetUp(q SetUpRequest) error                   { return h.got(q) }
func (h *recorder) SetMTU(q SetMTURequest) error                 { return h.got(q) }
func (h *recorder) Rename(q RenameRequest) error                 { return h.got(q) }
func (h *recorder) SetDescription(q SetDescriptionRequest) error { return h.got(q) }
func (h *recorder) AddGroup(q AddGroupRequest) error             { return h.got(q) }
func (h *recorder) RemoveGroup(q RemoveGroupRequest) error       { return h.got(q) }
func (h *recorder) SetMetric(q SetMetricRequest) error           { return h.got(q) }
func (h *recorder) Interfaces(q InterfacesRequest) (InterfacesResult, error) {
	return h.status, h.got(q)
}
func (h *recorder) Statistics(q StatisticsRequest) (StatisticsResult, error) {
	if h.sas > 0 {
		n := min(h.sas-q.SkipSAs, 7)
		return StatisticsResult{SAs: make([]SAStatistics, n), MoreSAs: q.SkipSAs+n < h.sas}, h.got(q)
	}
	return h.statistics, h.got(q)
}

func (h *recorder) Sysctls(q SysctlsRequest) (SysctlsResult, error) {
	return SysctlsResult{Variables: []Sysctl{{"net.key.x", 7}}}, h.got(q)
}
func (h *recorder) SetSysctl(q SetSysctlRequest) (SetSysctlResult, error) {
	return SetSysctlResult{Old: 7}, h.got(q)
}
func (h *recorder) Diagnose(q DiagnoseRequest) (DiagnoseResult, error) { return h.diagnosis, h.got(q) }

// start serves h on a socket of its own until the test ends.
func start(t *testing.T, h Handler, change func(*server)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := server{
		handler: h, log: slog.New(slog.DiscardHandler), credentials: peerCredentials,
		idleTimeout: time.Minute,
		users:       peer.Crowd[uint32]{Most: 16, Each: 4}, processes: peer.Crowd[int32]{Most: 16, Each: 16},
	}
	if change != nil {
		change(&s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve = %v, want nil when its context ends", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func asUser(uid uint32) func(*server) {
	return func(s *server) {
		s.credentials = func(*net.UnixConn) (*unix.Ucred, error) { return &unix.Ucred{Uid: uid, Pid: 1}, nil }
	}
}

var compareAddrs = cmpopts.EquateComparable(netip.Addr{})

func TestEveryRequestArrives(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	c := dial(t, start(t, h, nil))
	addr := netip.MustParseAddr
	for _, q := range []struct {
		send func() error
		want any
	}{
		{func() error { return c.Destroy(DestroyRequest{"ipsec0"}) }, DestroyRequest{"ipsec0"}},
		{func() error { return c.SetTunnel(SetTunnelRequest{"a", addr("fe80::1%eth0"), addr("fe80::2%eth0")}) },
			SetTunnelRequest{"a", addr("fe80::1%eth0"), addr("fe80::2%eth0")}},
		{func() error { return c.DeleteTunnel(DeleteTunnelRequest{"a"}) }, DeleteTunnelRequest{"a"}},
		{func() error { return c.SetReqID(SetReqIDRequest{"a", 1<<32 - 1}) }, SetReqIDRequest{"a", 1<<32 - 1}},
		{func() error { return c.SetTunnelFIB(SetTunnelFIBRequest{"a", 2}) }, SetTunnelFIBRequest{"a", 2}},
		{func() error { return c.SetFIB(SetFIBRequest{"a", 3}) }, SetFIBRequest{"a", 3}},
		{func() error {
			return c.AddAddress(AddAddressRequest{"a", Address{Addr: addr("10.0.0.1"), Bits: 16, Peer: addr("10.0.0.2")}, true})
		}, AddAddressRequest{"a", Address{Addr: addr("10.0.0.1"), Bits: 16, Peer: addr("10.0.0.2")}, true}},
		{func() error { return c.RemoveAddress(RemoveAddressRequest{"a", addr("::")}) }, RemoveAddressRequest{"a", addr("::")}},
		{func() error { return c.SetUp(SetUpRequest{"a", true}) }, SetUpRequest{"a", true}},
		{func() error { return c.SetMTU(SetMTURequest{"a", 8192}) }, SetMTURequest{"a", 8192}},
		{func() error { return c.Rename(RenameRequest{"a", "b"}) }, RenameRequest{"a", "b"}},
		{func() error { return c.SetDescription(SetDescriptionRequest{"a", "a\nb <&> ü"}) }, SetDescriptionRequest{"a", "a\nb <&> ü"}},
		{func() error { return c.AddGroup(AddGroupRequest{"a", "vpn"}) }, AddGroupRequest{"a", "vpn"}},
		{func() error { return c.RemoveGroup(RemoveGroupRequest{"a", "vpn"}) }, RemoveGroupRequest{"a", "vpn"}},
		{func() error { return c.SetMetric(SetMetricRequest{"a", -1}) }, SetMetricRequest{"a", -1}},
	} {
		if err := q.send(); err != nil {
			t.Errorf("%#v: %v", q.want, err)
		}
		if diff := cmp.Diff(q.want, h.last, compareAddrs); diff != "" {
			t.Errorf("the handler got (-want +got):\n%s", diff)
		}
	}
	if r, err := c.Create(CreateRequest{"ipsec"}); err != nil || r.Name != "ipsec4" {
		t.Errorf("Create = %v, %v, want ipsec4", r, err)
	}
	if len(operations) != 21 {
		t.Errorf("%d operations; does this test know all?", len(operations))
	}
}

func TestStatusArrivesWhole(t *testing.T) {
	t.Parallel()
	var want InterfacesResult
	for n := range 5000 {
		want.Interfaces = append(want.Interfaces, Interface{
			Name: fmt.Sprintf("ipsec%d", n), Flags: FlagUp | FlagMulticast, Metric: 1, MTU: 1400, FIB: 2,
			Description: strings.Repeat("<", 200), TunnelFIB: 3, Groups: []string{"all", "ipsec"}, ReqID: 16384, ND6: ND6Default,
			Tunnel: &Tunnel{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")},
			Addresses: []Address{
				{Addr: netip.MustParseAddr("10.0.0.1"), Bits: 32, Peer: netip.MustParseAddr("10.0.0.2")},
				{Addr: netip.MustParseAddr("fe80::1%ipsec0"), Bits: 64, ScopeID: 7},
			},
		})
	}
	c := dial(t, start(t, &recorder{status: want}, nil))
	got, err := c.Interfaces(InterfacesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestStatisticsArriveWhole(t *testing.T) {
	t.Parallel()
	want := StatisticsResult{
		ESP:        []Counter{{"badauth", "packets dropped; bad authentication detected", 1 << 63}},
		Interfaces: []InterfaceStatistics{{"ipsec0", []Counter{{"opackets", "packets out", 7}, {"obytes", "bytes out", 0}}}},
	}
	c := dial(t, start(t, &recorder{statistics: want}, asUser(4711)))
	got, err := c.Statistics(StatisticsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
}

func TestStatisticsOfManySAs(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 7, 8, 100} {
		got, err := dial(t, start(t, &recorder{sas: n}, asUser(4711))).AllStatistics()
		if err != nil || len(got.SAs) != n || got.MoreSAs {
			t.Errorf("of %d SAs %d arrive, more: %v (%v)", n, len(got.SAs), got.MoreSAs, err)
		}
	}
}

func TestDiagnosisArrivesWhole(t *testing.T) {
	t.Parallel()
	sa := SAStatistics{
		SPI: 10000, Src: netip.MustParseAddr("192.168.0.3"), Dst: netip.MustParseAddr("192.168.0.5"), ReqID: 100, State: "mature",
		Suite: "aes-gcm-16", Sequence: 1 << 40, Used: time.Unix(1, 0).UTC(), Counters: []Counter{{"packets", "packets", 7}},
	}
	want := DiagnoseResult{Fault: "none", Out: []SAStatistics{sa}, Counters: []Counter{{"opackets", "packets out", 7}}, Now: time.Unix(2, 0).UTC()}
	h := &recorder{diagnosis: want}
	got, err := dial(t, start(t, h, asUser(4711))).Diagnose(DiagnoseRequest{"ipsec0"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Errorf("diagnosis (-want +got):\n%s", diff)
	}
	if h.last != (DiagnoseRequest{"ipsec0"}) {
		t.Errorf("asked %v", h.last)
	}
}

func TestErrorsKeepErrnoAndMessage(t *testing.T) {
	t.Parallel()
	h := &recorder{err: fmt.Errorf("create ipsec0: unit 0: %w", syscall.EEXIST)}
	c := dial(t, start(t, h, nil))
	_, err := c.Create(CreateRequest{Name: "ipsec0"})
	var got *Error
	if !errors.As(err, &got) || got.Errno != syscall.EEXIST || got.Message != "create ipsec0: unit 0" {
		t.Errorf("error = %#v, want EEXIST with its message", err)
	}
	if !errors.Is(err, syscall.EEXIST) || err.Error() != "create ipsec0: unit 0: file exists" {
		t.Errorf("error = %q", err)
	}
	h.err = errors.New("no errno in this one")
	if err := c.Destroy(DestroyRequest{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("error without errno = %v, want EIO", err)
	}
}

func TestOnlyThePrivilegedMayChange(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	c := dial(t, start(t, h, asUser(4711)))
	if _, err := c.Interfaces(InterfacesRequest{}); err != nil {
		t.Errorf("status for everybody: %v", err)
	}
	h.last = nil
	for op, o := range operations {
		if !o.changes {
			continue
		}
		if err := tell(c, op, none{}); !errors.Is(err, syscall.EPERM) {
			t.Errorf("%s: %v, want EPERM", op, err)
		}
	}
	if h.last != nil {
		t.Errorf("the handler got %#v", h.last)
	}
	for _, uid := range []uint32{0, uint32(os.Geteuid())} {
		c := dial(t, start(t, h, asUser(uid)))
		if err := c.SetUp(SetUpRequest{Name: "ipsec0"}); err != nil {
			t.Errorf("user %d: %v", uid, err)
		}
	}
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	c := dial(t, start(t, h, nil))
	add := func(addr string, bits int, peer string) func() error {
		a := Address{Addr: netip.MustParseAddr(addr), Bits: bits}
		if peer != "" {
			a.Peer = netip.MustParseAddr(peer)
		}
		return func() error { return c.AddAddress(AddAddressRequest{Name: "ipsec0", Address: a}) }
	}
	mtu := func(n int) func() error {
		return func() error { return c.SetMTU(SetMTURequest{Name: "ipsec0", MTU: n}) }
	}
	for _, q := range []struct {
		what string
		send func() error
		want error
	}{
		{"mtu 1279", mtu(1279), syscall.EINVAL},
		{"mtu 1280", mtu(1280), nil},
		{"mtu 8192", mtu(8192), nil},
		{"mtu 8193", mtu(8193), syscall.EINVAL},
		{"inet", add("10.0.0.1", 24, "10.0.0.2"), nil},
		{"inet /0", add("10.0.0.1", 0, "10.0.0.2"), nil},
		{"inet without destination", add("10.0.0.1", 24, ""), syscall.EDESTADDRREQ},
		{"inet to 0.0.0.0", add("10.0.0.1", 24, "0.0.0.0"), syscall.EDESTADDRREQ},
		{"inet /33", add("10.0.0.1", 33, "10.0.0.2"), syscall.EINVAL},
		{"inet /-1", add("10.0.0.1", -1, "10.0.0.2"), syscall.EINVAL},
		{"inet to inet6", add("10.0.0.1", 24, "2001:db8::1"), syscall.EINVAL},
		{"inet 0.0.0.0", add("0.0.0.0", 24, "10.0.0.2"), syscall.EINVAL},
		{"inet multicast", add("224.0.0.1", 24, "10.0.0.2"), syscall.EINVAL},
		{"inet6", add("2001:db8::1", 64, ""), nil},
		{"inet6 with destination", add("2001:db8::1", 128, "2001:db8::2"), nil},
		{"inet6 with destination and /64", add("2001:db8::1", 64, "2001:db8::2"), syscall.EINVAL},
		{"inet6 mapped", add("::ffff:10.0.0.1", 128, ""), syscall.EINVAL},
		{"inet6 /129", add("2001:db8::1", 129, ""), syscall.EINVAL},
		{"remove nothing", func() error { return c.RemoveAddress(RemoveAddressRequest{Name: "ipsec0"}) }, syscall.EINVAL},
	} {
		h.last = nil
		err := q.send()
		if !errors.Is(err, q.want) || (err == nil) != (q.want == nil) {
			t.Errorf("%s: %v, want %v", q.what, err, q.want)
		}
		if (h.last != nil) != (q.want == nil) {
			t.Errorf("%s: the handler got %#v", q.what, h.last)
		}
	}
}

// raw connects and sends bytes.
func raw(t *testing.T, path string, send string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(send)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	path := start(t, h, nil)
	for name, q := range map[string]struct {
		send  string
		want  syscall.Errno
		close bool
	}{
		"not JSON":           {"hello\n", syscall.EBADMSG, false},
		"empty line":         {"\n", syscall.EBADMSG, false},
		"two values":         {`{"op":"interfaces","args":{}} {}` + "\n", syscall.EBADMSG, false},
		"unknown operation":  {`{"op":"reboot","args":{}}` + "\n", syscall.EOPNOTSUPP, false},
		"unknown field":      {`{"op":"set_up","args":{"name":"a","loud":true}}` + "\n", syscall.EBADMSG, false},
		"no arguments":       {`{"op":"set_up"}` + "\n", syscall.EBADMSG, false},
		"arguments of types": {`{"op":"set_reqid","args":{"name":"a","reqid":-1}}` + "\n", syscall.EBADMSG, false},
		"no address":         {`{"op":"set_tunnel","args":{"name":"a","src":"x","dst":"y"}}` + "\n", syscall.EBADMSG, false},
		"oversized":          {strings.Repeat("x", maxRequest+1), syscall.EMSGSIZE, true},
		"oversized line":     {strings.Repeat("x", maxRequest) + "\n", syscall.EMSGSIZE, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, r := raw(t, path, q.send)
			line, err := r.ReadBytes('\n')
			var got response
			if err == nil {
				err = json.Unmarshal(line, &got)
			}
			if err != nil || got.Errno != q.want || got.Message == "" {
				t.Fatalf("answer %q (%v), want %v with a message", line, err, q.want)
			}
			if q.close {
				// Unread input turns the end into a reset.
				if _, err := r.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the connection is open: %v", err)
				}
				return
			}
			if _, err := io.WriteString(conn, `{"op":"interfaces","args":{}}`+"\n"); err != nil {
				t.Fatal(err)
			}
			if line, err = r.ReadBytes('\n'); err != nil || strings.Contains(string(line), "errno") {
				t.Errorf("next request: %q, %v", line, err)
			}
		})
	}
}

func TestLongestRequestIsTaken(t *testing.T) {
	t.Parallel()
	q := `{"op":"interfaces","args":{}}`
	q += strings.Repeat(" ", maxRequest-len(q)-1) + "\n"
	_, r := raw(t, start(t, &recorder{}, nil), q)
	if line, err := r.ReadString('\n'); err != nil || strings.Contains(line, "errno") {
		t.Errorf("answer %q, %v", line, err)
	}
}

func TestHalfARequestDoesNothing(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	conn, r := raw(t, start(t, h, nil), `{"op":"destroy","args":{"name":"ipsec0"}}`)
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("answer %q, %v, want none", line, err)
	}
	if h.last != nil {
		t.Errorf("the handler got %#v", h.last)
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	path := start(t, &recorder{}, func(s *server) { s.idleTimeout = 20 * time.Millisecond })
	_, r := raw(t, path, `{"op":"inter`)
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read = %v, want the end", err)
	}
}

func TestOneUserCannotTakeAllConnections(t *testing.T) {
	t.Parallel()
	uid := make(chan uint32, 10)
	path := start(t, &recorder{}, func(s *server) {
		s.users.Each = 2
		s.credentials = func(*net.UnixConn) (*unix.Ucred, error) { return &unix.Ucred{Uid: <-uid}, nil }
	})
	connect := func(as uint32) (*Client, error) {
		uid <- as
		c := dial(t, path)
		_, err := c.Interfaces(InterfacesRequest{})
		return c, err
	}
	first, err := connect(4711)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(4711); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(4711); err == nil {
		t.Error("a third connection was served")
	}
	for _, other := range []uint32{4712, 0} {
		if _, err := connect(other); err != nil {
			t.Errorf("user %d: %v", other, err)
		}
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := connect(4711); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after one ended: %v", err)
		}
	}
}

// A process that connects ten thousand times is refused, in words, and the
// daemon is there for others all the time.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	const flooder, other = 100, 200
	pid := make(chan int32)
	path := start(t, &recorder{}, func(s *server) {
		s.processes.Each = 4
		s.credentials = func(*net.UnixConn) (*unix.Ucred, error) { return &unix.Ucred{Pid: <-pid}, nil }
	})
	ask := func(c *Client) error {
		_, err := c.Interfaces(InterfacesRequest{})
		return err
	}
	var open [100]*Client
	for i := range 10_000 {
		c, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		pid <- flooder
		if old := open[i%len(open)]; old != nil {
			old.Close()
		}
		open[i%len(open)] = c
		if i%1000 != 0 {
			continue
		}
		c = dial(t, path)
		pid <- other
		if err := ask(c); err != nil {
			t.Fatalf("after %d connections another process is told: %v", i, err)
		}
		c.Close()
	}
	served := 0
	for _, c := range open {
		var refused *Error
		if err := ask(c); err == nil {
			served++
		} else if errors.As(err, &refused) && (refused.Errno != syscall.EUSERS || refused.Message != "process 100 has 4 connections") {
			t.Errorf("refused with %v", refused)
		}
		defer c.Close()
	}
	if served > 4 {
		t.Errorf("%d connections of one process were served, want 4 at most", served)
	}
}

// A client that asks and never reads loses its connection, and with it what the
// daemon keeps for it.
func TestClientThatNeverReads(t *testing.T) {
	t.Parallel()
	status := InterfacesResult{Interfaces: []Interface{{Description: strings.Repeat("x", 8<<20)}}}
	path := start(t, &recorder{status: status}, func(s *server) { s.idleTimeout = 50 * time.Millisecond })
	conn, _ := raw(t, path, strings.Repeat(`{"op":"interfaces","args":{}}`+"\n", 100))
	if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := conn.Write([]byte("{}\n")); err != nil {
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write = %v, want that the connection is gone", err)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// A client that asks for much and reads nothing does not hold up the end.
func TestServeEndsInSpiteOfASlowReader(t *testing.T) {
	t.Parallel()
	status := InterfacesResult{Interfaces: []Interface{{Description: strings.Repeat("x", 8<<20)}}}
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, &recorder{status: status}, slog.New(slog.DiscardHandler)) }()
	_, r := raw(t, path, `{"op":"interfaces","args":{}}`+"\n")
	if _, err := r.ReadByte(); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve = %v", err)
		}
	case <-time.After(20 * partingTimeout):
		t.Error("Serve still waits for the reader")
	}
}

func TestSocketIsForEverybody(t *testing.T) {
	t.Parallel()
	st, err := os.Stat(start(t, &recorder{}, nil))
	if err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v, want 0666", st.Mode(), err)
	}
}

func TestDialSaysThatNobodyListens(t *testing.T) {
	t.Parallel()
	if _, err := Dial(filepath.Join(t.TempDir(), "none")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Dial = %v, want ENOENT", err)
	}
}

func TestServeKnowsItsPeer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	h := &recorder{}
	go func() { done <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	c := dial(t, path)
	// This process is the daemon's user.
	if err := c.SetUp(SetUpRequest{Name: "ipsec0", Up: true}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestFlagsAreWrittenAsIfconfigDoes(t *testing.T) {
	t.Parallel()
	all := FlagUp | FlagPointToPoint | FlagRunning | FlagMulticast
	if got, want := all.String(), "8051<UP,POINTOPOINT,RUNNING,MULTICAST>"; got != want {
		t.Errorf("flags = %s, want %s", got, want)
	}
	if got, want := ND6Default.String(), "21<PERFORMNUD,AUTO_LINKLOCAL>"; got != want {
		t.Errorf("nd6 options = %s, want %s", got, want)
	}
	if got, want := Flags(0).String(), "0<>"; got != want {
		t.Errorf("no flags = %s, want %s", got, want)
	}
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	h := &recorder{}
	c := dial(t, start(t, h, nil))
	got, err := c.Sysctls(SysctlsRequest{})
	if diff := cmp.Diff(SysctlsResult{Variables: []Sysctl{{"net.key.x", 7}}}, got); err != nil || diff != "" {
		t.Errorf("%v; variables (-want +got):\n%s", err, diff)
	}
	q := SetSysctlRequest{Name: "net.key.x", Value: -1}
	if old, err := c.SetSysctl(q); err != nil || old.Old != 7 || h.last != q {
		t.Errorf("set: %v, %v; the handler got %#v", old, err, h.last)
	}
}
