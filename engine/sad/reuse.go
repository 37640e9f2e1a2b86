package sad

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"ifipsec/engine/algorithm"
)

// usedKeys remembers which keys of counter modes the database ever held. AES-CTR,
// AES-GCM and ChaCha20 are broken by two packets with one IV under one key
// (RFC 4106, section 9), and a new SA counts its IVs from the start. Only keyed
// hashes are kept, so that nothing can be learned of a key that is gone.
type usedKeys struct {
	secret []byte
	hashes map[uint64]struct{}
}

// hash returns what stands for the key of an SA, 0 if it may be used again.
func (u *usedKeys) hash(s *Spec) uint64 {
	e, ok := algorithm.EncryptionByID(s.Encrypt)
	if !ok || e.SaltBits == 0 { // of the algorithms here, those have a salt
		return 0
	}
	mac := hmac.New(sha256.New, u.secret)
	mac.Write(s.EncryptKey)
	return binary.NativeEndian.Uint64(mac.Sum(nil)) | 1
}

// note remembers what stands for a key.
func (u *usedKeys) note(hash uint64) {
	if hash != 0 {
		u.hashes[hash] = struct{}{}
	}
}

func (u *usedKeys) has(hash uint64) bool {
	_, used := u.hashes[hash]
	return used
}
