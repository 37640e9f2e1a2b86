// Package packet asks two programs that nobody here wrote for their opinion on
// ESP packets, tshark and Scapy: whether what the daemon seals can be opened with
// the SA's keys, and whether the daemon opens what Scapy seals, and refuses what
// it should.
package packet

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"ifipsec/e2e/interop/table"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
	"ifipsec/engine/algorithm"
)

// bin is the directory of the programs under test.
var bin string

var columns = []string{"IPv4 in IPv4", "IPv6 in IPv4", "IPv4 in IPv6", "IPv6 in IPv6"}

// What was tried.
var (
	byTshark = table.New("tshark opens what ifipsec seals, inner protocol in outer protocol", columns...)
	byScapy  = table.New("Scapy opens what ifipsec seals", columns...)
	ofScapy  = table.New("ifipsec opens what Scapy seals", columns...)
)

func TestMain(m *testing.M) {
	status := programs.Run(m, &bin)
	for name, t := range map[string]*table.Table{"tshark": byTshark, "scapy": byScapy, "scapy-made": ofScapy} {
		if err := t.Save(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// suite is a cipher with a length of its key, and an authenticator.
type suite struct {
	name string // with what else is special
	enc  *algorithm.Encryption
	bits int
	auth *algorithm.Authentication // nil for an AEAD
	esn  bool
	natt bool
}

// suites are all ciphers and all authenticators that carry packets.
func suites(t *testing.T) (all []suite) {
	t.Helper()
	sha, _ := algorithm.AuthenticationByID(algorithm.AuthHMACSHA256)
	aes, _ := algorithm.EncryptionByID(algorithm.EncryptAESCBC)
	gcm, _ := algorithm.EncryptionByID(algorithm.EncryptAESGCM16)
	for _, enc := range algorithm.Encryptions() {
		auth := sha
		if enc.AEAD {
			auth = nil
		}
		lengths := map[int]bool{enc.Key.Min: true, max(enc.Key.Min, min(128+enc.SaltBits, enc.Key.Max)): true, enc.Key.Max: true}
		if enc.ID == algorithm.EncryptNull {
			lengths = map[int]bool{0: true}
		}
		for bits := enc.Key.Min; bits <= enc.Key.Max; bits += enc.Key.Step {
			if !lengths[bits] {
				continue
			}
			name := enc.Name
			if len(lengths) > 1 {
				name += " " + strconv.Itoa(bits-enc.SaltBits)
			}
			all = append(all, suite{name: name, enc: enc, bits: bits, auth: auth})
		}
	}
	for _, auth := range algorithm.Authentications() {
		if auth != sha && auth.ICVLen > 0 && auth.ID != algorithm.AuthChaCha20Poly1305 {
			all = append(all, suite{name: "aes-cbc 128 " + auth.Name, enc: aes, bits: 128, auth: auth})
		}
	}
	null, _ := algorithm.AuthenticationByID(algorithm.AuthNull)
	return append(all,
		suite{name: "aes-cbc 128 without authentication", enc: aes, bits: 128, auth: null},
		suite{name: "aes-gcm-16 128, ESN", enc: gcm, bits: 160, esn: true},
		suite{name: "aes-cbc 128, ESN", enc: aes, bits: 128, auth: sha, esn: true},
		suite{name: "aes-gcm-16 128, in UDP", enc: gcm, bits: 160, natt: true},
		suite{name: "aes-cbc 128, in UDP", enc: aes, bits: 128, auth: sha, natt: true})
}

// The tools' names of algorithms, and why a suite is not theirs.
var (
	scapyCrypt = map[uint8]string{
		algorithm.EncryptNull:             "NULL",
		algorithm.EncryptDES:              "DES",
		algorithm.Encrypt3DES:             "3DES",
		algorithm.EncryptCAST128:          "CAST",
		algorithm.EncryptBlowfish:         "Blowfish",
		algorithm.EncryptAESCBC:           "AES-CBC",
		algorithm.EncryptAESCTR:           "AES-CTR",
		algorithm.EncryptAESGCM16:         "AES-GCM",
		algorithm.EncryptChaCha20Poly1305: "CHACHA20-POLY1305",
	}
	scapyAuth = map[uint8]string{
		algorithm.AuthNull:       "NULL",
		algorithm.AuthHMACMD5:    "HMAC-MD5-96",
		algorithm.AuthHMACSHA1:   "HMAC-SHA1-96",
		algorithm.AuthHMACSHA256: "SHA2-256-128",
		algorithm.AuthHMACSHA384: "SHA2-384-192",
		algorithm.AuthHMACSHA512: "SHA2-512-256",
	}
)

func (s suite) scapyLacks() string {
	switch {
	case scapyCrypt[s.enc.ID] == "":
		return "Scapy has no " + s.enc.Name
	case s.auth != nil && scapyAuth[s.auth.ID] == "":
		return "Scapy has no " + s.auth.Name
	case s.enc.ID == algorithm.EncryptCAST128 && s.bits < 128:
		return "Scapy has CAST-128 with 128 bits only"
	case s.esn && s.auth != nil:
		return "Scapy has ESN in ESP with AEADs only"
	}
	return ""
}

func (s suite) tsharkLacks() string {
	switch {
	case s.enc.ID == algorithm.EncryptCamellia, s.enc.ID == algorithm.EncryptChaCha20Poly1305:
		return "Wireshark can't open " + s.enc.Name
	case s.enc.ID == algorithm.EncryptCAST128 && s.bits < 128:
		return "Wireshark has CAST-128 with 128 bits only"
	case s.enc.ID == algorithm.EncryptBlowfish && s.bits != 128:
		return "Wireshark has Blowfish with 128 bits only"
	case s.esn:
		return "Wireshark 4.0 knows no ESN"
	}
	return ""
}

// checked says whether tshark looks at the ICV.
func (s suite) checked() bool {
	if s.auth == nil {
		return true
	}
	switch s.auth.ID {
	case algorithm.AuthAESXCBC, algorithm.AuthKeyedMD5, algorithm.AuthKeyedSHA1, algorithm.AuthNull:
		return false
	}
	return true
}

// association is an SA as peer.py reads it.
type association struct {
	SPI      uint32    `json:"spi"`
	Src      string    `json:"src"`
	Dst      string    `json:"dst"`
	Crypt    string    `json:"crypt"`
	CryptKey string    `json:"cryptKey"`
	Auth     string    `json:"auth"`
	AuthKey  string    `json:"authKey"`
	ESN      bool      `json:"esn"`
	NATT     []int     `json:"natt"`
	Inner4   [2]string `json:"inner4"`
	Inner6   [2]string `json:"inner6"`
	Frame    []string  `json:"frame"`   // Ethernet source and destination, if Scapy is to make packets
	Hostile  bool      `json:"hostile"` // also such as must be refused
}

// tunnel is one suite between two outer addresses.
type tunnel struct {
	suite          suite
	unit           int
	outer          string // protocol
	outerA, outerB netip.Addr
	inner          map[string][2]netip.Addr // by protocol, A's and B's
}

func (tn tunnel) column(inner string) string { return inner + " in " + tn.outer }

func (tn tunnel) spi(fromA bool) uint32 {
	if fromA {
		return uint32(1000 + 2*tn.unit)
	}
	return uint32(1001 + 2*tn.unit)
}

// key is a key of so many bits, another for each SPI.
func key(spi uint32, bits int) string {
	k := make([]byte, bits/8)
	for i := range k {
		spi = spi*0x9e3779b1 + 1
		k[i] = byte(spi >> 24)
	}
	return hex.EncodeToString(k)
}

// add is the statement for an SA.
func (tn tunnel) add(fromA bool, reqid int) string {
	src, dst := tn.outerA, tn.outerB
	if !fromA {
		src, dst = dst, src
	}
	s := fmt.Sprintf("add %v %v esp %d -m tunnel -u %d -r 8", src, dst, tn.spi(fromA), reqid)
	if tn.suite.esn {
		s += " -esn"
	}
	if tn.suite.natt {
		s += fmt.Sprintf(" -natt %v[4500] %v[4500]", src, dst)
	}
	quoted := func(bits int) string {
		if bits == 0 {
			return `""`
		}
		return "0x" + key(tn.spi(fromA), bits)
	}
	s += fmt.Sprintf(" -E %s %s", tn.suite.enc.Name, quoted(tn.suite.bits))
	if a := tn.suite.auth; a != nil && a.ID != algorithm.AuthNull {
		s += fmt.Sprintf(" -A %s %s", a.Name, quoted(a.Key.Min))
	}
	return s + ";\n"
}

func (tn tunnel) association(fromA bool) association {
	src, dst, i, j := tn.outerA, tn.outerB, 0, 1
	if !fromA {
		src, dst, i, j = dst, src, 1, 0
	}
	sa := association{
		SPI: tn.spi(fromA), Src: src.String(), Dst: dst.String(),
		Crypt: scapyCrypt[tn.suite.enc.ID], CryptKey: key(tn.spi(fromA), tn.suite.bits),
		Auth: "NULL", ESN: tn.suite.esn,
		Inner4: [2]string{tn.inner["IPv4"][i].String(), tn.inner["IPv4"][j].String()},
		Inner6: [2]string{tn.inner["IPv6"][i].String(), tn.inner["IPv6"][j].String()},
	}
	if tn.suite.auth != nil && tn.suite.auth.ID != algorithm.AuthNull {
		sa.Auth, sa.AuthKey = scapyAuth[tn.suite.auth.ID], key(tn.spi(fromA), tn.suite.auth.Key.Min)
	}
	if tn.suite.natt {
		sa.NATT = []int{4500, 4500}
	}
	return sa
}

// interfaceScript makes the interface on one host.
func (tn tunnel) interfaceScript(onA bool, reqid int) string {
	src, dst, i, j := tn.outerA, tn.outerB, 0, 1
	if !onA {
		src, dst, i, j = dst, src, 1, 0
	}
	family := map[string]string{"IPv4": "inet", "IPv6": "inet6"}[tn.outer]
	four, six := tn.inner["IPv4"], tn.inner["IPv6"]
	return fmt.Sprintf(`ifconfig ipsec%[1]d create reqid %[2]d
ifconfig ipsec%[1]d %[3]s tunnel %[4]v %[5]v
ifconfig ipsec%[1]d inet %[6]v/32 %[7]v
ifconfig ipsec%[1]d inet6 %[8]v %[9]v prefixlen 128
`, tn.unit, reqid, family, src, dst, four[i], four[j], six[i], six[j])
}

// families are the protocols, outside and inside.
var families = []string{"IPv4", "IPv6"}

// tunnels are all suites in both outer protocols.
func tunnels(t *testing.T) (all []tunnel) {
	t.Helper()
	for _, s := range suites(t) {
		for _, outer := range families {
			n := len(all)
			tn := tunnel{
				suite: s, unit: n, outer: outer,
				outerA: netip.MustParseAddr("192.168.0.3"), outerB: netip.MustParseAddr("192.168.0.5"),
				inner: map[string][2]netip.Addr{
					"IPv4": {netip.AddrFrom4([4]byte{172, 16, byte(n), 3}), netip.AddrFrom4([4]byte{172, 16, byte(n), 5})},
					"IPv6": {netip.MustParseAddr(fmt.Sprintf("fd01:%x::3", n)), netip.MustParseAddr(fmt.Sprintf("fd01:%x::5", n))},
				},
			}
			if outer == "IPv6" {
				tn.outerA, tn.outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
			}
			all = append(all, tn)
		}
	}
	return all
}

// sizes are octets of data in the pings.
var sizes = []int{17, 1000}

func TestPackets(t *testing.T) {
	t.Parallel()
	a, b := programs.NewHost(t, "hostA"), programs.NewHost(t, "hostB")
	ports := [2]lab.Port{{Host: a, Name: "eth0"}, {Host: b, Name: "eth0"}}
	for i, addrs := range [][]string{{"192.168.0.3/24", "fd00::3/64"}, {"192.168.0.5/24", "fd00::5/64"}} {
		for _, addr := range addrs {
			ports[i].Addrs = append(ports[i].Addrs, netip.MustParsePrefix(addr))
		}
	}
	if err := lab.Connect(ports[0], ports[1], 1500); err != nil {
		t.Fatal(err)
	}
	// As on a cable: of ESP in UDP several packets would pass as one.
	lab.RequireProgram(t, "ethtool", "ethtool")
	for _, h := range []*lab.Host{a, b} {
		programs.Quiet(t, h, "ethtool -K eth0 tx-udp-segmentation off")
	}
	all := tunnels(t)
	var interfacesA, interfacesB, keysA, keysB strings.Builder
	for _, tn := range all {
		interfacesA.WriteString(tn.interfaceScript(true, 10000+tn.unit))
		interfacesB.WriteString(tn.interfaceScript(false, 20000+tn.unit))
		for _, fromA := range []bool{true, false} {
			keysA.WriteString(tn.add(fromA, 10000+tn.unit))
			keysB.WriteString(tn.add(fromA, 20000+tn.unit))
		}
	}
	// What has no implementation says so for each SA, and has no row.
	programs.Quiet(t, a, "set -e\n"+interfacesA.String())
	programs.Quiet(t, b, "set -e\n"+interfacesB.String())
	lacking := programs.Output(t, a, programs.Setkey(keysA.String()))
	if other := programs.Output(t, b, programs.Setkey(keysB.String())); other != lacking {
		t.Fatalf("the hosts differ: %q and %q", lacking, other)
	}
	all = withSAs(t, a, all)

	wire, err := a.Capture("eth0", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	for _, tn := range all {
		for _, inner := range families {
			for _, size := range sizes {
				got, err := a.Ping(t.Context(), lab.Ping{To: tn.inner[inner][1], Size: size, Timeout: 5 * time.Second})
				if err != nil || got.Received != 1 {
					t.Errorf("%s, %s: a ping is not answered: %v", tn.suite.name, tn.column(inner), err)
				}
			}
		}
	}
	packets, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	capture := filepath.Join(t.TempDir(), "capture.pcap")
	if err := lab.WritePCAP(capture, packets); err != nil {
		t.Fatal(err)
	}
	t.Run("tshark", func(t *testing.T) { tsharkOpens(t, a, all, capture) })
	t.Run("Scapy", func(t *testing.T) { scapyOpens(t, a, b, all, capture, frameOf(t, packets)) })
}

// withSAs are the tunnels whose SAs the daemon has.
func withSAs(t *testing.T, h *lab.Host, all []tunnel) (some []tunnel) {
	t.Helper()
	dump := programs.Output(t, h, "setkey -D")
	for _, tn := range all {
		switch has := strings.Contains(dump, fmt.Sprintf("spi=%d(", tn.spi(true))); {
		case has:
			some = append(some, tn)
		case tn.suite.enc.ID != algorithm.EncryptTwofish:
			t.Errorf("%s: there is no SA", tn.suite.name)
		}
	}
	return some
}

// tsharkOpens gives tshark the table of SAs that the daemon's own command prints.
func tsharkOpens(t *testing.T, h *lab.Host, all []tunnel, capture string) {
	dir := t.TempDir()
	esp := programs.Output(t, h, "ipsecd -esp-sa")
	if err := os.WriteFile(filepath.Join(dir, "esp_sa"), []byte(esp), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tshark", "-n", "-r", capture,
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-T", "fields", "-E", "separator=,", "-E", "occurrence=f",
		"-e", "esp.spi", "-e", "esp.icv_good", "-e", "icmp.type", "-e", "icmpv6.type", "-Y", "esp")
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	if strings.Contains(stderr.String(), "UAT") {
		t.Errorf("tshark does not like the table of SAs:\n%s", stderr.String())
	}
	// What was in the packets of an SA: good ICVs, and ICMP's types.
	type inside struct{ good, all, requests4, answers4, requests6, answers6 int }
	found := map[uint32]*inside{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), ",")
		spi, err := strconv.ParseUint(f[0], 0, 32)
		if err != nil {
			t.Fatalf("tshark says %q", line)
		}
		in := found[uint32(spi)]
		if in == nil {
			in = new(inside)
			found[uint32(spi)] = in
		}
		in.all++
		if f[1] == "1" {
			in.good++
		}
		switch f[2] + "," + f[3] {
		case "8,":
			in.requests4++
		case "0,":
			in.answers4++
		case ",128":
			in.requests6++
		case ",129":
			in.answers6++
		}
	}
	n := len(sizes)
	for _, tn := range all {
		if reason := tn.suite.tsharkLacks(); reason != "" {
			byTshark.Lacks(tn.suite.name, reason)
			continue
		}
		want := map[bool]inside{
			true:  {good: 2 * n, all: 2 * n, requests4: n, requests6: n},
			false: {good: 2 * n, all: 2 * n, answers4: n, answers6: n},
		}
		ok := true
		for fromA, want := range want {
			if !tn.suite.checked() {
				want.good = 0
			}
			got := found[tn.spi(fromA)]
			if got == nil || *got != want {
				ok = false
				t.Errorf("%s outside, %s, SPI %d: tshark finds %+v, want %+v", tn.outer, tn.suite.name, tn.spi(fromA), got, want)
			}
		}
		for _, inner := range families {
			byTshark.Set(tn.suite.name, tn.column(inner), ok)
		}
	}
}

// frameOf returns who sends to whom on A's link.
func frameOf(t *testing.T, packets []lab.Packet) []string {
	t.Helper()
	for _, p := range packets {
		ip, ok := p.Decode().Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if ok && ip.SrcIP.Equal(net.IPv4(192, 168, 0, 3)) {
			eth := p.Decode().Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
			return []string{eth.SrcMAC.String(), eth.DstMAC.String()}
		}
	}
	t.Fatal("there is no packet from A")
	return nil
}

//go:embed peer.py
var peer []byte

// opened is what Scapy has found in a packet.
type opened struct {
	Src, Dst, Error string
	Type, Size      int
}

// made is a packet of Scapy's.
type made struct{ What, Frame string }

// scapyOpens has Scapy open the packets of the capture, and gives B those that
// Scapy has made.
func scapyOpens(t *testing.T, a, b *lab.Host, all []tunnel, capture string, frame []string) {
	var ask struct {
		SAs     []association `json:"sas"`
		Capture string        `json:"capture"`
	}
	ask.Capture = capture
	for _, tn := range all {
		if reason := tn.suite.scapyLacks(); reason != "" {
			byScapy.Lacks(tn.suite.name, reason)
			ofScapy.Lacks(tn.suite.name, reason)
			continue
		}
		there, back := tn.association(true), tn.association(false)
		there.Frame, there.Hostile = frame, tn.hostile()
		ask.SAs = append(ask.SAs, there, back)
	}
	answer := askScapy(t, ask)
	for _, tn := range all {
		if tn.suite.scapyLacks() != "" {
			continue
		}
		for _, inner := range families {
			err := errors.Join(
				tn.holds(answer.Opened[tn.spi(true)], inner, true),
				tn.holds(answer.Opened[tn.spi(false)], inner, false))
			byScapy.Set(tn.suite.name, tn.column(inner), err == nil)
			if err != nil {
				t.Errorf("%s, %s: Scapy opens: %v", tn.suite.name, tn.column(inner), err)
			}
		}
		err := tn.takes(t, a, b, answer.Made[tn.spi(true)])
		for _, inner := range families {
			ofScapy.Set(tn.suite.name, tn.column(inner), err == nil)
		}
		if err != nil {
			t.Errorf("%s, %s outside: of Scapy's packets: %v", tn.suite.name, tn.outer, err)
		}
	}
}

type scapyAnswer struct {
	Opened map[uint32][]opened
	Made   map[uint32][]made
}

func askScapy(t *testing.T, ask any) (answer scapyAnswer) {
	t.Helper()
	question, err := json.Marshal(ask)
	if err != nil {
		t.Fatal(err)
	}
	// Debian's, for Scapy is there.
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", string(peer))
	cmd.Stdin = bytes.NewReader(question)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("Scapy: %v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("Scapy's answer: %v\n%s", err, out)
	}
	return answer
}

// holds checks that the packets of an SA hold the pings, or the answers.
func (tn tunnel) holds(packets []opened, inner string, fromA bool) error {
	ends, kind, header := tn.inner[inner], 0, 20+8
	if inner == "IPv6" {
		kind, header = 129, 40+8
	}
	src, dst := ends[1], ends[0]
	if fromA {
		src, dst = ends[0], ends[1]
		kind = map[string]int{"IPv4": 8, "IPv6": 128}[inner]
	}
	var got, want []opened
	for _, p := range packets {
		if p.Error != "" {
			return errors.New(p.Error)
		}
		if addr, err := netip.ParseAddr(p.Src); err == nil && addr.Is4() == src.Is4() {
			got = append(got, p)
		}
	}
	for _, size := range sizes {
		want = append(want, opened{Src: src.String(), Dst: dst.String(), Type: kind, Size: header + size})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("packets (-want +got):\n%s", diff)
	}
	return nil
}

// hostile says whether the tunnel's SA is one of those that get what must be
// refused, too: an AEAD, a cipher with a MAC, and one in UDP, in either protocol.
func (tn tunnel) hostile() bool {
	switch tn.suite.name {
	case "aes-gcm-16 128", "aes-cbc 128", "aes-gcm-16 128, ESN", "aes-gcm-16 128, in UDP":
		return true
	}
	return false
}

// fate is what becomes of a packet of Scapy's: the counter that it is counted
// under, "answered" for an echo.
var fate = map[string]string{
	"IPv4": "answered", "IPv6": "answered", "more padding": "answered", "TFC padding": "answered",
	"replayed": "replay", "too old": "replay", "number 0": "replay",
	"dummy":                    "dummies",
	"IPv4 said to be IPv6":     "tunnel",
	"longer inside than it is": "tunnel",
	"half an inner header":     "tunnel",
	"ICMP without IP":          "nopf",
	"unknown SPI":              "notdb",
	"reserved SPI":             "notdb",
	"from a stranger":          "pdrops",
	"wrong ICV":                "badauth",
	"changed inside":           "badauth",
}

// takes injects packets for B and checks what becomes of them.
func (tn tunnel) takes(t *testing.T, a, b *lab.Host, packets []made) error {
	t.Helper()
	if len(packets) < 4 {
		return fmt.Errorf("there are only %d", len(packets))
	}
	wire, err := a.Capture("eth0", 128)
	if err != nil {
		return err
	}
	before := counters(t, b)
	want, truncated := map[string]int{}, 0
	for _, p := range packets {
		frame, err := hex.DecodeString(p.Frame)
		if err != nil {
			return err
		}
		switch {
		case p.What == "truncated":
			truncated++
		case tn.suite.esn && (p.What == "too old" || p.What == "number 0"):
			// They are taken for numbers of the next 2^32 (RFC 4303, appendix A2.2).
			want["badauth"]++
		default:
			want[fate[p.What]]++
		}
		if err := a.Inject("eth0", frame); err != nil {
			return err
		}
	}
	var got map[string]int
	err = lab.Until(5*time.Second, func() error {
		got = counters(t, b)
		for name, n := range before {
			got[name] -= n
		}
		if got["input"] != len(packets) {
			return fmt.Errorf("%d packets have arrived, want %d", got["input"], len(packets))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = lab.Until(5*time.Second, func() error {
		if n := answers(wire.Packets(), tn.spi(false)); n != want["answered"] {
			return fmt.Errorf("%d are answered, want %d", n, want["answered"])
		}
		return nil
	})
	if _, e := wire.Stop(); err != nil || e != nil {
		return errors.Join(err, e)
	}
	// What is cut off ends in one of four ways.
	short := got["hdrops"] + got["badilen"] + got["badauth"] - want["badauth"] + got["notdb"] - want["notdb"]
	if short != truncated {
		return fmt.Errorf("%d of %d that were cut off are counted as such: %v", short, truncated, got)
	}
	for what, name := range fate {
		if name != "answered" && name != "badauth" && name != "notdb" && got[name] != want[name] {
			return fmt.Errorf("%d are counted as %s, want %d (%s …)", got[name], name, want[name], what)
		}
	}
	return nil
}

// answers counts the packets of an SA in a capture.
func answers(packets []lab.Packet, spi uint32) (n int) {
	for _, p := range packets {
		decoded := p.Decode()
		if esp, ok := decoded.Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP); ok && esp.SPI == spi {
			n++
		}
		udp, ok := decoded.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if ok && len(udp.Payload) >= 4 && binary.BigEndian.Uint32(udp.Payload) == spi {
			n++
		}
	}
	return n
}

// counters are the daemon's counters of ESP.
func counters(t *testing.T, h *lab.Host) map[string]int {
	t.Helper()
	var status struct {
		ESP []struct {
			Name  string
			Value int
		}
	}
	if err := json.Unmarshal([]byte(programs.Output(t, h, "ipsecd -status -json")), &status); err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, c := range status.ESP {
		all[c.Name] = c.Value
	}
	return all
}
