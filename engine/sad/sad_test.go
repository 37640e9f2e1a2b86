package sad

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
)

var (
	hostA = netip.MustParseAddr("192.168.0.3")
	hostB = netip.MustParseAddr("192.168.0.5")
	hostC = netip.MustParseAddr("192.168.0.7")
	host6 = netip.MustParseAddr("2001:db8::5")
)

// clock is a clock that stands still until it is set forward.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) forward(d time.Duration) { c.t = c.t.Add(d) }

func newDB(tb testing.TB) (*DB, *clock) {
	tb.Helper()
	c := &clock{time.Unix(1_700_000_000, 0)}
	return New(Config{Now: c.now}), c
}

// tunnel is an ESP tunnel SA from A to B, changed by the edits.
func tunnel(spi uint32, edits ...func(*Spec)) Spec {
	s := Spec{
		SPI: spi, SAType: pfkey.SATypeESP, Src: hostA, Dst: hostB,
		Mode: pfkey.ModeTunnel, ReqID: 100,
		Encrypt: algorithm.EncryptAESCBC, EncryptKey: []byte("VerySecureKey!!1"),
		PID: 42,
	}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

func ah(spi uint32) Spec {
	return tunnel(spi, func(s *Spec) {
		s.SAType, s.Encrypt, s.EncryptKey = pfkey.SATypeAH, 0, nil
		s.Auth, s.AuthKey = algorithm.AuthHMACSHA256, make([]byte, 32)
	})
}

func ipcomp(cpi uint32) Spec {
	return tunnel(cpi, func(s *Spec) {
		s.SAType, s.Encrypt, s.EncryptKey = pfkey.SATypeIPComp, algorithm.CompressDeflate, nil
	})
}

func tcp(src, dst netip.Addr) Spec {
	return tunnel(0x1000, func(s *Spec) {
		s.SAType, s.Mode, s.ReqID, s.Src, s.Dst = pfkey.SATypeTCPSignature, pfkey.ModeAny, 0, src, dst
		s.Encrypt, s.EncryptKey = 0, nil
		s.Auth, s.AuthKey = algorithm.AuthTCPMD5, []byte("secret")
	})
}

func add(tb testing.TB, db *DB, s Spec) *SA {
	tb.Helper()
	sa, err := db.Add(s)
	if err != nil {
		tb.Fatalf("Add(SPI %d): %v", s.SPI, err)
	}
	return sa
}

func wantErrno(tb testing.TB, err error, want syscall.Errno) {
	tb.Helper()
	var got syscall.Errno
	if !errors.As(err, &got) || got != want {
		tb.Errorf("error = %v, want one that wraps %q", err, want)
	}
}

func spis(db *DB, t pfkey.SAType) []uint32 {
	var list []uint32
	for sa := range db.All(t) {
		list = append(list, sa.SPI)
	}
	return list
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit func(*Spec)
		want syscall.Errno
	}{
		"SPI 0":                        {func(s *Spec) { s.SPI = 0 }, syscall.EINVAL},
		"SPI 255":                      {func(s *Spec) { s.SPI = 255 }, syscall.EINVAL},
		"SPI taken":                    {func(s *Spec) { s.SPI = 1000 }, syscall.EEXIST},
		"SPI taken, other destination": {func(s *Spec) { s.SPI, s.Dst = 1000, hostC }, syscall.EEXIST},
		"SPI taken, other type":        {func(s *Spec) { *s = ah(1000) }, syscall.EEXIST},
		"SPI of a larval SA":           {func(s *Spec) { s.SPI = 1001 }, syscall.EEXIST},
		"no type":                      {func(s *Spec) { s.SAType = pfkey.SATypeUnspec }, syscall.EPROTONOSUPPORT},
		"unknown type":                 {func(s *Spec) { s.SAType = 5 }, syscall.EINVAL},
		"no source":                    {func(s *Spec) { s.Src = netip.Addr{} }, syscall.EINVAL},
		"mode of Linux":                {func(s *Spec) { s.Mode = 3 }, syscall.EINVAL},
		"two families":                 {func(s *Spec) { s.Dst = host6 }, syscall.EINVAL},
		"short key":                    {func(s *Spec) { s.EncryptKey = s.EncryptKey[1:] }, syscall.EINVAL},
		"long key":                     {func(s *Spec) { s.EncryptKey = make([]byte, 33) }, syscall.EINVAL},
		"no key":                       {func(s *Spec) { s.EncryptKey = nil }, syscall.EINVAL},
		"no encryption":                {func(s *Spec) { s.Encrypt, s.EncryptKey = 0, nil }, syscall.EINVAL},
		"unknown encryption":           {func(s *Spec) { s.Encrypt = 99 }, syscall.EINVAL},
		"unknown authentication":       {func(s *Spec) { s.Auth, s.AuthKey = 99, make([]byte, 16) }, syscall.EINVAL},
		"wrong authentication key":     {func(s *Spec) { s.Auth, s.AuthKey = algorithm.AuthHMACSHA1, make([]byte, 16) }, syscall.EINVAL},
		"key without authentication":   {func(s *Spec) { s.AuthKey = make([]byte, 16) }, syscall.EINVAL},
		"tcp-md5 in ESP":               {func(s *Spec) { s.Auth, s.AuthKey = algorithm.AuthTCPMD5, make([]byte, 16) }, syscall.EINVAL},
		"huge window":                  {func(s *Spec) { s.Replay = MaxReplayWindow + 1 }, syscall.EINVAL},
		"ESN without window":           {func(s *Spec) { s.Flags |= pfkey.SAFlagESN }, syscall.EINVAL},
		"NAT-T without port":           {func(s *Spec) { s.NATT = &NATT{SrcPort: 4500} }, syscall.EINVAL},
		"old and derived":              {func(s *Spec) { s.Flags |= pfkey.SAFlagOld | pfkey.SAFlagDeriv }, syscall.EINVAL},
		"IV of 4 bytes":                {func(s *Spec) { s.Flags |= pfkey.SAFlagIV4B }, syscall.EINVAL},
		"twofish":                      {func(s *Spec) { s.Encrypt = algorithm.EncryptTwofish }, syscall.EOPNOTSUPP},
		"AH with encryption":           {func(s *Spec) { *s = ah(2000); s.Encrypt = algorithm.EncryptAESCBC }, syscall.EINVAL},
		"AH without authentication":    {func(s *Spec) { *s = ah(2000); s.Auth, s.AuthKey = 0, nil }, syscall.EINVAL},
		"AH with tcp-md5":              {func(s *Spec) { *s = ah(2000); s.Auth = algorithm.AuthTCPMD5 }, syscall.EINVAL},
		"AH derived":                   {func(s *Spec) { *s = ah(2000); s.Flags = pfkey.SAFlagDeriv }, syscall.EINVAL},
		"AH SPI 255":                   {func(s *Spec) { *s = ah(255) }, syscall.EINVAL},
		"IPComp with key":              {func(s *Spec) { *s = ipcomp(2000); s.EncryptKey = []byte{1} }, syscall.EINVAL},
		"IPComp with authentication":   {func(s *Spec) { *s = ipcomp(2000); s.Auth = algorithm.AuthHMACSHA1 }, syscall.EINVAL},
		"IPComp lzs":                   {func(s *Spec) { *s = ipcomp(2000); s.Encrypt = algorithm.CompressLZS }, syscall.EINVAL},
		"CPI over 16 bits":             {func(s *Spec) { *s = ipcomp(0x10000) }, syscall.EINVAL},
		"TCP with hmac":                {func(s *Spec) { *s = tcp(hostA, hostC); s.Auth = algorithm.AuthHMACMD5 }, syscall.EINVAL},
		"TCP with encryption":          {func(s *Spec) { *s = tcp(hostA, hostC); s.Encrypt = algorithm.EncryptAESCBC }, syscall.EINVAL},
		"TCP with long key":            {func(s *Spec) { *s = tcp(hostA, hostC); s.AuthKey = make([]byte, 81) }, syscall.EINVAL},
		"second TCP":                   {func(s *Spec) { *s = tcp(hostA, hostB); s.SPI = 5000 }, syscall.EEXIST},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := newDB(t)
			add(t, db, tunnel(1000))
			add(t, db, tcp(hostA, hostB))
			if _, err := db.GetSPI(tunnel(0), 1001, 1001); err != nil {
				t.Fatal(err)
			}
			before := spis(db, pfkey.SATypeUnspec)
			sa, err := db.Add(tunnel(2000, tt.edit))
			wantErrno(t, err, tt.want)
			if sa != nil {
				t.Errorf("an SA came with the error")
			}
			if after := spis(db, pfkey.SATypeUnspec); !slices.Equal(before, after) {
				t.Errorf("database has %v now, had %v", after, before)
			}
		})
	}
}

