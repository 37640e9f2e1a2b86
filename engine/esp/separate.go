package esp

import (
	"crypto/subtle"
	"encoding/binary"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/esp/aescbc"
)

// separate is a cipher, and a MAC over header, IV and ciphertext (RFC 4303,
// section 3.3.2.1). Either can be null.
type separate struct {
	cipher encryption
	ivLen  int

	mac    mac // nil for null
	icvLen int
	esn    bool
	high   [4]byte
	sum    [64]byte

	// With a cipher that is faster with several packets at once, they wait for
	// finish.
	together together // nil with others
	waiting  []sealing
	messages []aescbc.Message // of theirs
}

// sealing is a packet, complete but for encryption and ICV.
type sealing struct {
	packet []byte
	seq    uint64
}

// together is an encryption of several packets at once.
type together interface {
	encryption
	// encryptAll fills in the IVs too.
	encryptAll([]aescbc.Message)
}

// encryption encrypts and decrypts in place. Its calls are not concurrent.
type encryption interface {
	// encrypt fills in the IV too.
	encrypt(iv, text []byte, seq uint64)
	decrypt(iv, text []byte)
}

// mac is the part of hash.Hash that is used.
type mac interface {
	Reset()
	Write(p []byte) (int, error)
	Sum(b []byte) []byte
}

// ciphers makes the ciphers that are not AEADs, by their number in PF_KEYv2.
// Each entry returns what makes instances, for work on several packets at
// once; the key schedule is done once.
var ciphers = map[uint8]func(key []byte, r *random) (func() encryption, error){
	algorithm.EncryptNull: func([]byte, *random) (func() encryption, error) { // RFC 2410
		return func() encryption { return null{} }, nil
	},
	algorithm.EncryptAESCBC:   newAESCBC,
	algorithm.EncryptDES:      cbc(newDES),
	algorithm.Encrypt3DES:     cbc(newTripleDES),
	algorithm.EncryptBlowfish: cbc(newBlowfish),
	algorithm.EncryptCAST128:  cbc(newCAST128),
	algorithm.EncryptCamellia: cbc(newCamellia),
	algorithm.EncryptAESCTR:   newCTR,
}

// null is the encryption that does not encrypt.
type null struct{}

func (null) encrypt(_, _ []byte, _ uint64) {}
func (null) decrypt(_, _ []byte)           {}

// newProtection returns a cipher without a MAC.
func newProtection(c encryption, ivLen int) *separate {
	t, _ := c.(together)
	return &separate{cipher: c, ivLen: ivLen, together: t}
}

func (p *separate) seal(packet []byte, seq uint64) {
	end := len(packet) - p.icvLen
	text := headerLen + p.ivLen
	if p.together != nil {
		p.waiting = append(p.waiting, sealing{packet, seq})
		p.messages = append(p.messages, aescbc.Message{IV: packet[headerLen:text], Text: packet[text:end]})
		return
	}
	p.cipher.encrypt(packet[headerLen:text], packet[text:end], seq)
	p.authenticate(packet, seq)
}

func (p *separate) finish() {
	if len(p.waiting) == 0 {
		return
	}
	p.together.encryptAll(p.messages)
	for _, s := range p.waiting {
		p.authenticate(s.packet, s.seq)
	}
	// Nothing of the packets is held.
	clear(p.waiting)
	clear(p.messages)
	p.waiting, p.messages = p.waiting[:0], p.messages[:0]
}

// authenticate fills in the ICV.
func (p *separate) authenticate(packet []byte, seq uint64) {
	if p.mac != nil {
		end := len(packet) - p.icvLen
		copy(packet[end:], p.icv(packet[:end], seq))
	}
}

func (p *separate) open(packet []byte, seq uint64) bool {
	end := len(packet) - p.icvLen
	if p.mac != nil && subtle.ConstantTimeCompare(packet[end:], p.icv(packet[:end], seq)) == 0 {
		return false
	}
	text := headerLen + p.ivLen
	p.cipher.decrypt(packet[headerLen:text], packet[text:end])
	return true
}

// icv returns the integrity check value; it is overwritten by the next call.
// With ESN, the high half of the sequence number is covered and not sent.
func (p *separate) icv(covered []byte, seq uint64) []byte {
	p.mac.Reset()
	p.mac.Write(covered)
	if p.esn {
		binary.BigEndian.PutUint32(p.high[:], uint32(seq>>32))
		p.mac.Write(p.high[:])
	}
	return p.mac.Sum(p.sum[:0])[:p.icvLen]
}
