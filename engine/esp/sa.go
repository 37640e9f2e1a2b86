// Package esp turns payloads into ESP packets and back (RFC 4303): encryption,
// integrity check value, padding, sequence numbers and the replay window of
// one security association. It does no I/O and knows nothing of IP: what comes
// before the ESP header is the caller's.
//
// The algorithms are those of package algorithm, under the same numbers.
package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"ifipsec/engine/algorithm"
)

// The octets of SPI and sequence number, and of pad length and next header.
const (
	headerLen  = 8
	trailerLen = 2
)

// MaxReplayWindow is the largest replay window in packets. Its bitmap takes
// 2 MiB.
const MaxReplayWindow = 1 << 24

// ErrSequenceOverflow is what [SA.Reserve] returns when the SA has no sequence
// numbers left (RFC 4303, section 3.3.3). It wraps EOVERFLOW.
var ErrSequenceOverflow = fmt.Errorf("esp: sequence numbers are used up: %w", syscall.EOVERFLOW)

// Padding is what the octets between payload and trailer hold.
type Padding uint8

const (
	// Sequential is 1, 2, 3 …, as RFC 4303, section 2.4 wants it. An SA with
	// it also checks the padding of what it receives.
	Sequential Padding = iota
	// Zero is octets of zero.
	Zero
	// Random is random octets.
	Random
)

// Config is what an SA is made of.
type Config struct {
	SPI               uint32 // in the header of every packet sent
	Encryption        uint8  // number of the encryption algorithm in PF_KEYv2
	EncryptionKey     []byte // with the salt at its end, where the algorithm has one; copied
	Authentication    uint8  // number of the authentication algorithm; 0 for none, or with an AEAD
	AuthenticationKey []byte // copied
	ReplayWindow      uint32 // packets, at most MaxReplayWindow; 0 for no replay check
	ESN               bool   // 64-bit sequence numbers (RFC 4303, section 2.2.1)
	Cyclic            bool   // 32-bit sequence numbers start again instead of running out
	Padding           Padding

	// State is where the SA keeps what it must not forget: [StateSize] bytes that
	// nobody else touches while it is in use, aligned to 8. Zeros are a new SA's;
	// with what another SA left there of the same SPI, ReplayWindow, ESN and
	// Cyclic, the SA goes on where that one stopped, even if its process was
	// killed in the middle of a packet. Nil: memory of its own.
	State []byte

	// Bounds, if not nil, are the first ones of the SA, within which State must
	// be. Low is called, from within Reserve and Open, when it is time to move
	// them with [SA.SetBounds], once until that is done. It must not wait.
	Bounds *Bounds
	Low    func(*SA)

	// Rand seeds the initialization vectors of CBC and random padding. It is
	// read in New only; nil is crypto/rand.
	Rand io.Reader
}

// SA is one security association. It can send and receive; in use it does one
// of the two. All methods may be called from several goroutines at once.
type SA struct {
	spi     uint32
	esn     bool
	padding Padding
	last    uint64 // highest sequence number that Reserve hands out

	ivLen, icvLen int
	alignOut      int // what is encrypted is padded to a multiple of this many octets
	alignIn       int // what is decrypted must be a multiple of this many octets

	random  *random   // nil if neither IV nor padding is random
	workers sync.Pool // of *worker

	state state
	sent  bound

	low   func(*SA) // nil without bounds
	asked atomic.Bool
}

// state is what an SA must not forget while its keys are in use: a sequence
// number given out twice repeats the IV of counter modes, and a window that
// starts again takes old packets again.
type state struct {
	whose  *atomic.Uint64 // what Config.identity says
	sent   *atomic.Uint64 // sequence number sent last
	window window
}

// StateSize returns the bytes of [Config.State].
func StateSize(c Config) int { return 8 * (stateWords + ringWords(c.ReplayWindow)) }

// stateWords is the words before the ring of the window.
const stateWords = 4

// identity is what a state has in common with its SA: other numbers would mean
// something else. It is never 0, which a new state says.
func (c *Config) identity() uint64 {
	id := 1<<63 | uint64(c.ReplayWindow)<<32 | uint64(c.SPI)
	if c.ESN {
		id |= 1 << 62
	}
	if c.Cyclic {
		id |= 1 << 61
	}
	return id
}

