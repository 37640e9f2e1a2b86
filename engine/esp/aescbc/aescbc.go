// Package aescbc is AES in CBC mode (FIPS 197; NIST SP 800-38A, section 6.2) for who
// has several messages to encrypt at once.
//
// To encrypt a block, CBC needs the one before it, so that a message takes the time
// of all its rounds one after the other, in which the processor could do many times
// as much. Several messages at once fill that time.
package aescbc

import "errors"

// BlockSize of AES, in bytes.
const BlockSize = 16

// ErrUnsupported is what [New] returns where package crypto/cipher is as fast as
// anything: the processor has no instructions for AES that this package knows.
var ErrUnsupported = errors.New("aescbc: no AES instructions")

// Message is one to encrypt: whole blocks, in place.
type Message struct {
	IV   []byte // BlockSize bytes
	Text []byte
}
