// Package compile gives setkey's statements their meaning: it turns each into
// the PF_KEY messages that FreeBSD's setkey sends for it, or says what is wrong
// with it.
//
// What FreeBSD's setkey cuts off or overlooks without a word (a number that
// does not fit its field, an impossible prefix length) is refused here.
package compile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/parser/policy"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

// Result is what a statement comes to.
type Result struct {
	// Messages are to be sent in this order. There are none if Errors has one
	// that is not a warning.
	Messages []*pfkey.Message
	// Errors are in the order in which FreeBSD's setkey prints them.
	Errors []*setkey.Error
}

// Failed says whether the statement has no effect.
func (r *Result) Failed() bool {
	for _, e := range r.Errors {
		if !e.Warning {
			return true
		}
	}
	return false
}

// Statement compiles a statement that the reader has returned, with the error
// that came with it, if any: what is wrong before the place of that error is
// what FreeBSD's setkey reports then.
func Statement(r *setkey.Reader, s *setkey.Statement, syntax *setkey.Error, names Names) Result {
	c := &compiler{reader: r, names: names}
	err := c.statement(s)
	var broken *stop
	switch {
	case errors.As(err, &broken) && (syntax == nil || broken.at.Offset < syntax.Pos.Offset):
		c.report(broken)
	case syntax != nil:
		c.result.Errors = append(c.result.Errors, syntax)
	}
	if c.result.Failed() {
		c.result.Messages = nil
	}
	return c.result
}

type compiler struct {
	reader *setkey.Reader
	names  Names
	result Result
}

// stop is what is wrong with a statement: where, FreeBSD's words for it, and
// ours. Without FreeBSD's words nothing is printed but "parse failed".
type stop struct {
	at      lexer.Position
	message string
	detail  string
}

func (s *stop) Error() string { return s.detail }

// errIncomplete ends the work on a statement that was parsed this far only.
var errIncomplete = errors.New("the statement is not complete")

func fail(at lexer.Position, message, format string, args ...any) error {
	return &stop{at: at, message: message, detail: fmt.Sprintf(format, args...)}
}

func (c *compiler) report(s *stop) { c.add(s, false) }

func (c *compiler) warn(at lexer.Position, message, format string, args ...any) {
	c.add(&stop{at: at, message: message, detail: fmt.Sprintf(format, args...)}, true)
}

func (c *compiler) add(s *stop, warning bool) {
	t := c.reader.Token(s.at)
	c.result.Errors = append(c.result.Errors, &setkey.Error{
		Pos: s.at, Line: t.Line, Message: s.message, Shown: t.Shown, Detail: s.detail, Warning: warning,
	})
}

func (c *compiler) statement(s *setkey.Statement) error {
	if s == nil {
		return errIncomplete
	}
	switch {
	case s.Add != nil:
		return c.addStatement(s.Add, s.End)
	case s.Get != nil:
		g := s.Get
		return c.one(pfkey.TypeGet, g.Flags, g.Src, g.Dst, g.Protocol, g.SPI, g.Extensions, s.End)
	case s.Delete != nil:
		d := s.Delete
		return c.one(pfkey.TypeDelete, d.Flags, d.Src, d.Dst, d.Protocol, d.SPI, d.Extensions, s.End)
	case s.DeleteAll != nil:
		return c.deleteAll(s.DeleteAll, s.End)
	case s.Flush != nil:
		return c.whole(pfkey.TypeFlush, s.Flush.Protocol, s.End)
	case s.Dump != nil:
		return c.whole(pfkey.TypeDump, s.Dump.Protocol, s.End)
	case s.SPDAdd != nil:
		return c.spdAdd(s.SPDAdd, s.End)
	case s.SPDDelete != nil:
		return c.spdStatement(pfkey.TypeSPDDelete, s.SPDDelete.Selector, s.SPDDelete.Policy, s.End)
	case s.SPDFlush:
		return c.whole(pfkey.TypeSPDFlush, nil, s.End)
	case s.SPDDump:
		return c.whole(pfkey.TypeSPDDump, nil, s.End)
	}
	return errIncomplete
}

// send adds a message.
func (c *compiler) send(t pfkey.MsgType, satype pfkey.SAType, exts ...pfkey.Extension) {
	c.result.Messages = append(c.result.Messages, &pfkey.Message{Type: t, SAType: satype, Exts: exts})
}

