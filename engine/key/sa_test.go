package key_test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

func TestErrorsOfSARequests(t *testing.T) {
	t.Parallel()
	const esp = pfkey.SATypeESP
	shorter := src(hostA)
	shorter.PrefixLen = 24
	port := dst(hostB)
	port.Addr = netip.AddrPortFrom(hostB, 500)
	tcp := dst(hostB)
	tcp.Proto = 6
	spi := func(n uint32) *pfkey.SA { return &pfkey.SA{SPI: n, Encrypt: algorithm.EncryptAESCBC} }
	ah := with(ofSAType(without(add(1000), pfkey.ExtKeyEncrypt), pfkey.SATypeAH),
		&pfkey.SA{SPI: 1000, Auth: algorithm.AuthHMACSHA1}, authKey("12345678901234567890"))
	ipcomp := with(ofSAType(without(add(1000), pfkey.ExtKeyEncrypt), pfkey.SATypeIPComp),
		&pfkey.SA{SPI: 1000, Encrypt: algorithm.CompressDeflate})
	tcpMD5 := with(ofSAType(without(add(1000), pfkey.ExtKeyEncrypt), pfkey.SATypeTCPSignature),
		&pfkey.SA{SPI: 1000, Auth: algorithm.AuthTCPMD5}, authKey("secret"))
	natt := func(kind uint8, sport, dport uint16) []pfkey.Extension {
		return []pfkey.Extension{
			&pfkey.NATTType{Type: kind},
			&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: sport}, &pfkey.NATTPort{Kind: pfkey.ExtNATTDport, Port: dport},
		}
	}
	identity := func(kind pfkey.ExtType, t uint16) *pfkey.Identity {
		return &pfkey.Identity{Kind: kind, Type: t, Name: "x"}
	}
	existing := message(pfkey.TypeGet, esp, &pfkey.SA{SPI: 500}, src(hostA), dst(hostB))
	getSPI := message(pfkey.TypeGetSPI, esp, src(hostA), dst(hostB))
	update := func(exts ...pfkey.Extension) *pfkey.Message {
		return with(ofType(without(add(500), pfkey.ExtKeyEncrypt), pfkey.TypeUpdate), exts...)
	}

	// In the database of each case is the SA of add(500).
	for name, c := range map[string]struct {
		m    *pfkey.Message
		want syscall.Errno
	}{
		"add":                          {add(1000), 0},
		"add, prefix ignored":          {add(1000, shorter), 0},
		"add, port ignored":            {add(1000, port), 0},
		"add, unspecified address":     {add(1000, src(netip.IPv4Unspecified())), 0},
		"add, no SA type":              {ofSAType(add(1000), 0), syscall.EINVAL},
		"add, RSVP":                    {ofSAType(add(1000), 5), syscall.EOPNOTSUPP},
		"add, OSPFv2":                  {ofSAType(add(1000), 6), syscall.EOPNOTSUPP},
		"add, RIPv2":                   {ofSAType(add(1000), 7), syscall.EOPNOTSUPP},
		"add, MIP":                     {ofSAType(add(1000), 8), syscall.EOPNOTSUPP},
		"add, SA type 1":               {ofSAType(add(1000), 1), syscall.EINVAL},
		"add, SA type 99":              {ofSAType(add(1000), 99), syscall.EINVAL},
		"add, no SA":                   {without(add(1000), pfkey.ExtSA), syscall.EINVAL},
		"add, no SA2":                  {without(add(1000), pfkey.ExtSA2), 0},
		"add, no source":               {without(add(1000), pfkey.ExtAddressSrc), syscall.EINVAL},
		"add, no destination":          {without(add(1000), pfkey.ExtAddressDst), syscall.EINVAL},
		"add, no key":                  {without(add(1000), pfkey.ExtKeyEncrypt), syscall.EINVAL},
		"add, key too short":           {add(1000, encryptKey("short")), syscall.EINVAL},
		"add, half a byte of key":      {add(1000, &pfkey.Key{Kind: pfkey.ExtKeyEncrypt, Bits: 124, Key: []byte(secret)}), syscall.EINVAL},
		"add, two families":            {add(1000, dst(host6)), syscall.EINVAL},
		"add, two protocols":           {add(1000, tcp), syscall.EINVAL},
		"add, reserved SPI":            {add(255), syscall.EINVAL},
		"add, SPI 0":                   {add(0), syscall.EINVAL},
		"add, SPI is taken":            {add(500), syscall.EEXIST},
		"add, SPI is taken elsewhere":  {add(500, dst(hostC)), syscall.EEXIST},
		"add, unknown algorithm":       {add(1000, &pfkey.SA{SPI: 1000, Encrypt: 200}), syscall.EINVAL},
		"add, twofish":                 {add(1000, &pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptTwofish}), syscall.EOPNOTSUPP},
		"add, unknown flag":            {add(1000, &pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptAESCBC, Flags: 0x1000}), syscall.EINVAL},
		"add, Linux's flags":           {add(1000, &pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptAESCBC, Flags: 0xf0000000}), 0},
		"add, ESN without window":      {add(1000, &pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptAESCBC, Flags: pfkey.SAFlagESN}), syscall.EINVAL},
		"add, giant window":            {add(1000, &pfkey.SAReplay{Packets: 1<<32 - 1}), syscall.EINVAL},
		"add, hard lifetime only":      {add(1000, lifetime(pfkey.ExtLifetimeHard, 10)), syscall.EINVAL},
		"add, soft lifetime only":      {add(1000, lifetime(pfkey.ExtLifetimeSoft, 10)), syscall.EINVAL},
		"add, one identity":            {add(1000, identity(pfkey.ExtIdentitySrc, 1)), syscall.EINVAL},
		"add, two kinds of identity":   {add(1000, identity(pfkey.ExtIdentitySrc, 1), identity(pfkey.ExtIdentityDst, 2)), syscall.EINVAL},
		"add, identities":              {add(1000, identity(pfkey.ExtIdentitySrc, 1), identity(pfkey.ExtIdentityDst, 1)), 0},
		"add, unknown extension":       {add(1000, &pfkey.Unknown{Kind: 200, Body: make([]byte, 4)}), syscall.EINVAL},
		"add, Linux's security label":  {add(1000, &pfkey.Unknown{Kind: pfkey.ExtSecCtx, Body: make([]byte, 4)}), syscall.EINVAL},
		"add, sensitivity ignored":     {add(1000, &pfkey.Unknown{Kind: pfkey.ExtSensitivity, Body: make([]byte, 12)}), 0},
		"add, in UDP":                  {add(1000, natt(pfkey.EncapESPInUDP, 4500, 4500)...), 0},
		"add, in UDP of another kind":  {add(1000, natt(1, 4500, 4500)...), syscall.EINVAL},
		"add, in UDP without port":     {add(1000, natt(pfkey.EncapESPInUDP, 0, 4500)...), syscall.EINVAL},
		"add, null":                    {add(1000, &pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptNull}, encryptKey("")), 0},
		"add, ah":                      {ah, 0},
		"add, ah without key":          {without(ah, pfkey.ExtKeyAuth), syscall.EINVAL},
		"add, ah with encryption":      {with(ah, encryptKey("")), syscall.EINVAL},
		"add, ipcomp":                  {ipcomp, 0},
		"add, ipcomp with key":         {with(ipcomp, authKey("12345678901234567890")), syscall.EINVAL},
		"add, tcp":                     {tcpMD5, 0},
		"add, tcp with encryption":     {with(tcpMD5, encryptKey("")), syscall.EINVAL},
		"get":                          {existing, 0},
		"get, no SA type":              {ofSAType(existing, 0), syscall.EINVAL},
		"get, other type":              {ofSAType(existing, pfkey.SATypeAH), syscall.ENOENT},
		"get, no SA":                   {without(existing, pfkey.ExtSA), syscall.EINVAL},
		"get, no source":               {without(existing, pfkey.ExtAddressSrc), syscall.EINVAL},
		"get, no destination":          {without(existing, pfkey.ExtAddressDst), syscall.EINVAL},
		"get, other SPI":               {with(existing, spi(501)), syscall.ENOENT},
		"get, other source":            {with(existing, src(hostC)), syscall.ENOENT},
		"get, other destination":       {with(existing, dst(hostC)), syscall.ENOENT},
		"delete":                       {ofType(existing, pfkey.TypeDelete), 0},
		"delete, other SPI":            {with(ofType(existing, pfkey.TypeDelete), spi(501)), syscall.ENOENT},
		"delete, no source":            {without(ofType(existing, pfkey.TypeDelete), pfkey.ExtAddressSrc), syscall.EINVAL},
		"delete all":                   {without(ofType(existing, pfkey.TypeDelete), pfkey.ExtSA), 0},
		"delete all, none there":       {without(ofType(with(existing, src(hostC)), pfkey.TypeDelete), pfkey.ExtSA), 0},
		"getspi":                       {getSPI, 0},
		"getspi, no source":            {without(getSPI, pfkey.ExtAddressSrc), syscall.EINVAL},
		"getspi, no destination":       {without(getSPI, pfkey.ExtAddressDst), syscall.EINVAL},
		"getspi, range taken":          {with(getSPI, &pfkey.SPIRange{Min: 500, Max: 500}), syscall.EEXIST},
		"getspi, range reserved":       {with(getSPI, &pfkey.SPIRange{Min: 1, Max: 255}), syscall.EINVAL},
		"getspi, range upside down":    {with(getSPI, &pfkey.SPIRange{Min: 2000, Max: 1000}), syscall.EINVAL},
		"update":                       {update(), 0},
		"update, no SA":                {without(update(), pfkey.ExtSA), syscall.EINVAL},
		"update, other SPI":            {update(spi(501)), syscall.EINVAL},
		"update, other tunnel":         {update(dst(hostC)), syscall.ESRCH},
		"update, other reqid":          {update(&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 101}), syscall.ESRCH},
		"update, other key":            {update(encryptKey("VerySecureKey!!2")), syscall.EINVAL},
		"update, hard lifetime only":   {update(lifetime(pfkey.ExtLifetimeHard, 10)), syscall.EINVAL},
		"update, new address":          {update(address(pfkey.ExtNewAddressSrc, netip.PrefixFrom(hostC, 32))), 0},
		"update, new addresses differ": {update(address(pfkey.ExtNewAddressSrc, netip.PrefixFrom(hostC, 32)), address(pfkey.ExtNewAddressDst, netip.PrefixFrom(host6, 128))), syscall.EINVAL},
		"update, new address differs":  {update(address(pfkey.ExtNewAddressSrc, netip.PrefixFrom(host6, 128))), syscall.EINVAL},
		"flush, SA type 99":            {message(pfkey.TypeFlush, 99), syscall.EINVAL},
		"dump, none of the type":       {message(pfkey.TypeDump, pfkey.SATypeAH), syscall.ENOENT},
		"dump, SA type 99":             {message(pfkey.TypeDump, 99), syscall.EINVAL},
		"type 0":                       {message(0, 0), syscall.EINVAL},
		"expire":                       {message(pfkey.TypeExpire, esp), syscall.EINVAL},
		"pchange":                      {message(pfkey.TypePChange, 0), syscall.EINVAL},
		"type 23":                      {message(23, 0), syscall.EINVAL},
		"type 255":                     {message(255, 0), syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			s, other := f.open(t), f.open(t)
			s.ok(add(500))
			other.take()
			s.fails(c.m, c.want)
			if c.want == 0 {
				return
			}
			if heard := other.take(); len(heard) != 0 {
				t.Errorf("others heard of a failure: %v", heard)
			}
			if n := len(s.all(message(pfkey.TypeDump, 0))); n != 1 {
				t.Errorf("%d SAs after a failure, want the 1 of before", n)
			}
		})
	}
}

func TestAddAnswersWithoutKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	answer := s.ok(add(1000, lifetime(pfkey.ExtLifetimeHard, 60), lifetime(pfkey.ExtLifetimeSoft, 50)))
	heard := other.take()
	if len(heard) != 1 || heard[0] != answer {
		t.Fatalf("others heard %v, want the answer", heard)
	}
	wantKinds(t, answer, pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtAddressSrc, pfkey.ExtAddressDst,
		pfkey.ExtLifetimeHard, pfkey.ExtLifetimeSoft)
	if answer.Seq != 7 || answer.PID != 1234 {
		t.Errorf("answer with seq %d and pid %d, want those of the request", answer.Seq, answer.PID)
	}
	if len(s.take()) != 0 {
		t.Error("the sender heard its own answer twice")
	}
}

func TestGetAnswersWithEverything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	s.ok(add(1000,
		&pfkey.SA{SPI: 1000, Encrypt: algorithm.EncryptAESCBC, Auth: algorithm.AuthHMACSHA1, Replay: 4, Flags: pfkey.SAFlagCyclic},
		authKey("12345678901234567890"),
		lifetime(pfkey.ExtLifetimeHard, 60), lifetime(pfkey.ExtLifetimeSoft, 50)))
	other.take()
	sa, err := f.sad.Get(pfkey.SATypeESP, hostA, hostB, 1000)
	if err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(3 * time.Second)
	sa.Account(2, 300)

	a := s.ok(message(pfkey.TypeGet, pfkey.SATypeESP, &pfkey.SA{SPI: 1000}, src(hostA), dst(hostB)))
	wantKinds(t, a, pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtLifetimeHard, pfkey.ExtLifetimeSoft, pfkey.ExtLifetimeCurrent,
		pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtKeyAuth, pfkey.ExtKeyEncrypt)
	if a.Type != pfkey.TypeGet || a.SAType != pfkey.SATypeESP || a.Seq != 7 || a.PID != 1234 || a.Reserved != 1 {
		t.Errorf("header %+v", a)
	}
	if got := *pfkey.Find[*pfkey.SA](a); got != (pfkey.SA{
		SPI: 1000, Replay: 4, State: pfkey.StateMature, Auth: algorithm.AuthHMACSHA1,
		Encrypt: algorithm.EncryptAESCBC, Flags: pfkey.SAFlagCyclic,
	}) {
		t.Errorf("SA %+v", got)
	}
	if got := *pfkey.Find[*pfkey.SA2](a); got != (pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100}) {
		t.Errorf("SA2 %+v", got)
	}
	if got := *a.Current(); got != (pfkey.Lifetime{
		Kind: pfkey.ExtLifetimeCurrent, Allocations: 2, Bytes: 300, AddTime: 1700000000, UseTime: 1700000003,
	}) {
		t.Errorf("current lifetime %+v", got)
	}
	if a.Hard().AddTime != 60 || a.Soft().AddTime != 50 {
		t.Errorf("lifetimes %+v and %+v", a.Hard(), a.Soft())
	}
	if string(a.KeyEncrypt().Key) != secret || a.KeyEncrypt().Bits != 128 || string(a.KeyAuth().Key) != "12345678901234567890" {
		t.Errorf("keys %+v and %+v", a.KeyAuth(), a.KeyEncrypt())
	}
	if got := *a.Dst(); got != *dst(hostB) {
		t.Errorf("destination %+v", got)
	}
	if heard := other.take(); len(heard) != 0 {
		t.Errorf("others heard the keys: %v", heard)
	}
}

