package text

import (
	"fmt"
	"io"
	"strings"

	"ifipsec/engine/pfkey"
)

// maxManualReqID is the highest reqid that is for people to choose
// (IPSEC_MANUAL_REQID_MAX).
const maxManualReqID = 0x3fff

const protocolICMPv6 = 58

// PolicyDump prints a policy as setkey -DP does, from the answer to
// SADB_X_SPDDUMP or SADB_X_SPDGET. The priority of a policy of scope ifnet is
// the number of its interface.
func (p *Printer) PolicyDump(w io.Writer, m *pfkey.Message) error {
	var b strings.Builder
	p.policy(&b, m)
	return write(w, &b)
}

func (p *Printer) policy(b *strings.Builder, m *pfkey.Message) {
	if src, dst := m.Src(), m.Dst(); src != nil && dst != nil {
		fmt.Fprintf(b, "%s %s ", p.selector(src), p.selector(dst))
		if src.Proto != dst.Proto {
			b.WriteString("upper layer protocol mismatched.\n")
			return
		}
		upperLayer(b, src.Proto, src.Addr.Port(), dst.Addr.Port())
	} else {
		b.WriteString("(no selector, probably per-socket policy) ")
	}
	policy := pfkey.Find[*pfkey.Policy](m)
	if policy == nil {
		b.WriteString("no X_POLICY extension.\n")
		return
	}
	fmt.Fprintf(b, "\n\t%s %s\n", policy.Dir, policy.Type)
	if policy.Type == pfkey.PolicyIPsec {
		for i := range policy.Requests {
			p.request(b, &policy.Requests[i])
		}
	}
	if current := m.Current(); current != nil {
		fmt.Fprintf(b, "\tcreated: %s  lastused: %s\n", p.date(current.AddTime), p.date(current.UseTime))
	}
	if hard := m.Hard(); hard != nil {
		fmt.Fprintf(b, "\tlifetime: %d(s) validtime: %d(s)\n", hard.AddTime, hard.UseTime)
	}
	fmt.Fprintf(b, "\tspid=%d seq=%d pid=%d scope=%s ", policy.ID, m.Seq, m.PID, policy.Scope)
	if policy.Scope == pfkey.ScopeIfnet {
		if name := p.interfaceName(policy.Priority); name != "" {
			fmt.Fprintf(b, "ifname=%s", name)
		}
	}
	fmt.Fprintf(b, "\n\trefcnt=%d\n", m.Reserved)
}

// selector is an end of a policy: address, prefix if it is not the whole
// address, and port. ICMPv6 has a type and a code in place of the ports.
func (p *Printer) selector(a *pfkey.Address) string {
	s := p.addr(a.Addr.Addr())
	if int(a.PrefixLen) != a.Addr.Addr().BitLen() {
		s += fmt.Sprintf("/%d", a.PrefixLen)
	}
	switch {
	case a.Proto == protocolICMPv6:
		return s
	case a.Addr.Port() == 0:
		return s + "[any]"
	default:
		return s + fmt.Sprintf("[%d]", a.Addr.Port())
	}
}

func upperLayer(b *strings.Builder, proto uint8, typ, code uint16) {
	switch {
	case proto == pfkey.ProtoAny:
		b.WriteString("any")
	case proto == protocolICMPv6:
		b.WriteString("icmp6")
		if typ != 0 || code != 0 {
			fmt.Fprintf(b, " %d,%d", typ, code)
		}
	default:
		b.WriteString(protocolName(proto))
	}
}

// request writes a request in the language of ipsec_set_policy(3).
func (p *Printer) request(b *strings.Builder, r *pfkey.Request) {
	fmt.Fprintf(b, "\t%s/%s/", requestProtocol(r.Proto), r.Mode)
	if r.Src.IsValid() {
		fmt.Fprintf(b, "%s-%s", p.addr(r.Src.Addr()), p.addr(r.Dst.Addr()))
	}
	fmt.Fprintf(b, "/%s", r.Level)
	switch {
	case r.ReqID > maxManualReqID:
		fmt.Fprintf(b, "#%d", r.ReqID)
	case r.ReqID != 0:
		fmt.Fprintf(b, ":%d", r.ReqID)
	}
	b.WriteByte('\n')
}

func requestProtocol(proto uint16) string {
	switch proto {
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 108:
		return "ipcomp"
	default:
		return fmt.Sprint(proto)
	}
}