// whole is a statement about a whole database, or a protocol's part of it.
func (c *compiler) whole(t pfkey.MsgType, p *setkey.Protocol, end *setkey.End) error {
	satype, _ := protocolSpec(p)
	if end == nil {
		return errIncomplete
	}
	c.send(t, satype)
	return nil
}

var saTypes = map[string]pfkey.SAType{
	"esp": pfkey.SATypeESP, "esp-old": pfkey.SATypeESP, "ah": pfkey.SATypeAH, "ah-old": pfkey.SATypeAH,
	"ipcomp": pfkey.SATypeIPComp, "tcp": pfkey.SATypeTCPSignature,
}

func protocolSpec(p *setkey.Protocol) (pfkey.SAType, pfkey.SAFlags) {
	if p == nil {
		return pfkey.SATypeUnspec, 0
	}
	if strings.HasSuffix(p.Text, "-old") {
		return saTypes[p.Text], pfkey.SAFlagOld
	}
	return saTypes[p.Text], 0
}

// pair is the two ends of an SA, each with all its addresses.
type pair struct{ src, dst []netip.Addr }

func (c *compiler) pair(flags []*setkey.AddrFlags, src, dst *setkey.Word) (pair, error) {
	how := lookups(flags)
	var p pair
	for _, end := range []struct {
		word  *setkey.Word
		addrs *[]netip.Addr
	}{{src, &p.src}, {dst, &p.dst}} {
		if end.word == nil {
			return p, errIncomplete
		}
		addrs, err := c.host(end.word.Text, how)
		if err != nil {
			return p, fail(end.word.Pos, string(policy.ErrName), "%v", err)
		}
		*end.addrs = addrs
	}
	return p, nil
}

func lookups(flags []*setkey.AddrFlags) (how lookup) {
	for _, f := range flags {
		for _, letter := range f.Text[1:] {
			switch letter {
			case '4':
				how.want4, how.want6 = true, false
			case '6':
				how.want4, how.want6 = false, true
			case 'n':
				how.numeric = true
			}
		}
	}
	return how
}

// matches calls f for every combination of the two ends' addresses of one
// family. It fails if there is none.
func (p pair) matches(end *setkey.End, f func(src, dst netip.Addr)) error {
	n := 0
	for _, src := range p.src {
		for _, dst := range p.dst {
			if src.Is4() == dst.Is4() {
				f(src, dst)
				n++
			}
		}
	}
	if n == 0 {
		return fail(end.Pos, "", "%v and %v are of different families", p.src[0], p.dst[0])
	}
	return nil
}

func addresses(proto uint8, src, dst netip.AddrPort, srcBits, dstBits uint8) []pfkey.Extension {
	return []pfkey.Extension{
		&pfkey.Address{Kind: pfkey.ExtAddressSrc, Proto: proto, PrefixLen: srcBits, Addr: src},
		&pfkey.Address{Kind: pfkey.ExtAddressDst, Proto: proto, PrefixLen: dstBits, Addr: dst},
	}
}

func hosts(src, dst netip.Addr) []pfkey.Extension {
	return addresses(pfkey.ProtoAny, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), uint8(src.BitLen()), uint8(dst.BitLen()))
}

func (c *compiler) spi(n *setkey.Number) (uint32, error) {
	if n == nil {
		return 0, errIncomplete
	}
	base, digits := 10, n.Text
	if len(digits) > 2 && (digits[1] == 'x' || digits[1] == 'X') {
		base, digits = 16, digits[2:]
	}
	spi, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return 0, fail(n.Pos, "SPI too big.", "SPI %s, expected at most 0xffffffff", n.Text)
	}
	return uint32(spi), nil
}

// extensions are those of an SA, in values.
type extensions struct {
	flags      pfkey.SAFlags
	mode       pfkey.Mode
	reqid      uint32
	replay     uint32 // bytes of bitmap
	hard, soft uint64 // seconds
	natt       *natt
	fragment   *uint16
	hwif       string
}

type natt struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

var modes = map[string]pfkey.Mode{"any": pfkey.ModeAny, "transport": pfkey.ModeTransport, "tunnel": pfkey.ModeTunnel}

var flags = map[string]pfkey.SAFlags{
	"zero-pad": pfkey.SAFlagPadZero, "random-pad": pfkey.SAFlagPadRandom, "seq-pad": pfkey.SAFlagPadSeq,
}

