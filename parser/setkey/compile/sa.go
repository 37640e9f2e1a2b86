package compile

import (
	"math"
	"net/netip"
	"strconv"

	"ifipsec/engine/pfkey"
	"ifipsec/parser/policy"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

// pair is the two ends of an SA, each with all its addresses.
type pair struct {
	src, dst           []netip.Addr
	srcPlace, dstPlace lexer.Position
	how                lookup // as the flags say
}

// pair looks up two ends.
func (c *compiler) pair(e *setkey.Ends) (pair, error) {
	how := lookups(e.Flags)
	if missing(e.Src) {
		return pair{}, errIncomplete
	}
	src, err := c.end(e.Src, how)
	if err != nil {
		return pair{}, err
	}
	if missing(e.Dst) {
		return pair{}, errIncomplete
	}
	dst, err := c.end(e.Dst, how)
	return pair{src, dst, e.Src.Pos, e.Dst.Pos, how}, err
}

func (c *compiler) end(word lexer.Token, how lookup) ([]netip.Addr, error) {
	addrs, err := c.host(word.Value, how)
	if err != nil {
		return nil, fail(word, string(policy.ErrName), "%v", err)
	}
	return addrs, nil
}

// matches calls f for every combination of the two ends' addresses of one
// family. It fails if there is none.
func (p pair) matches(end lexer.Token, f func(src, dst *pfkey.Address)) error {
	n := 0
	for _, src := range p.src {
		for _, dst := range p.dst {
			if src.Is4() == dst.Is4() {
				f(addresses(pfkey.ProtoAny, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), uint8(src.BitLen()), uint8(dst.BitLen())))
				n++
			}
		}
	}
	if n == 0 {
		return failAt(end, p.dstPlace, "", "%v and %v are of different families", p.src[0], p.dst[0])
	}
	return nil
}

func spi(t lexer.Token) (uint32, error) {
	base, digits := 10, t.Value
	if len(digits) > 2 && (digits[1] == 'x' || digits[1] == 'X') {
		base, digits = 16, digits[2:]
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		// It may be a key, where the SPI was forgotten.
		return 0, fail(t, "SPI too big.", "an SPI of more than 32 bits, expected at most 0xffffffff")
	}
	return uint32(n), nil
}

// extensions are those of an SA, in values.
type extensions struct {
	old        bool // of RFC 1825's generation
	flags      pfkey.SAFlags
	mode       pfkey.Mode
	modePlace  lexer.Position
	reqid      uint32
	replay     uint32 // bytes of bitmap
	hard, soft uint64 // seconds
	natt       *natt
	fragment   *pfkey.NATTFrag
}

type natt struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

var modes = map[string]pfkey.Mode{"any": pfkey.ModeAny, "transport": pfkey.ModeTransport, "tunnel": pfkey.ModeTunnel}

var padding = map[string]pfkey.SAFlags{
	"zero-pad": pfkey.SAFlagPadZero, "random-pad": pfkey.SAFlagPadRandom, "seq-pad": pfkey.SAFlagPadSeq,
}

// maxReplay is the largest -r that the database takes: its packets and a few
// more must be countable in 32 bits.
const maxReplay = (math.MaxUint32 - 32) >> 3

// sa is what a statement says of an SA.
type sa struct {
	ends   pair
	satype pfkey.SAType
	spi    uint32
	*extensions
}

