package aescbc

//go:generate sh -c "cd _asm && go run . -out ../aescbc_amd64.s -stubs ../stubs_amd64.go -pkg aescbc"

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unsafe"

	"golang.org/x/sys/cpu"
)

const (
	lanes     = 8 // messages, or blocks, that are worked on at once
	maxRounds = 14
)

// roundKeys are in the order in which they are used.
type roundKeys [maxRounds + 1][BlockSize]byte

// Cipher has a key. Its methods may be called concurrently.
type Cipher struct {
	rounds           int
	encrypt, decrypt roundKeys
}

// New returns a cipher with a key of 16, 24 or 32 bytes.
func New(key []byte) (*Cipher, error) {
	if !cpu.X86.HasAES || !cpu.X86.HasSSE2 {
		return nil, ErrUnsupported
	}
	c := &Cipher{rounds: len(key)/4 + 6}
	c.expand(key)
	return c, nil
}

// expand is KeyExpansion of FIPS 197, section 5.2, and for decryption that of
// section 5.3.5.
func (c *Cipher) expand(key []byte) {
	words, n := make([]uint32, 4*(c.rounds+1)), len(key)/4
	rcon := uint32(1)
	for i := range words {
		if i < n {
			words[i] = binary.BigEndian.Uint32(key[4*i:])
			continue
		}
		w := words[i-1]
		switch {
		case i%n == 0:
			w = bits.RotateLeft32(subWord(w), 8) ^ rcon<<24
			// Multiplied by x modulo AES's polynomial.
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case n > 6 && i%n == 4:
			w = subWord(w)
		}
		words[i] = words[i-n] ^ w
	}
	for i, w := range words {
		binary.BigEndian.PutUint32(c.encrypt[i/4][4*(i%4):], w)
	}
	clear(words)
	copy(c.decrypt[:], c.encrypt[:c.rounds+1])
	slices.Reverse(c.decrypt[:c.rounds+1])
	for i := 1; i < c.rounds; i++ {
		invMixColumns(&c.decrypt[i][0])
	}
}

// lane is a message, or a part of one, on its way through encryptLanes.
type lane struct {
	text  *byte
	chain [BlockSize]byte // IV or ciphertext of the block before
}

// Batch encrypts messages of any lengths. It is for one goroutine, and serves any
// number of ciphers.
type Batch struct {
	lanes [lanes]lane
	left  [lanes]int // blocks of the message
	idle  []byte     // what a lane without a message encrypts
}

// Encrypt encrypts messages in place. A Text that is not whole blocks panics.
func (b *Batch) Encrypt(c *Cipher, messages []Message) {
	busy := 0
	for {
		for i := range b.lanes {
			for b.left[i] == 0 && len(messages) > 0 {
				busy += b.begin(i, &messages[0])
				messages = messages[1:]
			}
		}
		if busy == 0 {
			break
		}
		n := 0
		for _, left := range b.left {
			if left != 0 && (n == 0 || left < n) {
				n = left
			}
		}
		if len(b.idle) < n*BlockSize && busy < lanes {
			b.idle = make([]byte, n*BlockSize)
		}
		for i := range b.lanes {
			if b.left[i] == 0 {
				b.lanes[i].text = unsafe.SliceData(b.idle)
			}
		}
		encryptLanes(&c.encrypt[0][0], c.rounds, (*byte)(unsafe.Pointer(&b.lanes)), n)
		for i := range b.lanes {
			if b.left[i] == 0 {
				continue
			}
			if b.left[i] -= n; b.left[i] == 0 {
				busy--
				continue
			}
			b.lanes[i].text = (*byte)(unsafe.Add(unsafe.Pointer(b.lanes[i].text), n*BlockSize))
		}
	}
	clear(b.lanes[:]) // nothing of the messages is held
}

// begin puts a message into a lane and returns 1, or 0 if it is empty.
func (b *Batch) begin(i int, m *Message) int {
	if len(m.Text)%BlockSize != 0 {
		panic("aescbc: the text is not whole blocks")
	}
	b.lanes[i] = lane{unsafe.SliceData(m.Text), [BlockSize]byte(m.IV)}
	b.left[i] = len(m.Text) / BlockSize
	return min(1, b.left[i])
}

// Decrypt decrypts a message in place. A text that is not whole blocks panics.
func (c *Cipher) Decrypt(iv, text []byte) {
	if len(text)%BlockSize != 0 {
		panic("aescbc: the text is not whole blocks")
	}
	if len(text) != 0 {
		first := [BlockSize]byte(iv)
		decryptBlocks(&c.decrypt[0][0], c.rounds, &first[0], unsafe.SliceData(text), len(text)/BlockSize)
	}
}