func TestAddTakes(t *testing.T) {
	t.Parallel()
	tests := map[string]Spec{
		"ESP":             tunnel(1000),
		"SPI 256":         tunnel(256),
		"highest SPI":     tunnel(math.MaxUint32),
		"transport":       tunnel(1000, func(s *Spec) { s.Mode = pfkey.ModeTransport }),
		"aes-gcm-16":      tunnel(1000, func(s *Spec) { s.Encrypt, s.EncryptKey = algorithm.EncryptAESGCM16, make([]byte, 20) }),
		"null":            tunnel(1000, func(s *Spec) { s.Encrypt, s.EncryptKey = algorithm.EncryptNull, nil }),
		"authenticated":   tunnel(1000, func(s *Spec) { s.Auth, s.AuthKey = algorithm.AuthHMACSHA1, make([]byte, 20) }),
		"window":          tunnel(1000, func(s *Spec) { s.Replay = 4096 }),
		"ESN":             tunnel(1000, func(s *Spec) { s.Replay, s.Flags = 64, pfkey.SAFlagESN }),
		"IPv6 with zones": tunnel(1000, func(s *Spec) { s.Src, s.Dst = netip.MustParseAddr("fe80::1%2"), netip.MustParseAddr("fe80::2%2") }),
		"AH":              ah(1000),
		"IPComp":          ipcomp(2),
		"TCP":             tcp(hostA, hostB),
		"NAT-T":           tunnel(1000, func(s *Spec) { s.NATT = &NATT{SrcPort: 4500, DstPort: 4500, OAI: hostC} }),
	}
	for name, spec := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c := newDB(t)
			sa := add(t, db, spec)
			if sa.State() != pfkey.StateMature || !sa.Created.Equal(c.t) {
				t.Errorf("state %v, created %v", sa.State(), sa.Created)
			}
			if (sa.ESP != nil) != (spec.SAType == pfkey.SATypeESP) {
				t.Errorf("ESP transform: %v", sa.ESP)
			}
			got, err := db.Get(spec.SAType, spec.Src, spec.Dst, spec.SPI)
			if err != nil || got != sa {
				t.Errorf("Get = %p, %v, want %p", got, err, sa)
			}
		})
	}
}

