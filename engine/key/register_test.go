package key_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ike, other, third := f.open(t), f.open(t), f.open(t)
	a := ike.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	wantKinds(t, a, pfkey.ExtSupportedAuth, pfkey.ExtSupportedEncrypt)
	if len(other.take())+len(third.take()) != 0 {
		t.Error("a registration was heard by who has not registered")
	}
	other.ok(message(pfkey.TypeRegister, pfkey.SATypeAH))
	if heard := ike.take(); len(heard) != 1 || heard[0].Type != pfkey.TypeRegister || heard[0].SAType != pfkey.SATypeAH {
		t.Errorf("heard %v, want the other's registration", heard)
	}
	ike.fails(message(pfkey.TypeRegister, pfkey.SATypeESP), syscall.EEXIST)
	ike.ok(message(pfkey.TypeRegister, pfkey.SATypeAH))
	ike.fails(message(pfkey.TypeRegister, 4), syscall.EINVAL)
	ike.fails(message(pfkey.TypeRegister, 99), syscall.EINVAL)

	// Without a type the session only learns what there is.
	third.ok(message(pfkey.TypeRegister, 0))
	third.ok(message(pfkey.TypeRegister, 0))
	f.Expire(f.now)
	ike.take()
	other.ok(message(pfkey.TypeRegister, pfkey.SATypeIPComp))
	if len(third.take()) != 0 || len(ike.take()) != 1 {
		t.Error("a registration without a type counts, or one with a type does not")
	}
}

func TestSupportedAlgorithms(t *testing.T) {
	t.Parallel()
	a := newFixture(t).open(t).ok(message(pfkey.TypeRegister, 0))
	auth, _ := a.Get(pfkey.ExtSupportedAuth).(*pfkey.Supported)
	encrypt, _ := a.Get(pfkey.ExtSupportedEncrypt).(*pfkey.Supported)
	for _, want := range []pfkey.SupportedAlgorithm{
		{ID: algorithm.EncryptNull, MinBits: 0, MaxBits: 2048},
		{ID: algorithm.EncryptAESCBC, IVLen: 16, MinBits: 128, MaxBits: 256},
		{ID: algorithm.EncryptAESCTR, IVLen: 8, MinBits: 128, MaxBits: 256},
		{ID: algorithm.EncryptAESGCM16, IVLen: 8, MinBits: 128, MaxBits: 256},
		{ID: algorithm.EncryptChaCha20Poly1305, IVLen: 8, MinBits: 256, MaxBits: 256},
	} {
		if !slices.Contains(encrypt.Algorithms, want) {
			t.Errorf("encryption %+v is not among %+v", want, encrypt.Algorithms)
		}
	}
	for _, want := range []pfkey.SupportedAlgorithm{
		{ID: algorithm.AuthHMACSHA1, MinBits: 160, MaxBits: 160},
		{ID: algorithm.AuthHMACSHA512, MinBits: 512, MaxBits: 512},
	} {
		if !slices.Contains(auth.Algorithms, want) {
			t.Errorf("authentication %+v is not among %+v", want, auth.Algorithms)
		}
	}
	if slices.ContainsFunc(encrypt.Algorithms, func(a pfkey.SupportedAlgorithm) bool { return a.ID == algorithm.EncryptTwofish }) {
		t.Error("twofish, which is only a name")
	}
}

