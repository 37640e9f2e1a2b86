package text_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/pfkey/text"

	"github.com/google/go-cmp/cmp"
)

// dump is a line of dumps.jsonl: what FreeBSD's setkey printed of entries that
// are given in words, one a line.
type dump struct {
	ID      string   `json:"id"`
	What    string   `json:"what"`
	Args    string   `json:"args"`
	Entries []string `json:"entries"`
	Output  string   `json:"output"` // FreeBSD 14
}

// The dumps were made at this time, with these interfaces.
var (
	clock      = time.Unix(1700000000, 0).UTC()
	interfaces = map[uint32]string{1: "em0", 2: "em1", 3: "lo0", 4: "ipsec0", 5: "ipsec1", 6: "gif0", 7: "vtnet0", 8: "ix0"}
	printer    = text.Printer{Now: clock, Interface: func(i uint32) string { return interfaces[i] }}
)

func TestDumpsOfFreeBSD(t *testing.T) {
	t.Parallel()
	for _, d := range readDumps(t, "../../../testdata/setkey/dumps.jsonl") {
		t.Run(d.ID, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if d.Args == "-Dl" {
				out.WriteString(text.ShortHeader)
			}
			for i, m := range messagesOf(t, d.Entries) {
				// setkey sees what went over the wire.
				raw, err := m.Encode()
				if err != nil {
					t.Fatal(err)
				}
				if m, err = pfkey.Decode(raw); err != nil {
					t.Fatal(err)
				}
				show := printer.SADump
				switch {
				case strings.HasPrefix(d.Entries[i], "sp "):
					show = printer.PolicyDump
				case d.Args == "-Dl":
					show = printer.ShortDump
				}
				if err := show(&out, m); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(d.Output, out.String()); diff != "" {
				t.Errorf("%s (-FreeBSD +here):\n%s", d.What, diff)
			}
		})
	}
}

func readDumps(t *testing.T, path string) []dump {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var dumps []dump
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var d dump
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		dumps = append(dumps, d)
	}
	if len(dumps) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return dumps
}

// messagesOf makes the answers to a dump: each database counts down to 0.
func messagesOf(t *testing.T, entries []string) []*pfkey.Message {
	t.Helper()
	var messages []*pfkey.Message
	left := map[pfkey.MsgType]uint32{}
	for _, line := range entries {
		kind, rest, _ := strings.Cut(line, " ")
		e := entry{t: t, words: map[string][]string{}}
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			e.words[key] = append(e.words[key], value)
		}
		m := &pfkey.Message{PID: 1234, Reserved: 1}
		switch kind {
		case "sa":
			e.sa(m)
		case "sp":
			e.policy(m)
		default:
			t.Fatalf("entry %q", line)
		}
		left[m.Type]++
		messages = append(messages, m)
	}
	for _, m := range messages {
		left[m.Type]--
		m.Seq = left[m.Type]
	}
	return messages
}

type entry struct {
	t     *testing.T
	words map[string][]string
}

func (e entry) text(key, otherwise string) string {
	if v := e.words[key]; len(v) > 0 {
		return v[0]
	}
	return otherwise
}

func (e entry) has(key string) bool { return len(e.words[key]) > 0 }

func (e entry) number(key string, otherwise uint64) uint64 {
	if !e.has(key) {
		return otherwise
	}
	return e.parse(e.text(key, ""))
}

