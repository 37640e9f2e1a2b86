// Package lint finds what is legal in a setkey script and unwise: what works
// today and will be regretted, and what the databases will refuse although the
// language allows it.
package lint

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"

	"github.com/alecthomas/participle/v2/lexer"
)

// The names of the warnings. They are shown in brackets, so that they can be
// told apart by programs, and do not change.
const (
	Unauthenticated = "unauthenticated" // encryption that anybody can tamper with
	Obsolete        = "obsolete"        // an algorithm that has been broken, or nearly so
	PrintableKey    = "printable-key"   // a key that a person typed has little that can't be guessed
	ReusedKey       = "reused-key"      // two SAs whose algorithm does not survive one key
	NoReplayWindow  = "no-replay-window"
	Lifetimes       = "lifetimes"        // the soft one is not before the hard one
	ReservedSPI     = "reserved-spi"     // SPIs 0 to 255 are refused (RFC 4303, section 2.1)
	DuplicateSPI    = "duplicate-spi"    // an SPI can be in the database once
	DuplicatePolicy = "duplicate-policy" // and so can a selector, in each direction
	UnusedSA        = "unused-sa"        // an SA that no policy asks for
	OneWay          = "one-way"          // a policy for packets one way and none for the other
	UnresolvedName  = "unresolved-name"  // a host that only the network may know
)

// Names lists the warnings.
var Names = []string{
	Unauthenticated, Obsolete, PrintableKey, ReusedKey, NoReplayWindow,
	Lifetimes, ReservedSPI, DuplicateSPI, DuplicatePolicy, UnusedSA, OneWay, UnresolvedName,
}

// Warning is one thing that is unwise.
type Warning struct {
	Pos  lexer.Position
	Name string
	Text string // what it is, without keys
	// Excerpt is the line with a caret under the place, as [setkey.Reader.Excerpt].
	Excerpt string
}

// Linter goes through a script, statement by statement. The zero value is
// ready.
type Linter struct {
	keys      map[[sha256.Size]byte]int // lines that have them; hashes, so that no key is kept
	databases databases
	found     []Warning
}

// Statement looks at a statement that was compiled without an error and
// returns what is unwise about it.
func (l *Linter) Statement(r *setkey.Reader, s *setkey.Statement, result compile.Result) []Warning {
	if l.keys == nil {
		*l = Linter{keys: map[[sha256.Size]byte]int{}, databases: newDatabases()}
	}
	l.found = nil
	for i, m := range result.Messages {
		switch m.Type {
		case pfkey.TypeAdd:
			l.add(r, s.Add, m, i == 0)
		case pfkey.TypeDelete:
			l.databases.delete(m)
		case pfkey.TypeFlush:
			l.databases.flush(m.SAType)
		case pfkey.TypeSPDAdd, pfkey.TypeSPDUpdate:
			l.policy(r, s.SPDAdd, m)
		case pfkey.TypeSPDDelete:
			delete(l.databases.policies, selectorOf(m))
		case pfkey.TypeSPDFlush:
			clear(l.databases.policies)
		}
	}
	return l.found
}

func (l *Linter) warn(r *setkey.Reader, at lexer.Token, name, format string, args ...any) {
	l.found = append(l.found, warning(r, at, name, format, args...))
}

func warning(r *setkey.Reader, at lexer.Token, name, format string, args ...any) Warning {
	return Warning{Pos: at.Pos, Name: name, Text: fmt.Sprintf(format, args...), Excerpt: r.Excerpt(at.Pos)}
}

// add looks at an SA. A statement with names can make several, of which the
// first stands for all in what does not depend on the addresses.
func (l *Linter) add(r *setkey.Reader, s *setkey.AddStatement, m *pfkey.Message, first bool) {
	sa := pfkey.Find[*pfkey.SA](m)
	spi := s.SA.SPI
	if first {
		l.algorithms(r, s, m, sa)
		if m.SAType == pfkey.SATypeESP || m.SAType == pfkey.SATypeAH {
			if m.ReplayPackets() == 0 && sa.Flags&pfkey.SAFlagOld == 0 {
				l.warn(r, s.Verb, NoReplayWindow, "whoever captures a packet can send it again: -r 4 or more keeps a window of 32 packets or more")
			}
			if sa.SPI < 256 {
				l.warn(r, spi, ReservedSPI, "SPIs 0 to 255 are reserved and will be refused")
			}
		}
		if hard, soft := m.Hard(), m.Soft(); hard != nil && soft != nil && soft.AddTime >= hard.AddTime {
			l.warn(r, s.Verb, Lifetimes, "the soft lifetime of %d s is not before the hard one of %d s", soft.AddTime, hard.AddTime)
		}
	}
	if other := l.databases.spis[sa.SPI]; other != nil {
		if m.SAType != pfkey.SATypeTCPSignature { // which gets another SPI
			l.warn(r, spi, DuplicateSPI, "line %d has this SPI, and a second one will be refused: File exists", other.line)
		}
		return
	}
	sa2 := pfkey.Find[*pfkey.SA2](m)
	l.databases.insert(sa.SPI, &association{
		pair: pairOf(m), line: s.Verb.Pos.Line, mode: sa2.Mode, reqid: sa2.ReqID,
		warning: warning(r, s.Verb, UnusedSA, "no policy in this script asks for this SA, and without a reqid (-u) no interface does"),
	})
}

