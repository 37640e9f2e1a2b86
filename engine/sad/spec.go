package sad

import (
	"fmt"
	"net/netip"
	"syscall"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// MaxReplayWindow is the largest replay window, in packets, that an SA of any
// type may have. FreeBSD would try to allocate one of 2^32.
const MaxReplayWindow = esp.MaxReplayWindow

// Spec is what SADB_ADD says of an SA (RFC 2367, section 3.1.3).
type Spec struct {
	Src, Dst netip.Addr // one family; a link-local address has its link's number as zone
	SPI      uint32     // host byte order
	SAType   pfkey.SAType
	Mode     pfkey.Mode
	ReqID    uint32 // binds the SA to policies; 0 to none in particular

	Auth       uint8  // SADB_AALG_*
	Encrypt    uint8  // SADB_EALG_*, of IPComp SADB_X_CALG_*
	AuthKey    []byte // copied by whoever keeps the Spec
	EncryptKey []byte // likewise

	Replay uint32 // replay window in packets, 0 for no check
	Flags  pfkey.SAFlags

	Hard, Soft Lifetime

	Seq uint32 // of the message that made the SA
	PID uint32 // of the process that made the SA

	NATT *NATT // nil unless ESP travels in UDP
}

// Lifetime is a limit to an SA's use; 0 is no limit.
type Lifetime struct {
	Allocations uint32 // packets
	Bytes       uint64
	AddTime     uint64 // seconds from the SA's creation
	UseTime     uint64 // seconds from the SA's first use
}

// NATT is how the packets of an SA are encapsulated in UDP (RFC 3948).
type NATT struct {
	SrcPort, DstPort uint16     // of the outer UDP header
	OAI, OAR         netip.Addr // original addresses of initiator and responder, may be invalid
	Fragment         uint16     // -natt_mtu in bytes, 0 if not given
}

// transforms says whether the SA has an ESP transform.
func (s *Spec) transforms() bool {
	return s.SAType == pfkey.SATypeESP && s.Flags&pfkey.SAFlagOld == 0
}

// config is what the transform is made of.
func (s *Spec) config() esp.Config {
	padding := esp.Sequential
	switch s.Flags & pfkey.SAFlagPadMask {
	case pfkey.SAFlagPadZero:
		padding = esp.Zero
	case pfkey.SAFlagPadRandom:
		padding = esp.Random
	}
	return esp.Config{
		SPI:               s.SPI,
		Encryption:        s.Encrypt,
		EncryptionKey:     s.EncryptKey,
		Authentication:    s.Auth,
		AuthenticationKey: s.AuthKey,
		ReplayWindow:      s.Replay,
		ESN:               s.Flags&pfkey.SAFlagESN != 0,
		Cyclic:            s.Flags&pfkey.SAFlagCyclic != 0,
		Padding:           padding,
	}
}

// invalid is an EINVAL that says what is wrong.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}

// checkEndpoints finds fault with what every kind of SA needs, a larval one
// too.
func (s *Spec) checkEndpoints() error {
	switch s.SAType {
	case pfkey.SATypeESP, pfkey.SATypeAH, pfkey.SATypeIPComp, pfkey.SATypeTCPSignature:
	case pfkey.SATypeUnspec:
		return fmt.Errorf("SA type unspecified, want esp, ah, ipcomp or tcp: %w", syscall.EPROTONOSUPPORT)
	default:
		return invalid("SA type %v, want esp, ah, ipcomp or tcp", s.SAType)
	}
	if !s.Src.IsValid() || !s.Dst.IsValid() {
		return invalid("an SA needs a source and a destination address")
	}
	if s.Src.Is4() != s.Dst.Is4() {
		return invalid("source %v and destination %v are of different families", s.Src, s.Dst)
	}
	return s.checkMode()
}

// checkMode finds fault with a mode that no packet can have, such as Linux's
// BEET. FreeBSD takes any, and the SA is of no use. The mode of a TCP-MD5 SA
// means nothing.
func (s *Spec) checkMode() error {
	if s.Mode > pfkey.ModeTunnel && s.SAType != pfkey.SATypeTCPSignature {
		return invalid("mode %v, want any, transport or tunnel", s.Mode)
	}
	return nil
}

// checkSPI finds fault with the SPI. RFC 4302, section 2.4, and RFC 4303,
// section 2.1, reserve 0 to 255 in AH and ESP. IPComp's CPI has 16 bits.
func (s *Spec) checkSPI() error {
	switch s.SAType {
	case pfkey.SATypeESP, pfkey.SATypeAH:
		if s.SPI < minSPI {
			return invalid("SPI %d is reserved, want %d or more", s.SPI, minSPI)
		}
	case pfkey.SATypeIPComp:
		if s.SPI > maxCPI && s.Flags&pfkey.SAFlagRawCPI == 0 {
			return invalid("CPI %d has more than 16 bits", s.SPI)
		}
	}
	return nil
}

// check finds fault with a complete SA, as FreeBSD's key_setsaval and the
// transforms' initialisation do.
func (s *Spec) check() error {
	if s.Replay > MaxReplayWindow {
		return invalid("replay window of %d packets, want at most %d", s.Replay, MaxReplayWindow)
	}
	if s.Flags&pfkey.SAFlagESN != 0 && s.Replay == 0 {
		return invalid("64-bit sequence numbers need a replay window")
	}
	if err := s.checkNATT(); err != nil {
		return err
	}
	switch s.SAType {
	case pfkey.SATypeESP:
		return s.checkESP()
	case pfkey.SATypeAH:
		if s.Flags&pfkey.SAFlagDeriv != 0 {
			return invalid("an AH SA has no derived IV")
		}
		if s.Encrypt != 0 || len(s.EncryptKey) != 0 {
			return invalid("an AH SA has no encryption")
		}
		if s.Auth == algorithm.AuthTCPMD5 {
			return invalid("tcp-md5 does not authenticate AH")
		}
		return s.checkAuth()
	case pfkey.SATypeTCPSignature:
		if s.Encrypt != 0 || len(s.EncryptKey) != 0 {
			return invalid("a TCP-MD5 SA has no encryption")
		}
		if s.Auth != algorithm.AuthTCPMD5 {
			return invalid("authentication algorithm %d in a TCP-MD5 SA, want tcp-md5", s.Auth)
		}
		return s.checkAuth()
	default:
		return s.checkIPComp()
	}
}

// encapsulation returns a copy of how ESP is encapsulated, nil if it is not.
// Other SAs cannot be, and what is said of it is ignored.
func (s *Spec) encapsulation() *NATT {
	if s.NATT == nil || s.SAType != pfkey.SATypeESP {
		return nil
	}
	natt := *s.NATT
	return &natt
}

func (s *Spec) checkNATT() error {
	if n := s.encapsulation(); n != nil && (n.SrcPort == 0 || n.DstPort == 0) {
		return invalid("UDP encapsulation needs both ports, got %d and %d", n.SrcPort, n.DstPort)
	}
	return nil
}

func (s *Spec) checkESP() error {
	const old = pfkey.SAFlagOld
	if s.Flags&(old|pfkey.SAFlagDeriv) == old|pfkey.SAFlagDeriv {
		return invalid("an old ESP SA has no derived IV")
	}
	if s.Flags&(old|pfkey.SAFlagIV4B) == pfkey.SAFlagIV4B {
		return invalid("only an old ESP SA has an IV of 4 bytes")
	}
	if s.Encrypt == 0 {
		return invalid("an ESP SA needs an encryption algorithm (null is one)")
	}
	e, ok := algorithm.EncryptionByID(s.Encrypt)
	if !ok {
		return invalid("encryption algorithm %d is unknown", s.Encrypt)
	}
	if err := e.CheckKey(8 * len(s.EncryptKey)); err != nil {
		return err
	}
	if s.Auth == 0 {
		if len(s.AuthKey) != 0 {
			return invalid("an authentication key without an authentication algorithm")
		}
		return nil
	}
	return s.checkAuth()
}

func (s *Spec) checkAuth() error {
	if s.Auth == 0 {
		return invalid("an SA of type %v needs an authentication algorithm", s.SAType)
	}
	a, ok := algorithm.AuthenticationByID(s.Auth)
	if !ok {
		return invalid("authentication algorithm %d is unknown", s.Auth)
	}
	return a.CheckKey(8 * len(s.AuthKey))
}

func (s *Spec) checkIPComp() error {
	if s.Auth != 0 || len(s.AuthKey) != 0 {
		return invalid("an IPComp SA has no authentication")
	}
	if len(s.EncryptKey) != 0 {
		return invalid("an IPComp SA has no key")
	}
	if s.Encrypt != algorithm.CompressDeflate {
		return invalid("compression algorithm %d, want deflate", s.Encrypt)
	}
	return nil
}
