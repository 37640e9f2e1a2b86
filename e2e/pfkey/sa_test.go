package pfkey

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/e2e/lab"
)

// A program keys a tunnel as IKE daemons do, from the first packet without an SA
// to the end of the SA's lifetime, over either family.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	for family, ends := range map[string][2]netip.Addr{
		"IPv4": {netip.MustParseAddr("192.168.0.3"), netip.MustParseAddr("192.168.0.5")},
		"IPv6": {netip.MustParseAddr("2001:db8::3"), netip.MustParseAddr("2001:db8::5")},
	} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			local, remote := ends[0], ends[1]
			h, inner := newGateway(t, local, remote)
			k, bystander := dial(t, h, 4711), dial(t, h, 4712)
			const reqid = 100

			for _, satype := range []byte{satypeAH, satypeESP, satypeIPComp} {
				supported := k.do(sadbRegister, satype)
				if !slices.Equal(supported.order, []uint16{extSupportedAuth, extSupportedEncrypt}) {
					t.Fatalf("REGISTER: %+v", supported)
				}
			}
			send(t, h, inner, 10)
			acquire := k.next(sadbAcquire)
			why := policy(policyIPsec, dirOut, 0, policyOut(t, k))
			// Where FreeBSD keeps an interface's number.
			host.PutUint32(why[12:], index(t, h, "ipsec0"))
			acquire.has(t, "ACQUIRE", between(local, remote), why,
				sa2(modeTunnel, reqid), acquire.extensions[extProposal])
			if acquire.satype != satypeESP || acquire.seq == 0 || acquire.pid != 0 || len(acquire.extensions[extProposal]) < 8+72 {
				t.Errorf("ACQUIRE: %+v", acquire)
			}

			// The SA for what comes in is reserved, then completed.
			in := append(between(remote, local), sa2(modeTunnel, reqid)...)
			k.seq = acquire.seq - 1
			larval := k.do(sadbGetSPI, satypeESP, in, spiRange(0x5000, 0x5fff))
			spi := larval.spi()
			if spi < 0x5000 || spi > 0x5fff {
				t.Fatalf("GETSPI gave %#x, want 0x5000 to 0x5fff", spi)
			}
			larval.has(t, "GETSPI", sa(spi, 0, stateLarval, 0, 0, 0), between(remote, local))
			k.seq = 4711_000
			inKey := key(extKeyEncrypt, []byte("0123456789abcdefsalt"))
			description := sa(spi, 4, stateMature, 0, ealgGCM16, 0)
			soft, hard := lifetime(extLifetimeSoft, 0, 0, 2, 0), lifetime(extLifetimeHard, 0, 0, 4, 0)
			k.do(sadbUpdate, satypeESP, in, inKey, soft, hard, description).
				has(t, "UPDATE", description, sa2(modeTunnel, reqid), between(remote, local), hard, soft)

			// The SA for what goes out is added.
			out := append(between(local, remote), sa2(modeTunnel, reqid)...)
			outKey := key(extKeyEncrypt, []byte("fedcba9876543210tlas"))
			outSA := sa(0x6000, 4, stateMature, 0, ealgGCM16, 0)
			k.do(sadbAdd, satypeESP, outSA, out, outKey).
				has(t, "ADD", outSA, sa2(modeTunnel, reqid), between(local, remote))
			// Ten packets were one question, and there is no other any more. Who has
			// not registered was asked nothing, but told what changed.
			send(t, h, inner, 1)
			k.silent()
			if m := bystander.next(sadbUpdate); m.spi() != spi || m.extensions[extKeyEncrypt] != nil {
				t.Errorf("a bystander hears %+v", m)
			}
			if m := bystander.next(sadbAdd); m.spi() != 0x6000 || m.extensions[extKeyEncrypt] != nil {
				t.Errorf("a bystander hears %+v", m)
			}

			get := k.do(sadbGet, satypeESP, sa(spi, 0, 0, 0, 0, 0), between(remote, local))
			current := get.extensions[extLifetimeCurrent]
			get.has(t, "GET", description, sa2(modeTunnel, reqid), hard, soft, current, between(remote, local), inKey)
			if age := time.Since(time.Unix(int64(host.Uint64(current[16:])), 0)); age < 0 || age > time.Minute {
				t.Errorf("GET: the SA is of %v ago", age)
			}
			sent := k.do(sadbGet, satypeESP, sa(0x6000, 0, 0, 0, 0, 0), between(local, remote))
			current = sent.extensions[extLifetimeCurrent]
			if packets, octets := host.Uint32(current[4:]), host.Uint64(current[8:]); packets != 1 || octets == 0 {
				t.Errorf("GET: the SA has carried %d packets of %d octets, want 1 packet", packets, octets)
			}
			if seq := host.Uint32(sent.extensions[extSA2][8:]); seq != 1 {
				t.Errorf("GET: sequence number %d, want 1", seq)
			}
			var spis []uint32
			for _, m := range k.dump(sadbDump, satypeUnspec) {
				spis = append(spis, m.spi())
			}
			slices.Sort(spis)
			if !slices.Equal(spis, []uint32{spi, 0x6000}) {
				t.Errorf("DUMP of SPIs %#x, want %#x and 0x6000", spis, spi)
			}

			for _, limit := range []struct {
				state    byte
				lifetime []byte
			}{{stateDying, soft}, {3, hard}} {
				m := k.next(sadbExpire)
				m.has(t, "EXPIRE", sa(spi, 4, limit.state, 0, ealgGCM16, 0), sa2(modeTunnel, reqid),
					m.extensions[extLifetimeCurrent], limit.lifetime, between(remote, local))
			}
			if m := k.ask(sadbGet, satypeESP, sa(spi, 0, 0, 0, 0, 0), between(remote, local)); m.errno != byte(syscall.ENOENT) {
				t.Errorf("GET of an SA whose time is over: errno %d, want ENOENT", m.errno)
			}
			bystander.silent()
		})
	}
}

