package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ifipsec/e2e/lab"
)

// This file is a key-management program that has nothing of ours: its messages
// are bytes put together by hand from RFC 2367 and linux/pfkeyv2.h, whose
// numbers these are.
const (
	sadbGetSPI   = 1
	sadbUpdate   = 2
	sadbAdd      = 3
	sadbDelete   = 4
	sadbGet      = 5
	sadbAcquire  = 6
	sadbRegister = 7
	sadbExpire   = 8
	sadbDump     = 10

	satypeESP = 3

	extSA               = 1
	extLifetimeHard     = 3
	extLifetimeSoft     = 4
	extAddressSrc       = 5
	extAddressDst       = 6
	extKeyEncrypt       = 9
	extProposal         = 13
	extSupportedEncrypt = 15
	extSPIRange         = 16
	extSA2              = 19

	ealgGCM16   = 20
	stateMature = 1
	modeTunnel  = 2
)

// rawKeyDaemon is a client of the PF_KEY socket.
type rawKeyDaemon struct {
	t    *testing.T
	conn *net.UnixConn
	pid  uint32
}

func newRawKeyDaemon(t *testing.T, h *lab.Host) *rawKeyDaemon {
	t.Helper()
	path := h.Path("/run/ifipsec/" + runDir(h) + "/pfkey")
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return &rawKeyDaemon{t: t, conn: conn, pid: 4711}
}

// extension is struct sadb_ext: length in units of 8 octets, type, body.
func extension(kind uint16, body []byte) []byte {
	for len(body)%8 != 4 {
		body = append(body, 0)
	}
	b := binary.NativeEndian.AppendUint16(nil, uint16((4+len(body))/8))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, body...)
}

// sadbAddress is struct sadb_address with a struct sockaddr_in of Linux.
func sadbAddress(kind uint16, a netip.Addr) []byte {
	b := []byte{255, 32, 0, 0} // any protocol, a whole address
	b = binary.NativeEndian.AppendUint16(b, 2)
	b = append(b, 0, 0) // port
	b = append(b, a.AsSlice()...)
	return extension(kind, append(b, make([]byte, 8)...))
}

// sadbSA is struct sadb_sa.
func sadbSA(spi uint32, encrypt byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = append(b, 4, stateMature, 0, encrypt)
	return extension(extSA, binary.NativeEndian.AppendUint32(b, 0))
}

// sadbSA2 is struct sadb_x_sa2.
func sadbSA2(reqid uint32) []byte {
	b := []byte{modeTunnel, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, 0)
	return extension(extSA2, binary.NativeEndian.AppendUint32(b, reqid))
}

// sadbKey is struct sadb_key.
func sadbKey(kind uint16, key []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(8*len(key)))
	b = append(b, 0, 0)
	return extension(kind, append(b, key...))
}

// sadbLifetime is struct sadb_lifetime with a time from the SA's creation.
func sadbLifetime(kind uint16, seconds uint64) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 0)
	b = binary.NativeEndian.AppendUint64(b, 0)
	b = binary.NativeEndian.AppendUint64(b, seconds)
	return extension(kind, binary.NativeEndian.AppendUint64(b, 0))
}

// sadbSPIRange is struct sadb_spirange.
func sadbSPIRange(low, high uint32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, low)
	b = binary.NativeEndian.AppendUint32(b, high)
	return extension(extSPIRange, append(b, 0, 0, 0, 0))
}

// send sends struct sadb_msg and extensions.
func (k *rawKeyDaemon) send(kind byte, seq uint32, extensions ...[]byte) {
	k.t.Helper()
	body := slices.Concat(extensions...)
	b := []byte{2, kind, 0, satypeESP}
	b = binary.NativeEndian.AppendUint16(b, uint16((16+len(body))/8))
	b = append(b, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, k.pid)
	if _, err := k.conn.Write(append(b, body...)); err != nil {
		k.t.Fatal(err)
	}
}

// sadbMsg is a message that was received.
type sadbMsg struct {
	kind, errno byte
	seq, pid    uint32
	extensions  map[uint16][]byte // without length and type
}

