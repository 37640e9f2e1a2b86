package pfkey

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// wire turns hexadecimal text with spaces, line ends and # comments into bytes.
// The messages below are those of a little-endian machine.
func wire(t testing.TB, text string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes of this test are little-endian")
	}
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// messages are laid out by hand from RFC 2367 and struct sadb_x_* of
// linux/pfkeyv2.h.
var messages = []struct {
	name string
	wire string
	want *Message
}{
	{
		name: "flush",
		wire: `02 09 00 03 02 00 00 00  01 00 00 00 d2 04 00 00`,
		want: &Message{Type: TypeFlush, SAType: SATypeESP, Seq: 1, PID: 1234},
	},
	{
		name: "dump refused",
		wire: `02 0a 02 00 02 00 00 00  00 00 00 00 d2 04 00 00`,
		want: &Message{Type: TypeDump, Errno: 2, PID: 1234},
	},
	{
		name: "add",
		wire: `02 03 00 03 18 00 01 00  07 00 00 00 d2 04 00 00 # 24 units
			02 00 01 00  00 00 27 10  04 01 03 0c  40 00 00 00 # SA
			02 00 13 00  02 00 00 00  05 00 00 00  64 00 00 00 # SA2
			03 00 05 00  ff 20 00 00  02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00
			03 00 06 00  ff 20 00 00  02 00 11 94 c0 a8 00 05 00 00 00 00 00 00 00 00
			03 00 09 00  80 00 00 00  56 65 72 79 53 65 63 75 72 65 4b 65 79 21 21 31
			04 00 08 00  a0 00 00 00  01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 00 00 00 00
			04 00 03 00  01 00 00 00  02 00 00 00 00 00 00 00  10 0e 00 00 00 00 00 00  00 00 00 00 01 00 00 00
			01 00 5a 00  00 80 00 00 # SA_REPLAY`,
		want: &Message{Type: TypeAdd, SAType: SATypeESP, Reserved: 1, Seq: 7, PID: 1234, Exts: []Extension{
			&SA{SPI: 10000, Replay: 4, State: StateMature, Auth: 3, Encrypt: 12, Flags: SAFlagCyclic},
			&SA2{Mode: ModeTunnel, Sequence: 5, ReqID: 100},
			&Address{Kind: ExtAddressSrc, Proto: ProtoAny, PrefixLen: 32, Addr: addrPort("192.168.0.3:0")},
			&Address{Kind: ExtAddressDst, Proto: ProtoAny, PrefixLen: 32, Addr: addrPort("192.168.0.5:4500")},
			&Key{Kind: ExtKeyEncrypt, Bits: 128, Key: []byte("VerySecureKey!!1")},
			&Key{Kind: ExtKeyAuth, Bits: 160, Key: []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14")},
			&Lifetime{Kind: ExtLifetimeHard, Allocations: 1, Bytes: 2, AddTime: 3600, UseTime: 1 << 32},
			&SAReplay{Packets: 32768},
		}},
	},
	{
		name: "add with NAT traversal over IPv6",
		wire: `02 03 00 03 1b 00 00 00  00 00 00 00 00 00 00 00
			01 00 14 00  02 00 00 00
			01 00 15 00  11 94 00 00
			01 00 16 00  30 39 00 00
			05 00 17 00  00 80 00 00  0a 00 00 00 00 00 00 00
				20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00
			05 00 58 00  00 80 00 00  0a 00 00 00 00 00 00 00
				fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 02 05 00 00 00 00 00 00 00
			01 00 59 00  dc 05 00 00
			05 00 1f 00  00 00 00 00  65 6d 30 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
			03 00 1b 00  00 20 00 00  02 00 00 00 0a 00 00 01 00 00 00 00 00 00 00 00
			03 00 1c 00  00 20 00 00  02 00 00 00 0a 00 00 02 00 00 00 00 00 00 00 00`,
		want: &Message{Type: TypeAdd, SAType: SATypeESP, Exts: []Extension{
			&NATTType{Type: EncapESPInUDP},
			&NATTPort{Kind: ExtNATTSport, Port: 4500},
			&NATTPort{Kind: ExtNATTDport, Port: 12345},
			&Address{Kind: ExtNATTOAI, PrefixLen: 128, Addr: addrPort("[2001:db8::1]:0")},
			&Address{Kind: ExtNATTOAR, PrefixLen: 128, Addr: addrPort("[fe80::2%5]:0")},
			&NATTFrag{Size: 1500},
			&HWIF{Name: "em0"},
			&Address{Kind: ExtNewAddressSrc, PrefixLen: 32, Addr: addrPort("10.0.0.1:0")},
			&Address{Kind: ExtNewAddressDst, PrefixLen: 32, Addr: addrPort("10.0.0.2:0")},
		}},
	},
	{
		name: "spddump",
		wire: `02 12 00 00 1b 00 00 00  00 00 00 00 00 00 00 00
			03 00 05 00  ff 18 00 00  02 00 00 00 c0 00 02 00 00 00 00 00 00 00 00 00
			03 00 06 00  ff 00 00 00  02 00 00 35 00 00 00 00 00 00 00 00 00 00 00 00
			13 00 12 00  02 00 02 01  09 00 00 00  00 00 00 80
				30 00 32 00 02 03 00 00 64 00 00 00 00 00 00 00
				02 00 00 00 c6 33 64 02 00 00 00 00 00 00 00 00
				02 00 11 94 c6 33 64 06 00 00 00 00 00 00 00 00
				10 00 33 00 01 02 00 00 00 00 00 00 00 00 00 00
				48 00 6c 00 02 01 00 00 01 00 00 00 00 00 00 00
				0a 00 00 00 00 00 00 00 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00
				0a 00 00 00 00 00 00 00 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00`,
		want: &Message{Type: TypeSPDDump, Exts: []Extension{
			&Address{Kind: ExtAddressSrc, Proto: ProtoAny, PrefixLen: 24, Addr: addrPort("192.0.2.0:0")},
			&Address{Kind: ExtAddressDst, Proto: ProtoAny, Addr: addrPort("0.0.0.0:53")},
			&Policy{Type: PolicyIPsec, Dir: DirOut, Scope: ScopeGlobal, ID: 9, Priority: 1 << 31, Requests: []Request{
				{Proto: 50, Mode: ModeTunnel, Level: LevelUnique, ReqID: 100, Src: addrPort("198.51.100.2:0"), Dst: addrPort("198.51.100.6:4500")},
				{Proto: 51, Mode: ModeTransport, Level: LevelRequire},
				{Proto: 108, Mode: ModeTunnel, Level: LevelUse, ReqID: 1, Src: addrPort("[2001:db8::1]:0"), Dst: addrPort("[2001:db8::2]:0")},
			}},
		}},
	},
	{
		name: "register answered",
		wire: `02 07 00 03 07 00 00 00  00 00 00 00 00 00 00 00
			02 00 0e 00  00 00 00 00  03 00 a0 00 a0 00 00 00
			03 00 0f 00  00 00 00 00  0c 10 80 00 00 01 00 00  14 08 80 00 00 01 00 00`,
		want: &Message{Type: TypeRegister, SAType: SATypeESP, Exts: []Extension{
			&Supported{Kind: ExtSupportedAuth, Algorithms: []SupportedAlgorithm{{ID: 3, MinBits: 160, MaxBits: 160}}},
			&Supported{Kind: ExtSupportedEncrypt, Algorithms: []SupportedAlgorithm{
				{ID: 12, IVLen: 16, MinBits: 128, MaxBits: 256}, {ID: 20, IVLen: 8, MinBits: 128, MaxBits: 256},
			}},
		}},
	},
	{
		name: "acquire",
		wire: `02 06 00 03 13 00 00 00  09 00 00 00 00 00 00 00
			0a 00 0d 00  20 00 00 00
				05 0c 01 00 00 01 00 02 80 00 00 01 00 00 00 00
				03 00 00 00 04 00 00 00  05 00 00 00 00 00 00 00  06 00 00 00 00 00 00 00
				07 00 00 00 00 00 00 00  08 00 00 00 00 00 00 00
				09 00 00 00 00 00 00 00  0a 00 00 00 00 00 00 00
			04 00 0a 00  02 00 00 00  2a 00 00 00 00 00 00 00  67 77 2e 65 78 61 6d 70 6c 65 2e 63 6f 6d 00 00
			01 00 11 00  00 00 00 00
			02 00 10 00  00 01 00 00  ff ff ff ff 00 00 00 00`,
		want: &Message{Type: TypeAcquire, SAType: SATypeESP, Seq: 9, Exts: []Extension{
			&Proposal{Replay: 32, Combs: []Comb{{
				Auth: 5, Encrypt: 12, Flags: 1, AuthMinBits: 256, AuthMaxBits: 512, EncryptMinBits: 128, EncryptMaxBits: 256,
				SoftAllocations: 3, HardAllocations: 4, SoftBytes: 5, HardBytes: 6,
				SoftAddTime: 7, HardAddTime: 8, SoftUseTime: 9, HardUseTime: 10,
			}}},
			&Identity{Kind: ExtIdentitySrc, Type: 2, ID: 42, Name: "gw.example.com"},
			&Unknown{Kind: ExtKMPrivate, Body: make([]byte, 4)},
			&SPIRange{Min: 256, Max: 1<<32 - 1},
		}},
	},
	{
		name: "promisc",
		wire: `02 0b 00 01 04 00 00 00  00 00 00 00 d2 04 00 00
			02 09 00 03 02 00 00 00  01 00 00 00 d2 04 00 00`,
		want: &Message{Type: TypePromisc, SAType: 1, PID: 1234, Inner: &Message{Type: TypeFlush, SAType: SATypeESP, Seq: 1, PID: 1234}},
	},
	{
		name: "promisc asked for",
		wire: `02 0b 00 01 02 00 00 00  00 00 00 00 d2 04 00 00`,
		want: &Message{Type: TypePromisc, SAType: 1, PID: 1234},
	},
}

var same = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func TestDecodeAndEncode(t *testing.T) {
	t.Parallel()
	for _, test := range messages {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			raw := wire(t, test.wire)
			got, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, same); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			back, err := test.want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hex.Dump(raw), hex.Dump(back)); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
		})
	}
}