func TestLargeReplayWindow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open(t)
	s.ok(add(1000, &pfkey.SAReplay{Packets: 4096}))
	a := s.one(message(pfkey.TypeDump, pfkey.SATypeESP))
	if got := pfkey.Find[*pfkey.SA](a).Replay; got != 255 {
		t.Errorf("replay window of %d bytes, want 255, the most there is room for", got)
	}
	if got := a.ReplayPackets(); got != 4096 {
		t.Errorf("replay window of %d packets, want 4096", got)
	}
}

func TestEncapsulationIsListed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open(t)
	oai := &pfkey.Address{Kind: pfkey.ExtNATTOAI, PrefixLen: 32, Addr: netip.AddrPortFrom(hostC, 0)}
	oar := &pfkey.Address{Kind: pfkey.ExtNATTOAR, PrefixLen: 32, Addr: netip.AddrPortFrom(hostB, 0)}
	s.ok(add(1000, &pfkey.NATTType{Type: pfkey.EncapESPInUDP}, oai, oar, &pfkey.SA2{Mode: pfkey.ModeTransport},
		&pfkey.NATTPort{Kind: pfkey.ExtNATTSport, Port: 4500}, &pfkey.NATTPort{Kind: pfkey.ExtNATTDport, Port: 14500}))
	a := s.one(message(pfkey.TypeDump, pfkey.SATypeESP))
	if pfkey.Find[*pfkey.NATTType](a) == nil || a.NATTSport().Port != 4500 || a.NATTDport().Port != 14500 {
		t.Errorf("encapsulation %v, want 4500 to 14500", kinds(a))
	}
	if a.NATTOAI() == nil || a.NATTOAI().Addr.Addr() != hostC {
		t.Errorf("original initiator %+v, want %v", a.NATTOAI(), hostC)
	}
	if a.NATTOAR() != nil {
		t.Errorf("original responder %+v, want none: it was not translated", a.NATTOAR())
	}
}

