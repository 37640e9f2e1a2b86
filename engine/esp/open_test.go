package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
)

// TestBitFlips: an authenticated packet with any one bit changed is refused,
// and does not count as received.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		if !s.authenticates() {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			for _, esn := range []bool{false, true} {
				c := s.config(t)
				c.ReplayWindow, c.ESN = 64, esn
				packet := seal(t, newSA(t, c), payloadOf(40), 4)
				in := newSA(t, c)
				for bit := range len(packet) * 8 {
					changed := bytes.Clone(packet)
					changed[bit/8] ^= 1 << (bit % 8)
					want := ErrICV
					if binary.BigEndian.Uint32(changed[4:]) == 0 {
						want = ErrReplay
					}
					if _, _, err := in.Open(changed); err != want {
						t.Fatalf("bit %d changed: %v, want %v", bit, err, want)
					}
				}
				if _, _, err := in.Open(packet); err != nil {
					t.Fatalf("the packet itself, after all that: %v", err)
				}
			}
		})
	}
}

// TestWrongKey: without authentication the padding gives a wrong key away
// nearly always, with authentication the ICV does always.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	for _, s := range []suite{{"aes-cbc", ""}, {"aes-ctr", ""}, {"aes-cbc", "hmac-sha1"}, {"aes-gcm-16", ""}} {
		c := s.config(t)
		out := newSA(t, c)
		c.EncryptionKey = bytes.Repeat([]byte{1}, len(c.EncryptionKey))
		c.AuthenticationKey = bytes.Repeat([]byte{1}, len(c.AuthenticationKey))
		in := newSA(t, c)
		opened := 0
		for n := range 200 {
			_, _, err := in.Open(seal(t, out, payloadOf(n), 4))
			switch {
			case err == nil:
				opened++
			case s.authenticates() && err != ErrICV, !s.authenticates() && err != ErrPadding:
				t.Fatalf("%s: %v", s, err)
			}
		}
		if s.authenticates() && opened > 0 || opened > 10 {
			t.Errorf("%s: %d of 200 packets opened", s, opened)
		}
	}
}

// TestOtherESN: the half of the sequence number that is not sent is covered by
// the ICV.
func TestOtherESN(t *testing.T) {
	t.Parallel()
	for _, s := range []suite{{"aes-cbc", "hmac-sha1"}, {"aes-gcm-16", ""}, {"chacha20-poly1305", ""}, {"null", "aes-xcbc-mac"}} {
		c := s.config(t)
		c.ESN, c.ReplayWindow = true, 32
		out, in := newSA(t, c), newSA(t, c)
		if _, _, err := in.Open(sealAs(t, out, 1<<32+5, payloadOf(20), 4)); err != ErrICV {
			t.Errorf("%s: %v for a sequence number 2^32 too high, want ErrICV", s, err)
		}
		c.ESN = false
		if _, _, err := newSA(t, c).Open(sealAs(t, out, 5, payloadOf(20), 4)); err != ErrICV {
			t.Errorf("%s: %v for an SA without ESN, want ErrICV", s, err)
		}
	}
}

