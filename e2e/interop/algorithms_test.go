package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
	"ifipsec/engine/algorithm"
)

// linuxEncryption is what Linux calls an encryption algorithm, by its number.
var linuxEncryption = map[uint8]string{
	algorithm.EncryptNull:             "ecb(cipher_null)",
	algorithm.EncryptDES:              "cbc(des)",
	algorithm.Encrypt3DES:             "cbc(des3_ede)",
	algorithm.EncryptCAST128:          "cbc(cast5)",
	algorithm.EncryptBlowfish:         "cbc(blowfish)",
	algorithm.EncryptAESCBC:           "cbc(aes)",
	algorithm.EncryptAESCTR:           "rfc3686(ctr(aes))",
	algorithm.EncryptCamellia:         "cbc(camellia)",
	algorithm.EncryptAESGCM16:         "rfc4106(gcm(aes))",
	algorithm.EncryptChaCha20Poly1305: "rfc7539esp(chacha20,poly1305)",
}

// linuxAuthentication is what Linux calls an authentication algorithm.
var linuxAuthentication = map[uint8]string{
	algorithm.AuthHMACMD5:       "hmac(md5)",
	algorithm.AuthHMACSHA1:      "hmac(sha1)",
	algorithm.AuthHMACSHA256:    "hmac(sha256)",
	algorithm.AuthHMACSHA384:    "hmac(sha384)",
	algorithm.AuthHMACSHA512:    "hmac(sha512)",
	algorithm.AuthHMACRIPEMD160: "hmac(rmd160)",
	algorithm.AuthAESXCBC:       "xcbc(aes)",
	algorithm.AuthNull:          "digest_null",
}

// linuxLacks are the algorithms of FreeBSD's table that Linux does not have.
var linuxLacks = map[string]string{
	"twofish-cbc": "a name without an implementation, in FreeBSD too",
	"keyed-md5":   "Linux has no keyed MD5 (RFC 1828), only HMAC",
	"keyed-sha1":  "Linux has no keyed SHA-1 (RFC 1852), only HMAC",
}

// suite is a cipher with the length of its key, and an authenticator.
type suite struct {
	enc  *algorithm.Encryption
	bits int
	auth *algorithm.Authentication // nil for an AEAD
}

func (s suite) String() string {
	name := s.enc.Name
	if s.enc.Key.Min != s.enc.Key.Max && s.bits > 0 {
		name += fmt.Sprintf(" %d", s.bits-s.enc.SaltBits)
	}
	if s.auth != nil {
		name += " " + s.auth.Name
	}
	return name
}

// suites are all ciphers with the lengths of keys that differ in kind, and all
// authenticators.
func suites() (all []suite) {
	sha, _ := algorithm.AuthenticationByID(algorithm.AuthHMACSHA256)
	aes, _ := algorithm.EncryptionByID(algorithm.EncryptAESCBC)
	for _, enc := range algorithm.Encryptions() {
		auth := sha
		if enc.AEAD {
			auth = nil
		}
		for _, bits := range keyLengths(enc) {
			all = append(all, suite{enc, bits, auth})
		}
	}
	for _, auth := range algorithm.Authentications() {
		switch {
		case auth == sha:
			// The ciphers have it.
		case auth.ICVLen == 0 && auth.ID != algorithm.AuthNull:
			// Not for ESP.
		case auth.ID == algorithm.AuthChaCha20Poly1305:
			// A part of the cipher.
		default:
			all = append(all, suite{aes, 128, auth})
		}
	}
	return all
}

// inLinux says whether Linux has the suite, and if not, why.
func (s suite) inLinux() (has bool, why string) {
	switch {
	case linuxEncryption[s.enc.ID] == "":
		return false, linuxLacks[s.enc.Name]
	case s.auth != nil && linuxAuthentication[s.auth.ID] == "":
		return false, linuxLacks[s.auth.Name]
	}
	return true, ""
}

// keyLengths are all lengths of a cipher's keys in bits, if they are few, else
// the least, the greatest, and the usual one.
func keyLengths(enc *algorithm.Encryption) (all []int) {
	key := enc.Key
	switch {
	case enc.ID == algorithm.EncryptNull:
		return []int{0}
	case (key.Max-key.Min)/key.Step > 3:
		all = []int{key.Min, 128, key.Max}
		return slices.Compact(all)
	}
	for bits := key.Min; bits <= key.Max; bits += key.Step {
		all = append(all, bits)
	}
	return all
}

