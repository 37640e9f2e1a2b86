package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"ifipsec/engine/algorithm"
)

// octets is hexadecimal in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../testdata/esp", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// fixedIV stands in for the cipher that random IVs come from.
type fixedIV struct {
	cipher.Block
	iv []byte
}

func (f fixedIV) Encrypt(dst, _ []byte) { copy(dst, f.iv) }

// TestPackets opens whole ESP packets, and seals their payloads to the same
// packets where the IV is one that Seal can be brought to use.
func TestPackets(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		Source                           string
		Encryption, Authentication       string
		EncryptionKey, AuthenticationKey octets
		ESN                              bool
		Sequence                         string // hexadecimal
		Payload, Packet                  octets
		Next                             uint8
	}
	readVectors(t, "packets.json", &vectors)
	sealed := 0
	for _, v := range vectors {
		t.Run(v.Source+"/"+suite{v.Encryption, v.Authentication}.String(), func(t *testing.T) {
			seq, err := strconv.ParseUint(v.Sequence, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			enc, ok := algorithm.EncryptionByName(v.Encryption)
			if !ok {
				t.Fatalf("no encryption algorithm %q", v.Encryption)
			}
			c := Config{
				SPI:        binary.BigEndian.Uint32(v.Packet),
				Encryption: enc.ID, EncryptionKey: v.EncryptionKey,
				ESN: v.ESN, ReplayWindow: 64,
			}
			if v.Authentication != "" {
				auth, ok := algorithm.AuthenticationByName(v.Authentication)
				if !ok {
					t.Fatalf("no authentication algorithm %q", v.Authentication)
				}
				c.Authentication, c.AuthenticationKey = auth.ID, v.AuthenticationKey
			}

			sa := newSA(t, c)
			sa.state.window.top.Store(seq - 1)
			payload, next, err := sa.Open(bytes.Clone(v.Packet))
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			if next != v.Next || !bytes.Equal(payload, v.Payload) {
				t.Errorf("opened to next header %d and\n%x, want %d and\n%x", next, payload, v.Next, v.Payload)
			}
			if got := sa.ReplayState().Highest; got != seq {
				t.Errorf("highest sequence number %#x, want %#x", got, seq)
			}

			iv := v.Packet[headerLen : headerLen+enc.IVLen]
			if enc.BlockSize > 1 {
				sa.random.block = fixedIV{iv: iv}
			} else if enc.IVLen > 0 && binary.BigEndian.Uint64(iv) != seq {
				return // an IV that is not the sequence number
			}
			sealed++
			if got := sealAs(t, sa, seq, v.Payload, v.Next); !bytes.Equal(got, v.Packet) {
				t.Errorf("sealed to\n%x, want\n%x", got, v.Packet)
			}
		})
	}
	if sealed < 40 {
		t.Errorf("%d packets were sealed, want most", sealed)
	}
}

func TestMACs(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		Source         string
		Authentication string
		Key, Data, MAC octets
	}
	readVectors(t, "macs.json", &vectors)
	for _, v := range vectors {
		auth, ok := algorithm.AuthenticationByName(v.Authentication)
		if !ok {
			t.Fatalf("no authentication algorithm %q", v.Authentication)
		}
		m := macs[auth.ID](v.Key)
		for _, step := range []int{len(v.Data) + 1, 1, 7, 16, 17} {
			m.Reset()
			for data := range chunks(v.Data, step) {
				m.Write(data)
			}
			if got := m.Sum(nil); !bytes.Equal(got, v.MAC) {
				t.Errorf("%s, %s, %d octets at a time: %x, want %x", v.Source, auth, step, got, v.MAC)
			}
		}
	}
}

func chunks(data []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			k := min(n, len(data))
			if !yield(data[:k]) {
				return
			}
			data = data[k:]
		}
	}
}

// TestCTR compares every length with the stream of package crypto/cipher.
func TestCTR(t *testing.T) {
	t.Parallel()
	k := key(160)
	newCipher, err := newCTR(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newCipher()
	block, err := aes.NewCipher(k[:16])
	if err != nil {
		t.Fatal(err)
	}
	for n := range 300 {
		iv, text := make([]byte, 8), payloadOf(n)
		c.encrypt(iv, text[:n:n], uint64(n)<<32)
		want := make([]byte, n)
		counter := append(append(bytes.Clone(k[16:]), iv...), 0, 0, 0, 1)
		cipher.NewCTR(block, counter).XORKeyStream(want, payloadOf(n))
		if !bytes.Equal(text, want) {
			t.Fatalf("%d octets encrypted to\n%x, want\n%x", n, text, want)
		}
	}
}

func TestCiphers(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		Source, Encryption             string
		Key, IV, Plaintext, Ciphertext octets
	}
	readVectors(t, "ciphers.json", &vectors)
	for _, v := range vectors {
		enc, ok := algorithm.EncryptionByName(v.Encryption)
		if !ok {
			t.Fatalf("no encryption algorithm %q", v.Encryption)
		}
		newCipher, err := ciphers[enc.ID](v.Key, nil)
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Clone(v.Ciphertext)
		c := newCipher()
		c.decrypt(v.IV, text)
		if !bytes.Equal(text, v.Plaintext) {
			t.Errorf("%s: decrypted to %x, want %x", v.Source, text, v.Plaintext)
		}
		iv := make([]byte, len(v.IV))
		c.encrypt(iv, text, binary.BigEndian.Uint64(v.IV))
		if !bytes.Equal(iv, v.IV) || !bytes.Equal(text, v.Ciphertext) {
			t.Errorf("%s: encrypted to IV %x, text %x; want %x, %x", v.Source, iv, text, v.IV, v.Ciphertext)
		}
	}
}
