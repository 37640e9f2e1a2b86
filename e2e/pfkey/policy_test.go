package pfkey

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

// Policies are added, found, replaced and removed by their selectors and by
// their numbers.
func TestPolicies(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k := dial(t, h, 1)
	src := selector(extAddressSrc, netip.MustParsePrefix("192.0.2.0/24"), 0, 6)
	dst := selector(extAddressDst, netip.MustParsePrefix("203.0.113.0/24"), 443, 6)
	tunnel := request(50, modeTunnel, levelUnique, 5, netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.6"))
	six := request(50, modeTunnel, levelRequire, 0, netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::6"))
	ah := request(51, modeTransport, levelUse, 0)

	added := k.do(sadbSPDAdd, satypeUnspec, policy(policyIPsec, dirOut, 1, 0, tunnel, ah), src, dst)
	id := added.policyID()
	if id == 0 {
		t.Fatal("SPDADD: a policy without number")
	}
	added.has(t, "SPDADD", policy(policyIPsec, dirOut, 1, id, tunnel, ah), src, dst)
	k.do(sadbSPDGet, satypeUnspec, policy(policyIPsec, 0, 0, id)).
		has(t, "SPDGET", src, dst, policy(policyIPsec, dirOut, 1, id, tunnel, ah))

	// The same selector in the other direction is another policy.
	in := k.do(sadbSPDAdd, satypeUnspec, policy(policyNone, dirIn, 1, 0), src, dst).policyID()
	if all := k.dump(sadbSPDDump, satypeUnspec); len(all) != 2 || in == id {
		t.Errorf("SPDDUMP: %+v, want two of different numbers", all)
	}
	if m := k.ask(sadbSPDAdd, satypeUnspec, policy(policyNone, dirIn, 1, 0), src, dst); m.errno != byte(syscall.EEXIST) {
		t.Errorf("SPDADD again: errno %d, want EEXIST", m.errno)
	}
	updated := k.do(sadbSPDUpdate, satypeUnspec, policy(policyIPsec, dirOut, 1, 0, six), src, dst).policyID()
	k.do(sadbSPDGet, satypeUnspec, policy(policyIPsec, 0, 0, updated)).
		has(t, "SPDGET of the update", src, dst, policy(policyIPsec, dirOut, 1, updated, six))

	k.do(sadbSPDDelete2, satypeUnspec, policy(policyIPsec, 0, 0, updated)).
		has(t, "SPDDELETE2", policy(policyIPsec, 0, 0, updated))
	if m := k.ask(sadbSPDGet, satypeUnspec, policy(policyIPsec, 0, 0, updated)); m.errno != byte(syscall.ENOENT) {
		t.Errorf("SPDGET of what was deleted: errno %d, want ENOENT", m.errno)
	}
	k.do(sadbSPDDelete, satypeUnspec, policy(policyNone, dirIn, 1, 0), src, dst)
	if all := k.dump(sadbSPDDump, satypeUnspec); all != nil {
		t.Errorf("left: %+v", all)
	}

	// A policy's time ends, of which those are told who registered.
	k.do(sadbRegister, satypeESP)
	limit := lifetime(extLifetimeHard, 0, 0, 1, 0)
	short := k.do(sadbSPDAdd, satypeUnspec, policy(policyNone, dirIn, 1, 0), src, dst, limit).policyID()
	expired := k.next(sadbSPDExpire)
	expired.has(t, "SPDEXPIRE", expired.extensions[extLifetimeCurrent], limit, src, dst, policy(policyNone, dirIn, 1, short))
}

// An interface's policies are seen by all and removed by nobody.
func TestInterfacesPolicies(t *testing.T) {
	t.Parallel()
	h, _ := newGateway(t, netip.MustParseAddr("192.168.0.3"), netip.MustParseAddr("192.168.0.5"))
	k := dial(t, h, 1)
	const global, ifnet = 1, 2
	all := k.dump(sadbSPDDump, satypeUnspec)
	if len(all) != 4 || len(k.dump(sadbSPDDump, ifnet)) != 4 || k.dump(sadbSPDDump, global) != nil {
		t.Errorf("SPDDUMP: %+v, want four policies of the interface", all)
	}
	for _, m := range all {
		if m.extensions[extPolicy][7] != ifnet {
			t.Errorf("scope %d, want %d", m.extensions[extPolicy][7], ifnet)
		}
		if m := k.ask(sadbSPDDelete2, satypeUnspec, policy(policyIPsec, 0, 0, m.policyID())); m.errno == 0 {
			t.Errorf("SPDDELETE2 of an interface's policy: %+v", m)
		}
	}
	k.do(sadbSPDFlush, satypeUnspec)
	if left := k.dump(sadbSPDDump, satypeUnspec); len(left) != 4 {
		t.Errorf("%d policies are left, want 4", len(left))
	}
	// They go with the interface, and everybody hears of it.
	quiet(t, h, "ifconfig ipsec0 destroy")
	var ids []uint32
	for range 4 {
		ids = append(ids, k.next(sadbSPDDelete).policyID())
	}
	for _, m := range all {
		if !slices.Contains(ids, m.policyID()) {
			t.Errorf("policy %d is gone unheard", m.policyID())
		}
	}
}

// What is wrong is answered with an errno of Linux in a header of its own, and
// changes nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k := dial(t, h, 1)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	six := netip.MustParseAddr("2001:db8::1")
	ends := between(a, b)
	aes := key(extKeyEncrypt, []byte("0123456789abcdef"))
	sha := key(extKeyAuth, []byte("0123456789abcdef0123"))
	good := sa(0x1000, 4, stateMature, aalgSHA1HMAC, ealgAESCBC, 0)
	transport := request(50, modeTransport, levelRequire, 0)
	tunnel := request(50, modeTunnel, levelRequire, 0, a, b)
	mixed := request(50, modeTunnel, levelRequire, 0, a, six)
	short := request(50, modeTunnel, levelRequire, 0)
	long := slices.Clone(tunnel)
	host.PutUint16(long, 200)
	none := slices.Clone(tunnel)
	host.PutUint16(none, 0)
	endless := extension(extSA2, make([]byte, 12)...)
	host.PutUint16(endless, 0)
	oddKey := slices.Clone(aes)
	host.PutUint16(oddKey[4:], 127)
	unspecified := endpoint(extAddressDst, netip.Addr{})
	const (
		eexist     = byte(syscall.EEXIST)
		einval     = byte(syscall.EINVAL)
		enoent     = byte(syscall.ENOENT)
		eopnotsupp = byte(syscall.EOPNOTSUPP)
	)
	for _, q := range []struct {
		what         string
		kind, satype byte
		errno        byte
		extensions   [][]byte
	}{
		{"SPIs from high to low", sadbGetSPI, satypeESP, einval, [][]byte{ends, spiRange(0x2000, 0x1000)}},
		{"reserved SPIs", sadbGetSPI, satypeESP, einval, [][]byte{ends, spiRange(0, 255)}},
		{"no SA type", sadbAdd, satypeUnspec, einval, [][]byte{good, ends, aes, sha}},
		{"an SA type of RFC 2367 that nobody has", sadbAdd, 5, eopnotsupp, [][]byte{good, ends, aes, sha}},
		{"an SA type that is none", sadbAdd, 77, einval, [][]byte{good, ends, aes, sha}},
		{"two families", sadbAdd, satypeESP, einval, [][]byte{good, between(a, six), aes, sha}},
		{"an address of no family", sadbAdd, satypeESP, einval, [][]byte{good, endpoint(extAddressSrc, a), unspecified, aes, sha}},
		{"a key in half bytes", sadbAdd, satypeESP, einval, [][]byte{good, ends, oddKey, sha}},
		{"no key of authentication", sadbAdd, satypeESP, einval, [][]byte{good, ends, aes}},
		{"AH with a cipher's key only", sadbAdd, satypeAH, einval, [][]byte{good, ends, aes}},
		{"IPComp with a key", sadbAdd, satypeIPComp, einval, [][]byte{sa(0x1000, 0, stateMature, 0, 2, 0), ends, sha}},
		{"a mode that is none", sadbAdd, satypeESP, einval, [][]byte{good, ends, sa2(4, 0), aes, sha}},
		{"one lifetime of two", sadbAdd, satypeESP, einval, [][]byte{good, ends, aes, sha, lifetime(extLifetimeHard, 0, 0, 9, 0)}},
		{"an extension that is none", sadbAdd, satypeESP, einval, [][]byte{good, ends, aes, sha, extension(99)}},
		{"an extension of no length", sadbAdd, satypeESP, einval, [][]byte{good, ends, aes, sha, endless}},
		{"nothing to update", sadbUpdate, satypeESP, einval, [][]byte{good, ends, aes, sha}},
		{"a policy without direction", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyNone, dirAny, 1, 0)}},
		{"Linux's direction for what is forwarded", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyNone, 3, 1, 0)}},
		{"a policy to entrust", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyEntrust, dirIn, 1, 0)}},
		{"a policy to bypass", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyBypass, dirIn, 1, 0)}},
		{"a policy of type ipsec without requests", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyIPsec, dirIn, 1, 0)}},
		{"a policy with an SA type", sadbSPDAdd, satypeESP, einval, [][]byte{ends, policy(policyNone, dirIn, 1, 0)}},
		{"a tunnel between two families", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyIPsec, dirIn, 1, 0, mixed)}},
		{"a tunnel without ends", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyIPsec, dirIn, 1, 0, short)}},
		{"a request that is longer than its message", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyIPsec, dirIn, 1, 0, long)}},
		{"a request of no length", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends, policy(policyIPsec, dirIn, 1, 0, none)}},
		{"no policy", sadbSPDAdd, satypeUnspec, einval, [][]byte{ends}},
		{"no selector", sadbSPDAdd, satypeUnspec, einval, [][]byte{policy(policyIPsec, dirIn, 1, 0, transport)}},
		{"no such policy", sadbSPDGet, satypeUnspec, enoent, [][]byte{policy(policyNone, 0, 0, 4711)}},
		{"no such policy to delete", sadbSPDDelete2, satypeUnspec, enoent, [][]byte{policy(policyNone, 0, 0, 4711)}},
		{"no such selector to delete", sadbSPDDelete, satypeUnspec, enoent, [][]byte{ends, policy(policyNone, dirIn, 1, 0)}},
		{"neither on nor off", sadbPromisc, 2, einval, nil},
		{"what only the daemon says", sadbExpire, satypeESP, einval, [][]byte{good, ends}},
		{"a type that is none", sadbHighestType + 1, satypeUnspec, einval, nil},
	} {
		m := k.ask(q.kind, q.satype, q.extensions...)
		if m.errno != q.errno || len(m.body) != 0 {
			t.Errorf("%s: errno %d and extensions % x, want errno %d alone", q.what, m.errno, m.body, q.errno)
		}
	}
	// Once is right, twice is not.
	k.do(sadbRegister, satypeESP)
	if m := k.ask(sadbRegister, satypeESP); m.errno != eexist {
		t.Errorf("REGISTER again: errno %d, want EEXIST", m.errno)
	}
	if sas, policies := k.dump(sadbDump, satypeUnspec), k.dump(sadbSPDDump, satypeUnspec); sas != nil || policies != nil {
		t.Errorf("left in the databases: %+v, %+v", sas, policies)
	}
}
