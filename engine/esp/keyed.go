package esp

import (
	"encoding/binary"
	"hash"
)

// keyedHash is the keyed MD5 of RFC 1828 and the keyed SHA of RFC 1852: the
// hash of key, fill, data and key again.
type keyedHash struct {
	hash.Hash
	key    []byte
	prefix []byte // the key, filled to one block as the hash fills a message
}

// keyed returns what makes a keyedHash of a hash that writes a message's
// length in this byte order when it fills the last block.
func keyed(newHash func() hash.Hash, order binary.ByteOrder) func(key []byte) mac {
	return func(key []byte) mac {
		h := newHash()
		prefix := make([]byte, h.BlockSize())
		copy(prefix, key)
		prefix[len(key)] = 0x80
		order.PutUint64(prefix[len(prefix)-8:], uint64(len(key))*8)
		return &keyedHash{Hash: h, key: key, prefix: prefix}
	}
}

func (k *keyedHash) Reset() {
	k.Hash.Reset()
	k.Hash.Write(k.prefix)
}

// Sum ends the message; Reset must come next.
func (k *keyedHash) Sum(b []byte) []byte {
	k.Hash.Write(k.key)
	return k.Hash.Sum(b)
}
