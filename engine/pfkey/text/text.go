// Package text prints PF_KEY messages as setkey(8) of FreeBSD 14 does: entries
// of the databases for -D and -DP, one line each for -l, and whole messages for
// -v and -x. Every print ends with a line end, and is one call of Write.
//
// What it prints are FreeBSD's words and numbers also where Linux has others,
// so that what reads setkey's output on FreeBSD reads this.
package text

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// Printer holds what a print depends on beside the message.
type Printer struct {
	// Now is the time that ages are counted to. Its location is that of every
	// time printed.
	Now time.Time
	// Interface returns the name of the interface of that number, or "" if there
	// is none. It is asked for policies of scope ifnet and for addresses with a
	// scope; when it is nil, their numbers are all that is known.
	Interface func(index uint32) string
}

func (p *Printer) interfaceName(index uint32) string {
	if p.Interface == nil {
		return ""
	}
	return p.Interface(index)
}

// addr is the address with the name of its zone, as getnameinfo(3) gives it.
func (p *Printer) addr(a netip.Addr) string {
	if index, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		if name := p.interfaceName(uint32(index)); name != "" {
			a = a.WithZone(name)
		}
	}
	return a.String()
}

// date is ctime(3) without the day of the week, and as many blanks for never.
func (p *Printer) date(seconds uint64) string {
	const layout = "Jan _2 15:04:05 2006"
	if seconds == 0 {
		return strings.Repeat(" ", len(layout))
	}
	return time.Unix(int64(seconds), 0).In(p.Now.Location()).Format(layout)
}

// age is the time since then in seconds. It wraps around when the clock has
// been put back, as setkey's does.
func (p *Printer) age(then uint64) uint64 {
	if then == 0 {
		return 0
	}
	return uint64(p.Now.Unix()) - then
}

// write sends what a builder holds in one piece.
func write(w io.Writer, b *strings.Builder) error {
	_, err := io.WriteString(w, b.String())
	return err
}

// hex writes key bytes in groups of four, each after a space, eight a line.
func hex(b *strings.Builder, key []byte) {
	for i, c := range key {
		if i != 0 && i%32 == 0 {
			b.WriteByte('\n')
		}
		if i%4 == 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(b, "%02x", c)
	}
}

// The names of algorithms are those that FreeBSD 14 knows; others are numbers.

func encryptionName(id uint8) string {
	if a, ok := algorithm.EncryptionByID(id); ok && a.Era.Has(algorithm.FreeBSD14) {
		return a.Name
	}
	return noneOrNumber(id)
}

func authenticationName(id uint8) string {
	if a, ok := algorithm.AuthenticationByID(id); ok && a.Era.Has(algorithm.FreeBSD14) {
		return a.Name
	}
	return noneOrNumber(id)
}

func compressionName(id uint8) string {
	if a, ok := algorithm.CompressionByID(id); ok && a.Era.Has(algorithm.FreeBSD14) {
		return a.Name
	}
	return noneOrNumber(id)
}

func noneOrNumber(id uint8) string {
	if id == 0 {
		return "none"
	}
	return strconv.Itoa(int(id))
}

// lifetimeOrZero stands in for a lifetime that the message does not have.
func lifetimeOrZero(l *pfkey.Lifetime) *pfkey.Lifetime {
	if l == nil {
		return new(pfkey.Lifetime)
	}
	return l
}