func TestOldESPIsStoredWithoutTransform(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	sa := add(t, db, tunnel(1000, func(s *Spec) { s.Flags = pfkey.SAFlagOld }))
	if sa.ESP != nil || db.Inbound(1000, hostB) != nil || db.Outbound(Index{hostA, hostB, 100}) != nil {
		t.Errorf("RFC 1827's ESP reaches the data plane")
	}
	if got := spis(db, pfkey.SATypeESP); !slices.Equal(got, []uint32{1000}) {
		t.Errorf("listed: %v", got)
	}
}

func TestTCPMD5SAsGetAnotherSPI(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	first := add(t, db, tcp(hostA, hostB))
	second := add(t, db, tcp(hostB, hostA))
	if first.SPI != 0x1000 || second.SPI == 0x1000 {
		t.Errorf("SPIs %#x and %#x", first.SPI, second.SPI)
	}
	// The SPI does not matter in looking one up.
	got, err := db.Get(pfkey.SATypeTCPSignature, hostB, hostA, 0)
	if err != nil || got != second {
		t.Errorf("Get = %v, %v", got, err)
	}
	if err := db.Delete(pfkey.SATypeTCPSignature, hostA, hostB, 7); err != nil || first.State() != pfkey.StateDead {
		t.Errorf("Delete: %v, state %v", err, first.State())
	}
	_, err = db.Get(pfkey.SATypeTCPSignature, hostA, hostB, 0x1000)
	wantErrno(t, err, syscall.ENOENT)
}

func TestKeysAreCopiedAndWiped(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	spec := tunnel(1000, func(s *Spec) { s.Auth, s.AuthKey = algorithm.AuthHMACSHA1, []byte("01234567890123456789") })
	sa := add(t, db, spec)
	if sa.AuthKey != nil || sa.EncryptKey != nil {
		t.Errorf("the SA's Spec shows the keys")
	}
	spec.EncryptKey[0] ^= 0xff
	auth, encrypt := sa.Keys()
	if string(auth) != "01234567890123456789" || string(encrypt) != "VerySecureKey!!1" {
		t.Errorf("Keys = %q, %q", auth, encrypt)
	}
	kept := sa.keys.encrypt
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 1000); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, 16)) {
		t.Errorf("the key is still in memory: %q", kept)
	}
	if auth, encrypt := sa.Keys(); auth != nil || encrypt != nil {
		t.Errorf("a dead SA has keys %q, %q", auth, encrypt)
	}
	if string(encrypt) != "VerySecureKey!!1" {
		t.Errorf("a copy was wiped too")
	}
}

