package cast128

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	//lint:ignore SA1019 it says what is right
	"golang.org/x/crypto/cast5"
)

// RFC 2144, appendix B.1.
func TestVectors(t *testing.T) {
	t.Parallel()
	plain, _ := hex.DecodeString("0123456789abcdef")
	for key, want := range map[string]string{
		"0123456712345678234567893456789a": "238b4fe5847e44b2",
		"01234567123456782345":             "eb6a711a2c02271b",
		"0123456712":                       "7ac816d16e9b302e",
	} {
		k, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCipher(k)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, BlockSize)
		if c.Encrypt(got, plain); hex.EncodeToString(got) != want {
			t.Errorf("key %s: %x, want %s", key, got, want)
		}
		if c.Decrypt(got, got); !bytes.Equal(got, plain) {
			t.Errorf("key %s: decrypted to %x, want %x", key, got, plain)
		}
	}
}

// With 16 rounds it is the cipher of golang.org/x/crypto, shorter keys being
// padded with zeros.
func TestAgrees(t *testing.T) {
	t.Parallel()
	random := rand.NewChaCha8([32]byte{1})
	for size := 11; size <= 16; size++ {
		for range 200 {
			key, text := make([]byte, size, 16), make([]byte, BlockSize)
			_, _ = random.Read(key)
			_, _ = random.Read(text)
			ours, err := NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := cast5.NewCipher(key[:16])
			if err != nil {
				t.Fatal(err)
			}
			got, want := make([]byte, BlockSize), make([]byte, BlockSize)
			ours.Encrypt(got, text)
			theirs.Encrypt(want, text)
			if !bytes.Equal(got, want) {
				t.Fatalf("key %x, text %x: %x, want %x", key, text, got, want)
			}
			if ours.Decrypt(got, got); !bytes.Equal(got, text) {
				t.Fatalf("key %x: decrypted to %x, want %x", key, got, text)
			}
		}
	}
}

func TestKeySizes(t *testing.T) {
	t.Parallel()
	for size := range 20 {
		_, err := NewCipher(make([]byte, size))
		var wrong KeySizeError
		if valid := size >= 5 && size <= 16; valid != (err == nil) || !valid && !errors.As(err, &wrong) {
			t.Errorf("key of %d octets: %v", size, err)
		}
	}
}
