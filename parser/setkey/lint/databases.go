package lint

import (
	"net/netip"
	"syscall"

	"ifipsec/engine/pfkey"
)

// databases are what a script leaves in the SAD and the SPD if they were empty
// before. All but a flush takes the same time, however long the script is.
type databases struct {
	spis     map[uint32]*association
	pairs    map[pair]map[uint32]bool // the SPIs between two addresses
	policies map[selector]*policy
}

func newDatabases() databases {
	return databases{
		spis: map[uint32]*association{}, pairs: map[pair]map[uint32]bool{},
		policies: map[selector]*policy{},
	}
}

// pair is what deleteall names.
type pair struct {
	satype   pfkey.SAType
	src, dst netip.Addr
}

type association struct {
	pair
	line    int
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

// reverse is the selector of the answers.
func (s selector) reverse() selector {
	dir := pfkey.DirIn
	if s.dir == pfkey.DirIn {
		dir = pfkey.DirOut
	}
	return selector{dir: dir, src: s.dst, dst: s.src, srcPort: s.dstPort, dstPort: s.srcPort, proto: s.proto}
}

type policy struct {
	line     int
	requests []pfkey.Request
	warning  Warning // to be given if there is none for the other way
}

func pairOf(m *pfkey.Message) pair {
	return pair{m.SAType, m.Src().Addr.Addr(), m.Dst().Addr.Addr()}
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

func (d *databases) insert(spi uint32, sa *association) {
	d.spis[spi] = sa
	if d.pairs[sa.pair] == nil {
		d.pairs[sa.pair] = map[uint32]bool{}
	}
	d.pairs[sa.pair][spi] = true
}

func (d *databases) remove(spi uint32) {
	p := d.spis[spi].pair
	delete(d.spis, spi)
	delete(d.pairs[p], spi)
	if len(d.pairs[p]) == 0 {
		delete(d.pairs, p)
	}
}

// delete is delete and deleteall, which have no effect on an SA of another
// protocol or between other addresses.
func (d *databases) delete(m *pfkey.Message) {
	about := pairOf(m)
	// FreeBSD looks at the SPI of all SAs but TCP-MD5's.
	if sa := pfkey.Find[*pfkey.SA](m); sa != nil && about.satype != pfkey.SATypeTCPSignature {
		if d.pairs[about][sa.SPI] {
			d.remove(sa.SPI)
		}
		return
	}
	for spi := range d.pairs[about] {
		d.remove(spi)
	}
}

func (d *databases) flush(t pfkey.SAType) {
	for spi, sa := range d.spis {
		if t == pfkey.SATypeUnspec || t == sa.satype {
			d.remove(spi)
		}
	}
}

// users finds what uses an SA in a time that does not depend on how many
// policies there are.
type users struct {
	ends    map[request]bool // requests that say between which addresses
	ranges  map[span]bool    // requests for whatever addresses a packet has
	lengths map[lengths]bool // that there are in ranges
}

type request struct {
	proto    uint16
	mode     pfkey.Mode
	src, dst netip.Addr
}

type span struct {
	proto    uint16
	src, dst netip.Prefix // masked
}

type lengths struct{ src, dst int }

func (d *databases) users() users {
	u := users{ends: map[request]bool{}, ranges: map[span]bool{}, lengths: map[lengths]bool{}}
	for about, p := range d.policies {
		for _, r := range p.requests {
			if r.Src.IsValid() {
				u.ends[request{r.Proto, r.Mode, r.Src.Addr(), r.Dst.Addr()}] = true
				continue
			}
			u.ranges[span{r.Proto, about.src.Masked(), about.dst.Masked()}] = true
			u.lengths[lengths{about.src.Bits(), about.dst.Bits()}] = true
		}
	}
	return u
}

var protocols = map[pfkey.SAType]uint16{
	pfkey.SATypeESP: syscall.IPPROTO_ESP, pfkey.SATypeAH: syscall.IPPROTO_AH, pfkey.SATypeIPComp: syscall.IPPROTO_COMP,
}

func (u *users) use(sa *association) bool {
	proto, asked := protocols[sa.satype]
	// Interfaces find their SAs by the reqid, and are not in scripts. Nobody
	// asks for a TCP-MD5 SA: sockets find theirs by the addresses.
	if !asked || sa.reqid != 0 {
		return true
	}
	for _, mode := range []pfkey.Mode{pfkey.ModeTunnel, pfkey.ModeTransport} {
		if (sa.mode == mode || sa.mode == pfkey.ModeAny) && u.ends[request{proto, mode, sa.src, sa.dst}] {
			return true
		}
	}
	if sa.mode == pfkey.ModeTunnel {
		return false
	}
	for n := range u.lengths {
		// Lengths of the other family give no prefix.
		src, srcErr := sa.src.WithZone("").Prefix(n.src)
		dst, dstErr := sa.dst.WithZone("").Prefix(n.dst)
		if srcErr == nil && dstErr == nil && u.ranges[span{proto, src, dst}] {
			return true
		}
	}
	return false
}