func TestExpire(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ike, other := f.open(t), f.open(t)
	ike.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	ike.ok(add(1000, lifetime(pfkey.ExtLifetimeHard, 60), lifetime(pfkey.ExtLifetimeSoft, 50)))
	ike.ok(message(pfkey.TypeGetSPI, pfkey.SATypeESP, src(hostB), dst(hostA)))
	other.take()

	for _, c := range []struct {
		after time.Duration
		kind  pfkey.ExtType
		state pfkey.SAState
	}{
		{after: 31 * time.Second}, // the larval SA goes without a word
		{49 * time.Second, 0, 0},
		{50 * time.Second, pfkey.ExtLifetimeSoft, pfkey.StateDying},
		{51 * time.Second, 0, 0},
		{60 * time.Second, pfkey.ExtLifetimeHard, pfkey.StateDead},
		{61 * time.Second, 0, 0},
	} {
		f.now = time.Unix(1700000000, 0).Add(c.after)
		f.Expire(f.now)
		heard := ike.take()
		if c.kind == 0 {
			if len(heard) != 0 {
				t.Errorf("after %v: heard %v, want nothing", c.after, heard)
			}
			continue
		}
		if len(heard) != 1 {
			t.Fatalf("after %v: heard %d messages, want 1", c.after, len(heard))
		}
		m := heard[0]
		wantKinds(t, m, pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtLifetimeCurrent, c.kind, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
		if sa := pfkey.Find[*pfkey.SA](m); m.Type != pfkey.TypeExpire || m.SAType != pfkey.SATypeESP || m.Seq != 7 || sa.State != c.state || sa.SPI != 1000 {
			t.Errorf("after %v: %+v of %+v, want EXPIRE in state %v", c.after, m, sa, c.state)
		}
	}
	ike.fails(message(pfkey.TypeDump, 0), syscall.ENOENT)
	if len(other.take()) != 0 {
		t.Error("heard without having registered")
	}
}

func TestAcquire(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	missing := sad.Index{Src: hostA, Dst: hostB, ReqID: 100}
	f.Acquire(missing) // nobody there to be asked

	ike, other := f.open(t), f.open(t)
	ike.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	if _, _, err := f.spd.SetInterface("ipsec0", interfacePolicies()); err != nil {
		t.Fatal(err)
	}
	f.Acquire(missing)
	f.Acquire(missing)
	heard := ike.take()
	if len(heard) != 1 {
		t.Fatalf("heard %d messages, want 1", len(heard))
	}
	m := heard[0]
	wantKinds(t, m, pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtPolicy, pfkey.ExtSA2, pfkey.ExtProposal)
	if m.Type != pfkey.TypeAcquire || m.SAType != pfkey.SATypeESP || m.Seq == 0 || *m.Src() != *src(hostA) || *m.Dst() != *dst(hostB) {
		t.Errorf("heard %+v", m)
	}
	if p := *pfkey.Find[*pfkey.Policy](m); p.Dir != pfkey.DirOut || p.ID != 2 || p.Type != pfkey.PolicyIPsec {
		t.Errorf("policy %+v, want the interface's outbound one", p)
	}
	if x := *pfkey.Find[*pfkey.SA2](m); x != (pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 100}) {
		t.Errorf("SA2 %+v", x)
	}
	for _, c := range pfkey.Find[*pfkey.Proposal](m).Combs {
		e, _ := algorithm.EncryptionByID(c.Encrypt)
		if e == nil || e.Weak != "" || !e.AEAD && c.Auth == 0 || c.EncryptMinBits < 256 || c.HardAddTime == 0 || c.SoftAddTime >= c.HardAddTime {
			t.Errorf("proposal %+v", c)
		}
	}
	if len(other.take()) != 0 {
		t.Error("heard without having registered")
	}

	// Another interface's SA is another matter, and one without policy none.
	f.Acquire(sad.Index{Src: hostA, Dst: hostC, ReqID: 101})
	// The time is over: asked again, with another number.
	f.now = f.now.Add(5 * time.Second)
	f.Acquire(missing)
	heard = ike.take()
	if len(heard) != 1 || heard[0].Seq == m.Seq {
		t.Fatalf("heard %v, want one more question", heard)
	}

	// It is answered: the next one need not wait.
	answer := message(pfkey.TypeGetSPI, pfkey.SATypeESP, src(hostA), dst(hostB))
	answer.Seq = heard[0].Seq
	if got := ike.ok(answer); got.Seq != answer.Seq {
		t.Errorf("answer with seq %d, want that of the question, %d", got.Seq, answer.Seq)
	}
	f.Acquire(missing)
	if heard = ike.take(); len(heard) != 1 {
		t.Fatalf("heard %v, want a question", heard)
	}

	// It failed: wait from then on.
	f.now = f.now.Add(4 * time.Second)
	failure := &pfkey.Message{Type: pfkey.TypeAcquire, SAType: pfkey.SATypeESP, Errno: uint8(syscall.ETIMEDOUT), Seq: heard[0].Seq}
	if answers := ike.all(failure); len(answers) != 0 {
		t.Errorf("answers %v to a failure, want none", answers)
	}
	f.now = f.now.Add(4 * time.Second)
	f.Acquire(missing)
	if heard = ike.take(); len(heard) != 0 {
		t.Errorf("heard %v too soon after a failure", heard)
	}
	f.now = f.now.Add(time.Second)
	f.Acquire(missing)
	if heard = ike.take(); len(heard) != 1 {
		t.Errorf("heard %v, want a question", heard)
	}

	ike.Close()
	f.now = f.now.Add(time.Hour)
	f.Acquire(missing)
	if heard = ike.take(); len(heard) != 0 {
		t.Errorf("heard %v after the end", heard)
	}
}