// maxReplay is the largest -r: its packets must be countable in 32 bits.
const maxReplay = (math.MaxUint32 - 32) >> 3

func (c *compiler) extensions(old pfkey.SAFlags, list []*setkey.Extension) (*extensions, error) {
	x := &extensions{flags: old | pfkey.SAFlagCyclic}
	for _, e := range list {
		var err error
		switch {
		case e.Mode != nil:
			x.mode = modes[e.Mode.Text]
		case e.ReqID != nil:
			var n uint64
			n, err = number(e.ReqID, 32, "a reqid")
			x.reqid = uint32(n)
		case e.Replay != nil:
			if old != 0 {
				return nil, fail(e.Replay.Pos, "replay prevention cannot be used with ah/esp-old",
					"-r is not for esp-old and ah-old, which have no sequence numbers")
			}
			var n uint64
			n, err = strconv.ParseUint(e.Replay.Text, 10, 64)
			if err != nil || n > maxReplay {
				return nil, fail(e.Replay.Pos, "replay window is too large", "-r %s, expected at most %d bytes of bitmap", e.Replay.Text, maxReplay)
			}
			x.replay = uint32(n)
		case e.Flag != nil && e.Flag.Text == "nocyclic-seq":
			x.flags &^= pfkey.SAFlagCyclic
		case e.Flag != nil:
			x.flags |= flags[e.Flag.Text]
		case e.Hard != nil:
			x.hard, err = number(e.Hard, 64, "a lifetime")
		case e.Soft != nil:
			x.soft, err = number(e.Soft, 64, "a lifetime")
		case e.NATT != nil:
			x.natt, err = c.natt(e.NATT)
		case e.NATTMTU != nil:
			var n uint64
			n, err = number(e.NATTMTU, 16, "a fragment size")
			size := uint16(n)
			x.fragment = &size
		case e.ESN:
			x.flags |= pfkey.SAFlagESN
		case e.HWIF != nil:
			x.hwif = e.HWIF.Text
		default:
			return nil, errIncomplete
		}
		if err != nil {
			return nil, err
		}
	}
	return x, nil
}

// number reads a decimal number of at most so many bits.
func number(d *setkey.Decimal, bits int, what string) (uint64, error) {
	n, err := strconv.ParseUint(d.Text, 10, bits)
	if err != nil {
		return 0, fail(d.Pos, "Invalid argument", "%s is too big for %s, expected at most %d", d.Text, what, uint64(math.MaxUint64)>>(64-bits))
	}
	return n, nil
}

func (c *compiler) natt(n *setkey.NATT) (*natt, error) {
	p, err := c.pair(nil, n.Src, n.Dst)
	if err != nil {
		return nil, err
	}
	if n.SrcPort == nil || n.DstPort == nil {
		return nil, errIncomplete
	}
	src, err := number(n.SrcPort, 16, "a port")
	if err != nil {
		return nil, err
	}
	dst, err := number(n.DstPort, 16, "a port")
	if err != nil {
		return nil, err
	}
	return &natt{src: p.src[0], dst: p.dst[0], srcPort: uint16(src), dstPort: uint16(dst)}, nil
}

// algorithms are those of an SA, with their keys.
type algorithms struct {
	encrypt, auth       uint8
	encryptKey, authKey *pfkey.Key
	flags               pfkey.SAFlags
}

func (c *compiler) algorithms(a *setkey.AlgorithmSpec, old pfkey.SAFlags) (*algorithms, error) {
	result := &algorithms{}
	var err error
	switch {
	case a == nil:
		return nil, errIncomplete
	case a.ESP != nil:
		if err = c.encryption(a.ESP.Encryption, old, result); err == nil && a.ESP.Authentication != nil {
			err = c.authentication(a.ESP.Authentication, result)
		}
	case a.AH != nil:
		err = c.authentication(a.AH.Authentication, result)
	case a.IPComp != nil && a.IPComp.Compression != nil:
		found, _ := algorithm.CompressionByName(a.IPComp.Compression.Name)
		result.encrypt = found.ID
		if a.IPComp.RawCPI {
			result.flags = pfkey.SAFlagRawCPI
		}
	default:
		err = errIncomplete
	}
	return result, err
}