func TestKeyReuseIsNoticed(t *testing.T) {
	t.Parallel()
	gcm := func(key byte) func(*Spec) {
		return func(s *Spec) {
			s.Encrypt, s.EncryptKey = algorithm.EncryptAESGCM16, bytes.Repeat([]byte{key}, 20)
		}
	}
	db, _ := newDB(t)
	if add(t, db, tunnel(1000, gcm(1))).KeyReused || add(t, db, tunnel(1001, gcm(2))).KeyReused {
		t.Errorf("new keys pass for used ones")
	}
	db.Flush(pfkey.SATypeUnspec)
	sa := add(t, db, tunnel(1002, gcm(1)))
	if !sa.KeyReused {
		t.Errorf("a key that was used before a flush passes for new")
	}
	if next, err := db.Update(tunnel(1002)); err == nil || next != nil {
		t.Errorf("update with another key: %v, %v", next, err)
	}
	next, err := db.Update(tunnel(1002, gcm(1)))
	if err != nil || !next.KeyReused {
		t.Errorf("the update forgot that the key is used: %v", err)
	}
	add(t, db, tunnel(1003))
	if add(t, db, tunnel(1004)).KeyReused {
		t.Errorf("CBC with random IVs minds a key that is used twice")
	}
}

func TestGetSPI(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec      Spec
		min, max  uint32
		low, high uint32 // what is allowed, or:
		want      syscall.Errno
	}{
		"default range":         {tunnel(0), 0, 0, 0x100, 0xfffffff, 0},
		"range":                 {tunnel(0), 5000, 5010, 5000, 5010, 0},
		"everything":            {tunnel(0), 256, math.MaxUint32, 256, math.MaxUint32, 0},
		"one":                   {tunnel(0), 5000, 5000, 5000, 5000, 0},
		"reserved part cut off": {tunnel(0), 1, 256, 256, 256, 0},
		"CPI":                   {ipcomp(0), 0, 0, 0x100, 0xffff, 0},
		"CPI above 16 bits":     {ipcomp(0), 0x20000, 0x30000, 0xffff, 0xffff, 0},
		"one, taken":            {tunnel(0), 1000, 1000, 0, 0, syscall.EEXIST},
		"range, taken":          {tunnel(0), 1000, 1002, 0, 0, syscall.EEXIST},
		"empty":                 {tunnel(0), 5001, 5000, 0, 0, syscall.EINVAL},
		"reserved":              {tunnel(0), 1, 255, 0, 0, syscall.EINVAL},
		"no type":               {tunnel(0, func(s *Spec) { s.SAType = pfkey.SATypeUnspec }), 0, 0, 0, 0, syscall.EPROTONOSUPPORT},
		"two families":          {tunnel(0, func(s *Spec) { s.Src = host6 }), 0, 0, 0, 0, syscall.EINVAL},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c := newDB(t)
			for spi := range uint32(3) {
				add(t, db, tunnel(1000+spi))
			}
			sa, err := db.GetSPI(tt.spec, tt.min, tt.max)
			if tt.want != 0 {
				wantErrno(t, err, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if sa.SPI < tt.low || sa.SPI > tt.high {
				t.Errorf("SPI %d, want one from %d to %d", sa.SPI, tt.low, tt.high)
			}
			if sa.State() != pfkey.StateLarval || !sa.Created.Equal(c.t) || sa.ReqID != 100 || sa.PID != 42 {
				t.Errorf("larval SA: %+v, state %v", sa.Spec, sa.State())
			}
			if db.Inbound(sa.SPI, hostB) != nil {
				t.Errorf("packets find a larval SA")
			}
		})
	}
}

func TestGetSPIFindsTheLastFreeOne(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	got := map[uint32]bool{}
	for range 50 {
		sa, err := db.GetSPI(tunnel(0), 300, 349)
		if err != nil {
			t.Fatal(err)
		}
		got[sa.SPI] = true
	}
	if len(got) != 50 {
		t.Errorf("50 SAs have %d SPIs", len(got))
	}
	_, err := db.GetSPI(tunnel(0), 300, 349)
	wantErrno(t, err, syscall.EEXIST)
}

func TestGetSPITriesAgain(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 8)
	for name, tt := range map[string]struct {
		random string
		errno  syscall.Errno
	}{
		"second try":      {zeros + strings.Repeat("\x22", 8), 0},
		"runs dry":        {zeros, syscall.EAGAIN},
		"always the same": {strings.Repeat(zeros, spiTries+1), syscall.EEXIST},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := New(Config{Rand: strings.NewReader(tt.random)})
			add(t, db, tunnel(1000, func(s *Spec) { *s = ah(1000) })) // takes no randomness
			sa, err := db.GetSPI(tunnel(0), 1000, 1_000_000)
			if tt.errno != 0 {
				wantErrno(t, err, tt.errno)
			} else if err != nil || sa.SPI <= 1000 {
				t.Errorf("GetSPI = %v, %v", sa, err)
			}
		})
	}
}