// algorithms looks at an SA's algorithms and keys.
func (l *Linter) algorithms(r *setkey.Reader, s *setkey.AddStatement, m *pfkey.Message, sa *pfkey.SA) {
	enc, _ := algorithm.EncryptionByID(sa.Encrypt)
	if m.SAType != pfkey.SATypeIPComp && len(s.Algorithms.Encryption) > 0 && enc != nil {
		at := s.Algorithms.Encryption[0]
		if enc.Weak != "" {
			l.warn(r, at, Obsolete, "%s is obsolete: %s", enc.Name, enc.Weak)
		}
		if !enc.AEAD && (sa.Auth == algorithm.AuthNone || sa.Auth == algorithm.AuthNull) {
			l.warn(r, at, Unauthenticated, "%s without authentication can be tampered with: add -A, or use aes-gcm-16", enc.Name)
		}
	}
	authentication := s.Algorithms.Authentication
	if len(authentication) == 0 {
		authentication = s.Algorithms.Alone
	}
	if auth, known := algorithm.AuthenticationByID(sa.Auth); known && auth.Weak != "" && len(authentication) > 0 {
		l.warn(r, authentication[0], Obsolete, "%s is obsolete: %s", auth.Name, auth.Weak)
	}
	for _, k := range []struct {
		key    *pfkey.Key
		tokens []lexer.Token
	}{{m.KeyEncrypt(), s.Algorithms.Encryption}, {m.KeyAuth(), authentication}} {
		if k.key == nil || len(k.key.Key) == 0 || len(k.tokens) < 2 {
			continue
		}
		if printable(k.key.Key) && m.SAType != pfkey.SATypeTCPSignature {
			l.warn(r, k.tokens[1], PrintableKey, "a key of printable characters has far fewer values than its length: use random octets")
		}
	}
	// CBC takes a random IV, but a counter that starts again does not forgive;
	// AES counts alike in CTR and in GCM.
	if key := m.KeyEncrypt(); key != nil && enc != nil && enc.SaltBits > 0 {
		hash := sha256.Sum256(key.Key)
		if line, used := l.keys[hash]; used {
			l.warn(r, s.Algorithms.Encryption[1], ReusedKey,
				"line %d has this key too, and %s does not survive two SAs with one key", line, enc.Name)
		} else {
			l.keys[hash] = s.Verb.Pos.Line
		}
	}
}

func printable(key []byte) bool {
	return bytes.IndexFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) < 0
}

func (l *Linter) policy(r *setkey.Reader, s *setkey.SPDAddStatement, m *pfkey.Message) {
	about := selectorOf(m)
	if other := l.databases.policies[about]; other != nil && m.Type == pfkey.TypeSPDAdd {
		l.warn(r, s.Verb, DuplicatePolicy, "line %d has a policy for the same packets, and a second one will be refused: File exists", other.line)
		return
	}
	l.databases.policies[about] = &policy{
		line: s.Verb.Pos.Line, requests: pfkey.Find[*pfkey.Policy](m).Requests,
		warning: warning(r, s.Verb, OneWay, "no policy in this script is for the packets the other way, direction %v", about.reverse().dir),
	}
}

// End returns what the whole script shows: SAs that nothing in it uses and
// policies for one way, in the order of their lines.
func (l *Linter) End() []Warning {
	users := l.databases.users()
	var found []Warning
	for _, sa := range l.databases.spis {
		if !users.use(sa) {
			found = append(found, sa.warning)
		}
	}
	for about, p := range l.databases.policies {
		if len(p.requests) > 0 && l.databases.policies[about.reverse()] == nil {
			found = append(found, p.warning)
		}
	}
	slices.SortFunc(found, func(a, b Warning) int { return a.Pos.Offset - b.Pos.Offset })
	// Several SAs of one statement are one warning.
	return slices.CompactFunc(found, func(a, b Warning) bool { return a.Pos == b.Pos })
}
