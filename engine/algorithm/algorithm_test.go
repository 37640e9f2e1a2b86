package algorithm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestNamesAndNumbers(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]uint8{
		"des-cbc": 2, "des-deriv": 2, "des-32iv": 2, "3des-cbc": 3, "cast128-cbc": 6, "blowfish-cbc": 7,
		"null": 11, "simple": 11, "aes-cbc": 12, "rijndael-cbc": 12, "aes-ctr": 13,
		"chacha20-poly1305": 15, "aes-gcm-16": 20, "camellia-cbc": 22, "twofish-cbc": 253,
	} {
		e, ok := EncryptionByName(name)
		if !ok || e.ID != id {
			t.Errorf("EncryptionByName(%q) = %v, %v; want number %d", name, e, ok, id)
		}
	}
	for name, id := range map[string]uint8{
		"hmac-md5": 2, "hmac-sha1": 3, "hmac-sha2-256": 5, "hmac-sha2-384": 6, "hmac-sha2-512": 7,
		"hmac-ripemd160": 8, "aes-xcbc-mac": 9, "chacha20-poly1305": 14, "keyed-md5": 249,
		"keyed-sha1": 250, "null": 251, "tcp-md5": 252,
	} {
		a, ok := AuthenticationByName(name)
		if !ok || a.ID != id {
			t.Errorf("AuthenticationByName(%q) = %v, %v; want number %d", name, a, ok, id)
		}
	}
	for name, id := range map[string]uint8{"oui": 1, "deflate": 2, "lzs": 3} {
		c, ok := CompressionByName(name)
		if !ok || c.ID != id {
			t.Errorf("CompressionByName(%q) = %v, %v; want number %d", name, c, ok, id)
		}
		if c, ok := CompressionByID(id); !ok || c.Name != name {
			t.Errorf("CompressionByID(%d) = %v, %v; want %s", id, c, ok, name)
		}
	}
	for _, name := range []string{"", "AES-CBC", "aes-cbc ", "none", "hmac-sha1"} {
		if e, ok := EncryptionByName(name); ok {
			t.Errorf("EncryptionByName(%q) = %v, want none", name, e)
		}
	}
}

func TestByID(t *testing.T) {
	t.Parallel()
	for _, e := range Encryptions() {
		if got, ok := EncryptionByID(e.ID); !ok || got != e {
			t.Errorf("EncryptionByID(%d) = %v, %v; want %v", e.ID, got, ok, e)
		}
	}
	for _, a := range Authentications() {
		if got, ok := AuthenticationByID(a.ID); !ok || got != a {
			t.Errorf("AuthenticationByID(%d) = %v, %v; want %v", a.ID, got, ok, a)
		}
	}
	if e, ok := EncryptionByID(EncryptNone); ok {
		t.Errorf("EncryptionByID(0) = %v, want none", e)
	}
	if a, ok := AuthenticationByID(AuthNone); ok {
		t.Errorf("AuthenticationByID(0) = %v, want none", a)
	}
}

// TestTable holds every entry to the rules that its users rely on.
func TestTable(t *testing.T) {
	t.Parallel()
	if !slices.IsSortedFunc(encryptions, func(a, b *Encryption) int { return int(a.ID) - int(b.ID) }) {
		t.Error("the encryption algorithms are not in order of number")
	}
	if !slices.IsSortedFunc(authentications, func(a, b *Authentication) int { return int(a.ID) - int(b.ID) }) {
		t.Error("the authentication algorithms are not in order of number")
	}
	names := map[string]bool{}
	for _, e := range encryptions {
		for _, n := range append([]string{e.Name}, e.Aliases...) {
			if names[n] {
				t.Errorf("%s: the name %q stands twice", e, n)
			}
			names[n] = true
		}
		checkKeyBits(t, e.Name, e.Key)
		if e.Era == 0 {
			t.Errorf("%s: no release has it", e)
		}
		if e.Align < 4 || e.Align%4 != 0 || e.Align%e.BlockSize != 0 {
			t.Errorf("%s: Align = %d, BlockSize = %d; want whole blocks and a multiple of 4", e, e.Align, e.BlockSize)
		}
		if e.AEAD != (e.ICVLen > 0) {
			t.Errorf("%s: AEAD = %v, ICVLen = %d", e, e.AEAD, e.ICVLen)
		}
	}
	for _, a := range authentications {
		checkKeyBits(t, a.Name, a.Key)
		if a.Era == 0 {
			t.Errorf("%s: no release has it", a)
		}
		if a.ICVLen%4 != 0 {
			t.Errorf("%s: ICVLen = %d, want a multiple of 4", a, a.ICVLen)
		}
	}
}

