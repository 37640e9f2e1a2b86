package camellia

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 3713, appendix A.
func TestVectors(t *testing.T) {
	t.Parallel()
	plain := unhex(t, "0123456789abcdeffedcba9876543210")
	for key, want := range map[string]string{
		"0123456789abcdeffedcba9876543210":                                 "67673138549669730857065648eabe43",
		"0123456789abcdeffedcba98765432100011223344556677":                 "b4993401b3e996f84ee5cee7d79b09b9",
		"0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff": "9acc237dff16d76c20ef7c919e3a7509",
	} {
		c, err := NewCipher(unhex(t, key))
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

// Every bit of key and text counts, and what was encrypted can be decrypted.
func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 24, 32} {
		seen := map[string]bool{}
		for bit := range 8 * (size + BlockSize) {
			both := make([]byte, size+BlockSize)
			both[bit/8] = 0x80 >> (bit % 8)
			c, err := NewCipher(both[:size])
			if err != nil {
				t.Fatal(err)
			}
			out := make([]byte, BlockSize)
			c.Encrypt(out, both[size:])
			if seen[string(out)] {
				t.Fatalf("key of %d octets: bit %d changes nothing", size, bit)
			}
			seen[string(out)] = true
			if c.Decrypt(out, out); !bytes.Equal(out, both[size:]) {
				t.Fatalf("key of %d octets, bit %d: decrypted to %x", size, bit, out)
			}
		}
	}
}

func TestKeySizes(t *testing.T) {
	t.Parallel()
	for size := range 40 {
		_, err := NewCipher(make([]byte, size))
		var wrong KeySizeError
		if valid := size == 16 || size == 24 || size == 32; valid != (err == nil) || !valid && !errors.As(err, &wrong) {
			t.Errorf("key of %d octets: %v", size, err)
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	c, err := NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, BlockSize)
	b.SetBytes(BlockSize)
	for b.Loop() {
		c.Encrypt(block, block)
	}
}
