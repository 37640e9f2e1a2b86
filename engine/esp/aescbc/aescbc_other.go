//go:build !amd64

package aescbc

// Cipher has a key. There are none here.
type Cipher struct{}

// New returns ErrUnsupported.
func New([]byte) (*Cipher, error) { return nil, ErrUnsupported }

// Batch encrypts messages of any lengths.
type Batch struct{}

// Encrypt can't be called, for lack of a cipher.
func (*Batch) Encrypt(*Cipher, []Message) {}

// Decrypt can't be called.
func (*Cipher) Decrypt(_, _ []byte) {}