func (e entry) parse(s string) uint64 {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

// oneOf finds the value that has this name.
func oneOf[T interface {
	~uint8 | ~uint16
	fmt.Stringer
}](e entry, name string) T {
	for i := range 100 {
		if n := T(i); n.String() == name {
			return n
		}
	}
	e.t.Fatalf("nothing is called %q", name)
	return 0
}

func (e entry) address(kind pfkey.ExtType, key, prefix, port string, proto uint8) *pfkey.Address {
	a, err := netip.ParseAddr(e.text(key, ""))
	if err != nil {
		e.t.Fatal(err)
	}
	return &pfkey.Address{
		Kind: kind, Proto: proto, PrefixLen: uint8(e.number(prefix, uint64(a.BitLen()))),
		Addr: netip.AddrPortFrom(a, uint16(e.number(port, 0))),
	}
}

func (e entry) sa(m *pfkey.Message) {
	m.Type = pfkey.TypeDump
	m.SAType = oneOf[pfkey.SAType](e, e.text("satype", ""))
	m.Exts = append(m.Exts,
		&pfkey.SA{
			SPI: uint32(e.number("spi", 0)), Replay: uint8(e.number("replay", 0)),
			State: oneOf[pfkey.SAState](e, e.text("state", "mature")),
			Auth:  uint8(e.number("auth", 0)), Encrypt: uint8(e.number("enc", 0)),
			Flags: pfkey.SAFlags(e.number("flags", uint64(pfkey.SAFlagCyclic))),
		},
		&pfkey.SA2{Mode: oneOf[pfkey.Mode](e, e.text("mode", "any")), ReqID: uint32(e.number("reqid", 0))},
		e.address(pfkey.ExtAddressSrc, "src", "splen", "sport", pfkey.ProtoAny),
		e.address(pfkey.ExtAddressDst, "dst", "dplen", "dport", pfkey.ProtoAny),
	)
	e.key(m, pfkey.ExtKeyAuth, "akey")
	e.key(m, pfkey.ExtKeyEncrypt, "ekey")
	e.lifetimes(m)
	if e.has("bigreplay") { // in bytes of bitmap, as it is printed
		m.Exts = append(m.Exts, &pfkey.SAReplay{Packets: uint32(e.number("bigreplay", 0)) * 8})
	}
	if e.has("natt") {
		m.Exts = append(m.Exts,
			&pfkey.NATTType{Type: uint8(e.number("natt", 0))},
			&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: uint16(e.number("natsport", 0))},
			&pfkey.NATTPort{Kind: pfkey.ExtNATTDport, Port: uint16(e.number("natdport", 0))},
		)
	}
	if e.has("oai") {
		m.Exts = append(m.Exts, e.address(pfkey.ExtNATTOAI, "oai", "", "", 0))
	}
	if e.has("oar") {
		m.Exts = append(m.Exts, e.address(pfkey.ExtNATTOAR, "oar", "", "", 0))
	}
}

func (e entry) key(m *pfkey.Message, kind pfkey.ExtType, key string) {
	if !e.has(key) {
		return
	}
	k, err := hex.DecodeString(e.text(key, ""))
	if err != nil {
		e.t.Fatal(err)
	}
	m.Exts = append(m.Exts, &pfkey.Key{Kind: kind, Bits: len(k) * 8, Key: k})
}

func (e entry) lifetimes(m *pfkey.Message) {
	for key, kind := range map[string]pfkey.ExtType{
		"current": pfkey.ExtLifetimeCurrent, "hard": pfkey.ExtLifetimeHard, "soft": pfkey.ExtLifetimeSoft,
	} {
		if e.has(key) {
			n := strings.Split(e.text(key, ""), ",")
			m.Exts = append(m.Exts, &pfkey.Lifetime{
				Kind: kind, Allocations: uint32(e.parse(n[0])), Bytes: e.parse(n[1]), AddTime: e.parse(n[2]), UseTime: e.parse(n[3]),
			})
		}
	}
}

func (e entry) policy(m *pfkey.Message) {
	m.Type = pfkey.TypeSPDDump
	proto := uint8(e.number("proto", pfkey.ProtoAny))
	policy := &pfkey.Policy{
		Type: oneOf[pfkey.PolicyType](e, e.text("type", "")), Dir: oneOf[pfkey.Direction](e, e.text("dir", "")),
		Scope: pfkey.Scope(e.number("scope", uint64(pfkey.ScopeGlobal))),
		ID:    uint32(e.number("spid", 0)), Priority: uint32(e.number("ifindex", 0)),
	}
	for _, words := range e.words["req"] {
		policy.Requests = append(policy.Requests, e.request(words))
	}
	m.Exts = append(m.Exts, policy,
		e.address(pfkey.ExtAddressSrc, "src", "splen", "sport", proto),
		e.address(pfkey.ExtAddressDst, "dst", "dplen", "dport", proto),
	)
	e.lifetimes(m)
}

// request reads protocol/mode/source-destination/level/reqid.
func (e entry) request(words string) pfkey.Request {
	part := strings.Split(words, "/")
	r := pfkey.Request{
		Proto: map[string]uint16{"esp": 50, "ah": 51, "ipcomp": 108}[part[0]],
		Mode:  oneOf[pfkey.Mode](e, part[1]),
		Level: oneOf[pfkey.Level](e, part[3]),
	}
	if src, dst, ok := strings.Cut(part[2], "-"); ok {
		r.Src = netip.AddrPortFrom(netip.MustParseAddr(src), 0)
		r.Dst = netip.AddrPortFrom(netip.MustParseAddr(dst), 0)
	}
	if len(part) > 4 {
		r.ReqID = uint32(e.parse(part[4]))
	}
	return r
}
