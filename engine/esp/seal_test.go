package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
)

// suite is a choice of algorithms, by name.
type suite struct{ encryption, authentication string }

func (s suite) String() string {
	if s.authentication == "" {
		return s.encryption
	}
	return s.encryption + "+" + s.authentication
}

// suites is every algorithm that has a transform: each cipher with one MAC and
// without, each MAC with one cipher.
func suites() []suite {
	var all []suite
	for _, e := range algorithm.Encryptions() {
		switch {
		case aeads[e.ID] != nil:
			all = append(all, suite{e.Name, ""})
		case ciphers[e.ID] != nil:
			all = append(all, suite{e.Name, ""}, suite{e.Name, "hmac-sha2-256"})
		}
	}
	for _, a := range algorithm.Authentications() {
		if macs[a.ID] != nil && a.ID != algorithm.AuthHMACSHA256 {
			all = append(all, suite{"null", a.Name}, suite{"aes-cbc", a.Name})
		}
	}
	return append(all, suite{"aes-cbc", "null"})
}

// config returns a Config for the suite with the longest keys.
func (s suite) config(t testing.TB) Config {
	t.Helper()
	e, ok := algorithm.EncryptionByName(s.encryption)
	if !ok {
		t.Fatalf("no encryption algorithm %q", s.encryption)
	}
	c := Config{SPI: 10000, Encryption: e.ID, EncryptionKey: key(e.Key.Max)}
	if s.authentication != "" {
		a, ok := algorithm.AuthenticationByName(s.authentication)
		if !ok {
			t.Fatalf("no authentication algorithm %q", s.authentication)
		}
		c.Authentication, c.AuthenticationKey = a.ID, key(a.Key.Max)
	}
	return c
}

func (s suite) authenticates() bool {
	e, _ := algorithm.EncryptionByName(s.encryption)
	return e.AEAD || s.authentication != "" && s.authentication != "null"
}

// key returns a key that is different in every octet.
func key(bits int) []byte {
	k := make([]byte, bits/8)
	for i := range k {
		k[i] = byte(i*7 + 3)
	}
	return k
}

func newSA(t testing.TB, c Config) *SA {
	t.Helper()
	sa, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// seal seals payload with the next sequence number and returns the packet in
// memory of its own.
func seal(t testing.TB, sa *SA, payload []byte, next uint8) []byte {
	t.Helper()
	seq, err := sa.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	return sealAs(t, sa, seq, payload, next)
}

func sealAs(t testing.TB, sa *SA, seq uint64, payload []byte, next uint8) []byte {
	t.Helper()
	off := sa.HeaderLen()
	buf := make([]byte, off+len(payload), off+len(payload)+sa.MaxTrailerLen())
	copy(buf[off:], payload)
	start, end, err := sa.Seal(seq, buf, off, len(payload), next)
	if err != nil {
		t.Fatal(err)
	}
	return buf[start:end]
}

func payloadOf(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)
	}
	return p
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/esn=%v", s, esn), func(t *testing.T) {
				t.Parallel()
				c := s.config(t)
				c.ESN, c.ReplayWindow = esn, 64
				out, in := newSA(t, c), newSA(t, c)
				enc, _ := algorithm.EncryptionByName(s.encryption)
				for n := range 102 {
					if n == 101 {
						n = 1400
					}
					payload := payloadOf(n)
					packet := seal(t, out, payload, 41)
					if got := binary.BigEndian.Uint32(packet); got != 10000 {
						t.Fatalf("SPI %d on the wire, want 10000", got)
					}
					if got := binary.BigEndian.Uint32(packet[4:]); uint64(got) != out.Sequence() {
						t.Fatalf("sequence number %d on the wire, want %d", got, out.Sequence())
					}
					if len(packet)%4 != 0 || (len(packet)-out.HeaderLen()-out.icvLen)%enc.Align != 0 {
						t.Fatalf("%d octets of payload make a packet of %d", n, len(packet))
					}
					if most := out.HeaderLen() + n + out.MaxTrailerLen(); len(packet) > most {
						t.Fatalf("%d octets of payload make a packet of %d, more than %d", n, len(packet), most)
					}
					if enc.Name != "null" && n >= 8 && bytes.Contains(packet, payload) {
						t.Fatalf("%d octets of payload stand in clear in the packet", n)
					}
					got, next, err := in.Open(packet)
					if err != nil {
						t.Fatalf("%d octets: %v", n, err)
					}
					if !bytes.Equal(got, payload) || next != 41 {
						t.Fatalf("%d octets: opened to next header %d and\n%x, want 41 and\n%x", n, next, got, payload)
					}
					if cap(got) != len(got) {
						t.Fatalf("the payload has room for %d octets more, which are the trailer's", cap(got)-len(got))
					}
				}
			})
		}
	}
}