func (c *compiler) encryption(e *setkey.EncryptionAlg, old pfkey.SAFlags, result *algorithms) error {
	if e == nil {
		return errIncomplete
	}
	if e.Name != "" {
		c.warn(e.Pos, "WARNING: obsolete algorithm", "%q is obsolete: it encrypts nothing, as does null", e.Name)
		result.encrypt = algorithm.EncryptNull
		return nil
	}
	found, known := algorithm.EncryptionByName(e.Long)
	if !known || e.Key == nil {
		return errIncomplete
	}
	switch {
	case e.Long == "des-deriv" && old != 0:
		return fail(e.Key.Pos, "algorithm mismatched", "des-deriv is not for esp-old")
	case e.Long == "des-deriv":
		result.flags = pfkey.SAFlagDeriv
	case e.Long == "des-32iv" && old == 0:
		return fail(e.Key.Pos, "algorithm mismatched", "des-32iv is for esp-old only")
	case e.Long == "des-32iv":
		result.flags = pfkey.SAFlagIV4B
	}
	key, err := keyString(pfkey.ExtKeyEncrypt, e.Key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(key.Bits); err != nil {
		return fail(e.Key.Pos, "Invalid key length", "%v", err)
	}
	result.encrypt, result.encryptKey = found.ID, key
	return nil
}

func (c *compiler) authentication(a *setkey.AuthenticationAlg, result *algorithms) error {
	if a == nil {
		return errIncomplete
	}
	if a.Name != "" {
		result.auth = algorithm.AuthNull
		return nil
	}
	found, known := algorithm.AuthenticationByName(a.Long)
	if !known || a.Key == nil {
		return errIncomplete
	}
	key, err := keyString(pfkey.ExtKeyAuth, a.Key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(key.Bits); err != nil {
		message := "Invalid key length"
		if found.ID == algorithm.AuthTCPMD5 {
			message = "" // FreeBSD's setkey gives no reason
		}
		return fail(a.Key.Pos, message, "%v", err)
	}
	result.auth, result.authKey = found.ID, key
	return nil
}

// keyString reads a key. An odd number of hexadecimal digits gives a first
// byte of one digit.
func keyString(kind pfkey.ExtType, k *setkey.Key) (*pfkey.Key, error) {
	var key []byte
	if k.Text[0] == '"' {
		key = []byte(k.Text[1 : len(k.Text)-1])
	} else {
		digits := k.Text[2:]
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		var err error
		if key, err = hex.DecodeString(digits); err != nil {
			return nil, fail(k.Pos, "Invalid argument", "the key is not hexadecimal")
		}
	}
	return &pfkey.Key{Kind: kind, Bits: 8 * len(key), Key: key}, nil
}

func (c *compiler) addStatement(s *setkey.AddStatement, end *setkey.End) error {
	ends, err := c.pair(s.Flags, s.Src, s.Dst)
	if err != nil {
		return err
	}
	satype, old := protocolSpec(s.Protocol)
	spi, err := c.spi(s.SPI)
	if err != nil {
		return err
	}
	x, err := c.extensions(old, s.Extensions)
	if err != nil {
		return err
	}
	alg, err := c.algorithms(s.Algorithms, old)
	if err != nil {
		return err
	}
	if end == nil {
		return errIncomplete
	}
	t := pfkey.TypeAdd
	if s.Verb == "update" {
		t = pfkey.TypeUpdate
	}
	return ends.matches(end, func(src, dst netip.Addr) {
		var exts []pfkey.Extension
		if alg.encryptKey != nil {
			exts = append(exts, alg.encryptKey)
		}
		if alg.authKey != nil {
			exts = append(exts, alg.authKey)
		}
		if x.hard != 0 {
			exts = append(exts, &pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, AddTime: x.hard})
		}
		if x.soft != 0 {
			exts = append(exts, &pfkey.Lifetime{Kind: pfkey.ExtLifetimeSoft, AddTime: x.soft})
		}
		exts = append(exts,
			&pfkey.SA{
				SPI: spi, Replay: uint8(min(x.replay, math.MaxUint8)),
				Auth: alg.auth, Encrypt: alg.encrypt, Flags: x.flags | alg.flags,
			},
			&pfkey.SA2{Mode: x.mode, ReqID: x.reqid})
		if x.replay > math.MaxUint8 {
			exts = append(exts, &pfkey.SAReplay{Packets: x.replay << 3})
		}
		exts = append(exts, x.nattExtensions()...)
		if x.hwif != "" {
			exts = append(exts, &pfkey.HWIF{Name: x.hwif})
		}
		c.send(t, satype, append(exts, hosts(src, dst)...)...)
	})
}

func (x *extensions) nattExtensions() []pfkey.Extension {
	n := x.natt
	if n == nil {
		return nil
	}
	exts := []pfkey.Extension{
		&pfkey.NATTType{Type: pfkey.EncapESPInUDP},
		&pfkey.Address{Kind: pfkey.ExtNATTOAI, PrefixLen: uint8(n.src.BitLen()), Addr: netip.AddrPortFrom(n.src, 0)},
		&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: n.srcPort},
		&pfkey.Address{Kind: pfkey.ExtNATTOAR, PrefixLen: uint8(n.dst.BitLen()), Addr: netip.AddrPortFrom(n.dst, 0)},
		&pfkey.NATTPort{Kind: pfkey.ExtNATTDport, Port: n.dstPort},
	}
	if x.fragment != nil {
		exts = append(exts, &pfkey.NATTFrag{Size: *x.fragment})
	}
	return exts
}

