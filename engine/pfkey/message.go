// Package pfkey is the PF_KEYv2 message format of RFC 2367 with the KAME
// extensions: bytes on one side, Go values on the other, and no I/O.
//
// The layout is that of linux/pfkeyv2.h with Linux sockaddrs, because that is
// what every PF_KEY program on Linux was compiled against. What Linux has no
// field for travels as FreeBSD has it: the scope of a policy in a byte that
// Linux reserves; large replay windows, both original NAT addresses and the
// rest in extensions of their own, by FreeBSD's numbers where they are free
// and moved up where they are not (see [ExtType]'s constants).
package pfkey

import "net/netip"

// Message is one PF_KEYv2 message: the base header of RFC 2367, section 2.3.1,
// and its extensions in the order in which they stand on the wire. The length
// field is computed when the message is encoded and checked when it is decoded.
type Message struct {
	Type   MsgType
	Errno  uint8 // an errno of Linux, 0 in requests
	SAType SAType
	// Reserved is 0 in requests. In what dumps and gets answer it is FreeBSD's
	// count of references to the entry, which setkey(8) prints as refcnt.
	Reserved uint16
	Seq      uint32
	PID      uint32
	Exts     []Extension
	// Inner is what a SADB_X_PROMISC message carries to a promiscuous listener
	// in place of extensions, or nil (RFC 2367, section 3.1.11).
	Inner *Message
}

// Extension is one of the extension types of this package, by pointer.
type Extension interface {
	// ExtType is the number that marks the extension on the wire.
	ExtType() ExtType
}

// Get returns the message's extension of type t, or nil if it has none.
func (m *Message) Get(t ExtType) Extension {
	for _, e := range m.Exts {
		if e.ExtType() == t {
			return e
		}
	}
	return nil
}

// get is Get for extensions whose Go type is shared among several numbers.
func get[T any, P interface {
	*T
	Extension
}](m *Message, t ExtType) P {
	e, _ := m.Get(t).(P)
	return e
}

// Src returns SADB_EXT_ADDRESS_SRC, or nil if there is none.
func (m *Message) Src() *Address { return get[Address](m, ExtAddressSrc) }

// Dst returns SADB_EXT_ADDRESS_DST, or nil if there is none.
func (m *Message) Dst() *Address { return get[Address](m, ExtAddressDst) }

// KeyAuth returns SADB_EXT_KEY_AUTH, or nil if there is none.
func (m *Message) KeyAuth() *Key { return get[Key](m, ExtKeyAuth) }

// KeyEncrypt returns SADB_EXT_KEY_ENCRYPT, or nil if there is none.
func (m *Message) KeyEncrypt() *Key { return get[Key](m, ExtKeyEncrypt) }

// Current returns SADB_EXT_LIFETIME_CURRENT, or nil if there is none.
func (m *Message) Current() *Lifetime { return get[Lifetime](m, ExtLifetimeCurrent) }

// Hard returns SADB_EXT_LIFETIME_HARD, or nil if there is none.
func (m *Message) Hard() *Lifetime { return get[Lifetime](m, ExtLifetimeHard) }

// Soft returns SADB_EXT_LIFETIME_SOFT, or nil if there is none.
func (m *Message) Soft() *Lifetime { return get[Lifetime](m, ExtLifetimeSoft) }

// NATTSport returns SADB_X_EXT_NAT_T_SPORT, or nil if there is none.
func (m *Message) NATTSport() *NATTPort { return get[NATTPort](m, ExtNATTSport) }

// NATTDport returns SADB_X_EXT_NAT_T_DPORT, or nil if there is none.
func (m *Message) NATTDport() *NATTPort { return get[NATTPort](m, ExtNATTDport) }

// NATTOAI returns SADB_X_EXT_NAT_T_OAI, the original address of the initiator,
// or nil if there is none. It is Linux's SADB_X_EXT_NAT_T_OA.
func (m *Message) NATTOAI() *Address { return get[Address](m, ExtNATTOAI) }

// NATTOAR returns SADB_X_EXT_NAT_T_OAR, the original address of the responder,
// or nil if there is none.
func (m *Message) NATTOAR() *Address { return get[Address](m, ExtNATTOAR) }

// Find returns the message's extension of type T, or nil if it has none.
// The address, key, lifetime and supported-algorithm extensions share a Go
// type among several numbers; for those use the methods of Message.
func Find[T Extension](m *Message) T {
	for _, e := range m.Exts {
		if t, ok := e.(T); ok {
			return t
		}
	}
	var none T
	return none
}

// SA is SADB_EXT_SA (RFC 2367, section 2.3.1).
type SA struct {
	SPI     uint32 // host byte order
	Replay  uint8  // replay window in bytes of bitmap, 8 packets each; see [Message.ReplayPackets]
	State   SAState
	Auth    uint8 // SADB_AALG_*
	Encrypt uint8 // SADB_EALG_*, or SADB_X_CALG_* for IPComp
	Flags   SAFlags
}

// Lifetime is SADB_EXT_LIFETIME_CURRENT, _HARD or _SOFT, as Kind says.
type Lifetime struct {
	Kind        ExtType
	Allocations uint32
	Bytes       uint64
	AddTime     uint64 // seconds; of the current lifetime: since the epoch
	UseTime     uint64 // seconds; of the current lifetime: since the epoch, 0 if never used
}

