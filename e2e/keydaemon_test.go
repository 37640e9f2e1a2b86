package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
	"ifipsec/engine/keysock"
	"ifipsec/engine/pfkey"
)

// keyDaemon connects to a host's daemon as a key-management program does.
func keyDaemon(t *testing.T, h *lab.Host) *keysock.Conn {
	t.Helper()
	conn, err := keysock.Dial(h.Path("/run/ifipsec/" + runDir(h) + "/pfkey"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func receive(t *testing.T, conn *keysock.Conn) *pfkey.Message {
	t.Helper()
	m, err := conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if m.Errno != 0 {
		t.Fatalf("%v: errno %v", m.Type, m.Errno)
	}
	return m
}

// Who registered is asked for the SA that traffic lacks, and traffic flows when
// it has added it.
func TestKeyDaemonIsAsked(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	quiet(t, b, setkey(tn.keys(tn.reqidB())))
	conn := keyDaemon(t, a)
	if err := conn.Send(&pfkey.Message{Type: pfkey.TypeRegister, SAType: pfkey.SATypeESP, Seq: 1}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, conn); m.Type != pfkey.TypeRegister || m.Seq != 1 {
		t.Fatalf("answer to REGISTER: %+v", m)
	}

	pings(t, a, tn.innerB[0], 10, impatience)
	m := receive(t, conn)
	if m.Type != pfkey.TypeAcquire || m.SAType != pfkey.SATypeESP || m.Seq == 0 {
		t.Fatalf("received %v for %v with sequence number %d, want ACQUIRE for esp with one", m.Type, m.SAType, m.Seq)
	}
	type wanted struct {
		Src, Dst netip.Addr
		Mode     pfkey.Mode
		ReqID    uint32
	}
	var got wanted
	if src, dst := m.Src(), m.Dst(); src != nil && dst != nil {
		got.Src, got.Dst = src.Addr.Addr(), dst.Addr.Addr()
	}
	if sa2 := pfkey.Find[*pfkey.SA2](m); sa2 != nil {
		got.Mode, got.ReqID = sa2.Mode, sa2.ReqID
	}
	want := wanted{outerA, outerB, pfkey.ModeTunnel, uint32(tn.reqidA())}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the SA that is asked for (-want +got):\n%s", diff)
	}

	quiet(t, a, setkey(tn.keys(tn.reqidA())))
	reaches(t, a, tn.innerB[0])
	// Ten packets are one question: what comes next is what setkey did.
	for _, spi := range []uint32{tn.spiAB, tn.spiBA} {
		m := receive(t, conn)
		sa := pfkey.Find[*pfkey.SA](m)
		for m.Type == pfkey.TypeRegister {
			m = receive(t, conn)
			sa = pfkey.Find[*pfkey.SA](m)
		}
		if m.Type != pfkey.TypeAdd || sa == nil || sa.SPI != spi {
			t.Errorf("received %v, want ADD of SPI %d", m.Type, spi)
		}
		if m.KeyEncrypt() != nil {
			t.Error("who registered is told another's key")
		}
	}
}

// setkey -x shows what happens to the database while it happens.
func TestMonitor(t *testing.T) {
	t.Parallel()
	a, _ := newPair(t)
	quiet(t, a, "setkey -F")
	monitor, err := a.Background(t.Context(), "sh", "-c", "exec setkey -x >/run/monitor")
	if err != nil {
		t.Fatal(err)
	}
	shows := func(words ...string) {
		t.Helper()
		err := lab.Until(patience, func() error {
			text, err := os.ReadFile(a.Path("/run/monitor"))
			for _, word := range words {
				if err == nil && !strings.Contains(string(text), word) {
					err = fmt.Errorf("setkey -x shows no %s:\n%s", word, text)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	shows("(X_PROMISC)")
	quiet(t, a, setkey(newTunnel(0).keys(100)))
	quiet(t, a, "setkey -F")
	shows("(ADD)", "spi=10000", "spi=10001", "(FLUSH)")
	if err := monitor.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	monitor.Wait()
}
