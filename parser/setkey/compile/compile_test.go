package compile_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ifipsec/engine/pfkey"
	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"

	"github.com/google/go-cmp/cmp"
)

// names are those of a host that knows little.
type names struct{}

func (names) Host(name string) ([]netip.Addr, error) {
	hosts := map[string][]netip.Addr{
		"both":  {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")},
		"other": {netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.2")},
		"six":   {netip.MustParseAddr("2001:db8::6")},
	}
	if addrs, ok := hosts[name]; ok {
		return addrs, nil
	}
	return nil, fmt.Errorf("no host %q", name)
}

func (names) Service(name string) (uint16, error) {
	if name == "isakmp" {
		return 500, nil
	}
	return 0, fmt.Errorf("no service %q", name)
}

func (names) Interface(name string) (int, error) {
	if name == "em0" {
		return 7, nil
	}
	return 0, fmt.Errorf("no interface %q", name)
}

// compiled compiles the first statement of a script.
func compiled(t *testing.T, script string) (*setkey.Reader, compile.Result) {
	t.Helper()
	r := setkey.NewReader("file", strings.NewReader(script))
	s, err := r.Next()
	var syntax *setkey.Error
	if err != nil && !errors.As(err, &syntax) {
		t.Fatalf("%s: %v", script, err)
	}
	return r, compile.Statement(r, s, syntax, names{})
}

const null = ` -E null "";`

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, want string }{
		{"a host that is not there", "add nobody 1.1.1.1 esp 1" + null, `file:1:5: no host "nobody" | line 1: Name does not resolve at [nobody]`},
		{"no name service", "add -n both 1.1.1.1 esp 1" + null, `file:1:8: "both" is no numeric address | line 1: Name does not resolve at [both]`},
		{"no address of the family", "add -4 six 1.1.1.1 esp 1" + null, `file:1:8: "six" has no address of the family that the statement asks for | line 1: Name does not resolve at [six]`},
		{"families", "add 1.1.1.1\n::1 esp 1" + null, `file:2:1: 1.1.1.1 and ::1 are of different families | line 2:  at [;]`},
		{"a long SPI", "add ::1 ::2 esp 4294967296" + null, `file:1:17: an SPI of more than 32 bits, expected at most 0xffffffff | line 1: SPI too big. at [4294967296]`},
		{"a long reqid", "add ::1 ::2 esp 1 -u 4294967296" + null, `file:1:22: 4294967296 is too big for a reqid, expected at most 4294967295 | line 1: Invalid argument at [4294967296]`},
		{"a long lifetime", "add ::1 ::2 esp 1 -lh 18446744073709551616" + null, `file:1:23: 18446744073709551616 is too big for a lifetime, expected at most 18446744073709551615 | line 1: Invalid argument at [18446744073709551616]`},
		{"a long port", "add ::1 ::2 esp 1 -natt ::1[1] ::2[65536]" + null, `file:1:36: 65536 is too big for a port, expected at most 65535 | line 1: Invalid argument at [65536]`},
		{"a long fragment", "add ::1 ::2 esp 1 -natt_mtu 65536" + null, `file:1:29: 65536 is too big for a fragment size, expected at most 65535 | line 1: Invalid argument at [65536]`},
		{"replay prevention of the old generation", "add ::1 ::2 ah-old 1 -r 4 -A null;", `file:1:25: -r is not for esp-old and ah-old, which have no sequence numbers | line 1: replay prevention cannot be used with ah/esp-old at [4]`},
		{"a short key", `add ::1 ::2 esp 1 -E aes-cbc "short";`, `file:1:30: aes-cbc: key has 40 bits, must have 128, 192 or 256 bits | line 1: Invalid key length at [short]`},
		{"des-deriv of the old generation", `add ::1 ::2 esp-old 1 -E des-deriv "12345678";`, `file:1:26: des-deriv is not for esp-old | line 1: algorithm mismatched at [12345678]`},
		{"des-32iv of the new generation", `add ::1 ::2 esp 1 -E des-32iv "12345678";`, `file:1:22: des-32iv is for esp-old only | line 1: algorithm mismatched at [12345678]`},
		{"several addresses to delete", "delete both other esp 1;", `file:1:8: a name has several addresses, expected one of each | line 1: multiple address specified at [;]`},
		{"a protocol that is not there", "spdadd ::1 ::2 nosuch -P out none;", `file:1:16: "nosuch" is no protocol, expected any, a number up to 255, or a name such as tcp, udp or icmp6 | line 1: invalid upper layer protocol at [nosuch]`},
		{"a long protocol", "spdadd ::1 ::2 256 -P out none;", `file:1:16: protocol 256, expected at most 255 | line 1: invalid upper layer protocol at [256]`},
		{"a long prefix", "spdadd 10.0.0.0/33 ::2 any -P out none;", `file:1:17: prefix length 33, expected at most 32 | line 1: Invalid argument at [33]`},
		{"a service that is not there", "spdadd ::1[x] ::2 any -P out none;", `file:1:12: "x" is no port and no service: no service "x" | line 1: Service was not recognized for socket type at [ out none;]`},
		{"a long selector's port", "spdadd ::1[65536] ::2 any -P out none;", `file:1:12: port 65536, expected at most 65535 | line 1: Service was not recognized for socket type at [ out none;]`},
		{"several addresses of a selector", "spdadd both ::2 any -P out none;", `file:1:8: "both" has several addresses, expected one | line 1: multiple address specified at [ out none;]`},
		{"a selector's families", "spdadd 1.1.1.1 ::2 any -P out none;", `file:1:16: 1.1.1.1 and ::2 are of different families | line 1:  at [ out none;]`},
		{"both ends of a selector", "spdadd a b any -P out none;", `file:1:8: no host "a" | line 1: Name does not resolve at [ out none;]` + "\n" + `file:1:10: no host "b" | line 1: Name does not resolve at [ out none;]`},
		{"a type of another protocol", "spdadd ::1 ::2 tcp 1,2 -P out none;", `file:1:20: "1,2" after the protocol: only icmp6 has a type and a code | line 1:  at [ out none;]`},
		{"a type without a code", "spdadd ::1 ::2 icmp6 1, -P out none;", `file:1:22: "1,", expected TYPE,CODE | line 1: invalid an upper layer protocol spec at [ out none;]`},
		{"a service before a host", "spdadd x[y] ::2 any -P out none;", `file:1:10: "y" is no port and no service: no service "y" | line 1: Service was not recognized for socket type at [ out none;]`},
		{"a host after several addresses", "spdadd both x any -P out none;", `file:1:13: no host "x" | line 1: Name does not resolve at [ out none;]`},
		{"no original address of the family", "add -4 both other esp 1 -natt six[1] both[2]" + null, `file:1:31: "six" has no address of the family that the statement asks for | line 1: Name does not resolve at [six]`},
		{"a tagged policy", `spdadd tagged "x" -P out none;`, `file:1:15: policies for tagged packets do not exist here, as on FreeBSD | line 1:  at [ out none;]`},
		{"a policy without an action", "spdadd ::1 ::2 any -P out ;", `file:1:26: policy: no action, which FreeBSD takes for discard: expected discard, none or ipsec after the direction | line 1: Invalid argument at [ out ]`},
		{"in a policy of two lines", "spdadd ::1 ::2 any -P out ipsec\n  esp/tunel//use;", `file:2:7: policy: unexpected "tunel", expected transport or tunnel | line 2: Invalid argument at [ out ipsec` + "\n  esp/tunel//use]"},
		{"what is wrong before the syntax error", "add nobody x x x;", `file:1:5: no host "nobody" | line 1: Name does not resolve at [nobody]`},
		{"the same between two keys", `add ::1 ::2 esp 1 -E aes-cbc "short" -A nothing;`, `file:1:30: aes-cbc: key has 40 bits, must have 128, 192 or 256 bits | line 1: Invalid key length at [short]`},
		{"the syntax error before what would be wrong", "add ::1 ::2 esp x 4294967296;", `file:1:17: unexpected "x", expected an SPI | line 1: syntax error at [x]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, result := compiled(t, c.script)
			var got []string
			for _, e := range result.Errors {
				got = append(got, fmt.Sprintf("%v | line %d: %s at [%s]", e, e.Line, e.Message, e.Shown))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", c.script, diff)
			}
			if !result.Failed() || len(result.Messages) > 0 {
				t.Errorf("%s\nis not refused: %v", c.script, result.Messages)
			}
		})
	}
}

// Warnings go with messages.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script, want string }{
		{"an obsolete algorithm", "add ::1 ::2 esp 1 -E simple;", `file:1:22: "simple" is obsolete: it encrypts nothing, as does null`},
		{"a mode that says nothing", "get ::1 ::2 esp 1 -m tunnel;", `file:1:22: -m says nothing here: an SA is found without its mode`},
		{"a window that is too large", "add ::1 ::2 esp 1 -r 536870908" + null, `file:1:22: -r 536870908, expected at most 536870907 bytes of bitmap`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, result := compiled(t, c.script)
			if len(result.Errors) != 1 || result.Errors[0].Error() != c.want || result.Failed() || len(result.Messages) != 1 {
				t.Errorf("%s\n%v, %d messages, want %s", c.script, result.Errors, len(result.Messages), c.want)
			}
		})
	}
}

// The window is in bytes of bitmap, each good for 8 packets.
func TestReplayWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		option  string
		bytes   uint8
		packets uint32 // in the extension, 0 if there is none
		window  uint32
	}{
		{"", 0, 0, 0}, {"-r 0", 0, 0, 0}, {"-r 4", 4, 0, 32}, {"-r 255", 255, 0, 2040}, {"-r 256", 255, 2048, 2048},
		{"-r 536870907", 255, 4294967256, 4294967256},
		{"-r 536870908", 255, 4294967264, 4294967264}, {"-r 536870912", 255, 4294967288, 4294967288},
	} {
		_, result := compiled(t, "add ::1 ::2 esp 1 "+c.option+null)
		m := result.Messages[0]
		var packets uint32
		if r := pfkey.Find[*pfkey.SAReplay](m); r != nil {
			packets = r.Packets
		}
		if got := pfkey.Find[*pfkey.SA](m).Replay; got != c.bytes || packets != c.packets || m.ReplayPackets() != c.window {
			t.Errorf("%q: %d bytes, extension of %d packets, window of %d; want %d, %d, %d", c.option, got, packets, m.ReplayPackets(), c.bytes, c.packets, c.window)
		}
	}
}

// What FreeBSD's setkey sends where it could be thought otherwise.
func TestExtensions(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"add ::1 ::2 esp 1" + null:                                 "KEY_ENCRYPT SA X_SA2 ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 esp 1 -hwif em0" + null:                       "KEY_ENCRYPT SA X_SA2 ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 ipcomp 1" + null:                              "SA X_SA2 ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 esp 1 -natt_mtu 1400" + null:                  "KEY_ENCRYPT SA X_SA2 ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 esp 1 -natt ::1[1] ::2[2]" + null:             "KEY_ENCRYPT SA X_SA2 X_NAT_T_TYPE X_NAT_T_OAI X_NAT_T_SPORT X_NAT_T_OAR X_NAT_T_DPORT ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 esp 1 -natt ::1[1] ::2[2] -natt_mtu 9" + null: "KEY_ENCRYPT SA X_SA2 X_NAT_T_TYPE X_NAT_T_OAI X_NAT_T_SPORT X_NAT_T_OAR X_NAT_T_DPORT X_NAT_T_FRAG ADDRESS_SRC ADDRESS_DST",
		"add ::1 ::2 esp 1 -ls 1 -lh 2 -r 256" + null:              "KEY_ENCRYPT LIFETIME_HARD LIFETIME_SOFT SA X_SA2 X_SA_REPLAY ADDRESS_SRC ADDRESS_DST",
		"get ::1 ::2 esp 1 -lh 2 -r 256 -natt ::1[1] ::2[2];":      "SA X_SA2 X_SA_REPLAY ADDRESS_SRC ADDRESS_DST",
		"delete ::1 ::2 esp 1;":                                    "SA X_SA2 ADDRESS_SRC ADDRESS_DST",
		"deleteall ::1 ::2 esp;":                                   "ADDRESS_SRC ADDRESS_DST",
		"spdadd ::1 ::2 any -P out none;":                          "X_POLICY ADDRESS_SRC ADDRESS_DST",
	} {
		_, result := compiled(t, script)
		var got []string
		for _, m := range result.Messages {
			for _, e := range m.Exts {
				got = append(got, e.ExtType().String())
			}
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s\n%v\n(-want +got):\n%s", script, result.Errors, diff)
		}
	}
}

// Addresses are read as inet_aton(3) and inet_pton(3) read them.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "10.1": "10.0.0.1", "10.1.2": "10.1.0.2", "0x0a.0.0.1": "10.0.0.1", "010.0.0.1": "8.0.0.1",
		"a": "", "0": "", "10.0.0.256": "", "10.0.0.0x100": "", "10.0.0.08": "", "10.0.0.1.1": "", "10..1": "", "1.": "",
		"10.16777216": "", "10.16777215": "10.255.255.255", "10.0.0.1%em0": "",
		"::1": "::1", "2001:DB8::1": "2001:db8::1", "::ffff:10.0.0.1": "::ffff:10.0.0.1", "fe80::1": "fe80::1",
		"fe80::1%em0": "fe80::1%7", "fe80::1%3": "fe80::1%3", "ff02::1%em0": "ff02::1%7", "fe80::1%x": "", "2001:db8::1%em0": "",
		"1:2": "", ":::": "",
	} {
		_, result := compiled(t, "deleteall -n "+text+" "+text+";")
		got := ""
		if !result.Failed() {
			got = result.Messages[0].Src().Addr.Addr().String()
		}
		if got != want {
			t.Errorf("%q is %q, want %q: %v", text, got, want, result.Errors)
		}
	}
}

// Every combination of the addresses of two names is installed.
func TestCombinations(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"add both other esp 1" + null:     "2001:db8::1>2001:db8::2 192.0.2.1>192.0.2.2",
		"add -4 both other esp 1" + null:  "192.0.2.1>192.0.2.2",
		"add -6 both other esp 1" + null:  "2001:db8::1>2001:db8::2",
		"add -46 both other esp 1" + null: "2001:db8::1>2001:db8::2",
		"add both six esp 1" + null:       "2001:db8::1>2001:db8::6",
		"deleteall both other;":           "2001:db8::1>2001:db8::2 192.0.2.1>192.0.2.2",
	} {
		_, result := compiled(t, script)
		var got []string
		for _, m := range result.Messages {
			got = append(got, fmt.Sprintf("%v>%v", m.Src().Addr.Addr(), m.Dst().Addr.Addr()))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\n%v, want %s; %v", script, got, want, result.Errors)
		}
	}
}

func TestSelector(t *testing.T) {
	t.Parallel()
	for selector, want := range map[string]string{
		"::1 ::2 any":                          "::1/128[0] ::2/128[0] 255",
		"10.0.0.0/8[any] 10.0.0.1[80] tcp":     "10.0.0.0/8[0] 10.0.0.1/32[80] 6",
		"::/0[isakmp] ::2 udp":                 "::/0[500] ::2/128[0] 17",
		"::1 ::2 icmp6 135,1":                  "::1/128[135] ::2/128[1] 58",
		"::1 ::2 icmp6 135":                    "", // a decimal number is no word
		"::1 ::2 icmp6":                        "::1/128[0] ::2/128[0] 58",
		"::1 ::2 ip4":                          "::1/128[0] ::2/128[0] 4",
		"::1 ::2 0":                            "::1/128[0] ::2/128[0] 0",
		"::1 ::2 GRE":                          "::1/128[0] ::2/128[0] 47",
		"::1 ::2 Gre":                          "",
		"-6 both six any":                      "2001:db8::1/128[0] 2001:db8::6/128[0] 255",
		"fe80::1%em0/64 fe80::2%em0 ipv6-icmp": "fe80::1%7/64[0] fe80::2%7/128[0] 58",
		"0.0.0.0/0 255.255.255.255/32 mobility-header": "0.0.0.0/0[0] 255.255.255.255/32[0] 135",
	} {
		_, result := compiled(t, "spdadd "+selector+" -P in discard;")
		got := ""
		if !result.Failed() {
			m := result.Messages[0]
			src, dst := m.Src(), m.Dst()
			got = fmt.Sprintf("%v/%d[%d] %v/%d[%d] %d", src.Addr.Addr(), src.PrefixLen, src.Addr.Port(), dst.Addr.Addr(), dst.PrefixLen, dst.Addr.Port(), src.Proto)
		}
		if got != want {
			t.Errorf("%s\n%q, want %q; %v", selector, got, want, result.Errors)
		}
	}
}

// The additions of the ipsec-tools dialect.
func TestUpdates(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]pfkey.MsgType{
		"update ::1 ::2 esp 1" + null:              pfkey.TypeUpdate,
		"spdupdate ::1 ::2 any -P out none;":       pfkey.TypeSPDUpdate,
		"spddelete ::1 ::2 any -P out;":            pfkey.TypeSPDDelete,
		"add ::1 ::2 ipcomp 1 -C deflate -R;":      pfkey.TypeAdd,
		"add ::1 ::2 tcp 0x1000 -A tcp-md5 \"x\";": pfkey.TypeAdd,
	} {
		_, result := compiled(t, script)
		if len(result.Messages) != 1 || result.Messages[0].Type != want {
			t.Errorf("%s\n%v %v, want one message %v", script, result.Messages, result.Errors, want)
		}
	}
}