// receive waits for a message of a type; others may come before it.
func (k *rawKeyDaemon) receive(kind byte) sadbMsg {
	k.t.Helper()
	buf := make([]byte, 1<<16)
	for {
		n, err := k.conn.Read(buf)
		if err != nil {
			k.t.Fatalf("waiting for a message of type %d: %v", kind, err)
		}
		b := buf[:n]
		if n < 16 || b[0] != 2 || int(binary.NativeEndian.Uint16(b[4:]))*8 != n {
			k.t.Fatalf("not a PF_KEYv2 message: % x", b)
		}
		if b[1] != kind {
			continue
		}
		m := sadbMsg{
			kind: b[1], errno: b[2], extensions: map[uint16][]byte{},
			seq: binary.NativeEndian.Uint32(b[8:]), pid: binary.NativeEndian.Uint32(b[12:]),
		}
		for rest := b[16:]; len(rest) > 0; {
			size := int(binary.NativeEndian.Uint16(rest)) * 8
			if size == 0 || size > len(rest) {
				k.t.Fatalf("an extension's length is wrong: % x", rest)
			}
			m.extensions[binary.NativeEndian.Uint16(rest[2:])] = slices.Clone(rest[4:size])
			rest = rest[size:]
		}
		return m
	}
}

// ok is receive for a message without an errno.
func (k *rawKeyDaemon) ok(kind byte) sadbMsg {
	k.t.Helper()
	m := k.receive(kind)
	if m.errno != 0 {
		k.t.Fatalf("message of type %d: errno %d", kind, m.errno)
	}
	return m
}

// spi is that of a message's SA extension.
func (m sadbMsg) spi() uint32 { return binary.BigEndian.Uint32(m.extensions[extSA]) }

// A program that keys a tunnel as IKE daemons do: it registers, is asked for
// SAs when there is traffic, reserves an SPI, completes its SA, adds the other,
// traffic flows, and it is told when the SA's lifetime ends.
func TestForeignKeyDaemon(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	reqid := uint32(tn.reqidA())
	k := newRawKeyDaemon(t, a)

	k.send(sadbRegister, 1)
	supported := k.ok(sadbRegister).extensions[extSupportedEncrypt]
	found := false
	for i := 4; i+8 <= len(supported); i += 8 { // struct sadb_alg after four reserved octets
		if supported[i] == ealgGCM16 {
			low, high := binary.NativeEndian.Uint16(supported[i+2:]), binary.NativeEndian.Uint16(supported[i+4:])
			found = low == 128 && high == 256
		}
	}
	if !found {
		t.Errorf("aes-gcm-16 of 128 to 256 bits is not among the supported algorithms: % x", supported)
	}

	pings(t, a, tn.innerB[0], 1, impatience)
	acquire := k.ok(sadbAcquire)
	for kind, want := range map[uint16][]byte{
		extAddressSrc: sadbAddress(extAddressSrc, outerA)[4:],
		extAddressDst: sadbAddress(extAddressDst, outerB)[4:],
	} {
		if got := acquire.extensions[kind]; !slices.Equal(got[4:], want[4:]) {
			t.Errorf("ACQUIRE: address extension %d is % x, want % x", kind, got, want)
		}
	}
	if acquire.seq == 0 || acquire.extensions[extProposal] == nil {
		t.Errorf("ACQUIRE with sequence number %d and proposal % x", acquire.seq, acquire.extensions[extProposal])
	}

	inKey, outKey := []byte("0123456789abcdefsalt"), []byte("fedcba9876543210tlas")
	in := [][]byte{sadbAddress(extAddressSrc, outerB), sadbAddress(extAddressDst, outerA), sadbSA2(reqid)}
	k.send(sadbGetSPI, acquire.seq, append(slices.Clone(in), sadbSPIRange(0x5000, 0x5fff))...)
	larval := k.ok(sadbGetSPI)
	spi := larval.spi()
	if spi < 0x5000 || spi > 0x5fff || larval.seq != acquire.seq || larval.pid != k.pid {
		t.Fatalf("GETSPI: %+v with SPI %#x", larval, spi)
	}
	k.send(sadbUpdate, 2, append(slices.Clone(in), sadbSA(spi, ealgGCM16), sadbKey(extKeyEncrypt, inKey),
		sadbLifetime(extLifetimeSoft, 2), sadbLifetime(extLifetimeHard, 4))...)
	if updated := k.ok(sadbUpdate); updated.spi() != spi || updated.extensions[extKeyEncrypt] != nil {
		t.Errorf("UPDATE: %+v", updated)
	}
	out := [][]byte{sadbAddress(extAddressSrc, outerA), sadbAddress(extAddressDst, outerB), sadbSA2(reqid)}
	k.send(sadbAdd, 3, append(slices.Clone(out), sadbSA(0x6000, ealgGCM16), sadbKey(extKeyEncrypt, outKey))...)
	k.ok(sadbAdd)

	// The peer has the same SAs from setkey.
	quiet(t, b, setkey(fmt.Sprintf("add %v %v esp %d -m tunnel -u %d -E aes-gcm-16 0x%s;\nadd %v %v esp %d -m tunnel -u %d -E aes-gcm-16 0x%s;",
		outerB, outerA, spi, tn.reqidB(), hex.EncodeToString(inKey),
		outerA, outerB, 0x6000, tn.reqidB(), hex.EncodeToString(outKey))))
	reaches(t, a, tn.innerB[0])

	k.send(sadbGet, 4, append(slices.Clone(in), sadbSA(spi, 0))...)
	got := k.ok(sadbGet)
	if key := got.extensions[extKeyEncrypt]; len(key) < 24 || !slices.Equal(key[4:24], inKey) {
		t.Errorf("GET: %+v", got)
	}
	soft, hard := k.ok(sadbExpire), k.ok(sadbExpire)
	if soft.spi() != spi || soft.extensions[extLifetimeSoft] == nil || soft.extensions[extLifetimeHard] != nil {
		t.Errorf("first EXPIRE: %+v, want the soft lifetime of SPI %#x", soft, spi)
	}
	if hard.spi() != spi || hard.extensions[extLifetimeHard] == nil {
		t.Errorf("second EXPIRE: %+v, want the hard lifetime of SPI %#x", hard, spi)
	}
	if left := output(t, a, "setkey -D"); strings.Contains(left, fmt.Sprintf("spi=%d(", spi)) || !strings.Contains(left, "spi=24576(") {
		t.Errorf("after the hard lifetime setkey -D shows:\n%s", left)
	}
}

