package text

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"ifipsec/engine/pfkey"
)

// Debug prints a whole message as setkey -v and -x do, but for the empty line
// that follows it there. The numbers are those of FreeBSD's pfkeyv2.h and of its
// message, so that type, family and length are what they would be there. What a
// SADB_X_PROMISC message carries is a message of its own.
//
// Two extensions that FreeBSD's setkey calls invalid, and stops at, are printed:
// NAT_T_FRAG and IF_HW_OFFL.
func Debug(w io.Writer, m *pfkey.Message) error {
	var b strings.Builder
	units, err := freeBSDUnits(m)
	if err != nil {
		return err
	}
	name := m.Type.String()
	if m.Type > pfkey.TypeSPDDelete2 {
		name = "UNKNOWN"
	} else if m.Type == 0 {
		name = "RESERVED"
	}
	fmt.Fprintf(&b, "sadb_msg{ version=2 type=%d(%s) errno=%d satype=%d\n", m.Type, name, m.Errno, m.SAType)
	fmt.Fprintf(&b, "  len=%d reserved=%d seq=%d pid=%d\n", units, m.Reserved, m.Seq, m.PID)
	for _, e := range m.Exts {
		if err := debugExtension(&b, e); err != nil {
			return err
		}
	}
	return write(w, &b)
}

// freeBSDUnits is the length that the message has on FreeBSD, in units of eight
// bytes. There a request of a policy is 8 bytes long before its addresses, where
// Linux has 16; all else is the same.
func freeBSDUnits(m *pfkey.Message) (int, error) {
	b, err := m.Encode()
	if err != nil {
		return 0, err
	}
	units := len(b) / 8
	if policy := pfkey.Find[*pfkey.Policy](m); policy != nil {
		units -= len(policy.Requests)
	}
	return units, nil
}

// freeBSDType is the number of an extension on FreeBSD, and its name. Linux has
// other extensions at three of those numbers.
func freeBSDType(t pfkey.ExtType) (pfkey.ExtType, string) {
	name := strings.TrimPrefix(t.String(), "X_")
	switch {
	case t >= pfkey.ExtNATTOAR && t <= pfkey.ExtSAReplay:
		return t - pfkey.ExtNATTOAR + 24, name
	case t >= pfkey.ExtSecCtx && t <= pfkey.ExtFilter, name == fmt.Sprint(uint16(t)):
		return t, "UNKNOWN"
	default:
		return t, name
	}
}

func debugExtension(b *strings.Builder, e pfkey.Extension) error {
	units, err := freeBSDUnits(&pfkey.Message{Exts: []pfkey.Extension{e}})
	if err != nil {
		return err
	}
	units -= 2 // the header of the message
	kind, name := freeBSDType(e.ExtType())
	fmt.Fprintf(b, "sadb_ext{ len=%d type=%d(%s) }\n", units, kind, name)

	switch e := e.(type) {
	case *pfkey.SA:
		fmt.Fprintf(b, "sadb_sa{ spi=%d replay=%d state=%d\n", e.SPI, e.Replay, e.State)
		fmt.Fprintf(b, "  auth=%d encrypt=%d flags=0x%08x }\n", e.Auth, e.Encrypt, uint32(e.Flags))
	case *pfkey.Lifetime:
		// setkey prints the lower 32 bits of these.
		fmt.Fprintf(b, "sadb_lifetime{ alloc=%d, bytes=%d\n", e.Allocations, uint32(e.Bytes))
		fmt.Fprintf(b, "  addtime=%d, usetime=%d }\n", uint32(e.AddTime), uint32(e.UseTime))
	case *pfkey.Address:
		fmt.Fprintf(b, "sadb_address{ proto=%d prefixlen=%d reserved=0x0000 }\n", e.Proto, e.PrefixLen)
		debugSockaddr(b, e.Addr)
	case *pfkey.Key:
		fmt.Fprintf(b, "sadb_key{ bits=%d reserved=0\n  key=", e.Bits)
		hex(b, e.Key[:e.Bits/8])
		b.WriteString(" }\n")
	case *pfkey.Identity:
		debugIdentity(b, e)
	case *pfkey.Proposal:
		debugProposal(b, e)
	case *pfkey.Supported:
		b.WriteString("sadb_sup{\n")
		for _, a := range e.Algorithms {
			fmt.Fprintf(b, "  { id=%d ivlen=%d min=%d max=%d }\n", a.ID, a.IVLen, a.MinBits, a.MaxBits)
		}
		b.WriteString("}\n")
	case *pfkey.Policy:
		debugPolicy(b, e)
	case *pfkey.SA2:
		fmt.Fprintf(b, "sadb_x_sa2{ mode=%d reqid=%d\n", e.Mode, e.ReqID)
		fmt.Fprintf(b, "  reserved1=0 reserved2=0 sequence=%d }\n", e.Sequence)
	case *pfkey.SAReplay:
		fmt.Fprintf(b, "sadb_x_sa_replay{ replay=%d }\n", e.Packets)
	case *pfkey.NATTType:
		fmt.Fprintf(b, "sadb_x_nat_t_type{ type=%d }\n", e.Type)
	case *pfkey.NATTPort:
		fmt.Fprintf(b, "sadb_x_nat_t_port{ port=%d }\n", e.Port)
	case *pfkey.NATTFrag:
		fmt.Fprintf(b, "sadb_x_nat_t_frag{ fraglen=%d }\n", e.Size)
	case *pfkey.HWIF:
		fmt.Fprintf(b, "sadb_x_if_hw_offl{ if=%s }\n", printable(e.Name))
	case *pfkey.Unknown:
		if name == "UNKNOWN" {
			fmt.Fprintf(b, "kdebug_sadb: invalid ext_type %d\n", kind)
		}
	}
	return nil
}

