package e2e

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
)

// fourTunnels are as different as tunnels of two hosts can be: the first two
// share their endpoints, the third has others, the fourth is IPv6 outside. Each
// has IPv4 and IPv6 inside.
func fourTunnels() []tunnel {
	all := []tunnel{newTunnel(0), newTunnel(1), newTunnel(2), newTunnel(3)}
	all[1].algorithms = `-E rijndael-cbc "VerySecureKey!!1" -A hmac-sha2-256 "VerySecureMacKeyVerySecureMacKey"`
	all[1].options = "-r 8"
	all[2].outerA, all[2].outerB = netip.MustParseAddr("192.168.0.13"), netip.MustParseAddr("192.168.0.15")
	all[3].outerA, all[3].outerB = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
	return all
}

func TestFourTunnels(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	all := fourTunnels()
	for _, tn := range all {
		tn.setUp(t, a, b)
	}
	for _, tn := range all {
		wire := capture(t, b, "eth0")
		for i := range tn.innerA {
			reaches(t, a, tn.innerB[i])
			reaches(t, b, tn.innerA[i])
		}
		esp, others := wire()
		if len(others) > 0 {
			t.Errorf("%s: %d packets on the wire are not ESP, first %v", tn.name(), len(others), others[0])
		}
		// Each way three requests and three answers of each family.
		if diff := cmp.Diff(map[uint32]int{tn.spiAB: 12, tn.spiBA: 12}, esp); diff != "" {
			t.Errorf("%s: packets by SPI (-want +got):\n%s", tn.name(), diff)
		}
	}
}

// A tunnel that ends, is made anew, or loses its keys is no other's business.
func TestTunnelEndsUnderTraffic(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	all := fourTunnels()
	for _, tn := range all {
		tn.setUp(t, a, b)
	}
	var stops []func() (sent, lost int)
	for _, tn := range []tunnel{all[0], all[2], all[3]} {
		for i := range tn.innerB {
			stops = append(stops, background(t, a, tn.innerB[i]))
		}
	}
	victim := all[1]
	ends := background(t, a, victim.innerB[0])
	for range 5 {
		reaches(t, b, victim.innerA[0])
		quiet(t, a, "ifconfig ipsec1 destroy")
		reachesNot(t, a, victim.innerB[0])
		quiet(t, a, victim.interfaceA())
		reaches(t, a, victim.innerB[0])
	}
	quiet(t, b, "ifconfig ipsec1 deletetunnel")
	reachesNot(t, a, victim.innerB[0])
	for _, stop := range stops {
		if sent, lost := stop(); lost > 0 {
			t.Errorf("another tunnel lost %d of %d pings", lost, sent)
		}
	}
	if sent, lost := ends(); lost == 0 {
		t.Errorf("the tunnel that was destroyed lost none of %d pings", sent)
	}
}

// What arrives in one tunnel is not taken for another's, although the endpoints
// are the same.
func TestInnerAddressesDoNotCross(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	first, second := newTunnel(0), newTunnel(1)
	first.setUp(t, a, b)
	second.setUp(t, a, b)
	// B drops the SA of the second; A goes on sending.
	quiet(t, b, setkey("delete 192.168.0.3 192.168.0.5 esp 10010;"))
	reachesNot(t, a, second.innerB[0])
	reaches(t, a, first.innerB[0])
	// With the reqid of the first, the packets come out of the first.
	quiet(t, b, setkey(second.add(outerA, outerB, second.spiAB, first.reqidB())))
	in, err := b.Capture("ipsec0", 0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Capture("ipsec1", 0)
	if err != nil {
		t.Fatal(err)
	}
	pings(t, a, second.innerB[0], 3, impatience)
	got, err := in.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if arrived := countTo(got, second.innerB[0]); arrived != 3 {
		t.Errorf("%d of 3 packets came out of the interface whose reqid the SA has", arrived)
	}
	got, err = other.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if arrived := countFrom(got, second.innerA[0]); arrived != 0 {
		t.Errorf("%d packets came out of the interface whose reqid the SA has not", arrived)
	}
}

// countTo counts the IPv4 packets to an address that a TUN device carried; they
// have no Ethernet header.
func countTo(packets []lab.Packet, addr netip.Addr) (n int) {
	for _, p := range packets {
		if len(p.Data) >= 20 && bytes.Equal(p.Data[16:20], addr.AsSlice()) {
			n++
		}
	}
	return n
}

// countFrom counts those from an address.
func countFrom(packets []lab.Packet, addr netip.Addr) (n int) {
	for _, p := range packets {
		if len(p.Data) >= 20 && bytes.Equal(p.Data[12:16], addr.AsSlice()) {
			n++
		}
	}
	return n
}

// A datagram that IP must cut into pieces to fit the tunnel arrives whole.
func TestLargeDatagram(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	tn.setUp(t, a, b)
	for _, to := range tn.innerB {
		conn, err := b.ListenUDP(netip.AddrPortFrom(to, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sent := bytes.Repeat([]byte("ifipsec!"), 2500)
		if err := a.SendUDP(netip.MustParseAddrPort(conn.LocalAddr().String()), sent); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		received := make([]byte, 1<<16)
		n, err := conn.Read(received)
		if err != nil || !bytes.Equal(received[:n], sent) {
			t.Errorf("to %v: received %d bytes (%v), want the %d that were sent", to, n, err, len(sent))
		}
	}
}

// Endpoints that mean something on one link only are told apart by the link,
// which has one name in every command and keeps it when others are renamed.
func TestLinkLocalEndpoints(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	for h, address := range map[*lab.Host]string{a: "fe80::3/64", b: "fe80::5/64"} {
		if err := h.AddAddr("eth0", netip.MustParsePrefix(address)); err != nil {
			t.Fatal(err)
		}
	}
	tn := newTunnel(0)
	tn.outerA, tn.outerB = netip.MustParseAddr("fe80::3%eth0"), netip.MustParseAddr("fe80::5%eth0")
	tn.setUp(t, a, b)
	const shown = "\ttunnel inet6 fe80::3%eth0 --> fe80::5%eth0\n"
	if status := output(t, a, "ifconfig ipsec0"); !strings.Contains(status, shown) || !strings.Contains(status, "RUNNING") {
		t.Errorf("ifconfig shows\n%s\nwant RUNNING and %q", status, shown)
	}
	for i := range tn.innerB {
		reaches(t, a, tn.innerB[i])
		reaches(t, b, tn.innerA[i])
	}
	const policy = "esp/tunnel/fe80::3%eth0-fe80::5%eth0/unique:"
	if policies := output(t, a, "setkey -DP"); strings.Count(policies, policy) != 2 {
		t.Errorf("setkey -DP shows\n%s\nwant twice %q", policies, policy)
	}
	if _, err := a.Command(t.Context(), "ifconfig", "ipsec1", "create"); err != nil {
		t.Fatal(err)
	}
	const absent = "ifconfig ipsec1 inet6 tunnel fe80::3%eth7 fe80::5%eth7"
	if r := shell(t, a, absent); r.Exit != 0 || !strings.Contains(r.Stderr, "eth7") {
		t.Errorf("a tunnel on a link that is not there: %+v, want an error that names it", r)
	}
}
