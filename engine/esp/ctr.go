package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// nonceLen is the octets of the key's end that begin every counter block.
const nonceLen = 4

// ctrEncryption is AES in counter mode as RFC 3686, section 4 has it: the
// counter block is nonce, IV and a count of the blocks from 1. The IV is the
// sequence number with all its 64 bits, which no two packets under one key
// have in common.
//
// The streams of package crypto/cipher cannot be set to another counter and so
// would cost an allocation a packet.
type ctrEncryption struct {
	block     cipher.Block
	counter   [aes.BlockSize]byte
	keystream [32 * aes.BlockSize]byte
}

func newCTR(key []byte, _ *random) (func() encryption, error) {
	keyLen := len(key) - nonceLen
	block, err := aes.NewCipher(key[:keyLen])
	if err != nil {
		return nil, err
	}
	nonce := [nonceLen]byte(key[keyLen:])
	return func() encryption {
		c := &ctrEncryption{block: block}
		copy(c.counter[:], nonce[:])
		return c
	}, nil
}

func (c *ctrEncryption) encrypt(iv, text []byte, seq uint64) {
	binary.BigEndian.PutUint64(iv, seq)
	c.decrypt(iv, text)
}

func (c *ctrEncryption) decrypt(iv, text []byte) {
	copy(c.counter[nonceLen:], iv)
	for count := uint32(1); len(text) > 0; {
		need := min((len(text)+aes.BlockSize-1)&^(aes.BlockSize-1), len(c.keystream))
		for at := 0; at < need; at += aes.BlockSize {
			binary.BigEndian.PutUint32(c.counter[nonceLen+len(iv):], count)
			c.block.Encrypt(c.keystream[at:], c.counter[:])
			count++
		}
		text = text[subtle.XORBytes(text, text, c.keystream[:need]):]
	}
}