// What is wrong is answered with an errno of Linux, and changes nothing.
func TestForeignKeyDaemonRefused(t *testing.T) {
	t.Parallel()
	a, _ := newPair(t)
	quiet(t, a, "setkey -F")
	k := newRawKeyDaemon(t, a)
	src, dst := sadbAddress(extAddressSrc, outerA), sadbAddress(extAddressDst, outerB)
	key := sadbKey(extKeyEncrypt, []byte("0123456789abcdefsalt"))
	const (
		enoent = 2
		eexist = 17
		einval = 22
	)
	lying := slices.Clone(dst)
	binary.NativeEndian.PutUint16(lying, 200)
	k.send(sadbAdd, 1, src, dst, sadbSA(0x7000, ealgGCM16), sadbSA2(0), key)
	k.ok(sadbAdd)
	for what, q := range map[string]struct {
		kind       byte
		extensions [][]byte
		errno      byte
	}{
		"an SPI that is taken":          {sadbAdd, [][]byte{src, dst, sadbSA(0x7000, ealgGCM16), sadbSA2(0), key}, eexist},
		"a reserved SPI":                {sadbAdd, [][]byte{src, dst, sadbSA(255, ealgGCM16), sadbSA2(0), key}, einval},
		"no key":                        {sadbAdd, [][]byte{src, dst, sadbSA(0x7001, ealgGCM16), sadbSA2(0)}, einval},
		"a key that is too short":       {sadbAdd, [][]byte{src, dst, sadbSA(0x7001, ealgGCM16), sadbSA2(0), sadbKey(extKeyEncrypt, []byte("short"))}, einval},
		"no destination":                {sadbAdd, [][]byte{src, sadbSA(0x7001, ealgGCM16), sadbSA2(0), key}, einval},
		"the same extension twice":      {sadbAdd, [][]byte{src, src, dst, sadbSA(0x7001, ealgGCM16), sadbSA2(0), key}, einval},
		"a length beyond the message":   {sadbAdd, [][]byte{src, sadbSA(0x7001, ealgGCM16), sadbSA2(0), key, lying}, einval},
		"an algorithm that is none":     {sadbAdd, [][]byte{src, dst, sadbSA(0x7001, 99), sadbSA2(0), key}, einval},
		"an SA that is not there":       {sadbGet, [][]byte{src, dst, sadbSA(0x7002, 0)}, enoent},
		"an SA that is not there to go": {sadbDelete, [][]byte{src, dst, sadbSA(0x7002, 0)}, enoent},
		"a type of message that is not": {99, nil, einval},
	} {
		k.send(q.kind, 7, q.extensions...)
		if m := k.receive(q.kind); m.errno != q.errno || m.seq != 7 || m.extensions[extKeyEncrypt] != nil {
			t.Errorf("%s: errno %d with %+v, want errno %d", what, m.errno, m, q.errno)
		}
	}
	k.send(sadbDump, 8)
	if m := k.ok(sadbDump); m.spi() != 0x7000 || m.seq != 0 {
		t.Errorf("left in the database: %+v, want SPI 0x7000 alone", m)
	}
}
