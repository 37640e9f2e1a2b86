// Package algorithm is the one table of the encryption, authentication and
// compression algorithms that setkey(8) can name and PF_KEYv2 can number:
// their names, key lengths and sizes on the wire. It does not compute with any
// of them; the transforms are in package esp, under the same numbers.
//
// A new algorithm is one entry in table.go and, if packets are to be
// protected with it, one transform in package esp.
package algorithm

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// Era is a set of FreeBSD releases whose setkey(8) knows an algorithm.
type Era uint8

const (
	// FreeBSD11 is the setkey of FreeBSD 11 and 12.
	FreeBSD11 Era = 1 << iota
	// FreeBSD14 is the setkey of FreeBSD 13 and 14.
	FreeBSD14

	// BothEras is every release.
	BothEras = FreeBSD11 | FreeBSD14
)

// Has reports whether e contains every release of other.
func (e Era) Has(other Era) bool { return e&other == other }

// KeyBits is the set of valid key lengths in bits: Min, Min+Step, … up to Max.
// Salt and nonce bits that are part of the key are counted.
type KeyBits struct {
	Min, Max, Step int
}

// Valid reports whether a key may have this many bits.
func (k KeyBits) Valid(bits int) bool {
	if bits < k.Min || bits > k.Max {
		return false
	}
	return bits == k.Min || (bits-k.Min)%k.Step == 0
}

// String lists the valid lengths for an error message: "160 bits",
// "128, 192 or 256 bits", "40 to 448 bits in steps of 8".
func (k KeyBits) String() string {
	switch {
	case k.Min == k.Max:
		return fmt.Sprintf("%d bits", k.Min)
	case (k.Max-k.Min)/k.Step > 3:
		return fmt.Sprintf("%d to %d bits in steps of %d", k.Min, k.Max, k.Step)
	}
	var b strings.Builder
	for n := k.Min; n <= k.Max; n += k.Step {
		switch {
		case n == k.Min:
		case n == k.Max:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprint(&b, n)
	}
	return b.String() + " bits"
}

// Encryption is an encryption algorithm of ESP (SADB_EALG_*).
type Encryption struct {
	ID      uint8    // number in PF_KEYv2
	Name    string   // as setkey(8) prints it first among its names
	Aliases []string // other names that setkey(8) accepts
	Era     Era      // releases whose setkey(8) has it, if not by every name
	Weak    string   // why it should not be used any more; empty if nothing is known against it

	Key      KeyBits // valid key lengths, salt included
	SaltBits int     // of the key's bits, how many at its end are salt or nonce

	IVLen     int  // octets of the initialization vector in every packet
	BlockSize int  // octets of the cipher's block, 1 for a stream
	Align     int  // what is encrypted is padded to a multiple of this many octets
	AEAD      bool // authenticates too, so that no authentication algorithm is needed
	ICVLen    int  // octets of the integrity check value of an AEAD, otherwise 0
}

// String returns the algorithm's name.
func (e *Encryption) String() string { return e.Name }

// CheckKey returns nil if a key of this many bits is valid, else an error that
// wraps EINVAL and tells what lengths are.
func (e *Encryption) CheckKey(bits int) error {
	if e.Key.Valid(bits) {
		return nil
	}
	if e.SaltBits > 0 {
		return fmt.Errorf("%s: key has %d bits, must have %s (the last %d are salt): %w",
			e.Name, bits, e.Key, e.SaltBits, syscall.EINVAL)
	}
	return keyError(e.Name, bits, e.Key)
}

// Authentication is an authentication algorithm of ESP, AH or TCP-MD5
// (SADB_AALG_*).
type Authentication struct {
	ID   uint8  // number in PF_KEYv2
	Name string // as setkey(8) names it
	Era  Era    // releases whose setkey(8) has it
	Weak string // why it should not be used any more; empty if nothing is known against it

	Key    KeyBits // valid key lengths
	ICVLen int     // octets of the integrity check value in ESP; 0 if it is null or not for ESP
}

// String returns the algorithm's name.
func (a *Authentication) String() string { return a.Name }

// CheckKey returns nil if a key of this many bits is valid, else an error that
// wraps EINVAL and tells what lengths are.
func (a *Authentication) CheckKey(bits int) error {
	if a.Key.Valid(bits) {
		return nil
	}
	return keyError(a.Name, bits, a.Key)
}

// Compression is a compression algorithm of IPComp (SADB_X_CALG_*).
type Compression struct {
	ID   uint8  // number in PF_KEYv2
	Name string // as setkey(8) names it
	Era  Era    // releases whose setkey(8) has it
}

// String returns the algorithm's name.
func (c *Compression) String() string { return c.Name }

func keyError(name string, bits int, want KeyBits) error {
	return fmt.Errorf("%s: key has %d bits, must have %s: %w", name, bits, want, syscall.EINVAL)
}

// Encryptions returns every encryption algorithm, in order of number.
// The entries are shared and must not be changed.
func Encryptions() []*Encryption { return slices.Clone(encryptions) }

// Authentications returns every authentication algorithm, in order of number.
// The entries are shared and must not be changed.
func Authentications() []*Authentication { return slices.Clone(authentications) }

// Compressions returns every compression algorithm, in order of number.
// The entries are shared and must not be changed.
func Compressions() []*Compression { return slices.Clone(compressions) }

// EncryptionByID returns the encryption algorithm with this PF_KEY number.
func EncryptionByID(id uint8) (*Encryption, bool) {
	return find(encryptions, func(e *Encryption) bool { return e.ID == id })
}

// EncryptionByName returns the encryption algorithm that setkey(8) calls this,
// by its name or an alias. Names are case-sensitive. "simple", "des-deriv" and
// "des-32iv" name the cipher; the flags that they also set are the caller's.
func EncryptionByName(name string) (*Encryption, bool) {
	return find(encryptions, func(e *Encryption) bool {
		return e.Name == name || slices.Contains(e.Aliases, name)
	})
}

// AuthenticationByID returns the authentication algorithm with this PF_KEY number.
func AuthenticationByID(id uint8) (*Authentication, bool) {
	return find(authentications, func(a *Authentication) bool { return a.ID == id })
}

// AuthenticationByName returns the authentication algorithm that setkey(8)
// calls this. Names are case-sensitive.
func AuthenticationByName(name string) (*Authentication, bool) {
	return find(authentications, func(a *Authentication) bool { return a.Name == name })
}

// CompressionByID returns the compression algorithm with this PF_KEY number.
func CompressionByID(id uint8) (*Compression, bool) {
	return find(compressions, func(c *Compression) bool { return c.ID == id })
}

// CompressionByName returns the compression algorithm that setkey(8) calls
// this. Names are case-sensitive.
func CompressionByName(name string) (*Compression, bool) {
	return find(compressions, func(c *Compression) bool { return c.Name == name })
}

func find[T any](table []*T, is func(*T) bool) (*T, bool) {
	if i := slices.IndexFunc(table, is); i >= 0 {
		return table[i], true
	}
	return nil, false
}
