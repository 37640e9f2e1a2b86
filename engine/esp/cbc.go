package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"

	"ifipsec/engine/esp/aescbc"
	"ifipsec/engine/esp/camellia"
	"ifipsec/engine/esp/cast128"

	//lint:ignore SA1019 SAs with this cipher must still work with their peers
	"golang.org/x/crypto/blowfish"
)

// The block ciphers of RFC 2405, 2451, 3602 and 4312.

func newAES(key []byte) (cipher.Block, error)       { return aes.NewCipher(key) }
func newDES(key []byte) (cipher.Block, error)       { return des.NewCipher(key) }
func newTripleDES(key []byte) (cipher.Block, error) { return des.NewTripleDESCipher(key) }
func newBlowfish(key []byte) (cipher.Block, error)  { return blowfish.NewCipher(key) }
func newCAST128(key []byte) (cipher.Block, error)   { return cast128.NewCipher(key) }
func newCamellia(key []byte) (cipher.Block, error)  { return camellia.NewCipher(key) }

// cbcMode is a cipher.BlockMode that can begin another message, as those of
// CBC in package crypto/cipher do.
type cbcMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

// cbcEncryption is a block cipher in CBC mode. The IV of a packet is random:
// one that can be foreseen lets who chooses a payload test guesses about
// others (RFC 3602, section 3).
type cbcEncryption struct {
	encrypter, decrypter cbcMode
	random               randomReader
}

func cbc(newBlock func(key []byte) (cipher.Block, error)) func([]byte, *random) (func() encryption, error) {
	return func(key []byte, r *random) (func() encryption, error) {
		block, err := newBlock(key)
		if err != nil {
			return nil, err
		}
		iv := make([]byte, block.BlockSize())
		return func() encryption {
			return &cbcEncryption{
				encrypter: cipher.NewCBCEncrypter(block, iv).(cbcMode),
				decrypter: cipher.NewCBCDecrypter(block, iv).(cbcMode),
				random:    randomReader{random: r},
			}
		}, nil
	}
}

// newAESCBC is cbc(newAES) by package aescbc, where the processor has what that
// needs.
func newAESCBC(key []byte, r *random) (func() encryption, error) {
	c, err := aescbc.New(key)
	if err != nil {
		return cbc(newAES)(key, r)
	}
	return func() encryption { return &aesCBC{cipher: c, random: randomReader{random: r}} }, nil
}

// aesCBC is cbcEncryption for AES, of several packets at once.
type aesCBC struct {
	cipher *aescbc.Cipher
	batch  aescbc.Batch
	one    [1]aescbc.Message
	random randomReader
}

func (c *aesCBC) encryptAll(messages []aescbc.Message) {
	for i := range messages {
		c.random.fill(messages[i].IV)
	}
	c.batch.Encrypt(c.cipher, messages)
}

func (c *aesCBC) encrypt(iv, text []byte, _ uint64) {
	c.one[0] = aescbc.Message{IV: iv, Text: text}
	c.encryptAll(c.one[:])
}

func (c *aesCBC) decrypt(iv, text []byte) { c.cipher.Decrypt(iv, text) }

func (c *cbcEncryption) encrypt(iv, text []byte, _ uint64) {
	c.random.fill(iv)
	c.encrypter.SetIV(iv)
	c.encrypter.CryptBlocks(text, text)
}

func (c *cbcEncryption) decrypt(iv, text []byte) {
	c.decrypter.SetIV(iv)
	c.decrypter.CryptBlocks(text, text)
}
