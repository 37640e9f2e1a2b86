package ifconfig

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareAddrs = cmpopts.EquateComparable(netip.Addr{})

// host is a numeric host.
func host(at int, addr string) Host {
	return Host{At: at, Text: addr, Addr: netip.MustParseAddr(addr)}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	for args, want := range map[string][]Command{
		"ipsec0":                          nil,
		"ipsec create":                    {Create{1}},
		"ipsec0 plumb":                    {Create{1}},
		"ipsec0 create reqid 100":         {Create{1}, ReqID{2, 100}},
		"ipsec0 create inet reqid 0x10":   {Create{1}, ReqID{3, 16}},
		"ipsec0 reqid 010":                {ReqID{1, 8}},
		"ipsec0 reqid 4294967295":         {ReqID{1, 1<<32 - 1}},
		"ipsec0 reqid 0":                  {ReqID{1, 0}},
		"ipsec0 destroy":                  {Destroy{1}},
		"ipsec0 unplumb":                  {Destroy{1}},
		"ipsec0 deletetunnel":             {DeleteTunnel{1}},
		"ipsec0 -tunnel":                  {DeleteTunnel{1}},
		"ipsec0 fib 1 tunnelfib 2":        {FIB{1, 1}, TunnelFIB{3, 2}},
		"ipsec0 mtu 1280 metric 3":        {MTU{1, 1280}, Metric{3, 3}},
		"ipsec0 up down":                  {Up{1, true}, Up{2, false}},
		"ipsec0 name vpn up":              {Name{1, "vpn"}, Up{3, true}},
		"ipsec0 description up down":      {Description{1, "up"}, Up{3, false}},
		"ipsec0 descr x -descr":           {Description{1, "x"}, Description{3, ""}},
		"ipsec0 -description":             {Description{1, ""}},
		"ipsec0 group vpn -group vpn":     {AddGroup{1, "vpn"}, RemoveGroup{3, "vpn"}},
		"ipsec0 tunnel 10.0.0.1 10.0.0.2": {Tunnel{1, Inet, host(2, "10.0.0.1"), host(3, "10.0.0.2")}},
		"ipsec0 inet tunnel 192.168.0.3 192.168.0.5": {
			Tunnel{2, Inet, host(3, "192.168.0.3"), host(4, "192.168.0.5")},
		},
		"ipsec0 inet6 tunnel fe80::1%eth0 fe80::2%eth0": {
			Tunnel{2, Inet6, host(3, "fe80::1%eth0"), host(4, "fe80::2%eth0")},
		},
		"ipsec0 tunnel here.example there.example": {
			Tunnel{1, Inet, Host{At: 2, Text: "here.example"}, Host{At: 3, Text: "there.example"}},
		},
		// The words of the address may be in any order and take effect last.
		"ipsec0 inet 172.16.0.3/16 172.16.0.5": {
			AddAddress{2, Inet, host(2, "172.16.0.3"), 16, host(3, "172.16.0.5"), false},
		},
		"ipsec0 172.16.0.3 172.16.0.5 netmask 255.255.0.0 alias": {
			AddAddress{1, Inet, host(1, "172.16.0.3"), 16, host(2, "172.16.0.5"), true},
		},
		"ipsec0 alias 172.16.0.3 netmask 0xffffff00 broadcast 172.16.0.5 up": {
			Up{7, true},
			AddAddress{1, Inet, host(2, "172.16.0.3"), 24, host(6, "172.16.0.5"), true},
		},
		"ipsec0 inet 172.16.0.3 172.16.0.5 mtu 1300 tunnel 10.0.0.1 10.0.0.2": {
			MTU{4, 1300},
			Tunnel{6, Inet, host(7, "10.0.0.1"), host(8, "10.0.0.2")},
			AddAddress{2, Inet, host(2, "172.16.0.3"), -1, host(3, "172.16.0.5"), false},
		},
		"ipsec0 inet gw.example/30 peer.example": {
			AddAddress{2, Inet, Host{At: 2, Text: "gw.example"}, 30, Host{At: 3, Text: "peer.example"}, false},
		},
		"ipsec0 inet6 2001:db8::1":               {AddAddress{2, Inet6, host(2, "2001:db8::1"), 64, Host{}, false}},
		"ipsec0 inet6 2001:db8::1/0":             {AddAddress{2, Inet6, host(2, "2001:db8::1"), 0, Host{}, false}},
		"ipsec0 inet6 2001:db8::1 prefixlen 128": {AddAddress{2, Inet6, host(2, "2001:db8::1"), 128, Host{}, false}},
		"ipsec0 inet6 2001:db8::1 2001:db8::2 netmask ffff:ffff:8000:: add": {
			AddAddress{2, Inet6, host(2, "2001:db8::1"), 33, host(3, "2001:db8::2"), true},
		},
		"ipsec0 inet 172.16.0.3 -alias":   {RemoveAddress{2, Inet, host(2, "172.16.0.3")}},
		"ipsec0 inet -alias 172.16.0.3":   {RemoveAddress{2, Inet, host(3, "172.16.0.3")}},
		"ipsec0 delete":                   {RemoveAddress{1, Inet, Host{}}},
		"ipsec0 inet6 2001:db8::1 remove": {RemoveAddress{2, Inet6, host(2, "2001:db8::1")}},
	} {
		line, err := Parse(strings.Fields(args), Format{})
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if diff := cmp.Diff(want, line.Commands, compareAddrs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
		if name := strings.Fields(args)[0]; line.Interface != name {
			t.Errorf("%s: interface %q", args, line.Interface)
		}
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]Line{
		"":                     {Options: Options{All: true}},
		"-a":                   {Options: Options{All: true}},
		"-a inet6":             {Options: Options{All: true}, Family: Inet6},
		"-l ether":             {Options: Options{NamesOnly: true}, Family: Link},
		"-lu":                  {Options: Options{NamesOnly: true, UpOnly: true}},
		"-l -d inet":           {Options: Options{NamesOnly: true, DownOnly: true}, Family: Inet},
		"-u":                   {Options: Options{All: true, UpOnly: true}},
		"-vvmnkL":              {Options: Options{All: true, Verbose: 2}},
		"-C":                   {Options: Options{Cloners: true}},
		"-g vpn":               {Options: Options{Members: "vpn"}},
		"-gvpn":                {Options: Options{Members: "vpn"}},
		"-a -g vpn* -G old":    {Options: Options{All: true, Group: "vpn*", NotGroup: "old"}},
		"-f inet:cidr":         {Options: Options{All: true, Format: Format{Inet: InetCIDR}}},
		"-finet:dotted":        {Options: Options{All: true, Format: Format{Inet: InetDotted}}},
		"-f inet6:cidr,addr:x": {Options: Options{All: true, Format: Format{Inet6: Inet6CIDR}}},
		"-v ipsec0":            {Options: Options{Verbose: 1}, Interface: "ipsec0"},
		"-- ipsec0":            {Interface: "ipsec0"},
		"ipsec0 inet":          {Interface: "ipsec0", Family: Inet},
		"ipsec0 inet6":         {Interface: "ipsec0", Family: Inet6},
	} {
		line, err := Parse(strings.Fields(args), Format{})
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if diff := cmp.Diff(&want, line); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]Error{
		"-z":                                     {At: 0, Message: "illegal option -- z", Usage: true},
		"-g":                                     {At: 0, Message: "option requires an argument -- g", Usage: true},
		"-al":                                    {At: 0, Usage: true},
		"-ud":                                    {At: 0, Usage: true},
		"-G vpn":                                 {At: 0, Usage: true},
		"-a ipx":                                 {At: 1, Message: "Address family 'ipx' unknown.", Usage: true},
		"-a inet inet6":                          {At: 2, Usage: true},
		"ipsec01234567890 create":                {At: 0, Message: "ipsec01234567890: cloning name too long"},
		"ipsec0 reqid":                           {At: 2, Message: "'reqid' requires argument"},
		"ipsec0 reqid -1":                        {At: 2, Message: "Invalid reqid value -1"},
		"ipsec0 reqid 4294967296":                {At: 2, Message: "Invalid reqid value 4294967296"},
		"ipsec0 reqid 1_0":                       {At: 2, Message: "Invalid reqid value 1_0"},
		"ipsec0 reqid 0b1":                       {At: 2, Message: "Invalid reqid value 0b1"},
		"ipsec0 reqid 09":                        {At: 2, Message: "Invalid reqid value 09"},
		"ipsec0 fib x":                           {At: 2, Message: "fib x not valid"},
		"ipsec0 mtu 1e3":                         {At: 2, Message: "1e3: bad value for an mtu"},
		"ipsec0 metric 2147483648":               {At: 2, Message: "2147483648: bad value for a metric"},
		"ipsec0 tunnel 10.0.0.1":                 {At: 3, Message: "'tunnel' requires 2 arguments"},
		"ipsec0 tunnel 10.0.0.1 2001:db8::1":     {At: 3, Message: "source and destination address families do not match"},
		"ipsec0 tunnel 10.0.0.1 :::":             {At: 3, Message: ":::: bad value"},
		"ipsec0 group vpn1":                      {At: 2, Message: "setifgroup: group names may not end in a digit"},
		"ipsec0 -group abcdefghijklmnop":         {At: 2, Message: "unsetifgroup: group name too long"},
		"ipsec0 inet 10.0.0.1/33":                {At: 2, Message: "10.0.0.1/33: bad value (width not from 0 to 32)"},
		"ipsec0 inet 10.0.0.1/":                  {At: 2, Message: "10.0.0.1/: bad value (width not from 0 to 32)"},
		"ipsec0 inet6 2001:db8::1/129":           {At: 2, Message: "2001:db8::1/129: bad value (width not from 0 to 128)"},
		"ipsec0 2001:db8::1":                     {At: 1, Message: "2001:db8::1: bad value (not an inet address)"},
		"ipsec0 inet6 10.0.0.1":                  {At: 2, Message: "10.0.0.1: bad value (not an inet6 address)"},
		"ipsec0 inet6 2001:db8::1 prefixlen 129": {At: 4, Message: "129: bad value"},
		"ipsec0 inet 10.0.0.1 prefixlen 24":      {At: 3, Message: "prefixlen is for inet6 addresses"},
		"ipsec0 inet 10.0.0.1 netmask 255.0.255.0": {At: 4, Message: "255.0.255.0: bad value (the mask is not contiguous)"},
		"ipsec0 inet 10.0.0.1 netmask office":      {At: 4, Message: "office: bad value"},
		"ipsec0 netmask 255.255.255.0":             {At: 1, Message: "there is no address to add"},
		"ipsec0 alias":                             {At: 1, Message: "there is no address to add"},
		"ipsec0 alias 10.0.0.1 -alias":             {At: 3, Message: "an address is either added or removed, not both"},
		"ipsec0 -frobnicate":                       {At: 1, Message: "-frobnicate: bad value"},
		"ipsec0 vnet 3":                            {At: 1, Message: "vnet: not supported on an ipsec interface"},
		"ipsec0 up -arp":                           {At: 2, Message: "-arp: not supported on an ipsec interface"},
		"ipsec0 link 00:00:00:00:00:00":            {At: 1, Message: "an ipsec interface has no link-level address"},
	} {
		line, err := Parse(strings.Fields(args), Format{})
		var got *Error
		if !errors.As(err, &got) {
			t.Errorf("%s: %+v, %v, want %+v", args, line, err, want)
			continue
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

func TestEmptyArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"ipsec0", ""}, {"ipsec0", "tunnel", "", ""}, {"ipsec0", "group", ""}, {"ipsec0", "reqid", ""}, {"ipsec0", "mtu", ""}} {
		if line, err := Parse(args, Format{}); err == nil {
			t.Errorf("%q: %+v, want an error", args, line)
		}
	}
	if line, err := Parse([]string{"ipsec0", "descr", ""}, Format{}); err != nil || line.Commands[0] != (Description{1, ""}) {
		t.Errorf("empty description: %+v, %v", line, err)
	}
}

func TestInetNotations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "10.1": "10.0.0.1", "10.1.258": "10.1.1.2", "0x7f000001": "127.0.0.1",
		"0xffffff00": "255.255.255.0", "010.0.0.1": "8.0.0.1", "4294967295": "255.255.255.255", "0": "0.0.0.0",
		"256.0.0.1": "", "10.0.0.256": "", "10.0.0.0.1": "", "10..1": "", "4294967296": "", "": "", "1.2.3.4 ": "", "a.b": "",
	} {
		got, ok := parseInet(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("parseInet(%q) = %v, %v, want %q", text, got, ok, want)
		}
	}
}

