package text

import (
	"fmt"
	"io"
	"strings"

	"ifipsec/engine/pfkey"
)

// ShortHeader is the line that setkey -Dl prints above those of [Printer.ShortDump].
const ShortHeader = "time p   s spi      ltime   src -> dst\n"

// ShortDump prints an SA in one line, as setkey -Dl does.
func (p *Printer) ShortDump(w io.Writer, m *pfkey.Message) error {
	var b strings.Builder
	now := p.Now.Unix()
	fmt.Fprintf(&b, "%02d%02d %-3s", now%3600/60, now%60, shortSAType(m.SAType))
	if sa := pfkey.Find[*pfkey.SA](m); sa != nil {
		fmt.Fprintf(&b, " %s %08x", shortState(sa.State), sa.SPI)
	} else {
		fmt.Fprintf(&b, "%-1s %-8s", "?", "?")
	}
	current, hard, soft := m.Current(), m.Hard(), m.Soft()
	if current != nil && hard != nil && soft != nil {
		fmt.Fprintf(&b, " %3s/%-3s ", shortSeconds(p.age(current.AddTime)), shortSeconds(hard.AddTime))
	} else {
		b.WriteString(" ???/??? ")
	}
	fmt.Fprintf(&b, "%s -> %s\n", p.shortAddress(m.Src()), p.shortAddress(m.Dst()))
	return write(w, &b)
}

func shortSAType(t pfkey.SAType) string {
	switch t {
	case pfkey.SATypeAH, pfkey.SATypeESP:
		return t.String()
	default:
		return fmt.Sprintf("#%d", t)
	}
}

func shortState(s pfkey.SAState) string {
	if int(s) < len("LMDd") {
		return "LMDd"[s : s+1]
	}
	return fmt.Sprintf("#%d", s)
}

// shortSeconds is at most three characters. As setkey does, it looks at the
// lower 32 bits only.
func shortSeconds(seconds uint64) string {
	if uint32(seconds) >= 1000 {
		return "big"
	}
	return fmt.Sprint(uint32(seconds))
}

func (p *Printer) shortAddress(a *pfkey.Address) string {
	if a == nil {
		return "?"
	}
	var s string
	if a.Proto != 0 {
		s = shortProtocol(a.Proto) + " "
	}
	s += p.addr(a.Addr.Addr())
	if a.Addr.Port() != 0 {
		s += fmt.Sprintf("[%d]", a.Addr.Port())
	}
	return s
}

// shortProtocols are setkey's own names, which are not those of protocols(5).
var shortProtocols = map[uint8]string{
	1: "icmp", 2: "igmp", 3: "ggp", 4: "ip4", 6: "tcp", 8: "egp", 17: "udp", 22: "idp", 29: "tp",
	41: "ip6", 43: "rt6", 44: "frag6", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6", 59: "none", 60: "dst6",
}

func shortProtocol(proto uint8) string {
	if s, ok := shortProtocols[proto]; ok {
		return s
	}
	return fmt.Sprintf("#%d", proto)
}
