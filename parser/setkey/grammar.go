package setkey

import "github.com/alecthomas/participle/v2/lexer"

// This file is the grammar of setkey(8), one type a production, under the
// manual page's names. A literal in a tag is a token of the kind behind its
// colon; a bare name is any token of that kind.

// Statement is one statement of a script, up to its semicolon.
type Statement struct {
	Pos       lexer.Position
	Add       *AddStatement       `parser:"( @@"`
	Get       *GetStatement       `parser:"| @@"`
	Delete    *DeleteStatement    `parser:"| @@"`
	DeleteAll *DeleteAllStatement `parser:"| @@"`
	Flush     *FlushStatement     `parser:"| @@"`
	Dump      *DumpStatement      `parser:"| @@"`
	SPDAdd    *SPDAddStatement    `parser:"| @@"`
	SPDDelete *SPDDeleteStatement `parser:"| @@"`
	SPDFlush  bool                `parser:"| @'spdflush':Keyword"`
	SPDDump   bool                `parser:"| @'spddump':Keyword )"`
	End       *End                `parser:"@@"`
}

// End is the semicolon. A statement without one was not parsed to its end.
type End struct {
	Pos  lexer.Position
	Text string `parser:"@EOT"`
}

// AddStatement adds an SA. "update", which completes or changes one, is an
// addition of the ipsec-tools dialect.
type AddStatement struct {
	Verb       string         `parser:"@( 'add':Keyword | 'update':Keyword )"`
	Flags      []*AddrFlags   `parser:"@@*"`
	Src        *Word          `parser:"@@"`
	Dst        *Word          `parser:"@@"`
	Protocol   *Protocol      `parser:"@@?"`
	SPI        *Number        `parser:"@@"`
	Extensions []*Extension   `parser:"@@*"`
	Algorithms *AlgorithmSpec `parser:"@@"`
}

// GetStatement shows an SA.
type GetStatement struct {
	Flags      []*AddrFlags `parser:"'get':Keyword @@*"`
	Src        *Word        `parser:"@@"`
	Dst        *Word        `parser:"@@"`
	Protocol   *Protocol    `parser:"@@?"`
	SPI        *Number      `parser:"@@"`
	Extensions []*Extension `parser:"@@*"`
}

// DeleteStatement removes an SA.
type DeleteStatement struct {
	Flags      []*AddrFlags `parser:"'delete':Keyword @@*"`
	Src        *Word        `parser:"@@"`
	Dst        *Word        `parser:"@@"`
	Protocol   *Protocol    `parser:"@@?"`
	SPI        *Number      `parser:"@@"`
	Extensions []*Extension `parser:"@@*"`
}

// DeleteAllStatement removes all SAs between two addresses.
type DeleteAllStatement struct {
	Flags    []*AddrFlags `parser:"'deleteall':Keyword @@*"`
	Src      *Word        `parser:"@@"`
	Dst      *Word        `parser:"@@"`
	Protocol *Protocol    `parser:"@@?"`
}

// FlushStatement removes all SAs of a protocol, or all.
type FlushStatement struct {
	Protocol *Protocol `parser:"'flush':Keyword @@?"`
}

// DumpStatement shows all SAs of a protocol, or all.
type DumpStatement struct {
	Protocol *Protocol `parser:"'dump':Keyword @@?"`
}

// AddrFlags are -4, -6 and -n in any combination: IPv4 only, IPv6 only, no
// name service.
type AddrFlags struct {
	Pos  lexer.Position
	Text string `parser:"@AddrFlags"`
}

// Word is an address, a host's name, or another word that is not reserved.
type Word struct {
	Pos  lexer.Position
	Text string `parser:"@Word"`
}

// Number is decimal, or hexadecimal where the language allows it.
type Number struct {
	Pos  lexer.Position
	Text string `parser:"@( Decimal | Hex )"`
}

// Decimal is a decimal number.
type Decimal struct {
	Pos  lexer.Position
	Text string `parser:"@Decimal"`
}

// Protocol is the protocol of an SA.
type Protocol struct {
	Pos  lexer.Position
	Text string `parser:"@( 'esp':Keyword | 'ah':Keyword | 'esp-old':Keyword | 'ah-old':Keyword | 'ipcomp':Keyword | 'tcp':Keyword )"`
}

// Extension is one of the extensions of an SA.
type Extension struct {
	Pos     lexer.Position
	Mode    *Mode    `parser:"'-m':Option @@"`
	ReqID   *Decimal `parser:"| '-u':Option @@"`
	Replay  *Decimal `parser:"| '-r':Option @@"`
	Flag    *Flag    `parser:"| '-f':Option @@"`
	Hard    *Decimal `parser:"| '-lh':Option @@"`
	Soft    *Decimal `parser:"| '-ls':Option @@"`
	NATT    *NATT    `parser:"| '-natt':Option @@"`
	NATTMTU *Decimal `parser:"| '-natt_mtu':Option @@"`
	ESN     bool     `parser:"| @'-esn':Option"`
	HWIF    *Word    `parser:"| '-hwif':Option @@"`
}