func TestMaskBits(t *testing.T) {
	t.Parallel()
	for mask, want := range map[string]int{
		"0.0.0.0": 0, "128.0.0.0": 1, "255.255.0.0": 16, "255.255.255.254": 31, "255.255.255.255": 32,
		"255.0.255.0": -1, "0.0.0.1": -1, "254.128.0.0": -1, "::": 0, "ffff:fff0::": 28,
	} {
		n, ok := maskBits(netip.MustParseAddr(mask))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("maskBits(%s) = %d, %v, want %d", mask, n, ok, want)
		}
	}
}

func TestClassBits(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]int{"10.0.0.1": 8, "127.0.0.1": 8, "128.0.0.1": 16, "191.0.0.1": 16, "192.0.0.1": 24, "240.0.0.1": 24} {
		if got := ClassBits(netip.MustParseAddr(addr)); got != want {
			t.Errorf("ClassBits(%s) = %d, want %d", addr, got, want)
		}
	}
}

// Every error points at an argument, or just behind the last one.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"ipsec0 create reqid 100", "ipsec0 inet 172.16.0.3/16 172.16.0.5", "-a -g vpn inet6",
		"ipsec0 inet6 alias fe80::1%ipsec0/64", "-lfinet:cidr", "ipsec0 tunnel 1 0x2 netmask",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, " ")
		line, err := Parse(args, Format{})
		var wrong *Error
		switch {
		case errors.As(err, &wrong):
			if wrong.At < 0 || wrong.At > len(args) {
				t.Errorf("%q: error at argument %d", args, wrong.At)
			}
		case err != nil:
			t.Errorf("%q: %T %v", args, err, err)
		default:
			for _, c := range line.Commands {
				if c.Pos() < 1 || c.Pos() >= len(args) {
					t.Errorf("%q: command at argument %d", args, c.Pos())
				}
			}
		}
	})
}

