package esp

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
)

// What MaxPayload says fits, and an octet more does not, with every algorithm
// and all the room there may be.
func TestMaxPayload(t *testing.T) {
	t.Parallel()
	tried := 0
	for _, enc := range algorithm.Encryptions() {
		auths := append(algorithm.Authentications(), nil)
		if enc.AEAD {
			auths = auths[len(auths)-1:]
		}
		for _, auth := range auths {
			c := Config{SPI: 256, Encryption: enc.ID, EncryptionKey: make([]byte, enc.Key.Max/8)}
			name := enc.Name
			if auth != nil {
				c.Authentication, c.AuthenticationKey = auth.ID, make([]byte, auth.Key.Max/8)
				name = fmt.Sprintf("%s with %s", enc.Name, auth.Name)
			}
			sa, err := New(c)
			if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
				continue // known by name only, or not for ESP
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			tried++
			sealed := func(n int) int {
				seq, err := sa.Reserve(1)
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, sa.HeaderLen()+n, sa.HeaderLen()+n+sa.MaxTrailerLen())
				start, end, err := sa.Seal(seq, buf, sa.HeaderLen(), n, 4)
				if err != nil {
					t.Fatalf("%s: seal %d octets: %v", name, n, err)
				}
				return end - start
			}
			for size := 1400; size < 1400+2*16; size++ {
				n := sa.MaxPayload(size)
				if got := sealed(n); got > size {
					t.Errorf("%s: %d octets make %d, which is more than %d", name, n, got, size)
				}
				if got := sealed(n + 1); got <= size {
					t.Errorf("%s: %d octets make %d, so %d are not the most for %d", name, n+1, got, n, size)
				}
			}
			for size := -1; size < sealed(0); size++ {
				if n := sa.MaxPayload(size); n >= 0 {
					t.Errorf("%s: %d octets in %d, in which nothing fits", name, n, size)
				}
			}
		}
	}
	if tried < 50 {
		t.Errorf("%d combinations were tried: algorithms are listed otherwise now", tried)
	}
}