func (c *compiler) sa(s *setkey.SA) (*sa, error) {
	if s == nil {
		return nil, errIncomplete
	}
	ends, err := c.pair(&s.Ends)
	if err != nil {
		return nil, err
	}
	result := &sa{ends: ends, extensions: &extensions{flags: pfkey.SAFlagCyclic}}
	if !missing(s.Protocol) {
		result.satype, result.old = saTypes[s.Protocol.Value], isOld(s.Protocol)
	}
	if missing(s.SPI) {
		return nil, errIncomplete
	}
	if result.spi, err = spi(s.SPI); err != nil {
		return nil, err
	}
	if result.old {
		result.flags |= pfkey.SAFlagOld
	}
	for _, e := range s.Extensions {
		if err := c.extension(result.extensions, e, ends.how); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (c *compiler) extension(x *extensions, e *setkey.Extension, how lookup) (err error) {
	switch {
	case e.Number != nil:
		return c.numberExtension(x, e.Number)
	case !missing(e.Mode):
		x.mode, x.modePlace = modes[e.Mode.Value], e.Mode.Pos
	case !missing(e.Flag):
		if e.Flag.Value == "nocyclic-seq" {
			x.flags &^= pfkey.SAFlagCyclic
		}
		x.flags |= padding[e.Flag.Value]
	case e.NATT != nil:
		x.natt, err = c.natt(e.NATT, how)
	case e.ESN:
		x.flags |= pfkey.SAFlagESN
	case !missing(e.HWIF):
		// FreeBSD's setkey takes it and does not send it.
	default:
		return errIncomplete
	}
	return err
}

func (c *compiler) numberExtension(x *extensions, e *setkey.NumberExtension) (err error) {
	if missing(e.Value) {
		return errIncomplete
	}
	value, n := e.Value, uint64(0)
	switch e.Option.Value {
	case "-u":
		n, err = number(value, 32, "a reqid")
		x.reqid = uint32(n)
	case "-lh":
		x.hard, err = number(value, 64, "a lifetime")
	case "-ls":
		x.soft, err = number(value, 64, "a lifetime")
	case "-natt_mtu":
		n, err = number(value, 16, "a fragment size")
		x.fragment = &pfkey.NATTFrag{Size: uint16(n)}
	case "-r":
		if x.old {
			return fail(value, "replay prevention cannot be used with ah/esp-old",
				"-r is not for esp-old and ah-old, which have no sequence numbers")
		}
		x.replay = c.replay(value)
	}
	return err
}

// replay reads a replay window. Of one that is too large FreeBSD's setkey warns,
// and leaves the last word to the kernel.
func (c *compiler) replay(value lexer.Token) uint32 {
	n, err := strconv.ParseUint(value.Value, 10, 32)
	if err != nil || n > maxReplay {
		c.warn(value, value.Pos, "replay window is too large", "-r %s, expected at most %d bytes of bitmap", value.Value, maxReplay)
	}
	return uint32(min(n, math.MaxUint32>>3))
}

func (c *compiler) natt(e *setkey.NATT, how lookup) (*natt, error) {
	var n natt
	for _, end := range []struct {
		word, number lexer.Token
		addr         *netip.Addr
		port         *uint16
	}{{e.Src, e.SrcPort, &n.src, &n.srcPort}, {e.Dst, e.DstPort, &n.dst, &n.dstPort}} {
		if missing(end.word) {
			return nil, errIncomplete
		}
		addrs, err := c.end(end.word, how)
		if err != nil {
			return nil, err
		}
		if missing(end.number) {
			return nil, errIncomplete
		}
		port, err := number(end.number, 16, "a port")
		if err != nil {
			return nil, err
		}
		*end.addr, *end.port = addrs[0], uint16(port)
	}
	return &n, nil
}

func (c *compiler) add(s *setkey.AddStatement, end lexer.Token) error {
	x, err := c.sa(s.SA)
	if err != nil {
		return err
	}
	alg, err := c.algorithms(s.Algorithms, x.old)
	if err != nil {
		return err
	}
	if missing(end) {
		return errIncomplete
	}
	t := pfkey.TypeAdd
	if s.Verb.Value == "update" {
		t = pfkey.TypeUpdate
	}
	return x.ends.matches(end, func(src, dst *pfkey.Address) {
		exts := make([]pfkey.Extension, 0, 8)
		if alg.encryptKey != nil && x.satype != pfkey.SATypeIPComp {
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
		exts = x.appendSA(exts, alg)
		exts = append(exts, x.nattExtensions()...)
		c.send(t, x.satype, append(exts, src, dst)...)
	})
}

// appendSA appends what says which SA, with its replay window.
func (x *sa) appendSA(exts []pfkey.Extension, alg *algorithms) []pfkey.Extension {
	exts = append(exts,
		&pfkey.SA{
			SPI: x.spi, Replay: uint8(min(x.replay, math.MaxUint8)),
			Auth: alg.auth, Encrypt: alg.encrypt, Flags: x.flags | alg.flags,
		},
		&pfkey.SA2{Mode: x.mode, ReqID: x.reqid})
	if x.replay > math.MaxUint8 {
		exts = append(exts, &pfkey.SAReplay{Packets: x.replay << 3})
	}
	return exts
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
		exts = append(exts, x.fragment)
	}
	return exts
}

// one is get and delete.
func (c *compiler) one(t pfkey.MsgType, s *setkey.SA, end lexer.Token) error {
	x, err := c.sa(s)
	if err != nil {
		return err
	}
	ends := x.ends
	if missing(end) {
		return errIncomplete
	}
	if t == pfkey.TypeDelete && len(ends.src)+len(ends.dst) > 2 {
		place := ends.srcPlace
		if len(ends.src) == 1 {
			place = ends.dstPlace
		}
		return failAt(end, place, "multiple address specified", "a name has several addresses, expected one of each")
	}
	if x.mode != pfkey.ModeAny {
		c.warn(end, x.modePlace, "WARNING: mode is obsolete", "-m says nothing here: an SA is found without its mode")
	}
	return ends.matches(end, func(src, dst *pfkey.Address) {
		c.send(t, x.satype, append(x.appendSA(nil, &algorithms{}), src, dst)...)
	})
}

func (c *compiler) deleteAll(s *setkey.DeleteAllStatement, end lexer.Token) error {
	ends, err := c.pair(&s.Ends)
	if err != nil {
		return err
	}
	if missing(end) {
		return errIncomplete
	}
	satype := saTypes[s.Protocol.Value]
	return ends.matches(end, func(src, dst *pfkey.Address) { c.send(pfkey.TypeDelete, satype, src, dst) })
}