// What FreeBSD's ifconfig has for other interfaces is taken for no name of a host,
// and refused in one line.
func TestForeignCommands(t *testing.T) {
	t.Parallel()
	n := 0
	for _, names := range foreign {
		for _, name := range strings.Fields(names) {
			for _, word := range []string{name, "-" + name} {
				n++
				_, err := Parse([]string{"ipsec0", word, "7"}, Format{})
				var wrong *Error
				want := word + ": not supported on an ipsec interface"
				if reason, ok := reasons[name]; ok {
					want += ": " + reason
				}
				if !errors.As(err, &wrong) || wrong.Message != want || wrong.At != 1 {
					t.Errorf("%s: %v, want %s", word, err, want)
				}
			}
		}
	}
	if n < 400 {
		t.Errorf("only %d words are known", n)
	}
	for name := range reasons {
		if _, known := table[name]; !known {
			t.Errorf("there is a reason to refuse %s, which is no command", name)
		}
	}
	for _, file := range []string{"af_inet6.c", "af_nd6.c"} {
		for _, name := range strings.Fields(foreign[file]) {
			if reasons[name] == "" && name != "ignoreloop" {
				t.Errorf("there is no reason to refuse %s", name)
			}
		}
	}
}

// What each command is refused for is in a transcript of the program's.
func TestRefusalsAreShown(t *testing.T) {
	t.Parallel()
	transcript, err := os.ReadFile("../../testdata/ifconfig/refusals.txt")
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	for line := range strings.Lines(string(transcript)) {
		if args, ok := strings.CutPrefix(line, "$ ifconfig ipsec"); ok {
			for _, word := range strings.Fields(args) {
				shown[word] = true
			}
		}
	}
	for name := range table {
		_, others := table[strings.TrimPrefix(name, "-")]
		if !shown[name] && !(name[0] == '-' && others) {
			t.Errorf("no refusal of %q is shown", name)
		}
	}
}