func TestOpenMalformed(t *testing.T) {
	t.Parallel()
	// plain returns a packet of the null cipher whose encrypted part is text.
	plain := func(text ...byte) []byte { return append([]byte{0, 0, 0x27, 0x10, 0, 0, 0, 1}, text...) }
	null := suite{"null", ""}
	for _, tt := range []struct {
		what   string
		suite  suite
		packet []byte
		want   error
	}{
		{"nothing", null, nil, ErrTooShort},
		{"part of a header", null, make([]byte, 7), ErrTooShort},
		{"header only", null, plain(), ErrTooShort},
		{"trailer of 3 octets", null, plain(0, 0, 4), ErrTooShort},
		{"5 octets", null, plain(1, 2, 3, 0, 4), ErrAlignment},
		{"pad length over everything", null, plain(1, 2, 3, 4), ErrPadding},
		{"pad length of 255", null, plain(1, 2, 255, 4), ErrPadding},
		{"padding from 2", null, plain(2, 3, 2, 4), ErrPadding},
		{"padding of zeros", null, plain(0, 0, 2, 4), ErrPadding},
		{"last octet of padding alone right", null, plain(9, 2, 2, 4), ErrPadding},
		{"all padding", null, plain(1, 2, 2, 4), nil},
		{"no padding", null, plain(9, 9, 0, 4), nil},
		{"dummy packet", null, plain(9, 9, 0, 59), nil},
		{"no IV", suite{"aes-cbc", ""}, make([]byte, 8), ErrTooShort},
		{"part of an IV", suite{"aes-cbc", ""}, make([]byte, 23), ErrTooShort},
		{"no block", suite{"aes-cbc", ""}, make([]byte, 24), ErrTooShort},
		{"part of a block", suite{"aes-cbc", ""}, make([]byte, 39), ErrTooShort},
		{"a block and a half", suite{"aes-cbc", ""}, make([]byte, 48), ErrAlignment},
		{"a block and a half of 8", suite{"3des-cbc", ""}, make([]byte, 28), ErrAlignment},
		{"block but no ICV", suite{"aes-cbc", "hmac-sha1"}, make([]byte, 40), ErrTooShort},
		{"block and part of an ICV", suite{"aes-cbc", "hmac-sha1"}, make([]byte, 51), ErrTooShort},
		{"zeros", suite{"aes-cbc", "hmac-sha1"}, make([]byte, 52), ErrICV},
		{"AEAD, no ICV", suite{"aes-gcm-16", ""}, make([]byte, 16), ErrTooShort},
		{"AEAD, ICV only", suite{"aes-gcm-16", ""}, make([]byte, 32), ErrTooShort},
		{"AEAD, 2 octets", suite{"aes-gcm-16", ""}, make([]byte, 34), ErrTooShort},
		{"AEAD, 6 octets", suite{"aes-gcm-16", ""}, make([]byte, 38), ErrAlignment},
		{"AEAD, zeros", suite{"aes-gcm-16", ""}, make([]byte, 36), ErrICV},
	} {
		payload, next, err := newSA(t, tt.suite.config(t)).Open(tt.packet)
		if err != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
		if err != nil && (payload != nil || next != 0) {
			t.Errorf("%s: payload %x, next header %d beside the error", tt.what, payload, next)
		}
	}
}

// TestOpenShorterAlignment: what is encrypted by a stream may end at any 4
// octets, although SAs of aes-ctr send whole blocks.
func TestOpenShorterAlignment(t *testing.T) {
	t.Parallel()
	c := suite{"aes-ctr", "hmac-sha1"}.config(t)
	out, in := newSA(t, c), newSA(t, c)
	out.alignOut = 4
	packet := seal(t, out, payloadOf(20), 4)
	if want := 8 + 8 + 24 + 12; len(packet) != want {
		t.Fatalf("the packet has %d octets, want %d", len(packet), want)
	}
	if _, _, err := in.Open(packet); err != nil {
		t.Error(err)
	}
}

