package setkey

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ifipsec/engine/algorithm"

	"github.com/alecthomas/participle/v2"
)

// candidate is something that may stand in a statement, and the manual page's
// word for it.
type candidate struct {
	kind  kind
	text  string
	words string
}

// candidates are all that may stand in a statement.
var candidates = makeCandidates()

func makeCandidates() []candidate {
	var all []candidate
	for _, list := range [][]reserved{keywords, additions} {
		for _, r := range list {
			all = append(all, candidate{r.kind, r.word, r.word})
		}
	}
	all = append(all,
		candidate{kindAddrFlags, "-4", "-4, -6, -n"},
		candidate{kindWord, "host", "an address"},
		candidate{kindDecimal, "1000", "a number"},
		candidate{kindHex, "0x1000", "a hexadecimal number"},
		candidate{kindQuoted, `"key"`, `"text"`},
		candidate{kindSlash, "/", "/PREFIXLEN"},
		candidate{kindLBracket, "[", "[PORT]"},
		candidate{kindRBracket, "]", "]"},
		candidate{kindEncAlg, "aes-cbc", "an encryption algorithm"},
		candidate{kindAuthAlg, "hmac-sha1", "an authentication algorithm"},
	)
	for _, o := range options {
		all = append(all, candidate{o.kind, o.word, o.word})
	}
	return append(all, candidate{kindPolicy, " out none", "a policy"}, candidate{kindEOT, ";", ";"})
}

// wanted asks the grammar which candidates could stand where the i-th token is.
func (r *Reader) wanted(i int) []candidate {
	var wanted []candidate
	var parser tokenParser // the statement lives in the reader's
	tokens := slices.Clone(r.tokens[:i+1])
	for _, c := range candidates {
		tokens[i].Kind, tokens[i].Text = c.kind, c.text
		_, err := parser.parse(tokens)
		var unexpected *participle.UnexpectedTokenError
		if errors.As(err, &unexpected) && !unexpected.Unexpected.EOF() && unexpected.Unexpected.Pos.Offset <= tokens[i].Pos.Offset {
			continue
		}
		wanted = append(wanted, c)
	}
	return inContext(wanted, r.tokens[:i])
}

// inContext finds the manual page's words for what can be said more exactly
// than by kind.
func inContext(wanted []candidate, before []Token) []candidate {
	var last Token
	if len(before) > 0 {
		last = before[len(before)-1]
	}
	has := func(k kind) bool {
		return slices.ContainsFunc(wanted, func(c candidate) bool { return c.kind == k })
	}
	number, word := "a number", "an address"
	switch {
	case has(kindQuoted) && has(kindHex):
		// A key; nothing else takes both.
		return []candidate{{kindQuoted, "", `a key, "text" or 0x and hexadecimal digits`}}
	case has(kindHex):
		number = "an SPI"
	case last.Kind == kindLBracket:
		number, word = "a port", "a service"
	case last.Kind == kindSlash:
		number = "a prefix length"
	case has(kindDecimal) && has(kindAny):
		number, word = "a protocol's number", "a protocol"
	case last.Text == "-hwif":
		word = "an interface"
	case has(kindOption) && len(before) > 0 && before[0].Kind != kindAdd:
		word = "an ICMPv6 type"
	}
	var result []candidate
	for _, c := range wanted {
		switch c.kind {
		case kindHex:
			continue
		case kindDecimal:
			c.words = number
		case kindWord:
			c.words = word
		}
		result = append(result, c)
	}
	return result
}

// list joins words as a sentence does.
func list(wanted []candidate) string {
	var b strings.Builder
	for i, c := range wanted {
		switch {
		case i > 0 && i == len(wanted)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(c.words)
	}
	return b.String()
}

// hint guesses what was meant.
func hint(t Token, wanted []candidate) string {
	var words []string
	for _, c := range wanted {
		switch c.kind {
		case kindEncAlg:
			for _, e := range algorithm.Encryptions() {
				words = append(append(words, e.Name), e.Aliases...)
			}
		case kindAuthAlg:
			for _, a := range algorithm.Authentications() {
				words = append(words, a.Name)
			}
		case kindEOT:
			if t.Kind == kindAdd || t.Kind == kindSPDAdd || t.Kind == kindStatement {
				return fmt.Sprintf("; is the semicolon before %q missing?", t.Text)
			}
		default:
			if c.text == c.words {
				words = append(words, c.text)
			}
		}
	}
	if near := nearest(t.Text, words); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// nearest returns the word that is a typing mistake or two away, or "".
func nearest(text string, words []string) string {
	best, found := 1+min(2, len(text)/3), ""
	for _, w := range words {
		if len(text)-len(w) > 2 {
			continue // and it need not be small
		}
		if d := distance(strings.ToLower(text), w); d < best {
			best, found = d, w
		}
	}
	return found
}

// distance is the number of letters to add, drop, change or swap with their
// neighbours (the optimal string alignment distance).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 0
			if a[i-1] != b[j-1] {
				change = 1
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
