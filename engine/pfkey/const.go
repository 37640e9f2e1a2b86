package pfkey

import "fmt"

// MsgType is the type of a message (RFC 2367, section 3.1, and KAME's SADB_X_*).
type MsgType uint8

// Message types. Up to 22 the numbers of Linux and FreeBSD are the same, and
// FreeBSD has no others.
const (
	TypeGetSPI     MsgType = 1
	TypeUpdate     MsgType = 2
	TypeAdd        MsgType = 3
	TypeDelete     MsgType = 4
	TypeGet        MsgType = 5
	TypeAcquire    MsgType = 6
	TypeRegister   MsgType = 7
	TypeExpire     MsgType = 8
	TypeFlush      MsgType = 9
	TypeDump       MsgType = 10
	TypePromisc    MsgType = 11
	TypePChange    MsgType = 12
	TypeSPDUpdate  MsgType = 13
	TypeSPDAdd     MsgType = 14
	TypeSPDDelete  MsgType = 15
	TypeSPDGet     MsgType = 16
	TypeSPDAcquire MsgType = 17
	TypeSPDDump    MsgType = 18
	TypeSPDFlush   MsgType = 19
	TypeSPDSetIdx  MsgType = 20
	TypeSPDExpire  MsgType = 21
	TypeSPDDelete2 MsgType = 22
	TypeNewMapping MsgType = 23 // Linux's SADB_X_NAT_T_NEW_MAPPING
	TypeMigrate    MsgType = 24 // Linux's SADB_X_MIGRATE
)

var msgTypeNames = map[MsgType]string{
	TypeGetSPI: "GETSPI", TypeUpdate: "UPDATE", TypeAdd: "ADD", TypeDelete: "DELETE", TypeGet: "GET",
	TypeAcquire: "ACQUIRE", TypeRegister: "REGISTER", TypeExpire: "EXPIRE", TypeFlush: "FLUSH", TypeDump: "DUMP",
	TypePromisc: "X_PROMISC", TypePChange: "X_PCHANGE", TypeSPDUpdate: "X_SPDUPDATE", TypeSPDAdd: "X_SPDADD",
	TypeSPDDelete: "X_SPDDELETE", TypeSPDGet: "X_SPDGET", TypeSPDAcquire: "X_SPDACQUIRE", TypeSPDDump: "X_SPDDUMP",
	TypeSPDFlush: "X_SPDFLUSH", TypeSPDSetIdx: "X_SPDSETIDX", TypeSPDExpire: "X_SPDEXPIRE",
	TypeSPDDelete2: "X_SPDDELETE2", TypeNewMapping: "X_NAT_T_NEW_MAPPING", TypeMigrate: "X_MIGRATE",
}

// String returns the name without its SADB_ prefix.
func (t MsgType) String() string { return name(msgTypeNames, t) }

// SAType is the kind of SA that a message is about (RFC 2367, section 3.4).
type SAType uint8

// SA types. Linux has no number for TCP-MD5; FreeBSD's is free there.
const (
	SATypeUnspec       SAType = 0
	SATypeAH           SAType = 2
	SATypeESP          SAType = 3
	SATypeIPComp       SAType = 9
	SATypeTCPSignature SAType = 11
)

var saTypeNames = map[SAType]string{
	SATypeUnspec: "unspec", SATypeAH: "ah", SATypeESP: "esp", SATypeIPComp: "ipcomp", SATypeTCPSignature: "tcp",
}

// String returns setkey(8)'s word for the protocol.
func (t SAType) String() string { return name(saTypeNames, t) }

// SAState is the state of an SA (RFC 2367, section 3.2).
type SAState uint8

// States of an SA.
const (
	StateLarval SAState = 0
	StateMature SAState = 1
	StateDying  SAState = 2
	StateDead   SAState = 3
)

var saStateNames = map[SAState]string{
	StateLarval: "larval", StateMature: "mature", StateDying: "dying", StateDead: "dead",
}

// String returns setkey(8)'s word for the state.
func (s SAState) String() string { return name(saStateNames, s) }

// SAFlags are the flags of an [SA] extension: KAME's, as setkey's -f sets them.
// Linux uses the four highest bits instead, which are free here.
type SAFlags uint32