func TestPadding(t *testing.T) {
	t.Parallel()
	for flags, want := range map[pfkey.SAFlags]func(pad []byte) bool{
		0:                     func(pad []byte) bool { return bytes.Equal(pad, []byte{1}) },
		pfkey.SAFlagPadZero:   func(pad []byte) bool { return bytes.Equal(pad, []byte{0}) },
		pfkey.SAFlagPadRandom: func(pad []byte) bool { return len(pad) == 1 },
	} {
		db, _ := newDB(t)
		sa := add(t, db, tunnel(1000, func(s *Spec) {
			s.Flags, s.Encrypt, s.EncryptKey = flags, algorithm.EncryptNull, nil
		}))
		const payload = 5 // with pad length and next header 7, one short of a multiple of 4
		off := sa.ESP.HeaderLen()
		buf := make([]byte, off+payload+sa.ESP.MaxTrailerLen())
		_, end, err := sa.ESP.Seal(1, buf, off, payload, 4)
		if err != nil {
			t.Fatal(err)
		}
		if pad := buf[off+payload : end-2]; !want(pad) {
			t.Errorf("with flags %#x the padding is %x", flags, pad)
		}
	}
}

func TestRandomnessThatFails(t *testing.T) {
	t.Parallel()
	db := New(Config{Rand: strings.NewReader("seven b")})
	_, err := db.GetSPI(tunnel(0), 0, 0)
	wantErrno(t, err, syscall.EAGAIN)
	if n := len(spis(db, pfkey.SATypeUnspec)); n != 0 {
		t.Errorf("%d SAs", n)
	}
}

func TestUpdateCompletesALarvalSA(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	older := add(t, db, tunnel(1000))
	larval, err := db.GetSPI(tunnel(0, func(s *Spec) { s.Seq = 7 }), 5000, 5000)
	if err != nil {
		t.Fatal(err)
	}
	newer := add(t, db, tunnel(1001))
	c.forward(3 * time.Second)
	sa, err := db.Update(tunnel(5000, func(s *Spec) { s.Replay = 32 }))
	if err != nil {
		t.Fatal(err)
	}
	if sa.State() != pfkey.StateMature || sa.ESP == nil || !sa.Created.Equal(c.t) || sa.Seq != 7 || sa.Replay != 32 {
		t.Errorf("SA: %+v, state %v", sa.Spec, sa.State())
	}
	if larval.State() != pfkey.StateDead {
		t.Errorf("the larval SA is %v", larval.State())
	}
	if db.Inbound(5000, hostB) != sa {
		t.Errorf("packets do not find it")
	}
	// It is as old as its completion.
	want := []uint32{sa.SPI, newer.SPI, older.SPI}
	if got := spis(db, pfkey.SATypeESP); !slices.Equal(got, want) {
		t.Errorf("dump %v, want %v", got, want)
	}
	if db.Outbound(Index{hostA, hostB, 100}) != sa {
		t.Errorf("it is not the newest")
	}
	if events := db.Expire(c.t.Add(time.Hour)); len(events) != 0 {
		t.Errorf("events %v", events)
	}
}

func TestUpdateRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec Spec
		want syscall.Errno
	}{
		"no such SPI":             {tunnel(1), syscall.EINVAL},
		"other destination":       {tunnel(1000, func(s *Spec) { s.Dst = hostC }), syscall.ESRCH},
		"other reqid":             {tunnel(1000, func(s *Spec) { s.ReqID = 101 }), syscall.ESRCH},
		"other mode":              {tunnel(1000, func(s *Spec) { s.Mode = pfkey.ModeTransport }), syscall.ESRCH},
		"other type":              {ah(1000), syscall.ESRCH},
		"other key":               {tunnel(1000, func(s *Spec) { s.EncryptKey = make([]byte, 16) }), syscall.EINVAL},
		"new authentication key":  {tunnel(1000, func(s *Spec) { s.AuthKey = make([]byte, 16) }), syscall.EINVAL},
		"NAT-T without ports":     {tunnel(1000, func(s *Spec) { s.NATT = &NATT{} }), syscall.EINVAL},
		"two families":            {tunnel(1000, func(s *Spec) { s.Dst = host6 }), syscall.EINVAL},
		"larval, not implemented": {tunnel(5000, func(s *Spec) { s.Encrypt = algorithm.EncryptTwofish }), syscall.EOPNOTSUPP},
		"larval, second TCP":      {func() Spec { s := tcp(hostA, hostB); s.SPI = 5001; return s }(), syscall.EEXIST},
		"larval, other process":   {tunnel(5000, func(s *Spec) { s.PID = 43 }), syscall.EINVAL},
		"larval, bad key":         {tunnel(5000, func(s *Spec) { s.EncryptKey = nil }), syscall.EINVAL},
		"larval, other reqid":     {tunnel(5000, func(s *Spec) { s.ReqID = 101 }), syscall.ESRCH},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := newDB(t)
			sa := add(t, db, tunnel(1000))
			larval, err := db.GetSPI(tunnel(0), 5000, 5000)
			if err != nil {
				t.Fatal(err)
			}
			add(t, db, tcp(hostA, hostB))
			if _, err := db.GetSPI(tcp(hostA, hostB), 5001, 5001); err != nil {
				t.Fatal(err)
			}
			_, err = db.Update(tt.spec)
			wantErrno(t, err, tt.want)
			if sa.State() != pfkey.StateMature || larval.State() != pfkey.StateLarval || db.Inbound(1000, hostB) != sa {
				t.Errorf("states are %v and %v now", sa.State(), larval.State())
			}
		})
	}
}