// one is get and delete.
func (c *compiler) one(t pfkey.MsgType, flags []*setkey.AddrFlags, src, dst *setkey.Word, proto *setkey.Protocol,
	spiText *setkey.Number, list []*setkey.Extension, end *setkey.End) error {
	ends, err := c.pair(flags, src, dst)
	if err != nil {
		return err
	}
	satype, old := protocolSpec(proto)
	spi, err := c.spi(spiText)
	if err != nil {
		return err
	}
	x, err := c.extensions(old, list)
	if err != nil {
		return err
	}
	if end == nil {
		return errIncomplete
	}
	if t == pfkey.TypeDelete && len(ends.src)+len(ends.dst) > 2 {
		return fail(end.Pos, "multiple address specified", "a name has several addresses, expected one of each")
	}
	if x.mode != pfkey.ModeAny {
		c.warn(end.Pos, "WARNING: mode is obsolete", "-m says nothing here: an SA is found without its mode")
	}
	return ends.matches(end, func(src, dst netip.Addr) {
		c.send(t, satype, append([]pfkey.Extension{
			&pfkey.SA{SPI: spi, Replay: uint8(min(x.replay, math.MaxUint8)), Flags: x.flags},
			&pfkey.SA2{Mode: x.mode, ReqID: x.reqid},
		}, hosts(src, dst)...)...)
	})
}

func (c *compiler) deleteAll(s *setkey.DeleteAllStatement, end *setkey.End) error {
	ends, err := c.pair(s.Flags, s.Src, s.Dst)
	if err != nil {
		return err
	}
	if end == nil {
		return errIncomplete
	}
	satype, _ := protocolSpec(s.Protocol)
	return ends.matches(end, func(src, dst netip.Addr) {
		c.send(pfkey.TypeDelete, satype, hosts(src, dst)...)
	})
}

func (c *compiler) spdAdd(s *setkey.SPDAddStatement, end *setkey.End) error {
	t := pfkey.TypeSPDAdd
	if s.Verb == "spdupdate" {
		t = pfkey.TypeSPDUpdate
	}
	if s.Tagged != nil {
		if _, err := c.policy(s.Policy, true); err != nil {
			return err
		}
		if end == nil {
			return errIncomplete
		}
		return fail(end.Pos, "", "policies for tagged packets do not exist here, as on FreeBSD")
	}
	return c.spdStatement(t, s.Selector, s.Policy, end)
}

// policy compiles a policy's text. Without an action it can only name a policy
// to delete.
func (c *compiler) policy(p *setkey.PolicySpec, add bool) (*pfkey.Policy, error) {
	if p == nil {
		return nil, errIncomplete
	}
	// What is in the policy is at the policy's place: a token of its own.
	at := p.Pos
	at.Offset += len("-P")
	at.Column += len("-P")
	parsed, err := policy.Parse(p.Text, c.numeric)
	var wrong *policy.Error
	if errors.As(err, &wrong) {
		return nil, fail(at, string(wrong.Kind), "policy: %s", wrong.Detail)
	}
	if add && !strings.ContainsAny(strings.TrimSpace(p.Text), " \t\n") {
		return nil, fail(at, string(policy.ErrArgument),
			"a policy without an action, which FreeBSD takes for discard: expected discard, none or ipsec after the direction")
	}
	return parsed, err
}

