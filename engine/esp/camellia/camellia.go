// Package camellia is the block cipher Camellia of RFC 3713, for IPsec's
// camellia-cbc (RFC 4312). Its tables are looked up by what is secret, so who
// measures the processor's cache may learn of it.
package camellia

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// BlockSize is Camellia's block size in octets.
const BlockSize = 16

// KeySizeError is the length in octets of a key that no Camellia has.
type KeySizeError int

func (k KeySizeError) Error() string {
	return fmt.Sprintf("camellia: key of %d octets, want 16, 24 or 32", int(k))
}

// Cipher is Camellia with a key. It may be used concurrently.
type Cipher struct {
	whitening [4]uint64
	rounds    [24]uint64 // the first 18 with a key of 128 bits
	layers    [6]uint64  // of the functions FL and FL^-1 between six rounds, the first four with 128 bits
	count     int        // of rounds
}

var _ cipher.Block = (*Cipher)(nil)

// NewCipher returns Camellia with a key of 16, 24 or 32 octets, else a
// [KeySizeError].
func NewCipher(key []byte) (*Cipher, error) {
	var left, right pair
	switch len(key) {
	case 16:
	case 24:
		right.high = binary.BigEndian.Uint64(key[16:])
		right.low = ^right.high
	case 32:
		right = load(key[16:])
	default:
		return nil, KeySizeError(len(key))
	}
	left = load(key)
	c := new(Cipher)
	c.expand(left, right, len(key) == 16)
	return c, nil
}

// pair is 128 bits.
type pair struct{ high, low uint64 }

func load(b []byte) pair { return pair{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])} }

func (p pair) xor(q pair) pair { return pair{p.high ^ q.high, p.low ^ q.low} }

// mix is two rounds with constants.
func (p pair) mix(first, second uint64) pair {
	p.low ^= f(p.high, first)
	p.high ^= f(p.low, second)
	return p
}

// rotate rotates to the left by less than 128 bits.
func (p pair) rotate(n uint) pair {
	if n >= 64 {
		p, n = pair{p.low, p.high}, n-64
	}
	return pair{p.high<<n | p.low>>(64-n), p.low<<n | p.high>>(64-n)}
}

// sigma are the constants of the key schedule (RFC 3713, section 2.2).
var sigma = [6]uint64{
	0xa09e667f3bcc908b, 0xb67ae8584caa73b2, 0xc6ef372fe94f82be,
	0x54ff53a5f1d36f1c, 0x10e527fade682d1d, 0xb05688c2b3e6c1fd,
}

// expand makes the subkeys of the key's left and right half (RFC 3713, section
// 2.2).
func (c *Cipher) expand(kl, kr pair, short bool) {
	ka := kl.xor(kr).mix(sigma[0], sigma[1]).xor(kl).mix(sigma[2], sigma[3])
	kb := ka.xor(kr).mix(sigma[4], sigma[5])
	put := func(to []uint64, keys ...pair) {
		for i, k := range keys {
			to[2*i], to[2*i+1] = k.high, k.low
		}
	}
	if short {
		c.count = 18
		put(c.whitening[:], kl, ka.rotate(111))
		put(c.rounds[:], ka, kl.rotate(15), ka.rotate(15), kl.rotate(45),
			pair{ka.rotate(45).high, kl.rotate(60).low}, ka.rotate(60),
			kl.rotate(94), ka.rotate(94), kl.rotate(111))
		put(c.layers[:], ka.rotate(30), kl.rotate(77))
		return
	}
	c.count = 24
	put(c.whitening[:], kl, kb.rotate(111))
	put(c.rounds[:], kb, kr.rotate(15), ka.rotate(15), kb.rotate(30), kl.rotate(45), ka.rotate(45),
		kr.rotate(60), kb.rotate(60), kl.rotate(77), kr.rotate(94), ka.rotate(94), kl.rotate(111))
	put(c.layers[:], kr.rotate(30), kl.rotate(60), ka.rotate(77))
}

// BlockSize implements [cipher.Block].
func (c *Cipher) BlockSize() int { return BlockSize }

// Encrypt implements [cipher.Block].
func (c *Cipher) Encrypt(dst, src []byte) {
	check(dst, src)
	d := load(src).xor(pair{c.whitening[0], c.whitening[1]})
	for i := 0; i < c.count; i += 2 {
		if i != 0 && i%6 == 0 {
			d.high = fl(d.high, c.layers[i/3-2])
			d.low = inverseFL(d.low, c.layers[i/3-1])
		}
		d = d.mix(c.rounds[i], c.rounds[i+1])
	}
	store(dst, pair{d.low ^ c.whitening[2], d.high ^ c.whitening[3]})
}

// Decrypt implements [cipher.Block]. It is encryption with the subkeys in
// reverse order.
func (c *Cipher) Decrypt(dst, src []byte) {
	check(dst, src)
	d := load(src).xor(pair{c.whitening[2], c.whitening[3]})
	for i := c.count - 2; i >= 0; i -= 2 {
		d = d.mix(c.rounds[i+1], c.rounds[i])
		if i != 0 && i%6 == 0 {
			d.high = fl(d.high, c.layers[i/3-1])
			d.low = inverseFL(d.low, c.layers[i/3-2])
		}
	}
	store(dst, pair{d.low ^ c.whitening[0], d.high ^ c.whitening[1]})
}

func check(dst, src []byte) {
	if len(src) < BlockSize || len(dst) < BlockSize {
		panic("camellia: less than a block")
	}
}

func store(dst []byte, p pair) {
	binary.BigEndian.PutUint64(dst, p.high)
	binary.BigEndian.PutUint64(dst[8:], p.low)
}