func TestUpdateOfAMatureSA(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	old := add(t, db, tunnel(1000, func(s *Spec) { s.Soft.AddTime = 10 }))
	newer := add(t, db, tunnel(1001))
	old.Account(3, 300)
	c.forward(11 * time.Second)
	if events := db.Expire(c.t); len(events) != 1 || old.State() != pfkey.StateDying {
		t.Fatalf("events %v, state %v", events, old.State())
	}
	// Another process may do it, and without repeating reqid and keys.
	sa, err := db.Update(tunnel(1000, func(s *Spec) {
		s.PID, s.ReqID, s.EncryptKey = 43, 0, nil
		s.Hard.AddTime = 60
		s.NATT = &NATT{SrcPort: 4500, DstPort: 4501}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if sa.State() != pfkey.StateMature || sa.ReqID != 100 || sa.PID != 42 || sa.Hard.AddTime != 60 || sa.Soft != (Lifetime{}) {
		t.Errorf("SA %+v, state %v", sa.Spec, sa.State())
	}
	if sa.NATT == nil || sa.NATT.DstPort != 4501 {
		t.Errorf("NAT-T %v", sa.NATT)
	}
	if sa.ESP != old.ESP || sa.Current() != old.Current() || sa.Current().Packets != 3 {
		t.Errorf("it does not go on where it was")
	}
	if _, key := sa.Keys(); string(key) != "VerySecureKey!!1" {
		t.Errorf("key %q", key)
	}
	if old.State() != pfkey.StateDead || db.Inbound(1000, hostB) != sa {
		t.Errorf("readers find the old one")
	}
	if got := spis(db, pfkey.SATypeESP); !slices.Equal(got, []uint32{1001, 1000}) || db.Outbound(Index{hostA, hostB, 100}) != newer {
		t.Errorf("the update made it younger: %v", got)
	}
	c.forward(49 * time.Second) // 60 s after it was added
	if events := db.Expire(c.t); len(events) != 1 || events[0] != (Event{sa, HardExpired}) {
		t.Errorf("events %v", events)
	}
}

func TestMove(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	old := add(t, db, tunnel(1000))
	there := add(t, db, tunnel(1001, func(s *Spec) { s.Dst = hostC }))
	sa, err := db.Move(tunnel(1000), netip.Addr{}, hostC)
	if err != nil {
		t.Fatal(err)
	}
	if sa.Src != hostA || sa.Dst != hostC || sa.ESP != old.ESP {
		t.Errorf("moved to %v from %v", sa.Dst, sa.Src)
	}
	if db.Inbound(1000, hostB) != nil || db.Inbound(1000, hostC) != sa {
		t.Errorf("packets find it at the wrong address")
	}
	if db.Outbound(Index{hostA, hostB, 100}) != nil || db.Outbound(Index{hostA, hostC, 100}) != there {
		t.Errorf("it keeps its age wherever it goes")
	}
	if got := spis(db, pfkey.SATypeESP); !slices.Equal(got, []uint32{1001, 1000}) {
		t.Errorf("dump %v", got)
	}
	_, err = db.Move(tunnel(1000, func(s *Spec) { s.Dst = hostC }), host6, netip.Addr{})
	wantErrno(t, err, syscall.EINVAL)
	if _, err := db.GetSPI(tunnel(0), 5000, 5000); err != nil {
		t.Fatal(err)
	}
	_, err = db.Move(tunnel(5000), hostC, netip.Addr{})
	wantErrno(t, err, syscall.EINVAL)

	add(t, db, tcp(hostA, hostB))
	second := add(t, db, tcp(hostA, hostC))
	_, err = db.Move(second.Spec, netip.Addr{}, hostB)
	wantErrno(t, err, syscall.EEXIST)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	sa := add(t, db, tunnel(1000))
	larval, err := db.GetSPI(tunnel(0), 5000, 5000)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"other SPI":         db.Delete(pfkey.SATypeESP, hostA, hostB, 1001),
		"other source":      db.Delete(pfkey.SATypeESP, hostC, hostB, 1000),
		"other destination": db.Delete(pfkey.SATypeESP, hostA, hostC, 1000),
		"other type":        db.Delete(pfkey.SATypeAH, hostA, hostB, 1000),
		"TCP":               db.Delete(pfkey.SATypeTCPSignature, hostA, hostB, 1000),
	} {
		t.Run(name, func(t *testing.T) { wantErrno(t, err, syscall.ENOENT) })
	}
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 1000); err != nil {
		t.Fatal(err)
	}
	if sa.State() != pfkey.StateDead || db.Inbound(1000, hostB) != nil || db.Outbound(Index{hostA, hostB, 100}) != nil {
		t.Errorf("packets find a deleted SA, state %v", sa.State())
	}
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 5000); err != nil || larval.State() != pfkey.StateDead {
		t.Errorf("larval: %v, state %v", err, larval.State())
	}
	add(t, db, tunnel(1000))
}

