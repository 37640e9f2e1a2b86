package pfkey

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// host is the byte order of everything but SPIs, ports and addresses.
var host = binary.NativeEndian

// Sizes on the wire, in bytes.
const (
	version = 2

	headerLen    = 16 // struct sadb_msg
	extHeaderLen = 4  // struct sadb_ext
	unit         = 8  // what the length fields count in
	maxUnits     = 1<<16 - 1

	saLen        = 16
	lifetimeLen  = 32
	addressLen   = 8 // without the sockaddr
	keyLen       = 8 // without the key
	identityLen  = 16
	proposalLen  = 8
	combLen      = 72
	supportedLen = 8
	algorithmLen = 8
	spiRangeLen  = 16
	sa2Len       = 16
	policyLen    = 16 // without the requests
	requestLen   = 16 // without the sockaddrs
	natTLen      = 8
	saReplayLen  = 8
	hwifLen      = 40
	ifNameLen    = 32

	afInet         = 2
	afInet6        = 10
	sockaddrInLen  = 16
	sockaddrIn6Len = 28
)

// maxExtensions bounds what a message may carry. There are fewer types than
// this, and none may stand in a message twice.
const maxExtensions = 64

// layout is the form of an extension's bytes, and so its Go type.
type layout uint8

const (
	layoutUnknown layout = iota
	layoutSA
	layoutLifetime
	layoutAddress
	layoutKey
	layoutIdentity
	layoutProposal
	layoutSupported
	layoutSPIRange
	layoutSA2
	layoutPolicy
	layoutNATTType
	layoutNATTPort
	layoutNATTFrag
	layoutSAReplay
	layoutHWIF
)

// layouts is indexed by extension type; types beyond it are unknown.
var layouts = [...]layout{
	ExtSA:               layoutSA,
	ExtLifetimeCurrent:  layoutLifetime,
	ExtLifetimeHard:     layoutLifetime,
	ExtLifetimeSoft:     layoutLifetime,
	ExtAddressSrc:       layoutAddress,
	ExtAddressDst:       layoutAddress,
	ExtAddressProxy:     layoutAddress,
	ExtKeyAuth:          layoutKey,
	ExtKeyEncrypt:       layoutKey,
	ExtIdentitySrc:      layoutIdentity,
	ExtIdentityDst:      layoutIdentity,
	ExtProposal:         layoutProposal,
	ExtSupportedAuth:    layoutSupported,
	ExtSupportedEncrypt: layoutSupported,
	ExtSPIRange:         layoutSPIRange,
	ExtPolicy:           layoutPolicy,
	ExtSA2:              layoutSA2,
	ExtNATTType:         layoutNATTType,
	ExtNATTSport:        layoutNATTPort,
	ExtNATTDport:        layoutNATTPort,
	ExtNATTOAI:          layoutAddress,
	ExtNewAddressSrc:    layoutAddress,
	ExtNewAddressDst:    layoutAddress,
	ExtHWIF:             layoutHWIF,
	ExtNATTOAR:          layoutAddress,
	ExtNATTFrag:         layoutNATTFrag,
	ExtSAReplay:         layoutSAReplay,
}

func (t ExtType) layout() layout {
	if int(t) < len(layouts) {
		return layouts[t]
	}
	return layoutUnknown
}

// align rounds n up to what an extension may be long.
func align(n int) int { return (n + unit - 1) &^ (unit - 1) }

// invalid is an error that callers can answer as EINVAL.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), syscall.EINVAL)
}