// Address is SADB_EXT_ADDRESS_SRC, _DST or _PROXY, SADB_X_EXT_NAT_T_OAI or
// _OAR, or SADB_X_EXT_NEW_ADDRESS_SRC or _DST, as Kind says. The port belongs
// to the selector or to the encapsulation and is 0 for any.
type Address struct {
	Kind      ExtType
	Proto     uint8 // upper-layer protocol, 255 for any
	PrefixLen uint8 // bits
	Addr      netip.AddrPort
}

// Key is SADB_EXT_KEY_AUTH or SADB_EXT_KEY_ENCRYPT, as Kind says.
type Key struct {
	Kind ExtType
	Bits int // as on the wire; Key holds ceil(Bits/8) bytes
	Key  []byte
}

// Identity is SADB_EXT_IDENTITY_SRC or _DST, as Kind says.
type Identity struct {
	Kind ExtType
	Type uint16 // SADB_IDENTTYPE_*
	ID   uint64
	Name string
}

// Supported is SADB_EXT_SUPPORTED_AUTH or _ENCRYPT, as Kind says.
type Supported struct {
	Kind       ExtType
	Algorithms []SupportedAlgorithm
}

// SupportedAlgorithm is one sadb_alg of a [Supported] extension.
type SupportedAlgorithm struct {
	ID               uint8
	IVLen            uint8 // bytes
	MinBits, MaxBits uint16
}

// Proposal is SADB_EXT_PROPOSAL, sent in SADB_ACQUIRE.
type Proposal struct {
	Replay uint8
	Combs  []Comb
}

// Comb is one sadb_comb of a [Proposal].
type Comb struct {
	Auth, Encrypt                    uint8
	Flags                            uint16
	AuthMinBits, AuthMaxBits         uint16
	EncryptMinBits, EncryptMaxBits   uint16
	SoftAllocations, HardAllocations uint32
	SoftBytes, HardBytes             uint64
	SoftAddTime, HardAddTime         uint64 // seconds
	SoftUseTime, HardUseTime         uint64 // seconds
}

// SPIRange is SADB_EXT_SPIRANGE, sent in SADB_GETSPI.
type SPIRange struct {
	Min, Max uint32 // host byte order
}

// SA2 is SADB_X_EXT_SA2.
type SA2 struct {
	Mode     Mode
	Sequence uint32 // sequence number last sent or received
	ReqID    uint32
}

// Policy is SADB_X_EXT_POLICY: the policy of ipsec_set_policy(3).
type Policy struct {
	Type     PolicyType
	Dir      Direction
	Scope    Scope // FreeBSD's sadb_x_policy_scope, in the byte that Linux reserves
	ID       uint32
	Priority uint32
	Requests []Request
}

// Request is one sadb_x_ipsecrequest of a [Policy]. Src and Dst are invalid
// where the request names no endpoints.
type Request struct {
	Proto    uint16 // an IP protocol number: ESP, AH or IPCOMP
	Mode     Mode
	Level    Level
	ReqID    uint32
	Src, Dst netip.AddrPort
}

// NATTType is SADB_X_EXT_NAT_T_TYPE.
type NATTType struct {
	Type uint8 // UDP_ENCAP_ESPINUDP is 2
}

// NATTPort is SADB_X_EXT_NAT_T_SPORT or _DPORT, as Kind says.
type NATTPort struct {
	Kind ExtType
	Port uint16 // host byte order
}

// NATTFrag is SADB_X_EXT_NAT_T_FRAG, FreeBSD's -natt_mtu.
type NATTFrag struct {
	Size uint16 // bytes
}

// SAReplay is SADB_X_EXT_SA_REPLAY: a replay window that is too large for
// [SA.Replay].
type SAReplay struct {
	Packets uint32
}

// HWIF is SADB_X_EXT_IF_HW_OFFL, FreeBSD's -hwif: the interface to which
// cryptography should be handed.
type HWIF struct {
	Name string
}

// Unknown is an extension that this package does not know, kept as it came.
type Unknown struct {
	Kind ExtType
	Body []byte // without the four bytes of length and type
}

// ExtType implements [Extension].
func (*SA) ExtType() ExtType { return ExtSA }

// ExtType implements [Extension].
func (e *Lifetime) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (e *Address) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (e *Key) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (e *Identity) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (e *Supported) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (*Proposal) ExtType() ExtType { return ExtProposal }

// ExtType implements [Extension].
func (*SPIRange) ExtType() ExtType { return ExtSPIRange }

// ExtType implements [Extension].
func (*SA2) ExtType() ExtType { return ExtSA2 }

// ExtType implements [Extension].
func (*Policy) ExtType() ExtType { return ExtPolicy }

// ExtType implements [Extension].
func (*NATTType) ExtType() ExtType { return ExtNATTType }

// ExtType implements [Extension].
func (e *NATTPort) ExtType() ExtType { return e.Kind }

// ExtType implements [Extension].
func (*NATTFrag) ExtType() ExtType { return ExtNATTFrag }

// ExtType implements [Extension].
func (*SAReplay) ExtType() ExtType { return ExtSAReplay }

// ExtType implements [Extension].
func (*HWIF) ExtType() ExtType { return ExtHWIF }

// ExtType implements [Extension].
func (e *Unknown) ExtType() ExtType { return e.Kind }