// debugSockaddr prints the number of a zone, never its name, as setkey does here.
func debugSockaddr(b *strings.Builder, a netip.AddrPort) {
	family := 2
	if a.Addr().Is6() {
		family = 28
	}
	addr := a.Addr().String()
	if a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() && a.Addr().Zone() == "" {
		addr += "%0"
	}
	fmt.Fprintf(b, "sockaddr{ len=%d family=%d addr=%s }\n", sockaddrLen(a), family, addr)
}

// sockaddrLen is the same on Linux and FreeBSD.
func sockaddrLen(a netip.AddrPort) int {
	if a.Addr().Is6() {
		return 28
	}
	return 16
}

func debugIdentity(b *strings.Builder, e *pfkey.Identity) {
	end := "dst"
	if e.Kind == pfkey.ExtIdentitySrc {
		end = "src"
	}
	fmt.Fprintf(b, "sadb_ident_%s{ type=%d id=%d", end, e.Type, e.ID)
	if e.Name != "" {
		fmt.Fprintf(b, "\n  str=\"%s\"", printable(e.Name))
	}
	b.WriteString(" }\n")
}

// printable escapes what a terminal should not be sent, as \ooo.
func printable(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\%03o", c)
		}
	}
	return b.String()
}

func debugProposal(b *strings.Builder, e *pfkey.Proposal) {
	fmt.Fprintf(b, "sadb_prop{ replay=%d\n", e.Replay)
	for _, c := range e.Combs {
		fmt.Fprintf(b, "sadb_comb{ auth=%d encrypt=%d flags=0x%04x reserved=0x00000000\n", c.Auth, c.Encrypt, c.Flags)
		fmt.Fprintf(b, "  auth_minbits=%d auth_maxbits=%d encrypt_minbits=%d encrypt_maxbits=%d\n",
			c.AuthMinBits, c.AuthMaxBits, c.EncryptMinBits, c.EncryptMaxBits)
		fmt.Fprintf(b, "  soft_alloc=%d hard_alloc=%d soft_bytes=%d hard_bytes=%d\n",
			c.SoftAllocations, c.HardAllocations, c.SoftBytes, c.HardBytes)
		// setkey names the times so too.
		fmt.Fprintf(b, "  soft_alloc=%d hard_alloc=%d soft_bytes=%d hard_bytes=%d }\n",
			c.SoftAddTime, c.HardAddTime, c.SoftUseTime, c.HardUseTime)
	}
	b.WriteString("}\n")
}

func debugPolicy(b *strings.Builder, e *pfkey.Policy) {
	last := "priority"
	if e.Scope == pfkey.ScopeIfnet {
		last = "ifindex"
	}
	fmt.Fprintf(b, "sadb_x_policy{ type=%d dir=%d id=%x scope=%d %s=%d }\n", e.Type, e.Dir, e.ID, e.Scope, last, e.Priority)
	if e.Type != pfkey.PolicyIPsec {
		return
	}
	for _, r := range e.Requests {
		length := 8
		if r.Src.IsValid() {
			length += 2 * sockaddrLen(r.Src)
		}
		fmt.Fprintf(b, " { len=%d proto=%d mode=%d level=%d reqid=%d\n", length, r.Proto, r.Mode, r.Level, r.ReqID)
		if r.Src.IsValid() {
			debugSockaddr(b, r.Src)
			debugSockaddr(b, r.Dst)
		}
		b.WriteString(" }\n")
	}
}

// HexDump prints bytes as setkey -h does, sixteen a line.
func HexDump(w io.Writer, data []byte) error {
	var b strings.Builder
	for i, c := range data {
		if i%16 == 0 {
			fmt.Fprintf(&b, "%08x: ", i)
		}
		fmt.Fprintf(&b, "%02x ", c)
		if i%16 == 15 || i == len(data)-1 {
			b.WriteByte('\n')
		}
	}
	return write(w, &b)
}

// TimeOfDay is the line that setkey -x prints above a message: the time of day
// in the location of t.
func TimeOfDay(t time.Time) string { return t.Format("15:04:05.000000 \n") }

// Timestamp is the line that setkey -xx prints above a message: the seconds
// since the epoch.
func Timestamp(t time.Time) string {
	return fmt.Sprintf("%d.%06d \n", t.Unix(), t.Nanosecond()/1000)
}
