package e2e

import (
	"fmt"
	"strings"
	"testing"

	"ifipsec/e2e/lab"
)

// A reqid that is wrong on one host is found with what ifconfig says there, and
// mended with what it says.
func TestWrongReqidIsDiagnosed(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	quiet(t, a, setkey(tn.keys(tn.reqidA())))
	quiet(t, b, setkey(tn.keys(tn.reqidA()))) // which is A's reqid
	reachesNot(t, a, tn.innerB[0])

	diagnosis := func(on *lab.Host) string {
		t.Helper()
		_, text, ok := strings.Cut(output(t, on, "ifconfig -v ipsec0"), "\tdiagnosis: ")
		if !ok {
			t.Fatal("ifconfig -v has no diagnosis")
		}
		return strings.TrimSpace(text)
	}
	if got, want := diagnosis(a), "the peer 192.168.0.5 has sent nothing that has an SA here"; got != want {
		t.Errorf("on A: %q, want %q", got, want)
	}
	const want = "nothing is sent: no SA from 192.168.0.5 to 192.168.0.3 has reqid 200; " +
		"SPI 10001 has reqid 100, and the interface wants 200"
	if got := diagnosis(b); got != want {
		t.Errorf("on B: %q, want %q", got, want)
	}
	quiet(t, b, fmt.Sprintf("ifconfig ipsec0 reqid %d", tn.reqidA()))
	reaches(t, a, tn.innerB[0])
	for _, h := range []*lab.Host{a, b} {
		text := output(t, h, "ifconfig -v ipsec0")
		for _, want := range []string{"\tdiagnosis: nothing seems wrong\n", "\tsa out: spi ", "\tsa in: spi ", "(aes-gcm-16), mature, "} {
			if !strings.Contains(text, want) {
				t.Errorf("on %s ifconfig -v prints\n%s\nwant %q", h.Name, text, want)
			}
		}
	}
	// Another key.
	other := tn
	other.algorithms = "-E aes-gcm-16 0x0123456789abcdef0123456789abcdef01234567"
	quiet(t, a, setkey("delete 192.168.0.3 192.168.0.5 esp 10000;\n"+other.add(outerA, outerB, tn.spiAB, tn.reqidA())))
	quiet(t, b, setkey("deleteall 192.168.0.3 192.168.0.5 esp;\n"+tn.add(outerA, outerB, tn.spiAB, tn.reqidA())))
	reachesNot(t, a, tn.innerB[0])
	if got, want := diagnosis(b), "packets with SPI 10000 do not authenticate (3 so far): the peer has another key or algorithm, or somebody changes them"; got != want {
		t.Errorf("with another key on A, on B: %q, want %q", got, want)
	}
}
