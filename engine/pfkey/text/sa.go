package text

import (
	"fmt"
	"io"
	"strings"

	"ifipsec/engine/pfkey"
)

// SADump prints an SA as setkey -D does, from the answer to SADB_DUMP or
// SADB_GET. Of a message that lacks what every SA has it says so instead.
func (p *Printer) SADump(w io.Writer, m *pfkey.Message) error {
	var b strings.Builder
	p.sa(&b, m)
	return write(w, &b)
}

func (p *Printer) sa(b *strings.Builder, m *pfkey.Message) {
	src, dst := m.Src(), m.Dst()
	sa, sa2 := pfkey.Find[*pfkey.SA](m), pfkey.Find[*pfkey.SA2](m)
	natt := pfkey.Find[*pfkey.NATTType](m)

	if src == nil {
		b.WriteString("no ADDRESS_SRC extension.\n")
		return
	}
	b.WriteString(p.addr(src.Addr.Addr()))
	if port := m.NATTSport(); natt != nil && port != nil {
		fmt.Fprintf(b, "[%d]", port.Port)
	}
	if dst == nil {
		b.WriteString("\nno ADDRESS_DST extension.\n")
		return
	}
	fmt.Fprintf(b, " %s", p.addr(dst.Addr.Addr()))
	if port := m.NATTDport(); natt != nil && port != nil {
		fmt.Fprintf(b, "[%d]", port.Port)
	}
	b.WriteByte('\n')
	if sa == nil {
		b.WriteString("no SA extension.\n")
		return
	}
	if sa2 == nil {
		b.WriteString("no SA2 extension.\n")
		return
	}

	protocol := m.SAType.String()
	if m.SAType == pfkey.SATypeESP && natt != nil {
		protocol = "esp-udp"
	}
	fmt.Fprintf(b, "\t%s mode=%s spi=%d(0x%08x) reqid=%d(0x%08x)\n",
		protocol, sa2.Mode, sa.SPI, sa.SPI, sa2.ReqID, sa2.ReqID)
	if natt != nil {
		p.originalAddresses(b, m)
	}
	algorithms(b, m, sa)
	fmt.Fprintf(b, "\tseq=0x%08x replay=%d flags=0x%08x state=%s \n",
		sa2.Sequence, replayBytes(m, sa), uint32(sa.Flags), sa.State)
	if m.Current() != nil {
		p.lifetimes(b, m)
	}
	fmt.Fprintf(b, "\tsadb_seq=%d pid=%d refcnt=%d\n", m.Seq, m.PID, m.Reserved)
}

func (p *Printer) originalAddresses(b *strings.Builder, m *pfkey.Message) {
	oai, oar := m.NATTOAI(), m.NATTOAR()
	if oai == nil && oar == nil {
		return
	}
	b.WriteString("\tNAT:")
	if oai != nil {
		fmt.Fprintf(b, " OAI=%s", p.addr(oai.Addr.Addr()))
	}
	if oar != nil {
		fmt.Fprintf(b, " OAR=%s", p.addr(oar.Addr.Addr()))
	}
	b.WriteByte('\n')
}

// algorithms writes a line for each key. An IPComp SA has none, and setkey ends
// no line after its algorithm.
func algorithms(b *strings.Builder, m *pfkey.Message, sa *pfkey.SA) {
	switch m.SAType {
	case pfkey.SATypeIPComp:
		fmt.Fprintf(b, "\tC: %s ", compressionName(sa.Encrypt))
	case pfkey.SATypeESP:
		if k := m.KeyEncrypt(); k != nil {
			fmt.Fprintf(b, "\tE: %s ", encryptionName(sa.Encrypt))
			hex(b, k.Key[:k.Bits/8])
			b.WriteByte('\n')
		}
	}
	if k := m.KeyAuth(); k != nil {
		fmt.Fprintf(b, "\tA: %s ", authenticationName(sa.Auth))
		hex(b, k.Key[:k.Bits/8])
		b.WriteByte('\n')
	}
}

// replayBytes is the window in bytes of bitmap, as -r takes it.
func replayBytes(m *pfkey.Message, sa *pfkey.SA) uint32 {
	if big := pfkey.Find[*pfkey.SAReplay](m); big != nil {
		return big.Packets / 8
	}
	return uint32(sa.Replay)
}

func (p *Printer) lifetimes(b *strings.Builder, m *pfkey.Message) {
	current, hard, soft := m.Current(), lifetimeOrZero(m.Hard()), lifetimeOrZero(m.Soft())
	fmt.Fprintf(b, "\tcreated: %s\tcurrent: %s\n", p.date(current.AddTime), p.date(uint64(p.Now.Unix())))
	fmt.Fprintf(b, "\tdiff: %d(s)\thard: %d(s)\tsoft: %d(s)\n", p.age(current.AddTime), hard.AddTime, soft.AddTime)
	fmt.Fprintf(b, "\tlast: %s\thard: %d(s)\tsoft: %d(s)\n", p.date(current.UseTime), hard.UseTime, soft.UseTime)
	fmt.Fprintf(b, "\tcurrent: %d(bytes)\thard: %d(bytes)\tsoft: %d(bytes)\n", current.Bytes, hard.Bytes, soft.Bytes)
	fmt.Fprintf(b, "\tallocated: %d\thard: %d\tsoft: %d\n", current.Allocations, hard.Allocations, soft.Allocations)
}