func TestDeleteAll(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	for i := range uint32(3) {
		add(t, db, tunnel(1000+i, func(s *Spec) { s.ReqID = 100 + i/2 }))
	}
	add(t, db, tunnel(2000, func(s *Spec) { s.Src, s.Dst = hostB, hostA }))
	add(t, db, ah(2001))
	if _, err := db.GetSPI(tunnel(0), 5000, 5000); err != nil {
		t.Fatal(err)
	}
	if n := db.DeleteAll(pfkey.SATypeESP, hostA, hostB); n != 3 {
		t.Errorf("deleted %d, want 3", n)
	}
	if n := db.DeleteAll(pfkey.SATypeESP, hostA, hostB); n != 0 {
		t.Errorf("deleted %d again", n)
	}
	if got := spis(db, pfkey.SATypeUnspec); !slices.Equal(got, []uint32{2001, 2000, 5000}) {
		t.Errorf("left: %v", got)
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	add(t, db, tunnel(1000))
	add(t, db, ah(1001))
	if _, err := db.GetSPI(tunnel(0), 5000, 5000); err != nil {
		t.Fatal(err)
	}
	if n := db.Flush(pfkey.SATypeESP); n != 2 {
		t.Errorf("flushed %d, want 2", n)
	}
	if got := spis(db, pfkey.SATypeUnspec); !slices.Equal(got, []uint32{1001}) {
		t.Errorf("left: %v", got)
	}
	if n := db.Flush(pfkey.SATypeUnspec); n != 1 {
		t.Errorf("flushed %d, want 1", n)
	}
	if len(db.heads)+len(db.pairs)+db.order.Len()+db.spis.live+db.outbound.live+len(db.deadlines) != 0 {
		t.Errorf("something is left of an empty database")
	}
}

func TestDumpOrder(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	other := func(s *Spec) { s.ReqID = 200 }
	add(t, db, tunnel(1000))
	add(t, db, tunnel(1001, other))
	add(t, db, tunnel(1002))
	for spi := range uint32(2) {
		if _, err := db.GetSPI(tunnel(0), 5000+spi, 5000+spi); err != nil {
			t.Fatal(err)
		}
	}
	add(t, db, ah(1003))
	add(t, db, tunnel(1004, other))
	want := []uint32{1003, 1004, 1001, 5001, 5000, 1002, 1000}
	if got := spis(db, pfkey.SATypeUnspec); !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got := spis(db, pfkey.SATypeESP); !slices.Equal(got, want[1:]) {
		t.Errorf("ESP: %v, want %v", got, want[1:])
	}
	for range db.All(pfkey.SATypeUnspec) {
		break // the rest is not asked for
	}
}

func TestAllMayChangeTheDatabase(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	for spi := range uint32(10) {
		add(t, db, tunnel(1000+spi))
	}
	for sa := range db.All(pfkey.SATypeESP) {
		if err := db.Delete(sa.SAType, sa.Src, sa.Dst, sa.SPI); err != nil {
			t.Error(err)
		}
	}
	if got := spis(db, pfkey.SATypeUnspec); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	zoned := netip.MustParseAddr("fe80::2%2")
	esp := add(t, db, tunnel(1000))
	local := add(t, db, tunnel(1001, func(s *Spec) { s.Src, s.Dst = netip.MustParseAddr("fe80::1%2"), zoned }))
	add(t, db, ah(1002))
	tests := map[string]struct {
		spi  uint32
		dst  netip.Addr
		want *SA
	}{
		"found":          {1000, hostB, esp},
		"other SPI":      {999, hostB, nil},
		"source":         {1000, hostA, nil},
		"AH":             {1002, hostB, nil},
		"zone":           {1001, zoned, local},
		"other zone":     {1001, zoned.WithZone("3"), nil},
		"without a zone": {1001, zoned.WithZone(""), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := db.Inbound(tt.spi, tt.dst); got != tt.want {
				t.Errorf("Inbound(%d, %v) = %v", tt.spi, tt.dst, got)
			}
		})
	}
}

