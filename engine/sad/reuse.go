package sad

import (
	"hash/maphash"

	"ifipsec/engine/algorithm"
)

// usedKeys remembers which keys of counter modes the database ever held. AES-CTR,
// AES-GCM and ChaCha20 are broken by two packets with one IV under one key
// (RFC 4106, section 9), and a new SA counts its IVs from the start. Only keyed
// hashes are kept, so that nothing can be learned of a key that is gone.
type usedKeys struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

func newUsedKeys() usedKeys {
	return usedKeys{seed: maphash.MakeSeed(), hashes: map[uint64]struct{}{}}
}

// note remembers the key of an SA and says whether it was used before.
func (u *usedKeys) note(s *Spec) bool {
	e, ok := algorithm.EncryptionByID(s.Encrypt)
	if !ok || e.SaltBits == 0 { // of the algorithms here, those have a salt
		return false
	}
	h := maphash.Bytes(u.seed, s.EncryptKey)
	_, reused := u.hashes[h]
	u.hashes[h] = struct{}{}
	return reused
}
