package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"ifipsec/engine/algorithm"
)

// aeads makes the AEADs that protect ESP, by their number in PF_KEYv2. The key
// comes without the salt.
var aeads = map[uint8]func(key []byte) (cipher.AEAD, error){
	algorithm.EncryptAESGCM16: func(key []byte) (cipher.AEAD, error) { // RFC 4106
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	},
	algorithm.EncryptChaCha20Poly1305: chacha20poly1305.New, // RFC 7634
}

// aeadProtection is an AEAD with the nonce that RFC 4106, section 4 and
// RFC 7634, section 2 share: salt and IV. The IV is the sequence number with
// all its 64 bits, which no two packets under one key have in common.
type aeadProtection struct {
	aead     cipher.AEAD
	saltLen  int
	ivLen    int
	overhead int
	esn      bool

	nonce []byte // salt, then room for the IV
	aad   []byte // room for SPI and 64-bit sequence number
}

func newAEADProtection(aead cipher.AEAD, salt []byte, enc *algorithm.Encryption, esn bool) *aeadProtection {
	p := &aeadProtection{
		aead:     aead,
		saltLen:  len(salt),
		ivLen:    enc.IVLen,
		overhead: enc.ICVLen,
		esn:      esn,
		nonce:    make([]byte, len(salt)+enc.IVLen),
		aad:      make([]byte, 12),
	}
	copy(p.nonce, salt)
	return p
}

func (p *aeadProtection) seal(packet []byte, seq uint64) {
	iv := packet[headerLen : headerLen+p.ivLen]
	binary.BigEndian.PutUint64(iv, seq)
	copy(p.nonce[p.saltLen:], iv)
	text := packet[headerLen+p.ivLen : len(packet)-p.overhead]
	p.aead.Seal(text[:0], p.nonce, text, p.additional(packet, seq))
}

func (p *aeadProtection) finish() {}

func (p *aeadProtection) open(packet []byte, seq uint64) bool {
	copy(p.nonce[p.saltLen:], packet[headerLen:headerLen+p.ivLen])
	text := packet[headerLen+p.ivLen:]
	_, err := p.aead.Open(text[:0], p.nonce, text, p.additional(packet, seq))
	return err == nil
}

// additional returns what is authenticated and not encrypted: the ESP header,
// with ESN the high half of the sequence number in it (RFC 4106, section 5).
func (p *aeadProtection) additional(packet []byte, seq uint64) []byte {
	if !p.esn {
		return packet[:headerLen]
	}
	copy(p.aad, packet[:4])
	binary.BigEndian.PutUint64(p.aad[4:], seq)
	return p.aad
}