// TestEras: the names that each release's setkey(8) lists.
func TestEras(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		era            Era
		encryption     string
		authentication string
	}{
		{FreeBSD11, "des-cbc 3des-cbc cast128-cbc blowfish-cbc null aes-cbc aes-ctr aes-gcm-16 camellia-cbc twofish-cbc",
			"hmac-md5 hmac-sha1 hmac-sha2-256 hmac-sha2-384 hmac-sha2-512 hmac-ripemd160 aes-xcbc-mac keyed-md5 keyed-sha1 null tcp-md5"},
		{FreeBSD14, "null aes-cbc aes-ctr chacha20-poly1305 aes-gcm-16",
			"hmac-sha1 hmac-sha2-256 hmac-sha2-384 hmac-sha2-512 aes-xcbc-mac chacha20-poly1305 null tcp-md5"},
		{BothEras, "null aes-cbc aes-ctr aes-gcm-16",
			"hmac-sha1 hmac-sha2-256 hmac-sha2-384 hmac-sha2-512 aes-xcbc-mac null tcp-md5"},
	} {
		var encryption, authentication []string
		for _, e := range Encryptions() {
			if e.Era.Has(tt.era) {
				encryption = append(encryption, e.String())
			}
		}
		for _, a := range Authentications() {
			if a.Era.Has(tt.era) {
				authentication = append(authentication, a.String())
			}
		}
		if got := strings.Join(encryption, " "); got != tt.encryption {
			t.Errorf("era %d: encryption\n%s, want\n%s", tt.era, got, tt.encryption)
		}
		if got := strings.Join(authentication, " "); got != tt.authentication {
			t.Errorf("era %d: authentication\n%s, want\n%s", tt.era, got, tt.authentication)
		}
	}
	for _, c := range Compressions() {
		if !c.Era.Has(BothEras) {
			t.Errorf("compression %s: era %d, want both", c, c.Era)
		}
	}
}

func checkKeyBits(t *testing.T, name string, k KeyBits) {
	t.Helper()
	if k.Min > k.Max || k.Step <= 0 || k.Step%8 != 0 || (k.Max-k.Min)%k.Step != 0 {
		t.Errorf("%s: key lengths %+v", name, k)
	}
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		bits string // valid lengths up to 2100 bits
		want string // in the error
	}{
		{"des-cbc", "[64]", "64 bits"},
		{"3des-cbc", "[192]", "192 bits"},
		{"aes-cbc", "[128 192 256]", "128, 192 or 256 bits"},
		{"aes-ctr", "[160 224 288]", "160, 224 or 288 bits (the last 32 are salt)"},
		{"aes-gcm-16", "[160 224 288]", "160, 224 or 288 bits (the last 32 are salt)"},
		{"chacha20-poly1305", "[288]", "288 bits (the last 32 are salt)"},
		{"camellia-cbc", "[128 192 256]", "128, 192 or 256 bits"},
		{"cast128-cbc", "[40 48 56 64 72 80 88 96 104 112 120 128]", "40 to 128 bits in steps of 8"},
	}
	for _, tt := range tests {
		e, ok := EncryptionByName(tt.name)
		if !ok {
			t.Fatalf("no algorithm %q", tt.name)
		}
		var valid []int
		for bits := range 2100 {
			err := e.CheckKey(bits)
			if err == nil {
				valid = append(valid, bits)
				continue
			}
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s: CheckKey(%d) = %v, want EINVAL in it", tt.name, bits, err)
			}
			for _, want := range []string{tt.name, fmt.Sprintf("has %d bits", bits), tt.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("CheckKey(%d) = %q, want %q in it", bits, err, want)
				}
			}
		}
		if got := fmt.Sprint(valid); got != tt.bits {
			t.Errorf("%s: valid key lengths %s, want %s", tt.name, got, tt.bits)
		}
	}
}

func TestCheckKeyAuthentication(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]KeyBits{
		"hmac-md5": {128, 128, 8}, "hmac-sha1": {160, 160, 8}, "hmac-sha2-256": {256, 256, 8},
		"hmac-sha2-384": {384, 384, 8}, "hmac-sha2-512": {512, 512, 8}, "tcp-md5": {8, 640, 8}, "null": {0, 2048, 8},
	} {
		a, ok := AuthenticationByName(name)
		if !ok {
			t.Fatalf("no algorithm %q", name)
		}
		for bits := range 2100 {
			valid := bits >= want.Min && bits <= want.Max && bits%8 == 0
			if err := a.CheckKey(bits); (err == nil) != valid || err != nil && !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s: CheckKey(%d) = %v, want valid %v", name, bits, err, valid)
			}
		}
	}
}