// TestEveryKeyLength seals and opens with each valid length of key.
func TestEveryKeyLength(t *testing.T) {
	t.Parallel()
	for _, e := range algorithm.Encryptions() {
		if aeads[e.ID] == nil && ciphers[e.ID] == nil {
			continue
		}
		for bits := e.Key.Min; bits <= e.Key.Max; bits += e.Key.Step {
			c := Config{Encryption: e.ID, EncryptionKey: key(bits)}
			if _, _, err := newSA(t, c).Open(seal(t, newSA(t, c), payloadOf(50), 4)); err != nil {
				t.Errorf("%s, %d bits: %v", e, bits, err)
			}
		}
	}
}

func TestPadding(t *testing.T) {
	t.Parallel()
	c := suite{"null", ""}.config(t)
	for _, tt := range []struct {
		padding Padding
		want    string // after 100 octets of payload, with 4 octets of alignment
	}{
		{Sequential, "010202 04"},
		{Zero, "000002 04"},
	} {
		c.Padding = tt.padding
		packet := seal(t, newSA(t, c), payloadOf(100), 4)
		want := strings.ReplaceAll(tt.want, " ", "")
		if got := fmt.Sprintf("%x", packet[len(packet)-4:]); got != want {
			t.Errorf("padding %d: trailer %s, want %s", tt.padding, got, want)
		}
	}

	c.Padding = Random
	sa := newSA(t, c)
	seen := map[[2]byte]bool{}
	for range 100 {
		packet := seal(t, sa, payloadOf(100), 4)
		seen[[2]byte(packet[len(packet)-4:])] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 packets have %d different random paddings", len(seen))
	}
}

// TestPaddingOfOthers opens what SAs with another padding sealed: only
// sequential SAs insist.
func TestPaddingOfOthers(t *testing.T) {
	t.Parallel()
	for _, s := range []suite{{"null", ""}, {"aes-cbc", "hmac-sha1"}, {"aes-gcm-16", ""}} {
		for _, out := range []Padding{Sequential, Zero, Random} {
			for _, in := range []Padding{Sequential, Zero, Random} {
				c := s.config(t)
				c.Padding = out
				packet := seal(t, newSA(t, c), payloadOf(20), 4)
				c.Padding = in
				want := error(nil)
				if in == Sequential && out != Sequential {
					want = ErrPadding
				}
				if _, _, err := newSA(t, c).Open(packet); err != want {
					t.Errorf("%s: padding %d opened with %d: %v, want %v", s, out, in, err, want)
				}
			}
		}
	}
}

// TestIVs: no two packets have the same IV; in counter modes it is the
// sequence number, in CBC nothing to do with it.
func TestIVs(t *testing.T) {
	t.Parallel()
	for _, e := range algorithm.Encryptions() {
		if e.IVLen == 0 || aeads[e.ID] == nil && ciphers[e.ID] == nil {
			continue
		}
		c := suite{e.Name, ""}.config(t)
		c.Cyclic = true
		sa := newSA(t, c)
		seen := map[string]bool{}
		for i := range 1000 {
			if i == 500 {
				sa.state.sent.Store(1<<32 - 2) // the 32 bits on the wire start again
			}
			packet := seal(t, sa, payloadOf(20), 4)
			iv := packet[headerLen : headerLen+e.IVLen]
			if seen[string(iv)] {
				t.Fatalf("%s: IV %x repeated", e, iv)
			}
			seen[string(iv)] = true
			if counter := binary.BigEndian.Uint64(iv) == sa.Sequence(); counter != (e.BlockSize == 1) {
				t.Fatalf("%s: IV %x for sequence number %d", e, iv, sa.Sequence())
			}
		}
	}
}

// TestRandomSeed: two SAs never share IVs, unless their seeds are the same.
func TestRandomSeed(t *testing.T) {
	t.Parallel()
	c := suite{"aes-cbc", ""}.config(t)
	if a, b := seal(t, newSA(t, c), nil, 4), seal(t, newSA(t, c), nil, 4); bytes.Equal(a, b) {
		t.Error("two SAs with the same keys sealed the same packet")
	}
	c.Rand = rand.NewChaCha8([32]byte{1})
	a := seal(t, newSA(t, c), nil, 4)
	c.Rand = rand.NewChaCha8([32]byte{1})
	if b := seal(t, newSA(t, c), nil, 4); !bytes.Equal(a, b) {
		t.Error("two SAs with the same keys and seed sealed different packets")
	}
	c.Rand = strings.NewReader("short")
	if _, err := New(c); !errors.Is(err, syscall.EIO) {
		t.Errorf("New with 5 octets of randomness: %v, want EIO", err)
	}
}

