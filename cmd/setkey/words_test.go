package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// interfaces are those of the corpus, by number.
var interfaces = []string{1: "em0", "em1", "lo0", "ipsec0", "ipsec1", "gif0", "vtnet0", "ix0"}

// words renders a message in the corpus's words.
func words(t *testing.T, m *pfkey.Message) string {
	t.Helper()
	satype := m.SAType.String()
	if n, err := strconv.Atoi(satype); err == nil && n == int(m.SAType) {
		satype = "?"
	}
	parts := []string{fmt.Sprintf("%v satype=%d(%s)", m.Type, m.SAType, satype)}
	for _, e := range m.Exts {
		parts = append(parts, extensionWords(t, m, e))
	}
	return strings.Join(parts, " | ")
}

func extensionWords(t *testing.T, m *pfkey.Message, e pfkey.Extension) string {
	t.Helper()
	kind := strings.TrimPrefix(e.ExtType().String(), "X_")
	switch e := e.(type) {
	case *pfkey.SA:
		enc := "none"
		if m.SAType == pfkey.SATypeIPComp {
			if a, ok := algorithm.CompressionByID(e.Encrypt); ok {
				enc = a.Name
			}
		} else if a, ok := algorithm.EncryptionByID(e.Encrypt); ok {
			enc = a.Name
		}
		auth := "none"
		if a, ok := algorithm.AuthenticationByID(e.Auth); ok {
			auth = a.Name
		}
		return fmt.Sprintf("%s spi=%d(0x%08x) replay=%d state=%d auth=%d(%s) enc=%d(%s) flags=0x%08x",
			kind, e.SPI, e.SPI, e.Replay, e.State, e.Auth, auth, e.Encrypt, enc, uint32(e.Flags))
	case *pfkey.SA2:
		return fmt.Sprintf("%s mode=%d(%v) reqid=%d", kind, e.Mode, e.Mode, e.ReqID)
	case *pfkey.SAReplay:
		return fmt.Sprintf("%s replay=%d", kind, e.Packets)
	case *pfkey.Key:
		return fmt.Sprintf("%s bits=%d key=%x", kind, e.Bits, e.Key)
	case *pfkey.Lifetime:
		return fmt.Sprintf("%s alloc=%d bytes=%d add=%d use=%d", kind, e.Allocations, e.Bytes, e.AddTime, e.UseTime)
	case *pfkey.Address:
		return fmt.Sprintf("%s proto=%d prefixlen=%d addr=%s port=%d", kind, e.Proto, e.PrefixLen, addressWords(t, e.Addr.Addr()), e.Addr.Port())
	case *pfkey.NATTType:
		return fmt.Sprintf("%s type=%d", kind, e.Type)
	case *pfkey.NATTPort:
		return fmt.Sprintf("%s port=%d", kind, e.Port)
	case *pfkey.NATTFrag:
		return fmt.Sprintf("%s fraglen=%d", kind, e.Size)
	case *pfkey.HWIF:
		return fmt.Sprintf("%s if=%s", kind, e.Name)
	case *pfkey.Policy:
		text := fmt.Sprintf("%s type=%d(%v) dir=%d(%v) scope=%d id=%d prio=%d", kind, e.Type, e.Type, e.Dir, e.Dir, e.Scope, e.ID, e.Priority)
		for _, r := range e.Requests {
			text += " " + requestWords(t, r)
		}
		return text
	}
	t.Fatalf("extension %T", e)
	return ""
}

// requestWords counts the length that the request has on FreeBSD.
func requestWords(t *testing.T, r pfkey.Request) string {
	t.Helper()
	length, ends := 8, ""
	if r.Src.IsValid() {
		size := 16
		if r.Src.Addr().Is6() {
			size = 28
		}
		length += 2 * size
		ends = fmt.Sprintf(" src=%s port=%d dst=%s port=%d",
			addressWords(t, r.Src.Addr()), r.Src.Port(), addressWords(t, r.Dst.Addr()), r.Dst.Port())
	}
	name := map[uint16]string{50: "esp", 51: "ah", 108: "ipcomp"}[r.Proto]
	return fmt.Sprintf("{len=%d proto=%d(%s) mode=%d(%v) level=%d(%v) reqid=%d%s}",
		length, r.Proto, name, r.Mode, r.Mode, r.Level, r.Level, r.ReqID, ends)
}

func addressWords(t *testing.T, a netip.Addr) string {
	t.Helper()
	if b := a.As16(); a.Is6() && !a.Is4In6() && [12]byte(b[:12]) == [12]byte{} && a.Compare(netip.IPv6Unspecified().Next()) > 0 {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String() // an IPv4-compatible address
	}
	if a.Zone() == "" {
		return a.String()
	}
	index, err := strconv.Atoi(a.Zone())
	if err != nil {
		t.Fatalf("scope of %v: %v", a, err)
	}
	zone := a.Zone()
	if index < len(interfaces) {
		zone = interfaces[index]
	}
	return a.WithZone("").String() + "%" + zone
}
