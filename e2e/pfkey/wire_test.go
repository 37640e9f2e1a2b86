package pfkey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/e2e/lab"
)

// The numbers of linux/pfkeyv2.h and linux/ipsec.h.
const (
	sadbGetSPI      = 1
	sadbUpdate      = 2
	sadbAdd         = 3
	sadbDelete      = 4
	sadbGet         = 5
	sadbAcquire     = 6
	sadbRegister    = 7
	sadbExpire      = 8
	sadbFlush       = 9
	sadbDump        = 10
	sadbPromisc     = 11
	sadbSPDUpdate   = 13
	sadbSPDAdd      = 14
	sadbSPDDelete   = 15
	sadbSPDGet      = 16
	sadbSPDDump     = 18
	sadbSPDFlush    = 19
	sadbSPDExpire   = 21
	sadbSPDDelete2  = 22
	sadbHighestType = 24

	satypeUnspec = 0
	satypeAH     = 2
	satypeESP    = 3
	satypeIPComp = 9
	satypeTCP    = 11 // FreeBSD's

	extSA               = 1
	extLifetimeCurrent  = 2
	extLifetimeHard     = 3
	extLifetimeSoft     = 4
	extAddressSrc       = 5
	extAddressDst       = 6
	extKeyAuth          = 8
	extKeyEncrypt       = 9
	extProposal         = 13
	extSupportedAuth    = 14
	extSupportedEncrypt = 15
	extSPIRange         = 16
	extPolicy           = 18
	extSA2              = 19
	extNATTType         = 20
	extNATTSport        = 21
	extNATTDport        = 22
	extNATTOA           = 23

	// What Linux has no room for, by FreeBSD's numbers and 64.
	extNATTOAR  = 64 + 24
	extSAReplay = 64 + 26

	aalgSHA1HMAC = 3
	ealgAESCBC   = 12
	ealgGCM16    = 20

	stateLarval = 0
	stateMature = 1
	stateDying  = 2

	modeAny       = 0
	modeTransport = 1
	modeTunnel    = 2

	policyDiscard = 0
	policyNone    = 1
	policyIPsec   = 2
	policyEntrust = 3
	policyBypass  = 4

	dirAny = 0
	dirIn  = 1
	dirOut = 2

	levelDefault = 0
	levelUse     = 1
	levelRequire = 2
	levelUnique  = 3

	protoAny = 255
)

var host = binary.NativeEndian

// extension is struct sadb_ext: length in units of 8 octets, type, body.
func extension(kind uint16, body ...byte) []byte {
	for len(body)%8 != 4 {
		body = append(body, 0)
	}
	b := host.AppendUint16(nil, uint16((4+len(body))/8))
	b = host.AppendUint16(b, kind)
	return append(b, body...)
}

// sockaddr is struct sockaddr_in or struct sockaddr_in6 of Linux.
func sockaddr(a netip.Addr, port uint16) []byte {
	if a.Is4() {
		b := binary.BigEndian.AppendUint16(host.AppendUint16(nil, 2), port)
		return append(append(b, a.AsSlice()...), make([]byte, 8)...)
	}
	b := binary.BigEndian.AppendUint16(host.AppendUint16(nil, 10), port)
	b = append(b, 0, 0, 0, 0) // flow information
	return append(append(b, a.AsSlice()...), 0, 0, 0, 0)
}

// endpoint is struct sadb_address of an SA.
func endpoint(kind uint16, a netip.Addr) []byte {
	return selector(kind, netip.PrefixFrom(a, a.BitLen()), 0, protoAny)
}

// selector is struct sadb_address of a policy.
func selector(kind uint16, p netip.Prefix, port uint16, proto byte) []byte {
	return extension(kind, append([]byte{proto, byte(p.Bits()), 0, 0}, sockaddr(p.Addr(), port)...)...)
}

// between is an SA's two addresses.
func between(src, dst netip.Addr) []byte {
	return append(endpoint(extAddressSrc, src), endpoint(extAddressDst, dst)...)
}