func (c *compiler) spdStatement(t pfkey.MsgType, s *setkey.Selector, p *setkey.PolicySpec, end *setkey.End) error {
	if s == nil {
		return errIncomplete
	}
	proto, err := upperSpec(s.Upper)
	if err != nil {
		return err
	}
	pol, err := c.policy(p, t != pfkey.TypeSPDDelete)
	if err != nil {
		return err
	}
	if end == nil {
		return errIncomplete
	}
	src, dst := portText(s.Src.Port), portText(s.Dst.Port)
	if s.UpperMisc != nil {
		if proto != protocols["icmp6"] {
			return fail(end.Pos, "", "%q after the protocol: only icmp6 has a type and a code", s.UpperMisc.Text)
		}
		src, dst, _ = strings.Cut(s.UpperMisc.Text, ",")
		if dst == "" {
			dst = "0"
		}
	}
	how := lookups(s.Flags)
	srcAddr, srcErr := c.selector(s.Src, src, how, end)
	if srcErr != nil {
		// FreeBSD's setkey looks at both before it gives up.
		var first *stop
		if errors.As(srcErr, &first) {
			if _, dstErr := c.selector(s.Dst, dst, how, end); dstErr != nil {
				c.add(first, false)
				return dstErr
			}
		}
		return srcErr
	}
	dstAddr, err := c.selector(s.Dst, dst, how, end)
	if err != nil {
		return err
	}
	if srcAddr.addr.Addr().Is4() != dstAddr.addr.Addr().Is4() {
		return fail(end.Pos, "", "%v and %v are of different families", srcAddr.addr.Addr(), dstAddr.addr.Addr())
	}
	c.send(t, pfkey.SATypeUnspec, append([]pfkey.Extension{pol},
		addresses(proto, srcAddr.addr, dstAddr.addr, srcAddr.bits, dstAddr.bits)...)...)
	return nil
}

func portText(p *setkey.Port) string {
	if p == nil || p.Text == "any" {
		return "0"
	}
	return p.Text
}

func upperSpec(u *setkey.UpperSpec) (uint8, error) {
	if u == nil {
		return 0, errIncomplete
	}
	if u.Text == "any" {
		return pfkey.ProtoAny, nil
	}
	if strings.Trim(u.Text, "0123456789") == "" {
		n, err := strconv.ParseUint(u.Text, 10, 8)
		if err != nil {
			return 0, fail(u.Pos, "invalid upper layer protocol", "protocol %s, expected at most 255", u.Text)
		}
		return uint8(n), nil
	}
	if n, ok := protocol(u.Text); ok {
		return n, nil
	}
	return 0, fail(u.Pos, "invalid upper layer protocol", "%q is no protocol", u.Text)
}

// selected is one end of a selector.
type selected struct {
	addr netip.AddrPort
	bits uint8
}

func (c *compiler) selector(e *setkey.Endpoint, port string, how lookup, end *setkey.End) (selected, error) {
	addrs, err := c.host(e.Addr.Text, how)
	if err != nil {
		return selected{}, fail(end.Pos, string(policy.ErrName), "%v", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		service, unknown := uint16(0), error(fmt.Errorf("port %q, expected at most 65535", port))
		if strings.Trim(port, "0123456789") != "" {
			service, unknown = c.names.Service(port)
		}
		if unknown != nil {
			return selected{}, fail(end.Pos, "Service was not recognized for socket type", "%q is no port and no service: %v", port, unknown)
		}
		n = uint64(service)
	}
	if len(addrs) > 1 {
		return selected{}, fail(end.Pos, "multiple address specified", "%q has several addresses, expected one", e.Addr.Text)
	}
	bits := addrs[0].BitLen()
	if e.Prefix != nil {
		b, err := strconv.ParseUint(e.Prefix.Text, 10, 8)
		if err != nil || int(b) > bits {
			return selected{}, fail(e.Prefix.Pos, "Invalid argument", "prefix length %s, expected at most %d", e.Prefix.Text, bits)
		}
		bits = int(b)
	}
	return selected{addr: netip.AddrPortFrom(addrs[0], uint16(n)), bits: uint8(bits)}, nil
}