func TestSealNoRoom(t *testing.T) {
	t.Parallel()
	sa := newSA(t, suite{"aes-cbc", "hmac-sha1"}.config(t))
	const n = 20 // + 10 octets of padding + 2 + 12
	for _, tt := range []struct {
		what       string
		size, cap  int
		off, n     int
		start, end int
		wantErr    bool
	}{
		{what: "just enough", size: 44, cap: 68, off: 24, n: n, start: 0, end: 68},
		{what: "more than enough", size: 144, cap: 200, off: 100, n: n, start: 76, end: 144},
		{what: "inside the buffer", size: 200, cap: 200, off: 100, n: n, start: 76, end: 144},
		{what: "no payload", size: 24, cap: 52, off: 24, n: 0, start: 0, end: 52},
		{what: "no room after", size: 44, cap: 67, off: 24, n: n, wantErr: true},
		{what: "no room before", size: 44, cap: 100, off: 23, n: n, wantErr: true},
		{what: "payload beyond the buffer", size: 43, cap: 100, off: 24, n: n, wantErr: true},
		{what: "offset beyond the buffer", size: 43, cap: 100, off: 44, n: 0, wantErr: true},
		{what: "negative length", size: 44, cap: 100, off: 24, n: -1, wantErr: true},
		{what: "negative offset", size: 44, cap: 100, off: -1, n: 1, wantErr: true},
	} {
		buf := make([]byte, tt.size, tt.cap)
		start, end, err := sa.Seal(1, buf, tt.off, tt.n, 4)
		if tt.wantErr {
			if err != ErrNoRoom || !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("%s: %v, want ErrNoRoom", tt.what, err)
			}
			if !bytes.Equal(buf[:cap(buf)], make([]byte, cap(buf))) {
				t.Errorf("%s: the buffer was changed", tt.what)
			}
			continue
		}
		if err != nil || start != tt.start || end != tt.end {
			t.Errorf("%s: packet at [%d:%d], %v; want [%d:%d]", tt.what, start, end, err, tt.start, tt.end)
		}
	}
}

// TestSealLeavesTheRest: nothing outside the packet is written.
func TestSealLeavesTheRest(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		sa := newSA(t, s.config(t))
		for n := range 40 {
			buf := bytes.Repeat([]byte{0xa5}, 300)
			start, end, err := sa.Seal(1, buf[:200], 100, n, 4)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range buf {
				if (i < start || i >= end) && b != 0xa5 {
					t.Fatalf("%s, %d octets: octet %d outside [%d:%d] was written", s, n, i, start, end)
				}
			}
		}
	}
}

// Packets of any sizes that are sealed in one run are as good as alone, and one
// that finds no room spoils none.
func TestSealer(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			c := s.config(t)
			c.ReplayWindow = 64
			out, in := newSA(t, c), newSA(t, c)
			r := rand.New(rand.NewPCG(1, 2))
			for run := range 30 {
				n := run % 20
				sealer := out.Sealer()
				var packets, payloads [][]byte
				ivs := make(map[string]bool)
				for i := range n {
					payload := payloadOf(r.IntN(1500))
					off := out.HeaderLen()
					buf := append(make([]byte, off), payload...)
					if i == 7 {
						if _, _, err := sealer.Seal(1, buf[off:], off-1, 0, 4); !errors.Is(err, ErrNoRoom) {
							t.Errorf("sealed without room: %v", err)
						}
					}
					buf = append(buf, make([]byte, out.MaxTrailerLen())...)
					seq, err := out.Reserve(1)
					if err != nil {
						t.Fatal(err)
					}
					start, end, err := sealer.Seal(seq, buf, off, len(payload), 41)
					if err != nil {
						t.Fatal(err)
					}
					packets, payloads = append(packets, buf[start:end]), append(payloads, payload)
				}
				sealer.Close()
				for i, packet := range packets {
					if iv := packet[headerLen:out.HeaderLen()]; len(iv) > 0 {
						if ivs[string(iv)] {
							t.Errorf("packet %d of %d has the IV of another", i, n)
						}
						ivs[string(iv)] = true
					}
					payload, next, err := in.Open(packet)
					if err != nil || next != 41 || !bytes.Equal(payload, payloads[i]) {
						t.Fatalf("packet %d of %d, with %d octets: next header %d, %v", i, n, len(payloads[i]), next, err)
					}
				}
			}
		})
	}
}