// Each of these is the header of a message of the given type and length, and
// what is wrong after it.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const sa = `02 00 01 00 00 00 27 10 00 00 00 00 00 00 00 00 `
	for _, test := range []struct {
		name, wire, want string
	}{
		{"nothing", ``, "message of 0 bytes"},
		{"half a header", `02 09 00 03 02 00 00 00`, "message of 8 bytes"},
		{"version", `01 09 00 03 02 00 00 00 00 00 00 00 00 00 00 00`, "version 1"},
		{"longer than it says", `02 09 00 03 02 00 00 00 00 00 00 00 00 00 00 00 ` + sa, "message of 32 bytes says that it has 16"},
		{"shorter than it says", `02 09 00 03 03 00 00 00 00 00 00 00 00 00 00 00`, "message of 16 bytes says that it has 24"},
		{"trailing bytes", `02 09 00 03 02 00 00 00 00 00 00 00 00 00 00 00 01`, "message of 17 bytes"},
		{"extension of no length", `02 03 00 03 03 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00`, "SA extension of no length"},
		{"extension too long", `02 03 00 03 03 00 00 00 00 00 00 00 00 00 00 00 02 00 01 00 00 00 00 00`, "SA extension of 16 bytes where 8 are left"},
		{"extension too short", `02 03 00 03 03 00 00 00 00 00 00 00 00 00 00 00 01 00 01 00 00 00 00 00`, "8 bytes, want 16"},
		{"reserved type", `02 03 00 03 03 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00`, "reserved type 0"},
		{"extension twice", `02 03 00 03 06 00 00 00 00 00 00 00 00 00 00 00 ` + sa + sa, "SA extension stands twice"},
		{"unknown extension twice", `02 03 00 03 04 00 00 00 00 00 00 00 00 00 00 00 01 00 ff ff 00 00 00 00 01 00 ff ff 00 00 00 00`, "65535 extension stands twice"},
		{"address without a sockaddr", `02 03 00 03 03 00 00 00 00 00 00 00 00 00 00 00 01 00 05 00 ff 20 00 00`, "no address"},
		{"address of family 0", `02 03 00 03 05 00 00 00 00 00 00 00 00 00 00 00 03 00 05 00 ff 20 00 00 00 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00`, "family 0"},
		{"address of FreeBSD's family 28", `02 03 00 03 05 00 00 00 00 00 00 00 00 00 00 00 03 00 05 00 ff 20 00 00 1c 1c 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00`, "family 7196"},
		{"IPv6 address cut short", `02 03 00 03 05 00 00 00 00 00 00 00 00 00 00 00 03 00 05 00 ff 80 00 00 0a 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`, "16 bytes are too few"},
		{"IPv4 address with bytes after it", `02 03 00 03 06 00 00 00 00 00 00 00 00 00 00 00 04 00 05 00 ff 20 00 00 02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`, "32 bytes, want 24"},
		{"prefix too long", `02 03 00 03 05 00 00 00 00 00 00 00 00 00 00 00 03 00 05 00 ff 21 00 00 02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00`, "prefix of 33 bits"},
		{"key longer than its extension", `02 03 00 03 04 00 00 00 00 00 00 00 00 00 00 00 02 00 09 00 48 00 00 00 00 00 00 00 00 00 00 00`, "16 bytes for a key of 72 bits, want 24"},
		{"key shorter than its extension", `02 03 00 03 04 00 00 00 00 00 00 00 00 00 00 00 02 00 09 00 00 00 00 00 00 00 00 00 00 00 00 00`, "16 bytes for a key of 0 bits, want 8"},
		{"proposal with part of a comb", `02 06 00 03 04 00 00 00 00 00 00 00 00 00 00 00 02 00 0d 00 20 00 00 00 00 00 00 00 00 00 00 00`, "8 bytes left after the last of 0"},
		{"policy too short", `02 0e 00 00 03 00 00 00 00 00 00 00 00 00 00 00 01 00 12 00 02 00 02 00`, "8 bytes, want 16 or more"},
		{"policy with half a request", `02 0e 00 00 05 00 00 00 00 00 00 00 00 00 00 00 03 00 12 00 02 00 02 00 00 00 00 00 00 00 00 00 08 00 32 00 02 02 00 00`, "request 1: 8 bytes are left"},
		{"request of no length", `02 0e 00 00 06 00 00 00 00 00 00 00 00 00 00 00 04 00 12 00 02 00 02 00 00 00 00 00 00 00 00 00 00 00 32 00 02 02 00 00 00 00 00 00 00 00 00 00`, "request 1: length of 0 bytes"},
		{"request longer than the policy", `02 0e 00 00 06 00 00 00 00 00 00 00 00 00 00 00 04 00 12 00 02 00 02 00 00 00 00 00 00 00 00 00 20 00 32 00 02 02 00 00 00 00 00 00 00 00 00 00`, "request 1: length of 32 bytes"},
		{"request with one address", `02 0e 00 00 08 00 00 00 00 00 00 00 00 00 00 00 06 00 12 00 02 00 02 00 00 00 00 00 00 00 00 00
			20 00 32 00 02 02 00 00 00 00 00 00 00 00 00 00 02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00`, "request 1: destination: no address"},
		{"request with bytes after its addresses", `02 0e 00 00 0b 00 00 00 00 00 00 00 00 00 00 00 09 00 12 00 02 00 02 00 00 00 00 00 00 00 00 00
			38 00 32 00 02 02 00 00 00 00 00 00 00 00 00 00 02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00
			02 00 00 00 c0 a8 00 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`, "length of 56 bytes, want 48"},
		{"interface name without an end", `02 03 00 03 07 00 00 00 00 00 00 00 00 00 00 00 05 00 1f 00 00 00 00 00 ` + strings.Repeat("41 ", 32), "without an end"},
		{"promisc in promisc", `02 0b 00 01 06 00 00 00 00 00 00 00 00 00 00 00 02 0b 00 01 04 00 00 00 00 00 00 00 00 00 00 00 02 09 00 03 02 00 00 00 00 00 00 00 00 00 00 00`, "within another's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			raw := wire(t, test.wire)
			m, err := Decode(raw)
			if err == nil {
				t.Fatalf("took %+v", m)
			}
			var errno syscall.Errno
			if !errors.As(err, &errno) || errno != syscall.EINVAL {
				t.Errorf("%v is not EINVAL", err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q in it", err, test.want)
			}
			if whole := len(raw) >= headerLen; whole != (m != nil) || whole && m.Type != MsgType(raw[1]) {
				t.Errorf("header returned with the error: %+v", m)
			}
		})
	}
}

