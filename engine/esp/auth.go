package esp

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"

	//lint:ignore SA1019 SAs with this hash must still work with their peers
	"golang.org/x/crypto/ripemd160"

	"ifipsec/engine/algorithm"
)

// macs makes the authentication algorithms of ESP, by their number in
// PF_KEYv2. The ICV is the first octets of what they return.
var macs = map[uint8]func(key []byte) mac{
	algorithm.AuthHMACMD5:       hmacOf(md5.New),                     // RFC 2403
	algorithm.AuthHMACSHA1:      hmacOf(sha1.New),                    // RFC 2404
	algorithm.AuthHMACSHA256:    hmacOf(sha256.New),                  // RFC 4868
	algorithm.AuthHMACSHA384:    hmacOf(sha512.New384),               // RFC 4868
	algorithm.AuthHMACSHA512:    hmacOf(sha512.New),                  // RFC 4868
	algorithm.AuthHMACRIPEMD160: hmacOf(ripemd160.New),               // RFC 2857
	algorithm.AuthAESXCBC:       newXCBC,                             // RFC 3566
	algorithm.AuthKeyedMD5:      keyed(md5.New, binary.LittleEndian), // RFC 1828
	algorithm.AuthKeyedSHA1:     keyed(sha1.New, binary.BigEndian),   // RFC 1852
}

func hmacOf(newHash func() hash.Hash) func(key []byte) mac {
	return func(key []byte) mac { return hmac.New(newHash, key) }
}