func TestAcquireFromProgram(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ike, program := f.open(t), f.open(t)
	ike.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	question := message(pfkey.TypeAcquire, pfkey.SATypeESP, src(hostA), dst(hostB), &pfkey.Proposal{})
	for _, missing := range []pfkey.ExtType{pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtProposal} {
		program.fails(without(question, missing), syscall.EINVAL)
	}
	program.fails(ofSAType(question, 0), syscall.EINVAL)
	if answers := program.all(question); len(answers) != 0 {
		t.Errorf("answers %v, want none", answers)
	}
	heard := ike.take()
	if len(heard) != 1 {
		t.Fatalf("heard %v, want the question", heard)
	}
	wantKinds(t, heard[0], pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtProposal)
	ike.ok(add(1000, &pfkey.SA2{Mode: pfkey.ModeAny}))
	program.fails(question, syscall.EEXIST)
}

func TestPromiscuous(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, spy := f.open(t), f.open(t)
	on, off := message(pfkey.TypePromisc, 1), message(pfkey.TypePromisc, 0)
	answer := spy.ok(on)
	if heard := s.take(); len(heard) != 1 || heard[0] != answer {
		t.Errorf("others heard %v, want to be told of the spy", heard)
	}
	spy.take()
	spy.fails(ofSAType(on, 2), syscall.EINVAL)
	spy.take()

	added := s.ok(add(1000))
	if heard := spy.take(); len(heard) != 2 || heard[0].Inner != added || heard[1] != added {
		t.Errorf("the spy heard %v, want the answer within another message and once more as it is", heard)
	}
	s.fails(add(1000), syscall.EEXIST)
	if heard := spy.take(); len(heard) != 1 || heard[0].Inner == nil || heard[0].Inner.Errno == 0 {
		t.Errorf("the spy heard %v, want the failure", heard)
	}
	s.ok(add(1001))
	spy.take()
	if n := len(s.all(message(pfkey.TypeDump, 0))); n != 2 {
		t.Fatalf("%d answers, want 2", n)
	}
	if heard := spy.take(); len(heard) != 2 || heard[1].Type != pfkey.TypePromisc || heard[1].Inner.Type != pfkey.TypeDump {
		t.Errorf("the spy heard %v, want the dump", heard)
	}

	// One program to all others.
	said := message(pfkey.TypePChange, 0)
	got := spy.one(&pfkey.Message{Type: pfkey.TypePromisc, Inner: said})
	if heard := s.take(); len(heard) != 1 || heard[0] != got || heard[0].Type != pfkey.TypePChange {
		t.Errorf("heard %v, want what the other said", heard)
	}

	spy.ok(off)
	s.take()
	spy.take()
	s.ok(message(pfkey.TypeGet, pfkey.SATypeESP, &pfkey.SA{SPI: 1000}, src(hostA), dst(hostB)))
	if heard := spy.take(); len(heard) != 0 {
		t.Errorf("heard %v, want nothing any more", heard)
	}
}

func TestClosedSessionHearsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, gone := f.open(t), f.open(t)
	gone.ok(message(pfkey.TypePromisc, 1))
	gone.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	gone.take()
	gone.Close()
	s.ok(add(1000))
	s.ok(message(pfkey.TypeRegister, pfkey.SATypeESP))
	if heard := gone.take(); len(heard) != 0 {
		t.Errorf("heard %v", heard)
	}
}