// key returns a key of so many bits, another for each number.
func key(number uint32, bits int) string {
	if bits == 0 {
		return `""`
	}
	var s strings.Builder
	for s.Len() < bits/4 {
		number = number*0x9e3779b1 + 1
		fmt.Fprintf(&s, "%08x", number)
	}
	return "0x" + s.String()[:bits/4]
}

// protection returns the suite with keys of their own for each number.
func (s suite) protection(number uint32) (p protection) {
	enc := key(number, s.bits)
	p.setkey = fmt.Sprintf("-E %s %s", s.enc.Name, enc)
	if s.enc.AEAD {
		p.linux = fmt.Sprintf("aead '%s' %s %d", linuxEncryption[s.enc.ID], enc, 8*s.enc.ICVLen)
		return p
	}
	p.linux = fmt.Sprintf("enc '%s' %s", linuxEncryption[s.enc.ID], enc)
	if s.auth.ID == algorithm.AuthNull {
		return p
	}
	auth := key(number+1, s.auth.Key.Min)
	p.setkey += fmt.Sprintf(" -A %s %s", s.auth.Name, auth)
	p.linux += fmt.Sprintf(" auth-trunc '%s' %s %d", linuxAuthentication[s.auth.ID], auth, 8*s.auth.ICVLen)
	return p
}

// TestAlgorithms has every algorithm carry packets of both families and of all
// kinds of sizes between A and Linux, both ways.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	for _, outer := range families {
		t.Run(outer, func(t *testing.T) {
			t.Parallel()
			a, l := newLinux(t)
			// The packets of the second do not fit the link: they travel in
			// fragments.
			second := newTunnel(1, outer)
			second.mtu = 2 * linkMTU
			second.outerA, second.outerL = second.outerA.Next(), second.outerL.Next()
			bits := map[string]int{"IPv4": 24, "IPv6": 64}[outer]
			if err := a.AddAddr("eth0", netip.PrefixFrom(second.outerA, bits)); err != nil {
				t.Fatal(err)
			}
			typed(t, l, fmt.Sprintf("ip address add %v/%d dev %s", second.outerL, bits, uml.Interface))
			tunnels := []tunnel{newTunnel(0, outer), second}
			for _, tn := range tunnels {
				tn.setUp(t, a, l)
			}
			for i, s := range suites() {
				t.Run(s.String(), func(t *testing.T) {
					if has, why := s.inLinux(); !has {
						cells.Lacks(s.String(), why)
						return
					}
					var keysA, keysL strings.Builder
					for j, tn := range tunnels {
						number := uint32(1000 + 100*i + 10*j)
						there, back := s.protection(number), s.protection(number+5)
						keysA.WriteString(tn.keysA(there, back))
						keysL.WriteString(tn.keysL(there, back))
					}
					programs.Quiet(t, a, programs.Setkey("flush;\n"+keysA.String()))
					typed(t, l, "set -e\nip xfrm state flush\n"+keysL.String())
					for _, inner := range families {
						err := carries(t, a, l, tunnels, inner)
						cells.Set(s.String(), column(outer, inner), err == nil)
						if err != nil {
							t.Errorf("%s: %v", inner, err)
						}
					}
				})
			}
		})
	}
}

// carries pings both ways, through each tunnel.
func carries(t *testing.T, a *lab.Host, l *uml.Kernel, tunnels []tunnel, inner string) error {
	header := map[string]int{"IPv4": 20 + 8, "IPv6": 40 + 8}[inner]
	var errs []error
	for _, tn := range tunnels {
		for _, size := range []int{1, 56, tn.mtu - header, tn.mtu - header + 1, 2 * tn.mtu} {
			for _, end := range []struct {
				name string
				pinger
				to netip.Addr
			}{{"A", a, tn.innerL[inner]}, {"Linux", l, tn.innerA[inner]}} {
				if size > 56 && inner == "IPv6" {
					// Nobody but its sender cuts IPv6 into pieces: Linux drops the
					// first packet that is too large for the link when it is sealed,
					// and knows from then on.
					_ = answeredWithin(t.Context(), end, end.to, size, impatience)
				}
				err := answered(t.Context(), end, end.to, size)
				if err != nil {
					errs = append(errs, fmt.Errorf("from %s: %w", end.name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