// Flags of an SA.
const (
	SAFlagOld       SAFlags = 0x0001 // RFC 1825's generation of AH and ESP
	SAFlagIV4B      SAFlags = 0x0010 // an IV of 4 bytes
	SAFlagDeriv     SAFlags = 0x0020 // des-deriv
	SAFlagCyclic    SAFlags = 0x0040 // the sequence number may wrap
	SAFlagRawCPI    SAFlags = 0x0080 // the CPI is taken from the SPI
	SAFlagPadSeq    SAFlags = 0x0000 // padding 1, 2, 3, …
	SAFlagPadRandom SAFlags = 0x0100
	SAFlagPadZero   SAFlags = 0x0200
	SAFlagPadMask   SAFlags = 0x0300
	SAFlagESN       SAFlags = 0x0400 // 64-bit sequence numbers (RFC 4304)
)

// Mode is an SA's or a request's mode.
type Mode uint8

// Modes, the same on Linux and FreeBSD; 3 is BEET on Linux and TCP-MD5 on
// FreeBSD, and neither is a mode here.
const (
	ModeAny       Mode = 0
	ModeTransport Mode = 1
	ModeTunnel    Mode = 2
)

var modeNames = map[Mode]string{ModeAny: "any", ModeTransport: "transport", ModeTunnel: "tunnel"}

// String returns setkey(8)'s word for the mode.
func (m Mode) String() string { return name(modeNames, m) }

// PolicyType says what a policy does with what it selects.
type PolicyType uint16

// Policy types, the same on Linux and FreeBSD.
const (
	PolicyDiscard PolicyType = 0
	PolicyNone    PolicyType = 1
	PolicyIPsec   PolicyType = 2
	PolicyEntrust PolicyType = 3
	PolicyBypass  PolicyType = 4
)

var policyTypeNames = map[PolicyType]string{
	PolicyDiscard: "discard", PolicyNone: "none", PolicyIPsec: "ipsec", PolicyEntrust: "entrust", PolicyBypass: "bypass",
}

// String returns ipsec_set_policy(3)'s word for the type.
func (t PolicyType) String() string { return name(policyTypeNames, t) }

// Direction is the way of the packets that a policy selects.
type Direction uint8

// Directions, the same on Linux and FreeBSD; FreeBSD has nothing like Linux's
// forward direction (3).
const (
	DirAny Direction = 0
	DirIn  Direction = 1
	DirOut Direction = 2
)

var directionNames = map[Direction]string{DirAny: "any", DirIn: "in", DirOut: "out"}

// String returns ipsec_set_policy(3)'s word for the direction.
func (d Direction) String() string { return name(directionNames, d) }

// Scope says what a policy belongs to. It is FreeBSD's; in requests it is 0.
type Scope uint8

// Scopes of a policy, as bits.
const (
	ScopeGlobal Scope = 1
	ScopeIfnet  Scope = 2
	ScopePCB    Scope = 4
)

var scopeNames = map[Scope]string{ScopeGlobal: "global", ScopeIfnet: "ifnet", ScopePCB: "pcb"}

// String returns setkey(8)'s word for the scope.
func (s Scope) String() string { return name(scopeNames, s) }

// Level says how much a request matters.
type Level uint8

// Levels of a request, the same on Linux and FreeBSD.
const (
	LevelDefault Level = 0
	LevelUse     Level = 1
	LevelRequire Level = 2
	LevelUnique  Level = 3
)

var levelNames = map[Level]string{
	LevelDefault: "default", LevelUse: "use", LevelRequire: "require", LevelUnique: "unique",
}

// String returns ipsec_set_policy(3)'s word for the level.
func (l Level) String() string { return name(levelNames, l) }

// ExtType is the type of an extension.
type ExtType uint16

