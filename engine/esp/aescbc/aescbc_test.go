package aescbc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// newCipher returns a cipher, and what it must be equal to.
func newCipher(t testing.TB, key []byte) (*Cipher, cipher.Block) {
	t.Helper()
	c, err := New(key)
	if errors.Is(err, ErrUnsupported) {
		t.Skip("SKIPPED: this processor has nothing to test:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return c, block
}

func random(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

var keySizes = []int{16, 24, 32}

// Every number of messages, of all lengths beside each other, is what package
// crypto/cipher makes of them, and nothing beside them is touched.
func TestEncrypt(t *testing.T) {
	t.Parallel()
	for _, size := range keySizes {
		t.Run(fmt.Sprint(8*size), func(t *testing.T) {
			t.Parallel()
			r := rand.NewChaCha8([32]byte{byte(size)})
			c, block := newCipher(t, random(r, size))
			var batch Batch
			for n := range 3*lanesAtMost + 2 {
				for round := range 40 {
					var messages []Message
					var whole, want [][]byte
					for range n {
						blocks := int(r.Uint64() % 40)
						if round == 0 {
							blocks = 7 // all alike
						}
						buf := random(r, (blocks+3)*BlockSize)
						iv, text := buf[BlockSize:2*BlockSize], buf[2*BlockSize:(blocks+2)*BlockSize]
						expected := bytes.Clone(buf)
						cipher.NewCBCEncrypter(block, iv).CryptBlocks(expected[2*BlockSize:(blocks+2)*BlockSize], text)
						whole, want = append(whole, buf), append(want, expected)
						messages = append(messages, Message{IV: iv, Text: text})
					}
					batch.Encrypt(c, messages)
					for i := range whole {
						if !bytes.Equal(whole[i], want[i]) {
							t.Fatalf("message %d of %d, with %d bytes, is wrong", i, n, len(messages[i].Text))
						}
					}
				}
			}
		})
	}
}

const lanesAtMost = 8

func TestDecrypt(t *testing.T) {
	t.Parallel()
	for _, size := range keySizes {
		t.Run(fmt.Sprint(8*size), func(t *testing.T) {
			t.Parallel()
			r := rand.NewChaCha8([32]byte{byte(size)})
			c, block := newCipher(t, random(r, size))
			for blocks := range 600 {
				buf := random(r, (blocks+2)*BlockSize)
				text := buf[BlockSize : (blocks+1)*BlockSize]
				want := bytes.Clone(buf)
				cipher.NewCBCDecrypter(block, buf[:BlockSize]).CryptBlocks(want[BlockSize:(blocks+1)*BlockSize], text)
				c.Decrypt(buf[:BlockSize], text)
				if !bytes.Equal(buf, want) {
					t.Fatalf("%d blocks are wrong", blocks)
				}
			}
		})
	}
}

func TestPartialBlocks(t *testing.T) {
	t.Parallel()
	c, _ := newCipher(t, make([]byte, 16))
	iv, text := make([]byte, BlockSize), make([]byte, BlockSize+1)
	for name, f := range map[string]func(){
		"encrypt": func() { new(Batch).Encrypt(c, []Message{{iv, text}}) },
		"decrypt": func() { c.Decrypt(iv, text) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s took %d bytes", name, len(text))
				}
			}()
			f()
		}()
	}
}

func TestNothingIsAllocated(t *testing.T) {
	c, _ := newCipher(t, make([]byte, 16))
	var batch Batch
	messages := make([]Message, 11)
	for i := range messages {
		messages[i] = Message{make([]byte, BlockSize), make([]byte, 64*BlockSize)}
	}
	if n := testing.AllocsPerRun(100, func() {
		batch.Encrypt(c, messages)
		c.Decrypt(messages[0].IV, messages[0].Text)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEncrypt(b *testing.B) {
	const size = 88 * BlockSize
	for _, n := range []int{1, 2, 4, 8, 46} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			c, _ := newCipher(b, make([]byte, 16))
			var batch Batch
			messages := make([]Message, n)
			for i := range messages {
				messages[i] = Message{make([]byte, BlockSize), make([]byte, size)}
			}
			b.SetBytes(int64(n * size))
			for b.Loop() {
				batch.Encrypt(c, messages)
			}
		})
	}
	b.Run("crypto/cipher", func(b *testing.B) {
		_, block := newCipher(b, make([]byte, 16))
		mode := cipher.NewCBCEncrypter(block, make([]byte, BlockSize))
		text := make([]byte, size)
		b.SetBytes(size)
		for b.Loop() {
			mode.CryptBlocks(text, text)
		}
	})
}

func BenchmarkDecrypt(b *testing.B) {
	const size = 88 * BlockSize
	c, block := newCipher(b, make([]byte, 16))
	iv, text := make([]byte, BlockSize), make([]byte, size)
	b.Run("this", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			c.Decrypt(iv, text)
		}
	})
	b.Run("crypto/cipher", func(b *testing.B) {
		mode := cipher.NewCBCDecrypter(block, iv)
		b.SetBytes(size)
		for b.Loop() {
			mode.CryptBlocks(text, text)
		}
	})
}