// sa is struct sadb_sa; window is its replay window in octets.
func sa(spi uint32, window, state, auth, encrypt byte, flags uint32) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, spi), window, state, auth, encrypt)
	return extension(extSA, host.AppendUint32(b, flags)...)
}

// sa2 is struct sadb_x_sa2.
func sa2(mode byte, reqid uint32) []byte {
	return extension(extSA2, host.AppendUint32([]byte{mode, 0, 0, 0, 0, 0, 0, 0}, reqid)...)
}

// key is struct sadb_key.
func key(kind uint16, key []byte) []byte {
	b := append(host.AppendUint16(nil, uint16(8*len(key))), 0, 0)
	return extension(kind, append(b, key...)...)
}

// lifetime is struct sadb_lifetime.
func lifetime(kind uint16, allocations uint32, bytes, addTime, useTime uint64) []byte {
	b := host.AppendUint32(nil, allocations)
	for _, v := range []uint64{bytes, addTime, useTime} {
		b = host.AppendUint64(b, v)
	}
	return extension(kind, b...)
}

// spiRange is struct sadb_spirange.
func spiRange(low, high uint32) []byte {
	return extension(extSPIRange, host.AppendUint32(host.AppendUint32(nil, low), high)...)
}

// policy is struct sadb_x_policy with requests, and no priority.
func policy(kind uint16, dir, scope byte, id uint32, requests ...[]byte) []byte {
	b := append(host.AppendUint16(nil, kind), dir, scope)
	b = append(host.AppendUint32(b, id), 0, 0, 0, 0)
	return extension(extPolicy, append(b, slices.Concat(requests...)...)...)
}

// request is struct sadb_x_ipsecrequest, whose length is in octets. Without
// endpoints it ends there.
func request(proto uint16, mode, level byte, reqid uint32, ends ...netip.Addr) []byte {
	var addresses []byte
	for _, a := range ends {
		addresses = append(addresses, sockaddr(a, 0)...)
	}
	b := host.AppendUint16(nil, uint16(16+len(addresses)))
	b = host.AppendUint16(b, proto)
	b = append(b, mode, level, 0, 0)
	b = host.AppendUint32(b, reqid)
	return append(append(b, 0, 0, 0, 0), addresses...)
}

// message is struct sadb_msg and extensions.
func message(kind, satype byte, seq, pid uint32, extensions ...[]byte) []byte {
	body := slices.Concat(extensions...)
	b := append([]byte{2, kind, 0, satype}, host.AppendUint16(nil, uint16((16+len(body))/8))...)
	b = append(b, 0, 0)
	b = host.AppendUint32(host.AppendUint32(b, seq), pid)
	return append(b, body...)
}

// received is a message that the daemon sent.
type received struct {
	kind, errno, satype byte
	seq, pid            uint32
	order               []uint16          // of the extensions
	extensions          map[uint16][]byte // whole
	body                []byte
}

func parse(b []byte) (received, error) {
	if len(b) < 16 || b[0] != 2 || int(host.Uint16(b[4:]))*8 != len(b) {
		return received{}, fmt.Errorf("not a PF_KEYv2 message: % x", b)
	}
	m := received{
		kind: b[1], errno: b[2], satype: b[3], seq: host.Uint32(b[8:]), pid: host.Uint32(b[12:]),
		extensions: map[uint16][]byte{}, body: b[16:],
	}
	if m.kind == sadbPromisc {
		return m, nil // there may be a message within
	}
	for rest := m.body; len(rest) > 0; {
		size, kind := int(host.Uint16(rest))*8, host.Uint16(rest[2:])
		if size == 0 || size > len(rest) {
			return m, fmt.Errorf("an extension's length is wrong: % x", rest)
		}
		if m.extensions[kind] != nil {
			return m, fmt.Errorf("extension %d stands twice: % x", kind, b)
		}
		m.order = append(m.order, kind)
		m.extensions[kind] = rest[:size]
		rest = rest[size:]
	}
	return m, nil
}

// spi is that of a message's SA extension.
func (m received) spi() uint32 { return binary.BigEndian.Uint32(m.extensions[extSA][4:]) }

