// Package wireshark writes SAs as records of Wireshark's table esp_sa, with
// which Wireshark and tshark open the ESP packets of a capture. It is the
// format of Wireshark 4.0, which newer versions read.
package wireshark

import (
	"encoding/hex"
	"fmt"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// Names of Wireshark's, by algorithm.
var (
	encryptions = map[uint8]string{
		algorithm.EncryptNull:     "NULL",
		algorithm.EncryptDES:      "DES-CBC [RFC2405]",
		algorithm.Encrypt3DES:     "TripleDES-CBC [RFC2451]",
		algorithm.EncryptCAST128:  "CAST5-CBC [RFC2144]",
		algorithm.EncryptBlowfish: "BLOWFISH-CBC [RFC2451]",
		algorithm.EncryptAESCBC:   "AES-CBC [RFC3602]",
		algorithm.EncryptAESCTR:   "AES-CTR [RFC3686]",
		algorithm.EncryptAESGCM16: "AES-GCM with 16 octet ICV [RFC4106]",
	}
	authentications = map[uint8]string{
		algorithm.AuthNull:          "NULL",
		algorithm.AuthHMACMD5:       "HMAC-MD5-96 [RFC2403]",
		algorithm.AuthHMACSHA1:      "HMAC-SHA-1-96 [RFC2404]",
		algorithm.AuthHMACSHA256:    "HMAC-SHA-256-128 [RFC4868]",
		algorithm.AuthHMACSHA384:    "HMAC-SHA-384-192 [RFC4868]",
		algorithm.AuthHMACSHA512:    "HMAC-SHA-512-256 [RFC4868]",
		algorithm.AuthHMACRIPEMD160: "MAC-RIPEMD-160-96 [RFC2857]",
	}
	// unchecked are those whose ICV Wireshark can only skip, by its bits.
	unchecked = map[int]string{
		96:  "ANY 96 bit authentication [no checking]",
		128: "ANY 128 bit authentication [no checking]",
	}
)

// Record returns the record of an SA that a dump or a GET has told of, with a
// line end. If Wireshark can't open the SA's packets, it is a comment that says
// why. It is empty for an SA without packets of ESP: of another type, or
// larval. The record holds the keys.
func Record(m *pfkey.Message) string {
	sa := pfkey.Find[*pfkey.SA](m)
	src, dst := m.Src(), m.Dst()
	if m.SAType != pfkey.SATypeESP || sa == nil || src == nil || dst == nil || sa.State == pfkey.StateLarval {
		return ""
	}
	from, to := src.Addr.Addr().WithZone(""), dst.Addr.Addr().WithZone("")
	protocol := "IPv4"
	if from.Is6() {
		protocol = "IPv6"
	}
	encryption, ok := encryptions[sa.Encrypt]
	if !ok {
		return fmt.Sprintf("# SPI %d from %v to %v: Wireshark can't open %s\n", sa.SPI, from, to, nameOf(sa.Encrypt))
	}
	var encryptKey, authKey []byte
	if k := m.KeyEncrypt(); k != nil {
		encryptKey = k.Key
	}
	authentication := "NULL"
	if e, _ := algorithm.EncryptionByID(sa.Encrypt); !e.AEAD && sa.Auth != 0 {
		if authentication, ok = authentications[sa.Auth]; !ok {
			a, _ := algorithm.AuthenticationByID(sa.Auth)
			authentication = unchecked[8*a.ICVLen]
		} else if k := m.KeyAuth(); k != nil {
			authKey = k.Key
		}
	}
	return fmt.Sprintf("%q,%q,%q,\"0x%08x\",%q,%q,%q,%q\n", protocol, from, to, sa.SPI,
		encryption, number(encryptKey), authentication, number(authKey))
}

// number is a key as Wireshark reads it, nothing if there is none.
func number(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return "0x" + hex.EncodeToString(key)
}

func nameOf(id uint8) string {
	if e, ok := algorithm.EncryptionByID(id); ok {
		return e.Name
	}
	return fmt.Sprintf("encryption algorithm %d", id)
}
