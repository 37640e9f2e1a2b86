package main

import (
	"encoding/hex"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
)

// database answers as the one did from which FreeBSD's setkey had its answers:
// with bare headers, and to questions that there are no entries.
type database struct {
	entries   []*pfkey.Message // of a dump or a get
	errno     syscall.Errno    // of the answer to message number atMessage, which is 1 for the first
	atMessage int

	mu       sync.Mutex
	messages []*pfkey.Message // in the order in which they came
}

// answer takes one message as it came over the wire, and returns the answers.
func (d *database) answer(t *testing.T, raw []byte) [][]byte {
	m, err := pfkey.Decode(raw)
	if err != nil {
		t.Errorf("message % x: %v", raw, err)
		return nil
	}
	d.mu.Lock()
	d.messages = append(d.messages, m)
	n := len(d.messages)
	d.mu.Unlock()

	var answers []*pfkey.Message
	for _, e := range d.entries {
		e.Type = m.Type
		if sa := pfkey.Find[*pfkey.SA](e); (sa != nil) == (m.Type == pfkey.TypeDump || m.Type == pfkey.TypeGet) {
			answers = append(answers, e)
		}
	}
	header := &pfkey.Message{Type: m.Type, SAType: m.SAType, PID: m.PID}
	switch m.Type {
	case pfkey.TypeGet, pfkey.TypeDump, pfkey.TypeSPDDump:
		if len(answers) == 0 {
			header.Errno = uint8(syscall.ENOENT)
			answers = append(answers, header)
		}
	default:
		if n == d.atMessage {
			header.Errno = uint8(d.errno)
		}
		answers = []*pfkey.Message{header}
	}
	var encoded [][]byte
	for _, a := range answers {
		b, err := a.Encode()
		if err != nil {
			t.Errorf("answer to %v: %v", m.Type, err)
			return nil
		}
		encoded = append(encoded, b)
	}
	return encoded
}

// databaseConn is a connection to a database without a socket.
type databaseConn struct {
	t        *testing.T
	database *database
	answers  [][]byte
}

func (c *databaseConn) Send(m *pfkey.Message) error {
	b, err := m.Encode()
	if err == nil {
		c.answers = append(c.answers, c.database.answer(c.t, b)...)
	}
	return err
}

func (c *databaseConn) Receive() (*pfkey.Message, error) {
	if len(c.answers) == 0 {
		return nil, syscall.EPIPE
	}
	b := c.answers[0]
	c.answers = c.answers[1:]
	return pfkey.Decode(b)
}

func (c *databaseConn) SetDeadline(time.Time) error { return nil }

func (c *databaseConn) Close() error { return nil }

const clock = 1700000000

