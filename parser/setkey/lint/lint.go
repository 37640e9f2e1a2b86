// Package lint finds what is legal in a setkey script and unwise: what works
// today and will be regretted, and what the databases will refuse although the
// language allows it.
package lint

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
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
)

// Names lists the warnings.
var Names = []string{
	Unauthenticated, Obsolete, PrintableKey, ReusedKey, NoReplayWindow,
	Lifetimes, ReservedSPI, DuplicateSPI, DuplicatePolicy, UnusedSA,
}

// Warning is one thing that is unwise.
type Warning struct {
	Pos  lexer.Position
	Name string
	Text string // what it is, without keys
	// Excerpt is the line with a caret under the place, as [setkey.Reader.Excerpt].
	Excerpt string
}

// Linter goes through a script, statement by statement, and keeps what the
// databases would hold if they were empty before. The zero value is ready.
type Linter struct {
	keys     map[[sha256.Size]byte]int // lines that have them; hashes, so that no key is kept
	sas      map[uint32]*association   // by SPI
	policies map[selector]int          // lines
	ends     map[ends]bool             // that policies name
	ranges   []policyRange             // selectors of policies of transport mode
	found    []Warning
}

type association struct {
	line    int
	src     netip.Addr
	dst     netip.Addr
	mode    pfkey.Mode
	reqid   uint32
	warning Warning // to be given if nothing uses it
}

type selector struct {
	dir              pfkey.Direction
	src, dst         netip.Prefix
	srcPort, dstPort uint16
	proto            uint8
}

type ends struct{ src, dst netip.Addr }

type policyRange struct{ src, dst netip.Prefix }

// Statement looks at a statement that was compiled without an error and
// returns what is unwise about it.
func (l *Linter) Statement(r *setkey.Reader, s *setkey.Statement, result compile.Result) []Warning {
	if l.sas == nil {
		*l = Linter{
			keys: map[[sha256.Size]byte]int{}, sas: map[uint32]*association{},
			policies: map[selector]int{}, ends: map[ends]bool{},
		}
	}
	l.found = nil
	for i, m := range result.Messages {
		switch m.Type {
		case pfkey.TypeAdd:
			l.add(r, s.Add, m, i == 0)
		case pfkey.TypeDelete:
			l.delete(m)
		case pfkey.TypeFlush:
			clear(l.sas)
		case pfkey.TypeSPDAdd, pfkey.TypeSPDUpdate:
			l.policy(r, s.SPDAdd, m)
		case pfkey.TypeSPDDelete:
			delete(l.policies, selectorOf(m))
		case pfkey.TypeSPDFlush:
			clear(l.policies)
			clear(l.ends)
			l.ranges = nil
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
	spi := s.SA.Name[len(s.SA.Name)-1]
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
	if other := l.sas[sa.SPI]; other != nil && m.SAType != pfkey.SATypeTCPSignature {
		l.warn(r, spi, DuplicateSPI, "line %d has this SPI, and a second one will be refused: File exists", other.line)
		return
	}
	sa2 := pfkey.Find[*pfkey.SA2](m)
	l.sas[sa.SPI] = &association{
		line: s.Verb.Pos.Line, src: m.Src().Addr.Addr(), dst: m.Dst().Addr.Addr(), mode: sa2.Mode, reqid: sa2.ReqID,
		warning: warning(r, s.Verb, UnusedSA, "no policy in this script asks for this SA, and without a reqid (-u) no interface does"),
	}
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
	// CBC takes a random IV, but a counter that starts again does not forgive.
	if key := m.KeyEncrypt(); key != nil && enc != nil && enc.SaltBits > 0 {
		hash := sha256.Sum256(append([]byte{sa.Encrypt}, key.Key...))
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

func (l *Linter) delete(m *pfkey.Message) {
	if sa := pfkey.Find[*pfkey.SA](m); sa != nil {
		delete(l.sas, sa.SPI)
		return
	}
	for spi, sa := range l.sas {
		if sa.src == m.Src().Addr.Addr() && sa.dst == m.Dst().Addr.Addr() {
			delete(l.sas, spi)
		}
	}
}

func selectorOf(m *pfkey.Message) selector {
	src, dst := m.Src(), m.Dst()
	return selector{
		dir: pfkey.Find[*pfkey.Policy](m).Dir,
		src: netip.PrefixFrom(src.Addr.Addr(), int(src.PrefixLen)), srcPort: src.Addr.Port(),
		dst: netip.PrefixFrom(dst.Addr.Addr(), int(dst.PrefixLen)), dstPort: dst.Addr.Port(),
		proto: src.Proto,
	}
}

func (l *Linter) policy(r *setkey.Reader, s *setkey.SPDAddStatement, m *pfkey.Message) {
	about := selectorOf(m)
	if line, there := l.policies[about]; there && m.Type == pfkey.TypeSPDAdd {
		l.warn(r, s.Verb, DuplicatePolicy, "line %d has a policy for the same packets, and a second one will be refused: File exists", line)
		return
	}
	l.policies[about] = s.Verb.Pos.Line
	for _, request := range pfkey.Find[*pfkey.Policy](m).Requests {
		if request.Src.IsValid() {
			l.ends[ends{request.Src.Addr(), request.Dst.Addr()}] = true
		} else {
			l.ranges = append(l.ranges, policyRange{about.src, about.dst})
		}
	}
}

// End returns what the whole script shows: SAs that nothing in it uses, in the
// order of their lines.
func (l *Linter) End() []Warning {
	var unused []Warning
	for _, sa := range l.sas {
		// Interfaces find their SAs by the reqid, and are not in scripts.
		if sa.reqid == 0 && !l.used(sa) {
			unused = append(unused, sa.warning)
		}
	}
	slices.SortFunc(unused, func(a, b Warning) int { return a.Pos.Offset - b.Pos.Offset })
	// Several SAs of one statement are one warning.
	return slices.CompactFunc(unused, func(a, b Warning) bool { return a.Pos == b.Pos })
}

func (l *Linter) used(sa *association) bool {
	if sa.mode != pfkey.ModeTransport && l.ends[ends{sa.src, sa.dst}] {
		return true
	}
	return sa.mode != pfkey.ModeTunnel && slices.ContainsFunc(l.ranges, func(p policyRange) bool {
		return p.src.Contains(sa.src) && p.dst.Contains(sa.dst)
	})
}