// init lays the state out in memory. EINVAL: it is another SA's.
func (s *state) init(c *Config) error {
	words, memory := stateWords+ringWords(c.ReplayWindow), c.State
	if memory == nil {
		memory = make([]byte, 8*words+8)
		// The allocator promises no alignment for bytes.
		memory = memory[-uintptr(unsafe.Pointer(&memory[0]))&7:]
	}
	if len(memory) < 8*words || uintptr(unsafe.Pointer(&memory[0]))%8 != 0 {
		return fmt.Errorf("%d bytes of state, want %d, aligned to 8: %w", len(memory), 8*words, syscall.EINVAL)
	}
	all := unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&memory[0])), words)
	s.whose, s.sent = &all[0], &all[1]
	if whose := s.whose.Load(); whose == 0 {
		for i := range all {
			if all[i].Load() != 0 {
				return fmt.Errorf("state that no SA left: %w", syscall.EINVAL)
			}
		}
		s.whose.Store(c.identity())
	} else if whose != c.identity() {
		return fmt.Errorf("state of another SA: SPI %d with a window of %d, or other sequence numbers, want SPI %d with %d: %w",
			uint32(whose), whose>>32&(1<<25-1), c.SPI, c.ReplayWindow, syscall.EINVAL)
	}
	s.window.init(c.ReplayWindow, &all[2], &all[3], all[stateWords:])
	return nil
}

// worker is what sealing a run of packets or opening one needs. An SA has as many
// as are worked on at once.
type worker struct {
	protection protection
	random     randomReader
}

// protection encrypts and authenticates. It keeps scratch memory, so its calls are
// not concurrent.
type protection interface {
	// seal fills in the IV and the ICV of packet, which reaches from the ESP
	// header to the end of the ICV, and encrypts what is between them, now or
	// in finish.
	seal(packet []byte, seq uint64)
	// finish does what is left to do of the packets given to seal.
	finish()
	// open checks the ICV and decrypts in place. It reports whether the
	// packet is authentic; if it is not, the packet's content is undefined.
	open(packet []byte, seq uint64) bool
}

// New returns an SA that has sent and received nothing, or what State says. Errors
// wrap EINVAL if the parameters make no SA, and EOPNOTSUPP if an algorithm is known by name
// only.
func New(c Config) (*SA, error) {
	enc, ok := algorithm.EncryptionByID(c.Encryption)
	if !ok {
		return nil, fmt.Errorf("esp: no encryption algorithm has the number %d: %w", c.Encryption, syscall.EINVAL)
	}
	if err := enc.CheckKey(len(c.EncryptionKey) * 8); err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	if c.ReplayWindow > MaxReplayWindow {
		return nil, fmt.Errorf("esp: replay window of %d packets, at most %d are possible: %w",
			c.ReplayWindow, MaxReplayWindow, syscall.EINVAL)
	}
	if c.Padding > Random {
		return nil, fmt.Errorf("esp: no padding has the number %d: %w", c.Padding, syscall.EINVAL)
	}

	sa := &SA{
		spi:      c.SPI,
		esn:      c.ESN,
		padding:  c.Padding,
		last:     c.last(),
		ivLen:    enc.IVLen,
		alignOut: enc.Align,
		alignIn:  max(4, enc.BlockSize),
	}
	if err := sa.state.init(&c); err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	if sent := sa.state.sent.Load(); sent > sa.last {
		return nil, fmt.Errorf("esp: state in which number %d was sent, at most %d can be: %w", sent, sa.last, syscall.EINVAL)
	}
	if err := sa.setBounds(&c); err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}

	var err error
	if enc.BlockSize > 1 || c.Padding == Random {
		if sa.random, err = newRandom(c.Rand); err != nil {
			return nil, fmt.Errorf("esp: %w", err)
		}
	}
	var protect func() protection
	if enc.AEAD {
		protect, sa.icvLen, err = newCombined(enc, &c)
	} else {
		protect, sa.icvLen, err = newSeparate(enc, &c, sa.random)
	}
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	sa.workers.New = func() any {
		return &worker{protection: protect(), random: randomReader{random: sa.random}}
	}
	return sa, nil
}

// newCombined returns what makes the protection of an AEAD, and its ICV's octets.
func newCombined(enc *algorithm.Encryption, c *Config) (func() protection, int, error) {
	switch {
	case c.Authentication == algorithm.AuthNone, c.Authentication == algorithm.AuthNull:
	case enc.ID == algorithm.EncryptChaCha20Poly1305 && c.Authentication == algorithm.AuthChaCha20Poly1305:
	default:
		return nil, 0, fmt.Errorf("%s authenticates by itself, authentication algorithm %d cannot be added: %w",
			enc, c.Authentication, syscall.EINVAL)
	}
	build, ok := aeads[enc.ID]
	if !ok {
		return nil, 0, notImplemented(enc.Name)
	}
	keyLen := len(c.EncryptionKey) - enc.SaltBits/8
	aead, err := build(c.EncryptionKey[:keyLen])
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %w", enc, err, syscall.EINVAL)
	}
	salt := slices.Clone(c.EncryptionKey[keyLen:])
	return func() protection { return newAEADProtection(aead, salt, enc, c.ESN) }, enc.ICVLen, nil
}