// send pings an address that nobody answers from.
func send(t *testing.T, h *lab.Host, to netip.Addr, count int) {
	t.Helper()
	_, err := h.Ping(t.Context(), lab.Ping{To: to, Count: count, Interval: time.Millisecond, Timeout: impatience})
	if err != nil {
		t.Fatal(err)
	}
}

// policyOut is the number of the first of the interface's policies for what
// goes out.
func policyOut(t *testing.T, k *client) uint32 {
	t.Helper()
	for _, m := range k.dump(sadbSPDDump, satypeUnspec) {
		if m.extensions[extPolicy][6] == dirOut {
			return m.policyID()
		}
	}
	t.Fatal("no policy for what goes out")
	return 0
}

// index is the number of an interface.
func index(t *testing.T, h *lab.Host, ifname string) (number uint32) {
	t.Helper()
	err := h.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err == nil {
			number = uint32(i.Index)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// Of what one program does, others hear what RFC 2367 says, in the order in
// which it was done; never a key.
func TestOthersHear(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k := dial(t, h, 1)
	registered, bystander, promiscuous := dial(t, h, 2), dial(t, h, 3), dial(t, h, 4)
	registered.do(sadbRegister, satypeESP)
	promiscuous.do(sadbPromisc, 1)
	// What was told of that is not of interest.
	for _, c := range []*client{registered, bystander} {
		c.next(sadbPromisc)
	}

	ends := between(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	secret := []byte("0123456789abcdefsalt")
	one := sa(0x1000, 0, stateMature, 0, ealgGCM16, 0)
	sp := func(id uint32) []byte {
		return policy(policyIPsec, dirOut, 1, id, request(50, modeTransport, levelRequire, 0))
	}
	const nobody, others = 0, 1
	for _, does := range []struct {
		what         string
		kind, satype byte
		hear         int
		extensions   [][]byte
	}{
		{"FLUSH", sadbFlush, satypeUnspec, others, nil},
		{"GETSPI", sadbGetSPI, satypeESP, nobody, [][]byte{ends, spiRange(0x2000, 0x2000)}},
		{"ADD", sadbAdd, satypeESP, others, [][]byte{one, ends, key(extKeyEncrypt, secret)}},
		{"ADD again", sadbAdd, satypeESP, nobody, [][]byte{one, ends, key(extKeyEncrypt, secret)}},
		{"UPDATE", sadbUpdate, satypeESP, others, [][]byte{sa(0x2000, 0, stateMature, 0, ealgGCM16, 0), ends, key(extKeyEncrypt, secret)}},
		{"GET", sadbGet, satypeESP, nobody, [][]byte{one, ends}},
		{"DELETE", sadbDelete, satypeESP, others, [][]byte{one, ends}},
		{"DELETE again", sadbDelete, satypeESP, nobody, [][]byte{one, ends}},
		{"DELETE of all between two addresses", sadbDelete, satypeESP, others, [][]byte{ends}},
		{"SPDADD", sadbSPDAdd, satypeUnspec, others, [][]byte{ends, sp(0)}},
		{"SPDADD again", sadbSPDAdd, satypeUnspec, nobody, [][]byte{ends, sp(0)}},
		{"SPDUPDATE", sadbSPDUpdate, satypeUnspec, others, [][]byte{ends, sp(0)}},
		{"SPDDELETE", sadbSPDDelete, satypeUnspec, others, [][]byte{ends, sp(0)}},
		{"SPDFLUSH", sadbSPDFlush, satypeUnspec, others, nil},
		{"a type that is none", 200, satypeUnspec, nobody, nil},
	} {
		reply := k.ask(does.kind, does.satype, does.extensions...)
		inside := promiscuous.next(sadbPromisc)
		m, err := parse(inside.body)
		if err != nil || !slices.Equal(m.body, reply.body) || m.kind != does.kind || m.errno != reply.errno {
			t.Errorf("%s: who is promiscuous hears %+v (%v), want %+v", does.what, m, err, reply)
		}
		if does.hear == nobody {
			continue
		}
		for _, c := range []*client{registered, bystander, promiscuous} {
			m := c.next(does.kind)
			if m.errno != 0 || m.seq != k.seq || m.pid != k.pid || m.satype != does.satype || !slices.Equal(m.body, reply.body) {
				t.Errorf("%s: program %d hears %+v, want %+v", does.what, c.pid, m, reply)
			}
			if slices.Contains(m.order, extKeyEncrypt) {
				t.Errorf("%s: program %d hears the key", does.what, c.pid)
			}
		}
	}
	promiscuous.do(sadbPromisc, 0)
	for _, c := range []*client{registered, bystander} {
		c.next(sadbPromisc)
		c.silent()
	}
	k.do(sadbRegister, satypeAH)
	registered.next(sadbRegister)
	bystander.silent()
	promiscuous.silent()
}

// What a dump answers, the sender's own messages included, is for who is
// promiscuous, too.
func TestPromiscuousHearsDumps(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	quiet(t, h, "echo 'add 10.0.0.1 10.0.0.2 ah 4096 -A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213;' | setkey -c")
	listener, k := dial(t, h, 1), dial(t, h, 2)
	listener.do(sadbPromisc, 1)
	k.next(sadbPromisc)
	dumped := k.dump(sadbDump, satypeAH)
	m, err := parse(listener.next(sadbPromisc).body)
	if len(dumped) != 1 || err != nil || m.kind != sadbDump || m.pid != 2 || m.spi() != 4096 {
		t.Errorf("heard %+v (%v) of %+v", m, err, dumped)
	}
}

// A program's message to all programs is passed on as it is (RFC 2367, section
// 3.1.11).
func TestMessageToAll(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k, other := dial(t, h, 1), dial(t, h, 2)
	inside := message(sadbAcquire, satypeESP, 77, 99)
	k.write(message(sadbPromisc, satypeUnspec, 5, 1, inside))
	if m := other.next(sadbAcquire); m.seq != 77 || m.pid != 99 || m.satype != satypeESP {
		t.Errorf("heard %+v, want what was within", m)
	}
}

// Everything that an SA can have comes back as it was given.
func TestEveryKindOfSA(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k := dial(t, h, 1)
	four := between(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.7"))
	six := between(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"))
	authKey := key(extKeyAuth, []byte("0123456789abcdef0123"))
	aesKey := key(extKeyEncrypt, []byte("0123456789abcdef"))
	udp := extension(extNATTType, 2)
	ports := slices.Concat(extension(extNATTSport, 4500>>8, 4500&0xff), extension(extNATTDport, 12345>>8, 12345&0xff))
	originals := slices.Concat(
		endpoint(extNATTOA, netip.MustParseAddr("10.0.0.1")), endpoint(extNATTOAR, netip.MustParseAddr("10.0.0.2")))
	all := slices.Concat(lifetime(extLifetimeHard, 1000, 5e12, 86400, 43200), lifetime(extLifetimeSoft, 900, 4e12, 69120, 34560))
	large := extension(extSAReplay, host.AppendUint32(nil, 4096)...)
	for _, want := range []struct {
		what       string
		satype     byte
		sa, sa2    []byte
		replay     []byte
		lifetimes  []byte
		ends       []byte
		keys, natt []byte
	}{
		{what: "AH", satype: satypeAH, sa: sa(0x1001, 4, stateMature, aalgSHA1HMAC, 0, 0),
			sa2: sa2(modeTransport, 7), ends: six, keys: authKey},
		{what: "ESP with authentication", satype: satypeESP, sa: sa(0x1002, 4, stateMature, aalgSHA1HMAC, ealgAESCBC, 0),
			sa2: sa2(modeTunnel, 7), ends: six, keys: slices.Concat(authKey, aesKey)},
		{what: "lifetimes", satype: satypeESP, sa: sa(0x1003, 0, stateMature, aalgSHA1HMAC, ealgAESCBC, 0),
			sa2: sa2(modeAny, 0), lifetimes: all, ends: four, keys: slices.Concat(authKey, aesKey)},
		{what: "UDP encapsulation", satype: satypeESP, sa: sa(0x1004, 0, stateMature, aalgSHA1HMAC, ealgAESCBC, 0),
			sa2: sa2(modeTransport, 0), ends: four, keys: slices.Concat(authKey, aesKey), natt: slices.Concat(udp, ports, originals)},
		{what: "a large replay window", satype: satypeESP, sa: sa(0x1005, 255, stateMature, aalgSHA1HMAC, ealgAESCBC, 0),
			sa2: sa2(modeTunnel, 0), replay: large, ends: four, keys: slices.Concat(authKey, aesKey)},
		{what: "IPComp", satype: satypeIPComp, sa: sa(0x1006, 0, stateMature, 0, 2, 0),
			sa2: sa2(modeTunnel, 9), ends: four},
		{what: "TCP-MD5", satype: satypeTCP, sa: sa(0x1007, 0, stateMature, 252, 0, 0),
			sa2: sa2(modeAny, 0), ends: four, keys: key(extKeyAuth, []byte("secret of BGP"))},
	} {
		// In another order than the answer's.
		k.do(sadbAdd, want.satype, want.keys, want.natt, want.ends, want.replay, want.lifetimes, want.sa2, want.sa)
		got := k.do(sadbGet, want.satype, want.sa, want.ends)
		got.has(t, want.what, want.sa, want.sa2, want.replay, want.lifetimes, got.extensions[extLifetimeCurrent], want.ends, want.keys, want.natt)
	}
	// A dump is of one SA type, or of all.
	for satype, want := range map[byte]int{satypeAH: 1, satypeESP: 4, satypeIPComp: 1, satypeTCP: 1, satypeUnspec: 7} {
		if got := len(k.dump(sadbDump, satype)); got != want {
			t.Errorf("DUMP of SA type %d: %d SAs, want %d", satype, got, want)
		}
	}
	// So is a flush.
	k.do(sadbFlush, satypeESP)
	if got := len(k.dump(sadbDump, satypeUnspec)); got != 3 {
		t.Errorf("after FLUSH of ESP: %d SAs, want 3", got)
	}
	k.do(sadbFlush, satypeUnspec)
	if got := k.dump(sadbDump, satypeUnspec); got != nil {
		t.Errorf("after FLUSH: %+v", got)
	}
}

// GETSPI gives each number of a range once.
func TestSPIRange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	k := dial(t, h, 1)
	ends := between(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	var got []uint32
	for range 4 {
		got = append(got, k.do(sadbGetSPI, satypeESP, ends, spiRange(0x3000, 0x3003)).spi())
	}
	slices.Sort(got)
	if want := []uint32{0x3000, 0x3001, 0x3002, 0x3003}; !slices.Equal(got, want) {
		t.Errorf("SPIs %#x, want %#x", got, want)
	}
	if m := k.ask(sadbGetSPI, satypeESP, ends, spiRange(0x3000, 0x3003)); m.errno != byte(syscall.EEXIST) {
		t.Errorf("the fifth of four SPIs: errno %d, want EEXIST", m.errno)
	}
	// Larval SAs are dumped, without a key.
	for _, m := range k.dump(sadbDump, satypeESP) {
		if m.extensions[extSA][9] != stateLarval || m.extensions[extKeyEncrypt] != nil || !slices.Contains(got, binary.BigEndian.Uint32(m.extensions[extSA][4:])) {
			t.Errorf("DUMP: %+v", m)
		}
	}
}
