package wireshark

import (
	"net/netip"
	"strings"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// esp is what a dump tells of an SA.
func esp(src, dst string, encrypt uint8, encryptKey string, auth uint8, authKey string) *pfkey.Message {
	address := func(kind pfkey.ExtType, a string) *pfkey.Address {
		return &pfkey.Address{Kind: kind, Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 0)}
	}
	m := &pfkey.Message{Type: pfkey.TypeDump, SAType: pfkey.SATypeESP, Exts: []pfkey.Extension{
		&pfkey.SA{SPI: 10000, State: pfkey.StateMature, Auth: auth, Encrypt: encrypt},
		address(pfkey.ExtAddressSrc, src), address(pfkey.ExtAddressDst, dst),
	}}
	if encryptKey != "" {
		m.Exts = append(m.Exts, &pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 8 * len(encryptKey), Key: []byte(encryptKey)})
	}
	if authKey != "" {
		m.Exts = append(m.Exts, &pfkey.Key{Kind: pfkey.ExtKeyAuth, Bits: 8 * len(authKey), Key: []byte(authKey)})
	}
	return m
}

func TestRecord(t *testing.T) {
	t.Parallel()
	const a, b = "192.168.0.3", "192.168.0.5"
	larval := esp(a, b, algorithm.EncryptAESCBC, "k", 0, "")
	pfkey.Find[*pfkey.SA](larval).State = pfkey.StateLarval
	ah := esp(a, b, 0, "", algorithm.AuthHMACSHA1, "k")
	ah.SAType = pfkey.SATypeAH
	for name, c := range map[string]struct {
		m    *pfkey.Message
		want string
	}{
		"the manual page's": {esp(a, b, algorithm.EncryptAESCBC, "VerySecureKey!!1", 0, ""),
			`"IPv4","192.168.0.3","192.168.0.5","0x00002710","AES-CBC [RFC3602]","0x566572795365637572654b6579212131","NULL",""` + "\n"},
		"authenticated": {esp("fe80::1%3", "fe80::2%3", algorithm.EncryptAESCTR, "12", algorithm.AuthHMACSHA256, "3"),
			`"IPv6","fe80::1","fe80::2","0x00002710","AES-CTR [RFC3686]","0x3132","HMAC-SHA-256-128 [RFC4868]","0x33"` + "\n"},
		"not to be checked": {esp(a, b, algorithm.EncryptNull, "", algorithm.AuthAESXCBC, "3"),
			`"IPv4","192.168.0.3","192.168.0.5","0x00002710","NULL","","ANY 96 bit authentication [no checking]",""` + "\n"},
		"AEAD": {esp(a, b, algorithm.EncryptAESGCM16, "12", algorithm.AuthNull, ""),
			`"IPv4","192.168.0.3","192.168.0.5","0x00002710","AES-GCM with 16 octet ICV [RFC4106]","0x3132","NULL",""` + "\n"},
		"unknown there": {esp(a, b, algorithm.EncryptCamellia, "12", 0, ""),
			"# SPI 10000 from 192.168.0.3 to 192.168.0.5: Wireshark can't open camellia-cbc\n"},
		"unknown here":  {esp(a, b, 99, "12", 0, ""), "# SPI 10000 from 192.168.0.3 to 192.168.0.5: Wireshark can't open encryption algorithm 99\n"},
		"larval":        {larval, ""},
		"AH":            {ah, ""},
		"without an SA": {&pfkey.Message{Type: pfkey.TypeDump, SAType: pfkey.SATypeESP}, ""},
	} {
		if got := Record(c.m); got != c.want {
			t.Errorf("%s:\n%swant\n%s", name, got, c.want)
		}
	}
}

// Whatever authenticates ESP has a name, so that the ICV is not taken for data.
func TestEveryAuthentication(t *testing.T) {
	t.Parallel()
	for _, a := range algorithm.Authentications() {
		if a.ICVLen == 0 || a.ID == algorithm.AuthChaCha20Poly1305 {
			continue
		}
		got := Record(esp("::1", "::2", algorithm.EncryptAESCBC, "k", a.ID, "k"))
		if strings.HasPrefix(got, "#") || strings.Contains(got, `"",`) {
			t.Errorf("%s: %s", a, got)
		}
	}
}
