package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// ctrNonceLen is the octets of the key's end that begin every counter block.
const ctrNonceLen = 4

// ctrEncryption is AES in counter mode as RFC 3686, section 4 has it: the
// counter block is nonce, IV and a count of the blocks from 1. The IV is the
// sequence number with all its 64 bits, which no two packets under one key
// have in common.
//
// The streams of package crypto/cipher cannot be set to another counter, so
// each packet would cost an allocation. GCM can, and encrypts with the same
// counter blocks from 2 on: it does the bulk, and its tag is thrown away. That
// is four times as fast as block by block.
type ctrEncryption struct {
	block cipher.Block
	bulk  cipher.AEAD

	counter [aes.BlockSize]byte // nonce, IV, count
	key     [aes.BlockSize]byte // key stream of one block
	saved   [aes.BlockSize]byte // what was where GCM puts its tag
}

func newCTR(key []byte, _ *random) (func() encryption, error) {
	keyLen := len(key) - ctrNonceLen
	block, err := aes.NewCipher(key[:keyLen])
	if err != nil {
		return nil, err
	}
	bulk, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	nonce := [ctrNonceLen]byte(key[keyLen:])
	return func() encryption {
		c := &ctrEncryption{block: block, bulk: bulk}
		copy(c.counter[:], nonce[:])
		return c
	}, nil
}

func (c *ctrEncryption) encrypt(iv, text []byte, seq uint64) {
	binary.BigEndian.PutUint64(iv, seq)
	c.decrypt(iv, text)
}

func (c *ctrEncryption) decrypt(iv, text []byte) {
	copy(c.counter[ctrNonceLen:], iv)
	text = text[c.xor(1, text):]
	count := uint32(2)
	if whole := (len(text) - aes.BlockSize) &^ (aes.BlockSize - 1); whole > 0 {
		// The tag falls on the block after the bulk, which comes next.
		copy(c.saved[:], text[whole:])
		c.bulk.Seal(text[:0], c.counter[:ctrNonceLen+len(iv)], text[:whole], nil)
		copy(text[whole:], c.saved[:])
		text = text[whole:]
		count += uint32(whole / aes.BlockSize)
	}
	for ; len(text) > 0; count++ {
		text = text[c.xor(count, text):]
	}
}

// xor encrypts the block at the beginning of text with this count, and returns
// how many octets that were.
func (c *ctrEncryption) xor(count uint32, text []byte) int {
	binary.BigEndian.PutUint32(c.counter[len(c.counter)-4:], count)
	c.block.Encrypt(c.key[:], c.counter[:])
	return subtle.XORBytes(text, text, c.key[:])
}