// specimens are what the database holds in some cases.
var specimens = map[string]func() []*pfkey.Message{
	"dump/01.spec": func() []*pfkey.Message {
		m := sa(10000, "192.168.0.3", "192.168.0.5", pfkey.StateMature, 0x40)
		sa2 := pfkey.Find[*pfkey.SA2](m)
		sa2.Mode, sa2.ReqID = pfkey.ModeTunnel, 100
		encrypt(m, 12, "566572795365637572654b6579212131")
		lifetime(m, pfkey.ExtLifetimeCurrent, 12, 1440, clock-60, clock-5)
		return []*pfkey.Message{m}
	},
	"dump/20.spec": func() []*pfkey.Message {
		const gcm = "00112233445566778899aabbccddeeffdeadbeef"
		larval := sa(0x8000, "10.0.0.1", "10.0.0.2", pfkey.StateLarval, 0)
		larval.PID = 77
		lifetime(larval, pfkey.ExtLifetimeCurrent, 0, 0, clock-2, 0)
		lifetime(larval, pfkey.ExtLifetimeHard, 0, 0, 30, 0)
		all := []*pfkey.Message{larval}
		for _, c := range []struct {
			state                     pfkey.SAState
			allocations, bytes        uint64
			created, used, hard, soft uint64
		}{
			{pfkey.StateMature, 12, 1440, clock - 60, clock - 5, 0, 0},
			{pfkey.StateDying, 100, 12000, clock - 2900, clock - 1, 3600, 2880},
			{pfkey.StateDead, 100, 12000, clock - 3700, clock - 200, 3600, 2880},
			{7, 12, 1440, clock - 60, clock - 5, 0, 0},
		} {
			m := sa(0x8000+uint32(len(all)), "192.168.0.3", "192.168.0.5", c.state, 0x40)
			pfkey.Find[*pfkey.SA2](m).Mode = pfkey.ModeTunnel
			if c.state == 7 {
				encrypt(m, 99, gcm)
				pfkey.Find[*pfkey.SA](m).Auth = 99
				m.Exts = append(m.Exts, key(pfkey.ExtKeyAuth, "0102030405060708090a0b0c0d0e0f1011121314"))
			} else {
				encrypt(m, 20, gcm)
			}
			lifetime(m, pfkey.ExtLifetimeCurrent, c.allocations, c.bytes, c.created, c.used)
			if c.hard != 0 {
				lifetime(m, pfkey.ExtLifetimeHard, 0, 0, c.hard, 0)
				lifetime(m, pfkey.ExtLifetimeSoft, 0, 0, c.soft, 0)
			}
			all = append(all, m)
		}
		for i, m := range all {
			m.Seq = uint32(len(all) - 1 - i)
		}
		return all
	},
	"dump/29.spec": func() []*pfkey.Message {
		var all []*pfkey.Message
		for i, p := range []struct {
			id       uint32
			dir      pfkey.Direction
			src, dst string
			prefix   string
		}{
			{1, pfkey.DirIn, "192.168.0.5", "192.168.0.3", "0.0.0.0/0"},
			{3, pfkey.DirIn, "192.168.0.5", "192.168.0.3", "::/0"},
			{2, pfkey.DirOut, "192.168.0.3", "192.168.0.5", "0.0.0.0/0"},
			{4, pfkey.DirOut, "192.168.0.3", "192.168.0.5", "::/0"},
		} {
			any := netip.AddrPortFrom(netip.MustParsePrefix(p.prefix).Addr(), 0)
			all = append(all, &pfkey.Message{PID: 1234, Reserved: 1, Seq: uint32(3 - i), Exts: []pfkey.Extension{
				&pfkey.Policy{
					Type: pfkey.PolicyIPsec, Dir: p.dir, Scope: pfkey.ScopeIfnet, ID: p.id, Priority: 4,
					Requests: []pfkey.Request{{
						Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, ReqID: 100,
						Src: netip.AddrPortFrom(netip.MustParseAddr(p.src), 0),
						Dst: netip.AddrPortFrom(netip.MustParseAddr(p.dst), 0),
					}},
				},
				&pfkey.Address{Kind: pfkey.ExtAddressSrc, Proto: pfkey.ProtoAny, Addr: any},
				&pfkey.Address{Kind: pfkey.ExtAddressDst, Proto: pfkey.ProtoAny, Addr: any},
			}})
		}
		return all
	},
}

func sa(spi uint32, src, dst string, state pfkey.SAState, flags pfkey.SAFlags) *pfkey.Message {
	address := func(kind pfkey.ExtType, text string) *pfkey.Address {
		a := netip.MustParseAddr(text)
		return &pfkey.Address{Kind: kind, Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
	}
	return &pfkey.Message{SAType: pfkey.SATypeESP, PID: 1234, Reserved: 1, Exts: []pfkey.Extension{
		&pfkey.SA{SPI: spi, State: state, Flags: flags},
		&pfkey.SA2{},
		address(pfkey.ExtAddressSrc, src), address(pfkey.ExtAddressDst, dst),
	}}
}

func key(kind pfkey.ExtType, digits string) *pfkey.Key {
	k, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return &pfkey.Key{Kind: kind, Bits: 8 * len(k), Key: k}
}

func encrypt(m *pfkey.Message, id uint8, digits string) {
	pfkey.Find[*pfkey.SA](m).Encrypt = id
	m.Exts = append(m.Exts, key(pfkey.ExtKeyEncrypt, digits))
}

func lifetime(m *pfkey.Message, kind pfkey.ExtType, allocations, bytes, added, used uint64) {
	m.Exts = append(m.Exts, &pfkey.Lifetime{
		Kind: kind, Allocations: uint32(allocations), Bytes: bytes, AddTime: added, UseTime: used,
	})
}