func TestDecodeRefusesTooManyExtensions(t *testing.T) {
	t.Parallel()
	m := &Message{Type: TypeAdd}
	for i := range maxExtensions {
		m.Exts = append(m.Exts, &Unknown{Kind: ExtType(1000 + i), Body: make([]byte, 4)})
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(b); err != nil {
		t.Errorf("%d extensions: %v", maxExtensions, err)
	}
	b = host.AppendUint16(host.AppendUint16(b, 1), 2000)
	b = appendZeros(b, 4)
	host.PutUint16(b[4:], uint16(len(b)/unit))
	if _, err := Decode(b); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("%d extensions: %v", maxExtensions+1, err)
	}
}

// A scope outside the addresses that have one would make two of one address.
func TestDecodeDropsMeaninglessScope(t *testing.T) {
	t.Parallel()
	m, err := Decode(wire(t, `02 05 00 03 07 00 00 00 00 00 00 00 00 00 00 00
		05 00 05 00 ff 80 00 00 0a 00 00 00 00 00 00 00 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 05 00 00 00 00 00 00 00`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Src().Addr.Addr(), netip.MustParseAddr("2001:db8::1"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecodeKeepsNothingOfItsInput(t *testing.T) {
	t.Parallel()
	b := wire(t, messages[2].wire)
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if diff := cmp.Diff(messages[2].want, m, same); diff != "" {
		t.Errorf("after the buffer was cleared (-want +got):\n%s", diff)
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	v4, v6 := addrPort("192.0.2.1:0"), addrPort("[2001:db8::1]:0")
	one := func(e Extension) *Message { return &Message{Type: TypeAdd, Exts: []Extension{e}} }
	for _, test := range []struct {
		name string
		m    *Message
		want string
	}{
		{"extension twice", &Message{Exts: []Extension{&SA{}, &SA{}}}, "stands twice"},
		{"address that is none", one(&Address{Kind: ExtAddressSrc}), "no address"},
		{"address of a kind that is none", one(&Address{Kind: ExtSA, Addr: v4}), "not what it holds"},
		{"prefix too long", one(&Address{Kind: ExtAddressSrc, Addr: v4, PrefixLen: 33}), "prefix of 33 bits"},
		{"zone by name", one(&Address{Kind: ExtAddressSrc, Addr: addrPort("[fe80::1%eth0]:0")}), "zone of fe80::1%eth0"},
		{"zone where there is none", one(&Address{Kind: ExtAddressSrc, Addr: addrPort("[2001:db8::1%2]:0")}), "zone of"},
		{"key too short", one(&Key{Kind: ExtKeyAuth, Bits: 128, Key: make([]byte, 15)}), "key of 15 bytes for 128 bits"},
		{"key too long", one(&Key{Kind: ExtKeyAuth, Bits: 1 << 16, Key: make([]byte, 1<<13)}), "65536 bits"},
		{"unknown that does not fill its units", one(&Unknown{Kind: 99, Body: make([]byte, 5)}), "body of 5 bytes"},
		{"unknown that is known", one(&Unknown{Kind: ExtSA, Body: make([]byte, 12)}), "not what it holds"},
		{"request of two families", one(&Policy{Requests: []Request{{Src: v4, Dst: v6}}}), "request 1: 192.0.2.1 and 2001:db8::1"},
		{"request with one address", one(&Policy{Requests: []Request{{Src: v4}}}), "request 1: 192.0.2.1 and"},
		{"interface name too long", one(&HWIF{Name: strings.Repeat("a", 32)}), "interface name"},
		{"extension too long", one(&Identity{Kind: ExtIdentitySrc, Name: strings.Repeat("a", 1<<19)}), "the most is 524280"},
		{"message too long", &Message{Exts: []Extension{
			&Identity{Kind: ExtIdentitySrc, Name: strings.Repeat("a", 1<<18)}, &Identity{Kind: ExtIdentityDst, Name: strings.Repeat("a", 1<<18)},
		}}, "the most is 524280"},
		{"message in another type", &Message{Type: TypeAdd, Inner: &Message{}}, "only X_PROMISC"},
		{"message beside extensions", &Message{Type: TypePromisc, Exts: []Extension{&SA{}}, Inner: &Message{}}, "beside"},
		{"message in a message in a message", &Message{Type: TypePromisc, Inner: &Message{Type: TypePromisc, Inner: &Message{}}}, "within another's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, err := test.m.Encode()
			if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %x, %v, want EINVAL with %q in it", b, err, test.want)
			}
		})
	}
}

func TestAccessors(t *testing.T) {
	t.Parallel()
	add, err := Decode(wire(t, messages[2].wire))
	if err != nil {
		t.Fatal(err)
	}
	if got := add.Src().Addr; got != addrPort("192.168.0.3:0") {
		t.Errorf("source %s", got)
	}
	if got := add.Dst().Addr; got != addrPort("192.168.0.5:4500") {
		t.Errorf("destination %s", got)
	}
	if a, e := add.KeyAuth().Bits, add.KeyEncrypt().Bits; a != 160 || e != 128 {
		t.Errorf("keys of %d and %d bits", a, e)
	}
	if got := add.Hard().AddTime; got != 3600 {
		t.Errorf("hard lifetime of %d s", got)
	}
	if add.Soft() != nil || add.Current() != nil || add.NATTOAI() != nil || add.NATTSport() != nil {
		t.Error("found what is not there")
	}
	if got := Find[*SA2](add).ReqID; got != 100 {
		t.Errorf("reqid %d", got)
	}
	if Find[*Policy](add) != nil {
		t.Error("found a policy that is not there")
	}
}

func TestReplayWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		packets uint32
		replay  uint8
		big     bool
		back    uint32
	}{
		{0, 0, false, 0},
		{1, 1, false, 8},
		{64, 8, false, 64},
		{2040, 255, false, 2040},
		{2041, 255, true, 2041},
		{1<<32 - 1, 255, true, 1<<32 - 1},
	} {
		replay, big := ReplayWindow(test.packets)
		if replay != test.replay || (big != nil) != test.big {
			t.Errorf("%d packets: got %d, %v", test.packets, replay, big)
		}
		m := &Message{Exts: []Extension{&SA{Replay: replay}}}
		if big != nil {
			m.Exts = append(m.Exts, big)
		}
		if got := m.ReplayPackets(); got != test.back {
			t.Errorf("%d packets came back as %d", test.packets, got)
		}
	}
	if got := (&Message{}).ReplayPackets(); got != 0 {
		t.Errorf("a message without an SA has a window of %d", got)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ got, want string }{
		{TypeAdd.String(), "ADD"}, {TypeSPDAdd.String(), "X_SPDADD"}, {MsgType(99).String(), "99"},
		{SATypeTCPSignature.String(), "tcp"}, {StateDying.String(), "dying"}, {ModeTunnel.String(), "tunnel"},
		{PolicyIPsec.String(), "ipsec"}, {DirOut.String(), "out"}, {ScopeIfnet.String(), "ifnet"},
		{LevelUnique.String(), "unique"}, {ExtSAReplay.String(), "X_SA_REPLAY"}, {ExtType(1000).String(), "1000"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// Whatever decodes, encodes again, and to what decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		f.Add(wire(f, m.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) {
				t.Fatalf("%v is not EINVAL", err)
			}
			return
		}
		first, err := m.Encode()
		if err != nil {
			t.Fatalf("does not encode: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("does not decode again: %v", err)
		}
		if diff := cmp.Diff(m, again, same); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		second, err := again.Encode()
		if err != nil || string(first) != string(second) {
			t.Fatalf("%x became %x, %v", first, second, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := wire(b, messages[2].wire)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m := messages[2].want
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
