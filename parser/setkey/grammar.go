package setkey

import "github.com/alecthomas/participle/v2/lexer"

// This file is the grammar of setkey(8), one type a production, under the
// manual page's names. A bare name in a tag is any token of that kind; a literal
// is a token of the kind behind its colon. A token that is not there has the
// type 0.

// Statement is one statement of a script, up to its semicolon. It is good until
// the next one is read.
type Statement struct {
	Add       *AddStatement       `parser:"( @@"`
	Get       *GetStatement       `parser:"| @@"`
	Delete    *DeleteStatement    `parser:"| @@"`
	SPDAdd    *SPDAddStatement    `parser:"| @@"`
	SPDDelete *SPDDeleteStatement `parser:"| @@"`
	DeleteAll *DeleteAllStatement `parser:"| @@"`
	Flush     *FlushStatement     `parser:"| @@"`
	Dump      *DumpStatement      `parser:"| @@"`
	SPDFlush  bool                `parser:"| @'spdflush':Statement"`
	SPDDump   bool                `parser:"| @'spddump':Statement )"`
	// End is the semicolon. A statement without one was not parsed to its end.
	End lexer.Token `parser:"@EOT"`
}

// AddStatement adds an SA. "update", which completes or changes one, is an
// addition of the ipsec-tools dialect.
type AddStatement struct {
	Verb       lexer.Token    `parser:"@Add"`
	SA         *SA            `parser:"@@"`
	Algorithms *AlgorithmSpec `parser:"@@"`
}

// GetStatement shows an SA.
type GetStatement struct {
	SA *SA `parser:"'get':Statement @@"`
}

// DeleteStatement removes an SA.
type DeleteStatement struct {
	SA *SA `parser:"'delete':Statement @@"`
}

// SA says which SA: its ends, its protocol and its SPI; and what else there is
// to say of it.
type SA struct {
	Ends       Ends         `parser:"@@"`
	Protocol   lexer.Token  `parser:"( @Protocol )?"`
	SPI        lexer.Token  `parser:"@( Decimal | Hex )"`
	Extensions []*Extension `parser:"@@*"`
}

// Ends are the source and the destination of an SA, after flags that say how
// names are looked up.
type Ends struct {
	Flags []lexer.Token `parser:"@( AddrFlags* )"`
	Src   lexer.Token   `parser:"@Word"`
	Dst   lexer.Token   `parser:"@Word"`
}

// Extension is one of what else there is to say of an SA.
type Extension struct {
	Number *NumberExtension `parser:"  @@"`
	Mode   lexer.Token      `parser:"| '-m':Option @( Mode | Any )"`
	Flag   lexer.Token      `parser:"| '-f':Option @Flag"`
	NATT   *NATT            `parser:"| '-natt':Option @@"`
	ESN    bool             `parser:"| @'-esn':Option"`
	HWIF   lexer.Token      `parser:"| '-hwif':Option @Word"`
}

// NumberExtension is an option with a decimal number: -u, -r, -lh, -ls or
// -natt_mtu.
type NumberExtension struct {
	Option lexer.Token `parser:"@Number"`
	Value  lexer.Token `parser:"@Decimal"`
}

// NATT is UDP encapsulation (RFC 3948): the original addresses, and the ports.
type NATT struct {
	Src     lexer.Token `parser:"@Word"`
	SrcPort lexer.Token `parser:"LBracket @Decimal RBracket"`
	Dst     lexer.Token `parser:"@Word"`
	DstPort lexer.Token `parser:"LBracket @Decimal RBracket"`
}

// DeleteAllStatement removes all SAs between two addresses.
type DeleteAllStatement struct {
	Ends     Ends        `parser:"'deleteall':Statement @@"`
	Protocol lexer.Token `parser:"( @Protocol )?"`
}

// FlushStatement removes all SAs of a protocol, or all.
type FlushStatement struct {
	Protocol lexer.Token `parser:"'flush':Statement ( @Protocol )?"`
}

// DumpStatement shows all SAs of a protocol, or all.
type DumpStatement struct {
	Protocol lexer.Token `parser:"'dump':Statement ( @Protocol )?"`
}

// AlgorithmSpec is the algorithms of an SA, each with its key: encryption with
// or without authentication, authentication alone, or compression. -R takes the
// SPI as the CPI.
type AlgorithmSpec struct {
	Encryption     []lexer.Token `parser:"'-E':Option @( EncAlg ( Quoted | Hex ) | KeylessEnc )"`
	Authentication []lexer.Token `parser:"( '-A':Option @( AuthAlg ( Quoted | Hex ) | KeylessAuth ) )?"`
	Alone          []lexer.Token `parser:"| '-A':Option @( AuthAlg ( Quoted | Hex ) | KeylessAuth )"`
	Compression    lexer.Token   `parser:"| '-C':Option @Compression"`
	RawCPI         bool          `parser:"( @'-R':Option )?"`
}

// SPDAddStatement adds a policy. "spdupdate", which replaces one, is an
// addition of the ipsec-tools dialect. Tagged policies exist in the language
// only.
type SPDAddStatement struct {
	Verb     lexer.Token `parser:"@SPDAdd"`
	Tag      lexer.Token `parser:"( Tagged @Quoted"`
	Selector *Selector   `parser:"| @@ )"`
	Policy   lexer.Token `parser:"'-P':Option @Policy"`
}

// SPDDeleteStatement removes a policy.
type SPDDeleteStatement struct {
	Selector *Selector   `parser:"'spddelete':Statement @@"`
	Policy   lexer.Token `parser:"'-P':Option @Policy"`
}

// Selector says which packets a policy is about: two address ranges, and an
// upper-layer protocol by number or name, or any. icmp6 has a type and a code.
type Selector struct {
	Flags     []lexer.Token `parser:"@( AddrFlags* )"`
	Src       *Endpoint     `parser:"@@"`
	Dst       *Endpoint     `parser:"@@"`
	Upper     lexer.Token   `parser:"@( Decimal | Word | Any | 'tcp':Protocol | 'esp':Protocol )"`
	UpperMisc lexer.Token   `parser:"( @Word )?"`
}

// Endpoint is an address range with a port.
type Endpoint struct {
	Addr   lexer.Token `parser:"@Word"`
	Prefix lexer.Token `parser:"( Slash @Decimal )?"`
	Port   lexer.Token `parser:"( LBracket @( Decimal | Word | Any ) RBracket )?"`
}
