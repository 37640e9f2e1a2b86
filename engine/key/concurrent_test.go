package key_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"ifipsec/engine/key"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// Several programs at once: each hears all that the others do.
func TestManySessionsAtOnce(t *testing.T) {
	t.Parallel()
	const programs, each = 4, 100
	h := key.New(key.Config{SAD: sad.New(sad.Config{}), SPD: spd.New(spd.Config{})})
	var heard [programs]atomic.Int32
	var sessions [programs]*key.Session
	for i := range programs {
		sessions[i] = h.Open(func(m *pfkey.Message) {
			if m.Type == pfkey.TypeAdd {
				heard[i].Add(1)
			}
		})
	}
	var wg sync.WaitGroup
	for i, s := range sessions {
		wg.Go(func() {
			for n := range uint32(each) {
				for a := range s.Handle(add(1000 + uint32(i)*each + n)) {
					if a.Errno != 0 {
						t.Errorf("add: errno %d", a.Errno)
					}
				}
				h.Acquire(sad.Index{Src: hostA, Dst: hostB, ReqID: n})
			}
			last := uint32(1)
			for a := range s.Handle(message(pfkey.TypeDump, 0)) {
				last = a.Seq
			}
			if last != 0 {
				t.Errorf("the dump ends at sequence number %d", last)
			}
		})
	}
	wg.Wait()
	for i := range heard {
		if got := heard[i].Load(); got != (programs-1)*each {
			t.Errorf("session %d heard of %d SAs, want %d", i, got, (programs-1)*each)
		}
	}
}

// Whatever a program sends is answered with what can be sent.
func FuzzHandle(f *testing.F) {
	for _, m := range []*pfkey.Message{
		add(1000), ofType(add(1000), pfkey.TypeUpdate), message(pfkey.TypeDump, 0), message(pfkey.TypeRegister, 3),
		message(pfkey.TypeGetSPI, 3, src(hostA), dst(hostB), &pfkey.SPIRange{Min: 256, Max: 300}),
		message(pfkey.TypeAcquire, 3, src(hostA), dst(hostB), &pfkey.Proposal{}),
		spdadd(), spddelete(), message(pfkey.TypeSPDDump, 0), message(pfkey.TypeSPDDelete2, 0, &pfkey.Policy{ID: 1}),
		message(pfkey.TypePromisc, 1), {Type: pfkey.TypePromisc, Inner: message(pfkey.TypePChange, 0)},
	} {
		b, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := pfkey.Decode(b)
		if err != nil {
			return
		}
		h := key.New(key.Config{SAD: sad.New(sad.Config{}), SPD: spd.New(spd.Config{})})
		s := h.Open(func(m *pfkey.Message) {
			if _, err := m.Encode(); err != nil {
				t.Errorf("%+v is heard: %v", m, err)
			}
		})
		for range 2 {
			for a := range s.Handle(m) {
				if _, err := a.Encode(); err != nil {
					t.Errorf("%+v is answered to %+v: %v", a, m, err)
				}
			}
			for a := range s.Handle(message(pfkey.TypeDump, 0)) {
				if _, err := a.Encode(); err != nil {
					t.Errorf("%+v is listed after %+v: %v", a, m, err)
				}
			}
			for a := range s.Handle(message(pfkey.TypeSPDDump, 0)) {
				if _, err := a.Encode(); err != nil {
					t.Errorf("%+v is listed after %+v: %v", a, m, err)
				}
			}
		}
	})
}