func TestOutbound(t *testing.T) {
	t.Parallel()
	type entry struct {
		spi  uint32
		soft uint64 // seconds
		edit func(*Spec)
	}
	reqid := func(id uint32) func(*Spec) { return func(s *Spec) { s.ReqID = id } }
	mode := func(m pfkey.Mode) func(*Spec) { return func(s *Spec) { s.Mode = m } }
	tests := map[string]struct {
		entries  []entry // dying if soft is 1
		new, old uint32  // SPI of what is preferred, 0 for none
	}{
		"none":              {nil, 0, 0},
		"one":               {[]entry{{spi: 1000}}, 1000, 1000},
		"two":               {[]entry{{spi: 1000}, {spi: 1001}}, 1001, 1000},
		"new one dying":     {[]entry{{spi: 1000}, {spi: 1001, soft: 1}}, 1000, 1000},
		"old one dying":     {[]entry{{spi: 1000, soft: 1}, {spi: 1001}}, 1001, 1000},
		"both dying":        {[]entry{{spi: 1000, soft: 1}, {spi: 1001, soft: 1}}, 1001, 1000},
		"other reqid":       {[]entry{{spi: 1000, edit: reqid(101)}}, 0, 0},
		"no reqid":          {[]entry{{spi: 1000, edit: reqid(0)}}, 0, 0},
		"other reqid newer": {[]entry{{spi: 1000}, {spi: 1001, edit: reqid(101)}}, 1000, 1000},
		"any mode":          {[]entry{{spi: 1000, edit: mode(pfkey.ModeAny)}}, 1000, 1000},
		"any mode newer":    {[]entry{{spi: 1000}, {spi: 1001, edit: mode(pfkey.ModeAny)}}, 1001, 1000},
		"any mode dying":    {[]entry{{spi: 1000}, {spi: 1001, soft: 1, edit: mode(pfkey.ModeAny)}}, 1000, 1000},
		"transport":         {[]entry{{spi: 1000, edit: mode(pfkey.ModeTransport)}}, 0, 0},
		"the other way":     {[]entry{{spi: 1000, edit: func(s *Spec) { s.Src, s.Dst = hostB, hostA }}}, 0, 0},
		"AH":                {[]entry{{spi: 1000, edit: func(s *Spec) { *s = ah(1000) }}}, 0, 0},
	}
	for name, tt := range tests {
		for preferOld, want := range map[bool]uint32{false: tt.new, true: tt.old} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := &clock{time.Unix(1_700_000_000, 0)}
				db := New(Config{Now: c.now, PreferOld: preferOld})
				for _, e := range tt.entries {
					s := tunnel(e.spi)
					s.Soft.AddTime = e.soft
					if e.edit != nil {
						e.edit(&s)
					}
					add(t, db, s)
				}
				c.forward(time.Minute)
				db.Expire(c.t)
				var got uint32
				if sa := db.Outbound(Index{hostA, hostB, 100}); sa != nil {
					got = sa.SPI
				}
				if got != want {
					t.Errorf("with PreferOld %v SPI %d, want %d", preferOld, got, want)
				}
			})
		}
	}
}

func TestOutboundFallsBackToTheOlder(t *testing.T) {
	t.Parallel()
	db, _ := newDB(t)
	old := add(t, db, tunnel(1000))
	add(t, db, tunnel(1001))
	if err := db.Delete(pfkey.SATypeESP, hostA, hostB, 1001); err != nil {
		t.Fatal(err)
	}
	if got := db.Outbound(Index{hostA, hostB, 100}); got != old {
		t.Errorf("Outbound = %v", got)
	}
}

func TestReadersDoNotAllocate(t *testing.T) {
	db, _ := newDB(t)
	sa := add(t, db, tunnel(1000))
	if n := testing.AllocsPerRun(100, func() {
		db.Inbound(1000, hostB)
		db.Outbound(Index{hostA, hostB, 100})
		sa.Account(1, 100)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTune(t *testing.T) {
	t.Parallel()
	db, c := newDB(t)
	oldest, newest := add(t, db, tunnel(1000)), add(t, db, tunnel(1001))
	if _, err := db.GetSPI(tunnel(0), 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		old    bool
		larval time.Duration
		want   *SA
	}{
		{true, time.Minute, oldest}, {false, time.Hour, newest}, {true, time.Second, oldest},
	} {
		db.Tune(step.old, step.larval)
		if got := db.Outbound(Index{hostA, hostB, 100}); got != step.want {
			t.Errorf("with the oldest preferred %v: SPI %d, want %d", step.old, got.SPI, step.want.SPI)
		}
		if next, ok := db.NextDeadline(); !ok || !next.Equal(c.t.Add(step.larval)) {
			t.Errorf("larval lifetime %v: deadline %v, %v", step.larval, next, ok)
		}
	}
}