func TestDumpCountsDownToZero(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	for spi := range uint32(5) {
		s.ok(add(1000 + spi))
	}
	other.take()
	answers := s.all(message(pfkey.TypeDump, 0))
	if len(answers) != 5 {
		t.Fatalf("%d answers, want 5", len(answers))
	}
	for i, a := range answers {
		if a.Type != pfkey.TypeDump || a.SAType != pfkey.SATypeESP || a.Seq != uint32(4-i) || a.PID != 1234 {
			t.Errorf("answer %d: %+v", i, a)
		}
		if got, want := pfkey.Find[*pfkey.SA](a).SPI, uint32(1004-i); got != want {
			t.Errorf("answer %d: SPI %d, want %d: newer before older", i, got, want)
		}
	}
	if len(other.take()) != 0 {
		t.Error("others heard a dump")
	}
	s.ok(message(pfkey.TypeFlush, 0))
	s.fails(message(pfkey.TypeDump, 0), syscall.ENOENT)
}

// The last answer has sequence number 0 although SAs go in the meantime.
func TestDumpWhileSAsGo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*fixture)
		want   []uint32 // SPIs
	}{
		"last":   {func(f *fixture) { _ = f.sad.Delete(pfkey.SATypeESP, hostA, hostB, 1000) }, []uint32{1003, 1002, 1001}},
		"middle": {func(f *fixture) { _ = f.sad.Delete(pfkey.SATypeESP, hostA, hostB, 1001) }, []uint32{1003, 1002, 1000}},
		"all":    {func(f *fixture) { f.sad.Flush(pfkey.SATypeESP) }, []uint32{1003, 1002}}, // taken before
		"replaced": {func(f *fixture) {
			_, err := f.sad.Update(sad.Spec{
				SPI: 1000, SAType: pfkey.SATypeESP, Src: hostA, Dst: hostB, Mode: pfkey.ModeTunnel, ReqID: 100,
				Hard: sad.Lifetime{AddTime: 99},
			})
			if err != nil {
				t.Error(err)
			}
		}, []uint32{1003, 1002, 1001, 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			s := f.open(t)
			for spi := range uint32(4) {
				s.ok(add(1000 + spi))
			}
			var spis, seqs []uint32
			for a := range s.Handle(message(pfkey.TypeDump, pfkey.SATypeESP)) {
				if len(spis) == 0 {
					c.change(f)
				}
				if a.KeyEncrypt() == nil {
					t.Errorf("SA %d without key", pfkey.Find[*pfkey.SA](a).SPI)
				}
				spis, seqs = append(spis, pfkey.Find[*pfkey.SA](a).SPI), append(seqs, a.Seq)
			}
			if len(spis) != len(c.want) {
				t.Fatalf("SPIs %v, want %v", spis, c.want)
			}
			for i, spi := range c.want {
				if last := i == len(c.want)-1; spis[i] != spi || (seqs[i] == 0) != last {
					t.Errorf("SPIs %v with sequence numbers %v, want %v, and 0 for the last alone", spis, seqs, c.want)
				}
			}
		})
	}
}

func TestDumpOfSAsThatAreGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open(t)
	s.ok(add(1000))
	answers := s.Handle(message(pfkey.TypeDump, pfkey.SATypeESP))
	f.sad.Flush(pfkey.SATypeESP)
	for a := range answers {
		if syscall.Errno(a.Errno) != syscall.ENOENT {
			t.Errorf("errno %d, want ENOENT", a.Errno)
		}
		return
	}
	t.Error("no answer: the reader waits for ever")
}

func TestGetSPIAndUpdate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ike, other := f.open(t), f.open(t)
	got := ike.ok(message(pfkey.TypeGetSPI, pfkey.SATypeESP, src(hostA), dst(hostB),
		&pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100}, &pfkey.SPIRange{Min: 4000, Max: 4999}))
	wantKinds(t, got, pfkey.ExtSA, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	spi := pfkey.Find[*pfkey.SA](got).SPI
	if spi < 4000 || spi > 4999 {
		t.Fatalf("SPI %d, want 4000 to 4999", spi)
	}
	larval := ike.one(message(pfkey.TypeDump, pfkey.SATypeESP))
	if state := pfkey.Find[*pfkey.SA](larval).State; state != pfkey.StateLarval || larval.KeyEncrypt() != nil {
		t.Errorf("state %v, key %v, want larval and none", state, larval.KeyEncrypt())
	}
	if heard := other.take(); len(heard) != 0 {
		t.Errorf("others heard of an SPI: %v", heard)
	}

	ike.fails(ofType(add(spi, encryptKey("short")), pfkey.TypeUpdate), syscall.EINVAL)
	ike.fails(add(spi), syscall.EEXIST)
	thief := ofType(add(spi), pfkey.TypeUpdate)
	thief.PID = 4321
	other.fails(thief, syscall.EINVAL)

	answer := ike.ok(ofType(add(spi), pfkey.TypeUpdate))
	if answer.KeyEncrypt() != nil {
		t.Error("the answer has the key")
	}
	if heard := other.take(); len(heard) != 1 || heard[0].Type != pfkey.TypeUpdate {
		t.Errorf("others heard %v, want the update", heard)
	}
	if sa, err := f.sad.Get(pfkey.SATypeESP, hostA, hostB, spi); err != nil || sa.State() != pfkey.StateMature {
		t.Errorf("SA %+v, %v, want a mature one", sa, err)
	}
}

