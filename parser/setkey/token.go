package setkey

import "github.com/alecthomas/participle/v2/lexer"

// kind is what a token is to the grammar. The names are used in the grammar's
// tags.
type kind = lexer.TokenType

const (
	kindEOT       kind = iota + 1 // ;
	kindSlash                     // /
	kindLBracket                  // [
	kindRBracket                  // ]
	kindDecimal                   // digits
	kindHex                       // 0x and hexadecimal digits
	kindQuoted                    // "text", with its quotes
	kindWord                      // an address, a name, and what else has no other kind
	kindKeyword                   // a word that the language reserves
	kindOption                    // -m, -E, …
	kindAddrFlags                 // -4, -6, -n and combinations
	kindEncAlg                    // after -E
	kindAuthAlg                   // after -A
	kindPolicy                    // the text between -P and ;
	kindInvalid                   // what no token may begin with
)

var symbols = map[string]kind{
	"EOF": lexer.EOF, "EOT": kindEOT, "Slash": kindSlash, "LBracket": kindLBracket, "RBracket": kindRBracket,
	"Decimal": kindDecimal, "Hex": kindHex, "Quoted": kindQuoted, "Word": kindWord, "Keyword": kindKeyword,
	"Option": kindOption, "AddrFlags": kindAddrFlags, "EncAlg": kindEncAlg, "AuthAlg": kindAuthAlg,
	"Policy": kindPolicy, "Invalid": kindInvalid,
}

// Token is one token of a script.
type Token struct {
	Kind kind
	// Text is the token as it stands in the script.
	Text string
	Pos  lexer.Position
	// Line is the line that FreeBSD's setkey counts: it does not count the
	// line breaks in a quoted string.
	Line int
	// Shown is what FreeBSD's setkey prints of the token in a message: without
	// quotes, and with the policy text before it if it follows one.
	Shown string
}

// keywords are reserved everywhere but in a policy's text.
var keywords = map[string]bool{
	"add": true, "delete": true, "deleteall": true, "get": true, "flush": true, "dump": true,
	"spdadd": true, "spddelete": true, "spddump": true, "spdflush": true, "tagged": true,
	"ah": true, "esp": true, "ah-old": true, "esp-old": true, "ipcomp": true, "tcp": true,
	"oui": true, "deflate": true, "lzs": true,
	"transport": true, "tunnel": true, "any": true,
	"random-pad": true, "seq-pad": true, "zero-pad": true, "nocyclic-seq": true,
}

// additions are ours, from the ipsec-tools dialect. They are reserved only
// where a statement begins, so that hosts may have these names.
var additions = map[string]bool{"update": true, "spdupdate": true}

// options are tried in this order: the longer before its own beginning.
var options = []string{
	"-natt_mtu", "-natt", "-esn", "-hwif", "-lh", "-ls",
	"-A", "-C", "-E", "-P", "-R", "-f", "-m", "-r", "-u",
}
