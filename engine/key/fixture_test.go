package key_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/key"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

var (
	hostA = netip.MustParseAddr("192.0.2.1")
	hostB = netip.MustParseAddr("192.0.2.2")
	hostC = netip.MustParseAddr("192.0.2.3")
	host6 = netip.MustParseAddr("2001:db8::1")
)

// fixture is a handler with its databases and a clock that tests move.
type fixture struct {
	*key.Handler
	sad *sad.DB
	spd *spd.DB
	now time.Time
	log bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{now: time.Unix(1700000000, 0)}
	now := func() time.Time { return f.now }
	f.sad = sad.New(sad.Config{Now: now})
	f.spd = spd.New(spd.Config{Now: now})
	f.Handler = key.New(key.Config{SAD: f.sad, SPD: f.spd, Now: now, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	return f
}

// socket is a session and what it heard.
type socket struct {
	t *testing.T
	*key.Session
	heard []*pfkey.Message
}

func (f *fixture) open(t *testing.T) *socket {
	t.Helper()
	s := &socket{t: t}
	s.Session = f.Open(func(m *pfkey.Message) {
		if _, err := m.Encode(); err != nil {
			t.Errorf("heard what cannot be sent: %v", err)
		}
		s.heard = append(s.heard, m)
	})
	return s
}

// take returns what was heard since the last time.
func (s *socket) take() []*pfkey.Message {
	heard := s.heard
	s.heard = nil
	return heard
}

// all sends a message as it would come off the wire and returns the answers.
func (s *socket) all(m *pfkey.Message) []*pfkey.Message {
	s.t.Helper()
	b, err := m.Encode()
	if err != nil {
		s.t.Fatalf("the test's message: %v", err)
	}
	if m, err = pfkey.Decode(b); err != nil {
		s.t.Fatalf("the test's message: %v", err)
	}
	answers := slices.Collect(s.Handle(m))
	for _, a := range answers {
		if _, err := a.Encode(); err != nil {
			s.t.Errorf("answer that cannot be sent: %v", err)
		}
	}
	return answers
}

// one sends a message that is to have one answer.
func (s *socket) one(m *pfkey.Message) *pfkey.Message {
	s.t.Helper()
	answers := s.all(m)
	if len(answers) != 1 {
		s.t.Fatalf("%v: %d answers, want 1", m.Type, len(answers))
	}
	return answers[0]
}

// ok sends a message that is to succeed.
func (s *socket) ok(m *pfkey.Message) *pfkey.Message {
	s.t.Helper()
	a := s.one(m)
	if a.Errno != 0 {
		s.t.Fatalf("%v: %v", m.Type, syscall.Errno(a.Errno))
	}
	return a
}

// fails sends a message that is to fail.
func (s *socket) fails(m *pfkey.Message, want syscall.Errno) {
	s.t.Helper()
	a := s.one(m)
	if syscall.Errno(a.Errno) != want {
		s.t.Errorf("%v: errno %d (%v), want %d (%v)", m.Type, a.Errno, syscall.Errno(a.Errno), want, want)
	}
	if a.Errno == 0 {
		return
	}
	if a.Type != m.Type || a.SAType != m.SAType || a.Seq != m.Seq || a.PID != m.PID || len(a.Exts) != 0 {
		s.t.Errorf("%v: failure %+v is not the request's header", m.Type, a)
	}
}

func message(kind pfkey.MsgType, t pfkey.SAType, exts ...pfkey.Extension) *pfkey.Message {
	return &pfkey.Message{Type: kind, SAType: t, Seq: 7, PID: 1234, Exts: exts}
}

func src(a netip.Addr) *pfkey.Address {
	return address(pfkey.ExtAddressSrc, netip.PrefixFrom(a, a.BitLen()))
}
func dst(a netip.Addr) *pfkey.Address {
	return address(pfkey.ExtAddressDst, netip.PrefixFrom(a, a.BitLen()))
}

func address(kind pfkey.ExtType, p netip.Prefix) *pfkey.Address {
	return &pfkey.Address{
		Kind: kind, Proto: pfkey.ProtoAny, PrefixLen: uint8(p.Bits()), Addr: netip.AddrPortFrom(p.Addr(), 0),
	}
}

func encryptKey(k string) *pfkey.Key {
	return &pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 8 * len(k), Key: []byte(k)}
}

func authKey(k string) *pfkey.Key {
	return &pfkey.Key{Kind: pfkey.ExtKeyAuth, Bits: 8 * len(k), Key: []byte(k)}
}

func lifetime(kind pfkey.ExtType, addTime uint64) *pfkey.Lifetime {
	return &pfkey.Lifetime{Kind: kind, AddTime: addTime}
}

const secret = "VerySecureKey!!1"

// add is the manual page's add, with another SPI and more extensions, which
// take the place of those of the same type.
func add(spi uint32, exts ...pfkey.Extension) *pfkey.Message {
	m := message(pfkey.TypeAdd, pfkey.SATypeESP,
		encryptKey(secret),
		&pfkey.SA{SPI: spi, Encrypt: algorithm.EncryptAESCBC, Flags: pfkey.SAFlagCyclic},
		&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100},
		src(hostA), dst(hostB))
	return with(m, exts...)
}

// with replaces or adds extensions.
func with(m *pfkey.Message, exts ...pfkey.Extension) *pfkey.Message {
	for _, e := range exts {
		m = without(m, e.ExtType())
		m.Exts = append(m.Exts, e)
	}
	return m
}

func without(m *pfkey.Message, kinds ...pfkey.ExtType) *pfkey.Message {
	c := *m
	c.Exts = slices.DeleteFunc(slices.Clone(m.Exts), func(e pfkey.Extension) bool {
		return slices.Contains(kinds, e.ExtType())
	})
	return &c
}

func ofType(m *pfkey.Message, t pfkey.MsgType) *pfkey.Message {
	c := *m
	c.Type = t
	return &c
}

func ofSAType(m *pfkey.Message, t pfkey.SAType) *pfkey.Message {
	c := *m
	c.SAType = t
	return &c
}

// kinds are the types of a message's extensions, in their order.
func kinds(m *pfkey.Message) []pfkey.ExtType {
	var k []pfkey.ExtType
	for _, e := range m.Exts {
		k = append(k, e.ExtType())
	}
	return k
}

func wantKinds(t *testing.T, m *pfkey.Message, want ...pfkey.ExtType) {
	t.Helper()
	if got := kinds(m); !slices.Equal(got, want) {
		t.Errorf("%v message with extensions %v, want %v", m.Type, got, want)
	}
}