// f is the function F: substitution and the mixing of octets, which is linear,
// so that a table has the share of each octet.
func f(x, k uint64) uint64 {
	x ^= k
	return shares[0][x>>56] ^ shares[1][x>>48&0xff] ^ shares[2][x>>40&0xff] ^ shares[3][x>>32&0xff] ^
		shares[4][x>>24&0xff] ^ shares[5][x>>16&0xff] ^ shares[6][x>>8&0xff] ^ shares[7][x&0xff]
}

func fl(x, k uint64) uint64 {
	high, low := uint32(x>>32), uint32(x)
	low ^= bits.RotateLeft32(high&uint32(k>>32), 1)
	high ^= low | uint32(k)
	return uint64(high)<<32 | uint64(low)
}

func inverseFL(x, k uint64) uint64 {
	high, low := uint32(x>>32), uint32(x)
	high ^= low | uint32(k)
	low ^= bits.RotateLeft32(high&uint32(k>>32), 1)
	return uint64(high)<<32 | uint64(low)
}

// Which octets of the result each octet of F's argument goes to, from the first
// to the last, and which of the four substitutions it passes first (RFC 3713,
// section 2.4.1).
var (
	spread = [8]uint64{
		0xffffff00ff0000ff, 0x00ffffffffff0000, 0xff00ffff00ffff00, 0xffff00ff0000ffff,
		0x00ffffff00ffffff, 0xff00ffffff00ffff, 0xffff00ffffff00ff, 0xffffff00ffffff00,
	}
	substitution = [8]int{1, 2, 3, 4, 2, 3, 4, 1}
)

var shares = func() (t [8][256]uint64) {
	for i := range t {
		for x := range 256 {
			var y uint8
			switch substitution[i] {
			case 1:
				y = sBox[x]
			case 2:
				y = bits.RotateLeft8(sBox[x], 1)
			case 3:
				y = bits.RotateLeft8(sBox[x], 7)
			case 4:
				y = sBox[bits.RotateLeft8(uint8(x), 1)]
			}
			t[i][x] = spread[i] & (uint64(y) * 0x0101010101010101)
		}
	}
	return t
}()

// sBox is SBOX1.
var sBox = [256]uint8{
	0x70, 0x82, 0x2c, 0xec, 0xb3, 0x27, 0xc0, 0xe5, 0xe4, 0x85, 0x57, 0x35, 0xea, 0x0c, 0xae, 0x41,
	0x23, 0xef, 0x6b, 0x93, 0x45, 0x19, 0xa5, 0x21, 0xed, 0x0e, 0x4f, 0x4e, 0x1d, 0x65, 0x92, 0xbd,
	0x86, 0xb8, 0xaf, 0x8f, 0x7c, 0xeb, 0x1f, 0xce, 0x3e, 0x30, 0xdc, 0x5f, 0x5e, 0xc5, 0x0b, 0x1a,
	0xa6, 0xe1, 0x39, 0xca, 0xd5, 0x47, 0x5d, 0x3d, 0xd9, 0x01, 0x5a, 0xd6, 0x51, 0x56, 0x6c, 0x4d,
	0x8b, 0x0d, 0x9a, 0x66, 0xfb, 0xcc, 0xb0, 0x2d, 0x74, 0x12, 0x2b, 0x20, 0xf0, 0xb1, 0x84, 0x99,
	0xdf, 0x4c, 0xcb, 0xc2, 0x34, 0x7e, 0x76, 0x05, 0x6d, 0xb7, 0xa9, 0x31, 0xd1, 0x17, 0x04, 0xd7,
	0x14, 0x58, 0x3a, 0x61, 0xde, 0x1b, 0x11, 0x1c, 0x32, 0x0f, 0x9c, 0x16, 0x53, 0x18, 0xf2, 0x22,
	0xfe, 0x44, 0xcf, 0xb2, 0xc3, 0xb5, 0x7a, 0x91, 0x24, 0x08, 0xe8, 0xa8, 0x60, 0xfc, 0x69, 0x50,
	0xaa, 0xd0, 0xa0, 0x7d, 0xa1, 0x89, 0x62, 0x97, 0x54, 0x5b, 0x1e, 0x95, 0xe0, 0xff, 0x64, 0xd2,
	0x10, 0xc4, 0x00, 0x48, 0xa3, 0xf7, 0x75, 0xdb, 0x8a, 0x03, 0xe6, 0xda, 0x09, 0x3f, 0xdd, 0x94,
	0x87, 0x5c, 0x83, 0x02, 0xcd, 0x4a, 0x90, 0x33, 0x73, 0x67, 0xf6, 0xf3, 0x9d, 0x7f, 0xbf, 0xe2,
	0x52, 0x9b, 0xd8, 0x26, 0xc8, 0x37, 0xc6, 0x3b, 0x81, 0x96, 0x6f, 0x4b, 0x13, 0xbe, 0x63, 0x2e,
	0xe9, 0x79, 0xa7, 0x8c, 0x9f, 0x6e, 0xbc, 0x8e, 0x29, 0xf5, 0xf9, 0xb6, 0x2f, 0xfd, 0xb4, 0x59,
	0x78, 0x98, 0x06, 0x6a, 0xe7, 0x46, 0x71, 0xba, 0xd4, 0x25, 0xab, 0x42, 0x88, 0xa2, 0x8d, 0xfa,
	0x72, 0x07, 0xb9, 0x55, 0xf8, 0xee, 0xac, 0x0a, 0x36, 0x49, 0x2a, 0x68, 0x3c, 0x38, 0xf1, 0xa4,
	0x40, 0x28, 0xd3, 0x7b, 0xbb, 0xc9, 0x43, 0xc1, 0x15, 0xe3, 0xad, 0xf4, 0x77, 0xc7, 0x80, 0x9e,
}