// TestReplayOnlyIfOpened: a packet that is refused leaves its number free.
func TestReplayOnlyIfOpened(t *testing.T) {
	t.Parallel()
	for _, s := range []suite{{"null", ""}, {"aes-cbc", "hmac-sha1"}, {"aes-gcm-16", ""}} {
		c := s.config(t)
		c.ReplayWindow = 32
		out, in := newSA(t, c), newSA(t, c)
		packet := seal(t, out, payloadOf(20), 4)
		broken := bytes.Clone(packet)
		broken[len(broken)-2] ^= 0xff // the pad length, or in the ICV
		if _, _, err := in.Open(broken); err != ErrICV && err != ErrPadding {
			t.Errorf("%s, broken: %v", s, err)
		}
		if _, _, err := in.Open(bytes.Clone(packet)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if _, _, err := in.Open(packet); err != ErrReplay {
			t.Errorf("%s, again: %v, want ErrReplay", s, err)
		}
	}
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	aes := Config{Encryption: algorithm.EncryptAESCBC, EncryptionKey: key(128)}
	for _, tt := range []struct {
		what  string
		from  Config
		with  func(*Config)
		errno syscall.Errno
		text  string
	}{
		{"no encryption", aes, func(c *Config) { c.Encryption = 0 }, syscall.EINVAL, "no encryption algorithm has the number 0"},
		{"unknown encryption", aes, func(c *Config) { c.Encryption = 99 }, syscall.EINVAL, "number 99"},
		{"key of 15 octets", aes, func(c *Config) { c.EncryptionKey = key(120) }, syscall.EINVAL, "aes-cbc: key has 120 bits, must have 128, 192 or 256 bits"},
		{"no key", aes, func(c *Config) { c.EncryptionKey = nil }, syscall.EINVAL, "key has 0 bits"},
		{"unknown authentication", aes, func(c *Config) { c.Authentication = 99 }, syscall.EINVAL, "number 99"},
		{"no authentication key", aes, func(c *Config) { c.Authentication = algorithm.AuthHMACSHA1 }, syscall.EINVAL, "hmac-sha1: key has 0 bits, must have 160 bits"},
		{"TCP's authentication", aes, func(c *Config) {
			c.Authentication, c.AuthenticationKey = algorithm.AuthTCPMD5, key(128)
		}, syscall.EINVAL, "tcp-md5 does not authenticate ESP"},
		{"an AEAD's authentication", aes, func(c *Config) {
			c.Authentication, c.AuthenticationKey = algorithm.AuthChaCha20Poly1305, key(128)
		}, syscall.EINVAL, "chacha20-poly1305 does not authenticate ESP"},
		{"AEAD and authentication", Config{Encryption: algorithm.EncryptAESGCM16, EncryptionKey: key(160)}, func(c *Config) {
			c.Authentication, c.AuthenticationKey = algorithm.AuthHMACSHA1, key(160)
		}, syscall.EINVAL, "aes-gcm-16 authenticates by itself"},
		{"AEAD key without salt", aes, func(c *Config) { c.Encryption = algorithm.EncryptAESGCM16 }, syscall.EINVAL, "the last 32 are salt"},
		{"replay window", aes, func(c *Config) { c.ReplayWindow = MaxReplayWindow + 1 }, syscall.EINVAL, "replay window of 16777217 packets"},
		{"padding", aes, func(c *Config) { c.Padding = 3 }, syscall.EINVAL, "padding"},
		{"twofish", aes, func(c *Config) { c.Encryption = algorithm.EncryptTwofish }, syscall.EOPNOTSUPP, "twofish-cbc is not implemented"},
	} {
		c := tt.from
		tt.with(&c)
		sa, err := New(c)
		if sa != nil || !errors.Is(err, tt.errno) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("%s: %v, want %v and %q", tt.what, err, tt.errno, tt.text)
		}
	}
}

// TestAEADAuthentication: the names that mean an AEAD's own authentication, or
// none, can stand beside it.
func TestAEADAuthentication(t *testing.T) {
	t.Parallel()
	c := suite{"chacha20-poly1305", ""}.config(t)
	packet := seal(t, newSA(t, c), payloadOf(20), 4)
	for _, auth := range []uint8{algorithm.AuthNone, algorithm.AuthNull, algorithm.AuthChaCha20Poly1305} {
		c.Authentication = auth
		if _, _, err := newSA(t, c).Open(bytes.Clone(packet)); err != nil {
			t.Errorf("authentication %d: %v", auth, err)
		}
	}
}

// TestKeysAreCopied: what happens to the caller's keys later does not matter.
func TestKeysAreCopied(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		c := s.config(t)
		in, out := newSA(t, c), newSA(t, c)
		clear(c.EncryptionKey)
		clear(c.AuthenticationKey)
		c = s.config(t)
		if _, _, err := in.Open(seal(t, newSA(t, c), payloadOf(20), 4)); err != nil {
			t.Errorf("%s: Open with keys cleared since: %v", s, err)
		}
		if _, _, err := newSA(t, c).Open(seal(t, out, payloadOf(20), 4)); err != nil {
			t.Errorf("%s: Seal with keys cleared since: %v", s, err)
		}
	}
}

// FuzzOpen: whatever arrives, Open returns one of its errors, or a payload
// that lies within the packet.
func FuzzOpen(f *testing.F) {
	all := suites()
	for i, s := range all {
		sa := newSA(f, s.config(f))
		f.Add(uint8(i), false, seal(f, sa, payloadOf(20), 4))
	}
	f.Add(uint8(0), true, []byte{})
	f.Fuzz(func(t *testing.T, which uint8, esn bool, packet []byte) {
		c := all[int(which)%len(all)].config(t)
		c.ReplayWindow, c.ESN = 64, esn
		sa := newSA(t, c)
		n := len(packet)
		payload, _, err := sa.Open(packet)
		switch err {
		case nil:
			if len(payload)+sa.HeaderLen()+trailerLen+sa.icvLen > n {
				t.Errorf("%d octets of payload in a packet of %d", len(payload), n)
			}
		case ErrTooShort, ErrAlignment, ErrReplay, ErrICV, ErrPadding:
		default:
			t.Errorf("error %v", err)
		}
	})
}
