package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

// limited is the message of a key daemon that adds an SA which ends after so
// many bytes, and is to be replaced after fewer. setkey can't ask for that.
func limited(src, dst netip.Addr, spi, reqid uint32, soft, hard uint64) *pfkey.Message {
	address := func(kind pfkey.ExtType, a netip.Addr) *pfkey.Address {
		return &pfkey.Address{Kind: kind, Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
	}
	key := make([]byte, 20)
	key[0] = byte(spi)
	return &pfkey.Message{Type: pfkey.TypeAdd, SAType: pfkey.SATypeESP, Seq: spi, Exts: []pfkey.Extension{
		&pfkey.SA{SPI: spi, State: pfkey.StateMature, Encrypt: algorithm.EncryptAESGCM16},
		&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: reqid},
		address(pfkey.ExtAddressSrc, src), address(pfkey.ExtAddressDst, dst),
		&pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 160, Key: key},
		&pfkey.Lifetime{Kind: pfkey.ExtLifetimeSoft, Bytes: soft},
		&pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, Bytes: hard},
	}}
}

// An SA that has carried its bytes is to be replaced, then ends: its key daemon
// is told both times, and nothing leaves the host afterwards.
func TestLifetimeOfBytesEnds(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	const soft, hard = 5_000, 10_000
	for h, reqid := range map[*lab.Host]int{a: tn.reqidA(), b: tn.reqidB()} {
		conn := keyDaemon(t, h)
		there, back := limited(outerA, outerB, tn.spiAB, uint32(reqid), soft, hard), limited(outerB, outerA, tn.spiBA, uint32(reqid), 1<<30, 1<<31)
		for _, m := range []*pfkey.Message{there, back} {
			if err := conn.Send(m); err != nil {
				t.Fatal(err)
			}
			receive(t, conn)
		}
	}
	conn := keyDaemon(t, a)
	if err := conn.Send(&pfkey.Message{Type: pfkey.TypeRegister, SAType: pfkey.SATypeESP, Seq: 1}); err != nil {
		t.Fatal(err)
	}
	receive(t, conn)

	// The daemon looks at bytes every second; until then, more may be carried.
	carry := func(bytes int) {
		t.Helper()
		r, err := a.Ping(t.Context(), lab.Ping{To: tn.innerB[0], Size: bytes, Timeout: patience})
		if err != nil || r.Received != 1 {
			t.Fatalf("ping of %d bytes: %+v, %v", bytes, r, err)
		}
	}
	expires := func(kind string, lifetime func(*pfkey.Message) *pfkey.Lifetime) {
		t.Helper()
		m := receive(t, conn)
		sa, limit, current := pfkey.Find[*pfkey.SA](m), lifetime(m), m.Current()
		if m.Type != pfkey.TypeExpire || sa == nil || sa.SPI != tn.spiAB || limit == nil || current == nil || current.Bytes < limit.Bytes {
			t.Fatalf("received %v with SA %+v, %s lifetime %+v, current %+v; want EXPIRE of the %[3]s lifetime of SPI %d",
				m.Type, sa, kind, limit, current, tn.spiAB)
		}
	}
	for range 5 {
		carry(1300)
	}
	expires("soft", (*pfkey.Message).Soft)
	reaches(t, a, tn.innerB[0])
	for range 4 {
		carry(1300)
	}
	expires("hard", (*pfkey.Message).Hard)
	wire := capture(t, a, "eth0")
	reachesNot(t, a, tn.innerB[0])
	silent(t, a, wire)
}

// An SA that is to be replaced sends no more when there is another, although it
// is the newer one, but goes on to receive.
func TestDyingSASendsNoMore(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn, young := newTunnel(0), newTunnel(0)
	young.spiAB, young.spiBA = tn.spiAB+2, tn.spiBA+2
	tn.setUp(t, a, b)
	quiet(t, b, setkey(young.keys(tn.reqidB())))
	young.options = "-ls 1 -lh 3600"
	quiet(t, a, setkey(young.keys(tn.reqidA())))
	sends := func(spiAB uint32) error {
		wire := capture(t, a, "eth0")
		if got := pings(t, a, tn.innerB[0], 3, patience); got != 3 {
			return fmt.Errorf("%d of 3 pings were answered", got)
		}
		esp, _ := wire()
		// B's have no lifetimes.
		if want := map[uint32]int{spiAB: 3, young.spiBA: 3}; !cmp.Equal(want, esp) {
			return fmt.Errorf("packets by SPI %v, want %v", esp, want)
		}
		return nil
	}
	if err := lab.Until(patience, func() error { return sends(tn.spiAB) }); err != nil {
		t.Error(err)
	}
	quiet(t, a, setkey(fmt.Sprintf("delete %v %v esp %d;\n", outerA, outerB, tn.spiAB)))
	if err := sends(young.spiAB); err != nil {
		t.Error("without the other:", err)
	}
}