// Mode is the mode of an SA.
type Mode struct {
	Pos  lexer.Position
	Text string `parser:"@( 'transport':Keyword | 'tunnel':Keyword | 'any':Keyword )"`
}

// Flag is an option of ESP.
type Flag struct {
	Pos  lexer.Position
	Text string `parser:"@( 'zero-pad':Keyword | 'random-pad':Keyword | 'seq-pad':Keyword | 'nocyclic-seq':Keyword )"`
}

// NATT is UDP encapsulation (RFC 3948): the original addresses, and the ports.
type NATT struct {
	Src     *Word    `parser:"@@"`
	SrcPort *Decimal `parser:"LBracket @@ RBracket"`
	Dst     *Word    `parser:"@@"`
	DstPort *Decimal `parser:"LBracket @@ RBracket"`
}

// AlgorithmSpec is the algorithms of an SA with their keys.
type AlgorithmSpec struct {
	ESP    *ESPSpec    `parser:"@@"`
	AH     *AHSpec     `parser:"| @@"`
	IPComp *IPCompSpec `parser:"| @@"`
}

// ESPSpec is encryption, with or without authentication.
type ESPSpec struct {
	Encryption     *EncryptionAlg     `parser:"'-E':Option @@"`
	Authentication *AuthenticationAlg `parser:"( '-A':Option @@ )?"`
}

// AHSpec is authentication alone.
type AHSpec struct {
	Authentication *AuthenticationAlg `parser:"'-A':Option @@"`
}

// IPCompSpec is compression. -R takes the SPI as the CPI.
type IPCompSpec struct {
	Compression *CompressionAlg `parser:"'-C':Option @@"`
	RawCPI      bool            `parser:"@'-R':Option?"`
}

// EncryptionAlg is an encryption algorithm and its key. Only "simple" of the
// FreeBSD 11 era has none; "null" has an empty one.
type EncryptionAlg struct {
	Pos  lexer.Position
	Name string `parser:"( @'simple':EncAlg"`
	Long string `parser:"| @EncAlg"`
	Key  *Key   `parser:"@@ )"`
}

// AuthenticationAlg is an authentication algorithm and its key. "null" has none.
type AuthenticationAlg struct {
	Pos  lexer.Position
	Name string `parser:"( @'null':AuthAlg"`
	Long string `parser:"| @AuthAlg"`
	Key  *Key   `parser:"@@ )"`
}

// CompressionAlg is a compression algorithm.
type CompressionAlg struct {
	Pos  lexer.Position
	Name string `parser:"@( 'deflate':Keyword | 'lzs':Keyword | 'oui':Keyword )"`
}

// Key is a key in quotes or in hexadecimal.
type Key struct {
	Pos  lexer.Position
	Text string `parser:"@( Quoted | Hex )"`
}

// SPDAddStatement adds a policy. "spdupdate", which replaces one, is an
// addition of the ipsec-tools dialect. Tagged policies exist in the language
// only.
type SPDAddStatement struct {
	Verb     string      `parser:"@( 'spdadd':Keyword | 'spdupdate':Keyword )"`
	Tagged   *Tag        `parser:"( @@"`
	Selector *Selector   `parser:"| @@ )"`
	Policy   *PolicySpec `parser:"@@"`
}

// SPDDeleteStatement removes a policy.
type SPDDeleteStatement struct {
	Selector *Selector   `parser:"'spddelete':Keyword @@"`
	Policy   *PolicySpec `parser:"@@"`
}

// Tag is the packet filter's tag of a policy.
type Tag struct {
	Pos  lexer.Position
	Text string `parser:"'tagged':Keyword @Quoted"`
}

// Selector says which packets a policy is about.
type Selector struct {
	Pos       lexer.Position
	Flags     []*AddrFlags `parser:"@@*"`
	Src       *Endpoint    `parser:"@@"`
	Dst       *Endpoint    `parser:"@@"`
	Upper     *UpperSpec   `parser:"@@"`
	UpperMisc *Word        `parser:"@@?"`
}

// Endpoint is an address range with a port.
type Endpoint struct {
	Addr   *Word    `parser:"@@"`
	Prefix *Decimal `parser:"( Slash @@ )?"`
	Port   *Port    `parser:"( LBracket @@ RBracket )?"`
}

// Port is a port number, a service's name, or any.
type Port struct {
	Pos  lexer.Position
	Text string `parser:"@( Decimal | Word | 'any':Keyword )"`
}

// UpperSpec is the upper-layer protocol: a number, a name, or any.
type UpperSpec struct {
	Pos  lexer.Position
	Text string `parser:"@( Decimal | Word | 'any':Keyword | 'tcp':Keyword | 'esp':Keyword )"`
}

// PolicySpec is the text of a policy in the language of ipsec_set_policy(3).
type PolicySpec struct {
	Pos  lexer.Position
	Text string `parser:"'-P':Option @Policy"`
}
