package esp

import (
	"bytes"
	"path/filepath"
	"testing"

	"ifipsec/engine/algorithm"
)

// The vectors of Project Wycheproof look for the mistakes that implementations
// are known to make: in the carry of a field, at the ends of counters, with
// tags of which a part is right.

func TestWycheproofAEADs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"aes-gcm-16", "chacha20-poly1305"} {
		var vectors []struct {
			ID                                  int
			Key, IV, AAD, Plaintext, Ciphertext octets
			Valid                               bool
		}
		readVectors(t, filepath.Join("wycheproof", name+".json"), &vectors)
		enc, ok := algorithm.EncryptionByName(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		valid := 0
		for _, v := range vectors {
			aead, err := aeads[enc.ID](v.Key)
			if err != nil {
				t.Fatalf("%s, vector %d: %v", name, v.ID, err)
			}
			opened, err := aead.Open(nil, v.IV, v.Ciphertext, v.AAD)
			if (err == nil) != v.Valid || v.Valid && !bytes.Equal(opened, v.Plaintext) {
				t.Errorf("%s, vector %d: opened to %x (%v), valid is %v", name, v.ID, opened, err, v.Valid)
			}
			if !v.Valid {
				continue
			}
			valid++
			if sealed := aead.Seal(nil, v.IV, v.Plaintext, v.AAD); !bytes.Equal(sealed, v.Ciphertext) {
				t.Errorf("%s, vector %d: sealed to %x, want %x", name, v.ID, sealed, v.Ciphertext)
			}
		}
		if invalid := len(vectors) - valid; valid < 60 || invalid < 30 {
			t.Errorf("%s: %d valid and %d invalid vectors, want more", name, valid, invalid)
		}
	}
}

func TestWycheproofCBC(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"aes-cbc", "camellia-cbc"} {
		var vectors []struct {
			ID                             int
			Key, IV, Plaintext, Ciphertext octets
		}
		readVectors(t, filepath.Join("wycheproof", name+".json"), &vectors)
		enc, ok := algorithm.EncryptionByName(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		if len(vectors) < 50 {
			t.Errorf("%s: %d vectors, want more", name, len(vectors))
		}
		for _, v := range vectors {
			newCipher, err := ciphers[enc.ID](v.Key, &random{block: fixedIV{iv: v.IV}})
			if err != nil {
				t.Fatalf("%s, vector %d: %v", name, v.ID, err)
			}
			pad := enc.BlockSize - len(v.Plaintext)%enc.BlockSize
			padded := append(bytes.Clone(v.Plaintext), bytes.Repeat([]byte{byte(pad)}, pad)...)
			c, text, iv := newCipher(), bytes.Clone(padded), make([]byte, enc.IVLen)
			c.encrypt(iv, text, 0)
			if !bytes.Equal(text, v.Ciphertext) || !bytes.Equal(iv, v.IV) {
				t.Errorf("%s, vector %d: encrypted to %x with IV %x, want %x with %x", name, v.ID, text, iv, v.Ciphertext, v.IV)
			}
			text = bytes.Clone(v.Ciphertext)
			if c.decrypt(v.IV, text); !bytes.Equal(text, padded) {
				t.Errorf("%s, vector %d: decrypted to %x, want %x", name, v.ID, text, padded)
			}
		}
	}
}

func TestWycheproofMACs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hmac-sha1", "hmac-sha2-256", "hmac-sha2-384", "hmac-sha2-512"} {
		var vectors []struct {
			ID             int
			Key, Data, MAC octets
			Valid          bool
		}
		readVectors(t, filepath.Join("wycheproof", name+".json"), &vectors)
		auth, ok := algorithm.AuthenticationByName(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		valid := 0
		for _, v := range vectors {
			m := macs[auth.ID](v.Key)
			m.Reset()
			m.Write(v.Data)
			if is := bytes.HasPrefix(m.Sum(nil), v.MAC); is != v.Valid {
				t.Errorf("%s, vector %d: valid is %v, want %v", name, v.ID, is, v.Valid)
			}
			if v.Valid {
				valid++
			}
		}
		if invalid := len(vectors) - valid; valid < 50 || invalid < 50 {
			t.Errorf("%s: %d valid and %d invalid vectors, want more", name, valid, invalid)
		}
	}
}