// newSeparate returns what makes the protection of a cipher and a MAC of
// their own, either of which can be null, and the ICV's octets.
func newSeparate(enc *algorithm.Encryption, c *Config, r *random) (func() protection, int, error) {
	build, ok := ciphers[enc.ID]
	if !ok {
		return nil, 0, notImplemented(enc.Name)
	}
	newCipher, err := build(c.EncryptionKey, r)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", enc, err)
	}
	ivLen, esn := enc.IVLen, c.ESN
	if c.Authentication == algorithm.AuthNone {
		return func() protection { return newProtection(newCipher(), ivLen) }, 0, nil
	}

	auth, ok := algorithm.AuthenticationByID(c.Authentication)
	if !ok {
		return nil, 0, fmt.Errorf("no authentication algorithm has the number %d: %w", c.Authentication, syscall.EINVAL)
	}
	if err := auth.CheckKey(len(c.AuthenticationKey) * 8); err != nil {
		return nil, 0, err
	}
	if auth.ID == algorithm.AuthNull {
		return func() protection { return newProtection(newCipher(), ivLen) }, 0, nil
	}
	newMAC, ok := macs[auth.ID]
	if !ok {
		return nil, 0, fmt.Errorf("%s does not authenticate ESP: %w", auth, syscall.EINVAL)
	}
	key := slices.Clone(c.AuthenticationKey)
	icvLen := auth.ICVLen
	return func() protection {
		p := newProtection(newCipher(), ivLen)
		p.mac, p.icvLen, p.esn = newMAC(key), icvLen, esn
		return p
	}, icvLen, nil
}

func notImplemented(name string) error {
	return fmt.Errorf("%s is not implemented: %w", name, syscall.EOPNOTSUPP)
}

// SPI is the one in the header of every packet sent.
func (sa *SA) SPI() uint32 { return sa.spi }

// HeaderLen is the octets of ESP header and IV before the payload.
func (sa *SA) HeaderLen() int { return headerLen + sa.ivLen }

// MaxTrailerLen is the most octets that follow a payload: padding, pad length,
// next header and ICV.
func (sa *SA) MaxTrailerLen() int { return sa.alignOut - 1 + trailerLen + sa.icvLen }

// Reserve hands out n consecutive sequence numbers, of which first is the
// first. Numbers not used for a packet are lost, and none is given out twice:
// the high half counts on after a cyclic SA's 32 bits start again. Without ESN
// and Cyclic it returns ErrSequenceOverflow when fewer than n are left of the
// 2^32-1, and ErrBound when fewer are left within the SA's bounds.
func (sa *SA) Reserve(n int) (first uint64, err error) {
	if n <= 0 {
		return 0, fmt.Errorf("esp: %d sequence numbers asked for: %w", n, syscall.EINVAL)
	}
	for {
		sent := sa.state.sent.Load()
		if uint64(n) > sa.last-sent {
			return 0, ErrSequenceOverflow
		}
		if uint64(n) > sa.sent.limit.Load()-sent {
			sa.callLow()
			return 0, ErrBound
		}
		if sa.state.sent.CompareAndSwap(sent, sent+uint64(n)) {
			if sent+uint64(n) > sa.sent.ask.Load() {
				sa.callLow()
			}
			return sent + 1, nil
		}
	}
}

// Sequence is the sequence number handed out last, 0 if none was.
func (sa *SA) Sequence() uint64 { return sa.state.sent.Load() }

// ReplayState is what the replay window of an SA knows.
type ReplayState struct {
	Window  uint32 // size in packets, 0 if replay is not checked
	Highest uint64 // highest sequence number received; 0 if none was, or neither a window nor ESN needs it
}

// ReplayState returns the state of the replay window.
func (sa *SA) ReplayState() ReplayState {
	window := &sa.state.window
	return ReplayState{Window: uint32(window.size), Highest: window.top.Load()}
}

// random makes octets that nobody without its key can foresee: the encryption
// of a counter under a key that has no other use (NIST SP 800-38A, appendix C).
// That costs one block where the system's generator would cost a lock or a
// system call, and a counter never repeats a block.
type random struct {
	block   cipher.Block
	counter atomic.Uint64
}

func newRandom(seed io.Reader) (*random, error) {
	if seed == nil {
		seed = rand.Reader
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(seed, key); err != nil {
		return nil, fmt.Errorf("no random seed: %w: %w", err, syscall.EIO)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &random{block: block}, nil
}

// randomReader reads from a random that several contexts share.
type randomReader struct {
	*random
	buf [16]byte
}

func (r *randomReader) fill(p []byte) {
	for len(p) > 0 {
		clear(r.buf[8:])
		binary.BigEndian.PutUint64(r.buf[:], r.counter.Add(1))
		r.block.Encrypt(r.buf[:], r.buf[:])
		p = p[copy(p, r.buf[:]):]
	}
}