// policyID is that of a message's policy extension.
func (m received) policyID() uint32 { return host.Uint32(m.extensions[extPolicy][8:]) }

// client is a PF_KEY program.
type client struct {
	t    *testing.T
	conn *net.UnixConn
	pid  uint32
	seq  uint32
}

// dial connects a program that calls itself pid.
func dial(t *testing.T, h *lab.Host, pid uint32) *client {
	t.Helper()
	c, err := connect(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &client{t: t, conn: c, pid: pid, seq: 1000 * pid}
	// A connection that was not answered yet may not be known to the daemon.
	k.ask(sadbSPDGet, satypeUnspec)
	return k
}

func connect(h *lab.Host) (*net.UnixConn, error) {
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket(h), Net: "unixpacket"})
}

// write sends a record as it is.
func (c *client) write(b []byte) {
	c.t.Helper()
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next message, or false if none comes in time.
func (c *client) read(wait time.Duration) (received, bool) {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		c.t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := c.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return received{}, false
	}
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := parse(buf[:n])
	if err != nil {
		c.t.Fatal(err)
	}
	return m, true
}

// next waits for the next message, which must be of a type.
func (c *client) next(kind byte) received {
	c.t.Helper()
	m, ok := c.read(patience)
	if !ok || m.kind != kind {
		c.t.Fatalf("received type %d (%t), want %d: %+v", m.kind, ok, kind, m)
	}
	return m
}

// silent checks that nothing more is said.
func (c *client) silent() {
	c.t.Helper()
	if m, ok := c.read(impatience); ok {
		c.t.Errorf("received %+v, want nothing", m)
	}
}

// ask sends a request and returns the answer, which is checked to be one: of the
// request's type, SA type, sequence number and PID.
func (c *client) ask(kind, satype byte, extensions ...[]byte) received {
	c.t.Helper()
	c.seq++
	c.write(message(kind, satype, c.seq, c.pid, extensions...))
	for {
		m, ok := c.read(patience)
		if !ok {
			c.t.Fatalf("no answer to a request of type %d", kind)
		}
		if m.pid != c.pid || m.seq != c.seq {
			continue // told by others
		}
		if m.kind != kind || m.satype != satype {
			c.t.Fatalf("answer to type %d, SA type %d: %+v", kind, satype, m)
		}
		return m
	}
}

// do is ask for what must succeed.
func (c *client) do(kind, satype byte, extensions ...[]byte) received {
	c.t.Helper()
	m := c.ask(kind, satype, extensions...)
	if m.errno != 0 {
		c.t.Fatalf("request of type %d: %v", kind, syscall.Errno(m.errno))
	}
	return m
}

// dump asks for a dump, whose answers count down to 0.
func (c *client) dump(kind, satype byte) (all []received) {
	c.t.Helper()
	c.seq++
	c.write(message(kind, satype, c.seq, c.pid))
	for {
		m := c.next(kind)
		if m.errno == byte(syscall.ENOENT) && len(all) == 0 && m.seq == c.seq {
			return nil
		}
		if m.errno != 0 || m.pid != c.pid || len(all) > 0 && m.seq != all[len(all)-1].seq-1 {
			c.t.Fatalf("answer %d to a dump: %+v", len(all)+1, m)
		}
		all = append(all, m)
		if m.seq == 0 {
			return all
		}
	}
}

// has checks a message's extensions, all of them and in this order. What
// changes with time or by chance is to be put into want from the message.
func (m received) has(t *testing.T, what string, want ...[]byte) {
	t.Helper()
	expected, err := parse(message(m.kind, m.satype, 0, 0, want...))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.order, expected.order) {
		t.Errorf("%s: extensions %d, want %d", what, m.order, expected.order)
	}
	for _, kind := range expected.order {
		if got, want := m.extensions[kind], expected.extensions[kind]; !slices.Equal(got, want) {
			t.Errorf("%s: extension %d is\n% x, want\n% x", what, kind, got, want)
		}
	}
}
