package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// xcbc is AES-XCBC-MAC (RFC 3566): CBC over the message, in which the last
// block is also covered by one of two keys that tell whether it was filled up.
type xcbc struct {
	block         cipher.Block // with K1
	whole, filled [aes.BlockSize]byte

	chain [aes.BlockSize]byte
	last  [aes.BlockSize]byte // what was written and not yet chained
	n     int                 // octets in last; only full when the message ends there
}

// newXCBC needs a key of 16 octets.
func newXCBC(key []byte) mac {
	x := &xcbc{}
	derive := func(dst []byte, n byte) {
		copy(dst, bytes.Repeat([]byte{n}, aes.BlockSize))
		mustAES(key).Encrypt(dst, dst)
	}
	var k1 [aes.BlockSize]byte
	derive(k1[:], 1)
	derive(x.whole[:], 2)
	derive(x.filled[:], 3)
	x.block = mustAES(k1[:])
	return x
}

// mustAES is for keys of 16 octets, which AES does not refuse.
func mustAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	return block
}

func (x *xcbc) Reset() {
	x.chain, x.n = [aes.BlockSize]byte{}, 0
}

func (x *xcbc) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if x.n == aes.BlockSize {
			x.step()
		}
		n := copy(x.last[x.n:], p)
		x.n += n
		p = p[n:]
	}
	return written, nil
}

// step chains the last block, which is full.
func (x *xcbc) step() {
	subtle.XORBytes(x.chain[:], x.chain[:], x.last[:])
	x.block.Encrypt(x.chain[:], x.chain[:])
	x.n = 0
}

// Sum ends the message; Reset must come next.
func (x *xcbc) Sum(b []byte) []byte {
	if x.n == aes.BlockSize {
		subtle.XORBytes(x.last[:], x.last[:], x.whole[:])
	} else {
		x.last[x.n] = 0x80
		clear(x.last[x.n+1:])
		subtle.XORBytes(x.last[:], x.last[:], x.filled[:])
	}
	x.step()
	return append(b, x.chain[:]...)
}
