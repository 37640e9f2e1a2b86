package setkey

import (
	"strings"

	"ifipsec/engine/algorithm"

	"github.com/alecthomas/participle/v2/lexer"
)

// kind is what a token is to the grammar. The names in symbols are those that
// the grammar's tags use.
type kind = lexer.TokenType

const (
	kindEOT         kind = iota + 1 // ;
	kindSlash                       // /
	kindLBracket                    // [
	kindRBracket                    // ]
	kindDecimal                     // digits
	kindHex                         // 0x and hexadecimal digits
	kindQuoted                      // "text", with its quotes
	kindWord                        // an address, a name, and what else has no other kind
	kindAdd                         // add, update
	kindSPDAdd                      // spdadd, spdupdate
	kindStatement                   // the other words that statements begin with
	kindTagged                      // tagged
	kindProtocol                    // esp, ah, …
	kindMode                        // transport, tunnel
	kindAny                         // any
	kindFlag                        // zero-pad, …
	kindCompression                 // deflate, …
	kindOption                      // -m, -E, …
	kindNumber                      // the options that a number follows
	kindAddrFlags                   // -4, -6, -n and combinations
	kindEncAlg                      // after -E
	kindKeylessEnc                  // after -E, if it has no key
	kindAuthAlg                     // after -A
	kindKeylessAuth                 // after -A, if it has no key
	kindPolicy                      // the text between -P and ;
	kindInvalid                     // what no token may begin with
)

var symbols = map[string]kind{
	"EOF": lexer.EOF, "EOT": kindEOT, "Slash": kindSlash, "LBracket": kindLBracket, "RBracket": kindRBracket,
	"Decimal": kindDecimal, "Hex": kindHex, "Quoted": kindQuoted, "Word": kindWord,
	"Add": kindAdd, "SPDAdd": kindSPDAdd, "Statement": kindStatement, "Tagged": kindTagged,
	"Protocol": kindProtocol, "Mode": kindMode, "Any": kindAny, "Flag": kindFlag, "Compression": kindCompression,
	"Option": kindOption, "Number": kindNumber, "AddrFlags": kindAddrFlags,
	"EncAlg": kindEncAlg, "KeylessEnc": kindKeylessEnc, "AuthAlg": kindAuthAlg, "KeylessAuth": kindKeylessAuth,
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

	size        int  // bytes
	afterPolicy bool // follows a policy's text directly
}

// reserved is a word that the language reserves, everywhere but in a policy's
// text.
type reserved struct {
	word string
	kind kind
}

// keywords are in the order in which the manual page has them.
var keywords = []reserved{
	{"add", kindAdd}, {"get", kindStatement}, {"delete", kindStatement}, {"deleteall", kindStatement},
	{"flush", kindStatement}, {"dump", kindStatement},
	{"spdadd", kindSPDAdd}, {"spddelete", kindStatement}, {"spdflush", kindStatement}, {"spddump", kindStatement},
	{"tagged", kindTagged},
	{"esp", kindProtocol}, {"esp-old", kindProtocol}, {"ah", kindProtocol}, {"ah-old", kindProtocol},
	{"ipcomp", kindProtocol}, {"tcp", kindProtocol},
	{"transport", kindMode}, {"tunnel", kindMode}, {"any", kindAny},
	{"zero-pad", kindFlag}, {"random-pad", kindFlag}, {"seq-pad", kindFlag}, {"nocyclic-seq", kindFlag},
	{"deflate", kindCompression}, {"lzs", kindCompression}, {"oui", kindCompression},
}

// additions are ours, from the ipsec-tools dialect. They are reserved only
// where a statement begins, so that hosts may have these names.
var additions = []reserved{{"update", kindAdd}, {"spdupdate", kindSPDAdd}}

// options are in the order of the manual page.
var options = []reserved{
	{"-m", kindOption}, {"-r", kindNumber}, {"-u", kindNumber}, {"-f", kindOption}, {"-lh", kindNumber}, {"-ls", kindNumber},
	{"-natt", kindOption}, {"-natt_mtu", kindNumber}, {"-esn", kindOption}, {"-hwif", kindOption},
	{"-E", kindOption}, {"-A", kindOption}, {"-C", kindOption}, {"-R", kindOption}, {"-P", kindOption},
}

var (
	keywordKinds  = kinds(keywords)
	additionKinds = kinds(additions)
)

func kinds(list []reserved) map[string]kind {
	m := make(map[string]kind, len(list))
	for _, r := range list {
		m[r.word] = r.kind
	}
	return m
}

// encryption says whether a word is an encryption algorithm. Only "simple" of
// the FreeBSD 11 era has no key; "null" has an empty one.
func encryption(word string) (kind, bool) {
	_, ok := algorithm.EncryptionByName(word)
	if word == "simple" {
		return kindKeylessEnc, ok
	}
	return kindEncAlg, ok
}

// authentication says whether a word is an authentication algorithm. "null" has
// no key.
func authentication(word string) (kind, bool) {
	_, ok := algorithm.AuthenticationByName(word)
	if word == "null" {
		return kindKeylessAuth, ok
	}
	return kindAuthAlg, ok
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHexDigit(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isWordStart(c byte) bool { return isAlnum(c) || c == ':' }

func isWord(c byte) bool { return isWordStart(c) || c == '%' || c == '.' || c == '-' }

func isNumberList(c byte) bool { return isDigit(c) || c == ',' }

func isPolicyStart(c byte) bool { return isAlnum(c) || strings.IndexByte(":.-_/ \n\t", c) >= 0 }

func isPolicy(c byte) bool { return isPolicyStart(c) || c == '%' }

func isAddrFlag(c byte) bool { return c == 'n' || c == '4' || c == '6' }
