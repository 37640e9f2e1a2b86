// Package cast128 is the block cipher CAST-128 of RFC 2144, with keys of any
// length that it has. The one of golang.org/x/crypto takes 128 bits only, and
// shorter keys of up to 80 bits have fewer rounds. Its tables are looked up by
// what is secret, so who measures the processor's cache may learn of it.
package cast128

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// BlockSize is CAST-128's block size in octets.
const BlockSize = 8

// KeySizeError is the length in octets of a key that CAST-128 has not.
type KeySizeError int

func (k KeySizeError) Error() string {
	return fmt.Sprintf("cast128: key of %d octets, want 5 to 16", int(k))
}

// Cipher is CAST-128 with a key. It may be used concurrently.
type Cipher struct {
	masks     [16]uint32
	rotations [16]uint8
	rounds    int
}

var _ cipher.Block = (*Cipher)(nil)

// NewCipher returns CAST-128 with a key of 5 to 16 octets, else a
// [KeySizeError]. Up to 10 octets it has 12 rounds, else 16 (RFC 2144, section
// 2.5).
func NewCipher(key []byte) (*Cipher, error) {
	if len(key) < 5 || len(key) > 16 {
		return nil, KeySizeError(len(key))
	}
	c := &Cipher{rounds: 16}
	if len(key) <= 10 {
		c.rounds = 12
	}
	var x schedule
	copy(x[:], key)
	for i := range 16 {
		c.masks[i] = x.next(i)
	}
	for i := range 16 {
		c.rotations[i] = uint8(x.next(i) & 31)
	}
	return c, nil
}

// schedule is the 16 octets of which the subkeys are made: x and z of RFC 2144,
// section 2.4, in turn.
type schedule [16]uint8

// A step makes four octets from four and from five others, which go through
// the boxes S5 to S8 and at last through one of them again.
type step struct {
	to, from int      // the first of four octets
	old      bool     // the five but the last are of the octets before the turn
	boxes    [4]uint8 // octets through S5, S6, S7, S8
	last     uint8    // octet before the turn
	box      int
}

var (
	// What makes z of x, and x of z.
	turns = [2][4]step{{
		{0, 0, true, [4]uint8{0xd, 0xf, 0xc, 0xe}, 0x8, 7},
		{4, 8, false, [4]uint8{0x0, 0x2, 0x1, 0x3}, 0xa, 8},
		{8, 12, false, [4]uint8{0x7, 0x6, 0x5, 0x4}, 0x9, 5},
		{12, 4, false, [4]uint8{0xa, 0x9, 0xb, 0x8}, 0xb, 6},
	}, {
		{0, 8, true, [4]uint8{0x5, 0x7, 0x4, 0x6}, 0x0, 7},
		{4, 0, false, [4]uint8{0x0, 0x2, 0x1, 0x3}, 0x2, 8},
		{8, 4, false, [4]uint8{0x7, 0x6, 0x5, 0x4}, 0x1, 5},
		{12, 12, false, [4]uint8{0xa, 0x9, 0xb, 0x8}, 0x3, 6},
	}}

	// What the subkeys are made of: octets through S5, S6, S7, S8, and one
	// more through S5, S6, S7 or S8, for the first to the fourth of four.
	subkeys = [16][5]uint8{
		{0x8, 0x9, 0x7, 0x6, 0x2}, {0xa, 0xb, 0x5, 0x4, 0x6}, {0xc, 0xd, 0x3, 0x2, 0x9}, {0xe, 0xf, 0x1, 0x0, 0xc},
		{0x3, 0x2, 0xc, 0xd, 0x8}, {0x1, 0x0, 0xe, 0xf, 0xd}, {0x7, 0x6, 0x8, 0x9, 0x3}, {0x5, 0x4, 0xa, 0xb, 0x7},
		{0x3, 0x2, 0xc, 0xd, 0x9}, {0x1, 0x0, 0xe, 0xf, 0xc}, {0x7, 0x6, 0x8, 0x9, 0x2}, {0x5, 0x4, 0xa, 0xb, 0x6},
		{0x8, 0x9, 0x7, 0x6, 0x3}, {0xa, 0xb, 0x5, 0x4, 0x7}, {0xc, 0xd, 0x3, 0x2, 0x8}, {0xe, 0xf, 0x1, 0x0, 0xd},
	}
)

// next is subkey i of 16.
func (s *schedule) next(i int) uint32 {
	if i%4 == 0 {
		s.turn(&turns[i/4%2])
	}
	k := &subkeys[i]
	return sBox[4][s[k[0]]] ^ sBox[5][s[k[1]]] ^ sBox[6][s[k[2]]] ^ sBox[7][s[k[3]]] ^ sBox[4+i%4][s[k[4]]]
}

func (s *schedule) turn(steps *[4]step) {
	before := *s
	for _, t := range steps {
		of := s
		if t.old {
			of = &before
		}
		v := binary.BigEndian.Uint32(before[t.from:])
		for i, octet := range t.boxes {
			v ^= sBox[4+i][of[octet]]
		}
		binary.BigEndian.PutUint32(s[t.to:], v^sBox[t.box-1][before[t.last]])
	}
}

// BlockSize implements [cipher.Block].
func (c *Cipher) BlockSize() int { return BlockSize }

// Encrypt implements [cipher.Block].
func (c *Cipher) Encrypt(dst, src []byte) {
	check(dst, src)
	left, right := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:])
	for i := range c.rounds {
		left, right = right, left^c.f(i, right)
	}
	binary.BigEndian.PutUint32(dst, right)
	binary.BigEndian.PutUint32(dst[4:], left)
}

// Decrypt implements [cipher.Block].
func (c *Cipher) Decrypt(dst, src []byte) {
	check(dst, src)
	left, right := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:])
	for i := c.rounds - 1; i >= 0; i-- {
		left, right = right, left^c.f(i, right)
	}
	binary.BigEndian.PutUint32(dst, right)
	binary.BigEndian.PutUint32(dst[4:], left)
}

func check(dst, src []byte) {
	if len(src) < BlockSize || len(dst) < BlockSize {
		panic("cast128: less than a block")
	}
}

// f is the function of round i, of three types in turn (RFC 2144, section 2.2).
func (c *Cipher) f(i int, d uint32) uint32 {
	mask, rotation := c.masks[i], int(c.rotations[i])
	switch i % 3 {
	case 0:
		x := bits.RotateLeft32(mask+d, rotation)
		return ((sBox[0][x>>24] ^ sBox[1][x>>16&0xff]) - sBox[2][x>>8&0xff]) + sBox[3][x&0xff]
	case 1:
		x := bits.RotateLeft32(mask^d, rotation)
		return ((sBox[0][x>>24] - sBox[1][x>>16&0xff]) + sBox[2][x>>8&0xff]) ^ sBox[3][x&0xff]
	default:
		x := bits.RotateLeft32(mask-d, rotation)
		return ((sBox[0][x>>24] + sBox[1][x>>16&0xff]) ^ sBox[2][x>>8&0xff]) - sBox[3][x&0xff]
	}
}
