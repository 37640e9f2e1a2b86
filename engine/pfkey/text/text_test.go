package text_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/pfkey/text"

	"github.com/google/go-cmp/cmp"
)

func address(kind pfkey.ExtType, proto, prefix uint8, addr string) *pfkey.Address {
	return &pfkey.Address{Kind: kind, Proto: proto, PrefixLen: prefix, Addr: netip.MustParseAddrPort(addr)}
}

func expect(t *testing.T, got *strings.Builder, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSADumpOfWhatIsNoSA(t *testing.T) {
	t.Parallel()
	src, dst := address(pfkey.ExtAddressSrc, 255, 32, "10.0.0.1:0"), address(pfkey.ExtAddressDst, 255, 32, "10.0.0.2:0")
	for _, test := range []struct {
		want string
		exts []pfkey.Extension
	}{
		{"no ADDRESS_SRC extension.\n", nil},
		{"10.0.0.1\nno ADDRESS_DST extension.\n", []pfkey.Extension{src}},
		{"10.0.0.1 10.0.0.2\nno SA extension.\n", []pfkey.Extension{src, dst}},
		{"10.0.0.1 10.0.0.2\nno SA2 extension.\n", []pfkey.Extension{src, dst, &pfkey.SA{}}},
	} {
		var b strings.Builder
		err := printer.SADump(&b, &pfkey.Message{Exts: test.exts})
		expect(t, &b, err, test.want)
	}
}

// A larval SA has no lifetimes of its own here, and states, modes and algorithms
// without a name are numbers.
func TestSADumpOfTheUnknown(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := printer.SADump(&b, &pfkey.Message{SAType: pfkey.SATypeESP, Seq: 3, PID: 77, Reserved: 2, Exts: []pfkey.Extension{
		address(pfkey.ExtAddressSrc, 255, 128, "[fe80::1%4]:0"), address(pfkey.ExtAddressDst, 255, 128, "[fe80::2%99]:0"),
		&pfkey.SA{SPI: 0x8004, State: 7, Auth: 99, Encrypt: 0, Flags: 0x40, Replay: 255},
		&pfkey.SA2{Mode: 9, Sequence: 0xab, ReqID: 1},
		&pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 12, Key: []byte{0x12, 0x30}},
		&pfkey.Key{Kind: pfkey.ExtKeyAuth},
	}})
	expect(t, &b, err, `fe80::1%ipsec0 fe80::2%99
	esp mode=9 spi=32772(0x00008004) reqid=1(0x00000001)
	E: none  12
	A: 99 
	seq=0x000000ab replay=255 flags=0x00000040 state=7 
	sadb_seq=3 pid=77 refcnt=2
`)
}

func TestTimesAreLocal(t *testing.T) {
	t.Parallel()
	p := text.Printer{Now: time.Unix(1700000000, 0).In(time.FixedZone("", -9*3600))}
	var b strings.Builder
	err := p.PolicyDump(&b, &pfkey.Message{Exts: []pfkey.Extension{
		&pfkey.Policy{Scope: 8}, &pfkey.Lifetime{Kind: pfkey.ExtLifetimeCurrent, AddTime: 1699000000},
	}})
	expect(t, &b, err, `(no selector, probably per-socket policy) 
	any discard
	created: Nov  2 23:26:40 2023  lastused:                     
	spid=0 seq=0 pid=0 scope=8 
	refcnt=0
`)
}

func TestPolicyDump(t *testing.T) {
	t.Parallel()
	policy := &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirIn, Scope: pfkey.ScopeIfnet, ID: 1, Priority: 4, Requests: []pfkey.Request{
		{Proto: 99, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, ReqID: 100,
			Src: netip.MustParseAddrPort("[fe80::1%4]:0"), Dst: netip.MustParseAddrPort("[fe80::2%4]:0")},
	}}
	for _, test := range []struct {
		name, want string
		exts       []pfkey.Extension
	}{
		{"ICMPv6 with a type, and an interface", `2001:db8::/32 ::/0 icmp6 135,0
	in ipsec
	99/tunnel/fe80::1%ipsec0-fe80::2%ipsec0/unique:100
	spid=1 seq=0 pid=0 scope=ifnet ifname=ipsec0
	refcnt=0
`, []pfkey.Extension{
			address(pfkey.ExtAddressSrc, 58, 32, "[2001:db8::]:135"), address(pfkey.ExtAddressDst, 58, 0, "[::]:0"), policy,
		}},
		{"two protocols", "10.0.0.1[any] 10.0.0.2[any] upper layer protocol mismatched.\n", []pfkey.Extension{
			address(pfkey.ExtAddressSrc, 6, 32, "10.0.0.1:0"), address(pfkey.ExtAddressDst, 17, 32, "10.0.0.2:0"), policy,
		}},
		{"no policy", "(no selector, probably per-socket policy) no X_POLICY extension.\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			err := printer.PolicyDump(&b, &pfkey.Message{Exts: test.exts})
			expect(t, &b, err, test.want)
		})
	}
}