// Extension types. Up to 23 the numbers of Linux and FreeBSD agree. From 24 on
// they differ: Linux has SEC_CTX, KMADDRESS and FILTER at 24 to 26, where
// FreeBSD has NAT_T_OAR, NAT_T_FRAG and SA_REPLAY, so those three are moved up
// by 64, out of the way of both; the rest keep FreeBSD's numbers.
const (
	ExtSA               ExtType = 1
	ExtLifetimeCurrent  ExtType = 2
	ExtLifetimeHard     ExtType = 3
	ExtLifetimeSoft     ExtType = 4
	ExtAddressSrc       ExtType = 5
	ExtAddressDst       ExtType = 6
	ExtAddressProxy     ExtType = 7
	ExtKeyAuth          ExtType = 8
	ExtKeyEncrypt       ExtType = 9
	ExtIdentitySrc      ExtType = 10
	ExtIdentityDst      ExtType = 11
	ExtSensitivity      ExtType = 12
	ExtProposal         ExtType = 13
	ExtSupportedAuth    ExtType = 14
	ExtSupportedEncrypt ExtType = 15
	ExtSPIRange         ExtType = 16
	ExtKMPrivate        ExtType = 17
	ExtPolicy           ExtType = 18
	ExtSA2              ExtType = 19
	ExtNATTType         ExtType = 20
	ExtNATTSport        ExtType = 21
	ExtNATTDport        ExtType = 22
	ExtNATTOAI          ExtType = 23 // Linux's NAT_T_OA
	ExtSecCtx           ExtType = 24 // Linux
	ExtKMAddress        ExtType = 25 // Linux
	ExtFilter           ExtType = 26 // Linux
	ExtNewAddressSrc    ExtType = 27
	ExtNewAddressDst    ExtType = 28
	ExtHWIF             ExtType = 31 // FreeBSD's IF_HW_OFFL
	ExtNATTOAR          ExtType = 64 + 24
	ExtNATTFrag         ExtType = 64 + 25
	ExtSAReplay         ExtType = 64 + 26
)

var extTypeNames = map[ExtType]string{
	ExtSA: "SA", ExtLifetimeCurrent: "LIFETIME_CURRENT", ExtLifetimeHard: "LIFETIME_HARD", ExtLifetimeSoft: "LIFETIME_SOFT",
	ExtAddressSrc: "ADDRESS_SRC", ExtAddressDst: "ADDRESS_DST", ExtAddressProxy: "ADDRESS_PROXY",
	ExtKeyAuth: "KEY_AUTH", ExtKeyEncrypt: "KEY_ENCRYPT", ExtIdentitySrc: "IDENTITY_SRC", ExtIdentityDst: "IDENTITY_DST",
	ExtSensitivity: "SENSITIVITY", ExtProposal: "PROPOSAL", ExtSupportedAuth: "SUPPORTED_AUTH",
	ExtSupportedEncrypt: "SUPPORTED_ENCRYPT", ExtSPIRange: "SPIRANGE", ExtKMPrivate: "X_KMPRIVATE", ExtPolicy: "X_POLICY",
	ExtSA2: "X_SA2", ExtNATTType: "X_NAT_T_TYPE", ExtNATTSport: "X_NAT_T_SPORT", ExtNATTDport: "X_NAT_T_DPORT",
	ExtNATTOAI: "X_NAT_T_OAI", ExtNATTOAR: "X_NAT_T_OAR", ExtNATTFrag: "X_NAT_T_FRAG", ExtSAReplay: "X_SA_REPLAY",
	ExtSecCtx: "X_SEC_CTX", ExtKMAddress: "X_KMADDRESS", ExtFilter: "X_FILTER",
	ExtNewAddressSrc: "X_NEW_ADDRESS_SRC", ExtNewAddressDst: "X_NEW_ADDRESS_DST", ExtHWIF: "X_IF_HW_OFFL",
}

// String returns the name without its SADB_ and EXT_ parts.
func (t ExtType) String() string { return name(extTypeNames, t) }

// ProtoAny is the upper-layer protocol of a selector that takes any.
const ProtoAny = 255

// EncapESPInUDP is the [NATTType] of RFC 3948's encapsulation.
const EncapESPInUDP = 2

func name[T interface{ ~uint8 | ~uint16 }](names map[T]string, t T) string {
	if s, ok := names[t]; ok {
		return s
	}
	return fmt.Sprintf("%d", uint16(t))
}