func TestDeleteIsHeard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, other := f.open(t), f.open(t)
	for spi := range uint32(3) {
		s.ok(add(1000 + spi))
	}
	other.take()
	one := s.ok(message(pfkey.TypeDelete, pfkey.SATypeESP, src(hostA), dst(hostB), &pfkey.SA{SPI: 1001}))
	wantKinds(t, one, pfkey.ExtSA, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	all := s.ok(message(pfkey.TypeDelete, pfkey.SATypeESP, src(hostA), dst(hostB)))
	wantKinds(t, all, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	flush := s.ok(message(pfkey.TypeFlush, 0))
	wantKinds(t, flush)
	if heard := other.take(); len(heard) != 3 || heard[0] != one || heard[1] != all || heard[2] != flush {
		t.Errorf("others heard %v, want both deletions and the flush", heard)
	}
	s.fails(message(pfkey.TypeDump, 0), syscall.ENOENT)
}

func TestKeyReuseIsLogged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open(t)
	gcm := func(spi uint32) *pfkey.Message {
		return add(spi, &pfkey.SA{SPI: spi, Encrypt: algorithm.EncryptAESGCM16}, encryptKey("sixteen bytes...salt"))
	}
	s.ok(gcm(1000))
	if f.log.Len() != 0 {
		t.Errorf("log: %s", &f.log)
	}
	s.ok(message(pfkey.TypeFlush, 0))
	s.ok(gcm(1000))
	if got := f.log.String(); !strings.Contains(got, "key was used before") || strings.Contains(got, "sixteen") {
		t.Errorf("log: %s", got)
	}
}