func TestShortDump(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := printer.ShortDump(&b, &pfkey.Message{SAType: pfkey.SATypeTCPSignature})
	expect(t, &b, err, "1320 #11? ?        ???/??? ? -> ?\n")

	b.Reset()
	err = printer.ShortDump(&b, &pfkey.Message{SAType: pfkey.SATypeESP, Exts: []pfkey.Extension{
		&pfkey.SA{SPI: 0x8004, State: 7},
		address(pfkey.ExtAddressSrc, 6, 32, "10.0.0.1:80"), address(pfkey.ExtAddressDst, 0, 32, "10.0.0.2:0"),
	}})
	expect(t, &b, err, "1320 esp #7 00008004 ???/??? tcp 10.0.0.1[80] -> 10.0.0.2\n")
}

func TestDebug(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, want string
		m          *pfkey.Message
	}{
		{"no extension", `sadb_msg{ version=2 type=18(X_SPDDUMP) errno=2 satype=0
  len=2 reserved=0 seq=0 pid=1234
`, &pfkey.Message{Type: pfkey.TypeSPDDump, Errno: 2, PID: 1234}},
		{"message of Linux only", `sadb_msg{ version=2 type=24(UNKNOWN) errno=0 satype=0
  len=2 reserved=0 seq=0 pid=0
`, &pfkey.Message{Type: pfkey.TypeMigrate}},
		{"SA", `sadb_msg{ version=2 type=3(ADD) errno=0 satype=3
  len=39 reserved=0 seq=0 pid=1234
sadb_ext{ len=3 type=9(KEY_ENCRYPT) }
sadb_key{ bits=128 reserved=0
  key= 56657279 53656375 72654b65 79212131 }
sadb_ext{ len=4 type=3(LIFETIME_HARD) }
sadb_lifetime{ alloc=1, bytes=2
  addtime=3600, usetime=0 }
sadb_ext{ len=2 type=1(SA) }
sadb_sa{ spi=10000 replay=255 state=0
  auth=0 encrypt=12 flags=0x00000040 }
sadb_ext{ len=2 type=19(SA2) }
sadb_x_sa2{ mode=2 reqid=100
  reserved1=0 reserved2=0 sequence=0 }
sadb_ext{ len=1 type=26(SA_REPLAY) }
sadb_x_sa_replay{ replay=32768 }
sadb_ext{ len=1 type=20(NAT_T_TYPE) }
sadb_x_nat_t_type{ type=2 }
sadb_ext{ len=5 type=24(NAT_T_OAR) }
sadb_address{ proto=0 prefixlen=128 reserved=0x0000 }
sockaddr{ len=28 family=28 addr=fe80::1%4 }
sadb_ext{ len=1 type=21(NAT_T_SPORT) }
sadb_x_nat_t_port{ port=4500 }
sadb_ext{ len=1 type=25(NAT_T_FRAG) }
sadb_x_nat_t_frag{ fraglen=1400 }
sadb_ext{ len=5 type=31(IF_HW_OFFL) }
sadb_x_if_hw_offl{ if=em0 }
sadb_ext{ len=3 type=5(ADDRESS_SRC) }
sadb_address{ proto=255 prefixlen=32 reserved=0x0000 }
sockaddr{ len=16 family=2 addr=192.168.0.3 }
sadb_ext{ len=4 type=10(IDENTITY_SRC) }
sadb_ident_src{ type=2 id=7
  str="gw\033.example.com" }
sadb_ext{ len=2 type=11(IDENTITY_DST) }
sadb_ident_dst{ type=0 id=0 }
sadb_ext{ len=1 type=17(KMPRIVATE) }
sadb_ext{ len=1 type=24(UNKNOWN) }
kdebug_sadb: invalid ext_type 24
sadb_ext{ len=1 type=500(UNKNOWN) }
kdebug_sadb: invalid ext_type 500
`, &pfkey.Message{Type: pfkey.TypeAdd, SAType: pfkey.SATypeESP, PID: 1234, Exts: []pfkey.Extension{
			&pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 128, Key: []byte("VerySecureKey!!1")},
			&pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, Allocations: 1, Bytes: 1<<32 + 2, AddTime: 3600},
			&pfkey.SA{SPI: 10000, Replay: 255, Encrypt: 12, Flags: pfkey.SAFlagCyclic},
			&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100},
			&pfkey.SAReplay{Packets: 32768},
			&pfkey.NATTType{Type: pfkey.EncapESPInUDP},
			address(pfkey.ExtNATTOAR, 0, 128, "[fe80::1%4]:0"),
			&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: 4500},
			&pfkey.NATTFrag{Size: 1400},
			&pfkey.HWIF{Name: "em0"},
			address(pfkey.ExtAddressSrc, 255, 32, "192.168.0.3:0"),
			&pfkey.Identity{Kind: pfkey.ExtIdentitySrc, Type: 2, ID: 7, Name: "gw\x1b.example.com"},
			&pfkey.Identity{Kind: pfkey.ExtIdentityDst},
			&pfkey.Unknown{Kind: pfkey.ExtKMPrivate, Body: make([]byte, 4)},
			&pfkey.Unknown{Kind: pfkey.ExtSecCtx, Body: make([]byte, 4)},
			&pfkey.Unknown{Kind: 500, Body: make([]byte, 4)},
		}}},
		{"policy", `sadb_msg{ version=2 type=14(X_SPDADD) errno=0 satype=0
  len=10 reserved=0 seq=0 pid=0
sadb_ext{ len=8 type=18(POLICY) }
sadb_x_policy{ type=2 dir=2 id=ff scope=2 ifindex=4 }
 { len=40 proto=50 mode=2 level=3 reqid=100
sockaddr{ len=16 family=2 addr=198.51.100.2 }
sockaddr{ len=16 family=2 addr=198.51.100.6 }
 }
 { len=8 proto=51 mode=1 level=2 reqid=0
 }
`, &pfkey.Message{Type: pfkey.TypeSPDAdd, Exts: []pfkey.Extension{
			&pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Scope: pfkey.ScopeIfnet, ID: 255, Priority: 4, Requests: []pfkey.Request{
				{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, ReqID: 100,
					Src: netip.MustParseAddrPort("198.51.100.2:0"), Dst: netip.MustParseAddrPort("198.51.100.6:0")},
				{Proto: 51, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire},
			}},
		}}},
		{"acquire and register", `sadb_msg{ version=2 type=6(ACQUIRE) errno=0 satype=3
  len=16 reserved=0 seq=0 pid=0
sadb_ext{ len=10 type=13(PROPOSAL) }
sadb_prop{ replay=32
sadb_comb{ auth=5 encrypt=12 flags=0x0001 reserved=0x00000000
  auth_minbits=1 auth_maxbits=2 encrypt_minbits=3 encrypt_maxbits=4
  soft_alloc=5 hard_alloc=6 soft_bytes=7 hard_bytes=8
  soft_alloc=9 hard_alloc=10 soft_bytes=11 hard_bytes=12 }
}
sadb_ext{ len=2 type=14(SUPPORTED_AUTH) }
sadb_sup{
  { id=3 ivlen=0 min=160 max=160 }
}
sadb_ext{ len=2 type=16(SPIRANGE) }
`, &pfkey.Message{Type: pfkey.TypeAcquire, SAType: pfkey.SATypeESP, Exts: []pfkey.Extension{
			&pfkey.Proposal{Replay: 32, Combs: []pfkey.Comb{{
				Auth: 5, Encrypt: 12, Flags: 1, AuthMinBits: 1, AuthMaxBits: 2, EncryptMinBits: 3, EncryptMaxBits: 4,
				SoftAllocations: 5, HardAllocations: 6, SoftBytes: 7, HardBytes: 8, SoftAddTime: 9, HardAddTime: 10, SoftUseTime: 11, HardUseTime: 12,
			}}},
			&pfkey.Supported{Kind: pfkey.ExtSupportedAuth, Algorithms: []pfkey.SupportedAlgorithm{{ID: 3, MinBits: 160, MaxBits: 160}}},
			&pfkey.SPIRange{Min: 1, Max: 2},
		}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			err := text.Debug(&b, test.m)
			expect(t, &b, err, test.want)
		})
	}
}

func TestHexDump(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := text.HexDump(&b, []byte("\x02\x09\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\xd2\x04\x00\x00\xff"))
	expect(t, &b, err, "00000000: 02 09 00 00 02 00 00 00 00 00 00 00 d2 04 00 00 \n00000010: ff \n")
}

func TestTimes(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 1234000).UTC()
	if got, want := text.TimeOfDay(at), "22:13:20.001234 \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := text.Timestamp(at), "1700000000.001234 \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

var errFull = errors.New("full")

func TestErrorsOfTheWriterComeBack(t *testing.T) {
	t.Parallel()
	m := &pfkey.Message{}
	for name, err := range map[string]error{
		"SADump": printer.SADump(failing{}, m), "PolicyDump": printer.PolicyDump(failing{}, m),
		"ShortDump": printer.ShortDump(failing{}, m), "Debug": text.Debug(failing{}, m),
		"HexDump": text.HexDump(failing{}, nil),
	} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
