package key

import (
	"fmt"
	"maps"
	"math"
	"sync"
	"syscall"
	"time"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// DefaultAcquireInterval is how soon whoever registered is asked again for an SA
// that is still missing. FreeBSD counts packets, so that a fast sender would ask
// thousands of times a second.
const DefaultAcquireInterval = 5 * time.Second

// SetAcquireInterval changes how soon it is asked again.
func (h *Handler) SetAcquireInterval(d time.Duration) {
	h.acquires.mu.Lock()
	defer h.acquires.mu.Unlock()
	h.acquires.interval = d
}

// Acquire asks whoever registered for the SA that an interface's policy lacks
// (SADB_ACQUIRE): an ESP tunnel with these endpoints and this reqid. It does
// nothing if nobody registered, if they were asked just now, or if there is no
// such policy. It may be called for every packet.
func (h *Handler) Acquire(i sad.Index) {
	if h.registered.Load() == 0 {
		return
	}
	wanted := acquisition{saType: pfkey.SATypeESP, mode: pfkey.ModeTunnel, Index: i}
	seq, ok := h.acquires.begin(wanted)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.wanting(i); p != nil {
		h.ask(wanted, seq, p)
	}
}

// wanting returns the outbound policy that asks for an SA, or nil.
func (h *Handler) wanting(i sad.Index) *spd.Policy {
	for p := range h.spd.All() {
		if p.Dir != pfkey.DirOut {
			continue
		}
		for _, r := range p.Requests {
			if r.Proto == syscall.IPPROTO_ESP && r.Mode == pfkey.ModeTunnel && r.ReqID == i.ReqID &&
				r.Src.Addr() == i.Src && r.Dst.Addr() == i.Dst {
				return p
			}
		}
	}
	return nil
}

// acquire takes a key-management program's word that it cannot get an SA, or
// asks the others for one in its name (SADB_ACQUIRE). There is no answer to
// either, except errors: EEXIST if there is such an SA.
func (h *Handler) acquire(_ *Session, m *pfkey.Message) (answer, error) {
	if len(m.Exts) == 0 {
		if m.Seq != 0 && m.Errno != 0 {
			h.acquires.failed(m.Seq)
		}
		return answer{}, nil
	}
	if err := need(m, pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtProposal); err != nil {
		return answer{}, err
	}
	s := index(m)
	for sa := range h.sad.All(s.SAType) {
		if sa.Src == s.Src && sa.Dst == s.Dst && (s.ReqID == 0 || sa.ReqID == s.ReqID) &&
			(sa.Mode == pfkey.ModeAny || sa.Mode == s.Mode) {
			return answer{}, fmt.Errorf("there is an SA from %v to %v: %w", s.Src, s.Dst, syscall.EEXIST)
		}
	}
	wanted := acquisition{s.SAType, s.Mode, sad.Index{Src: s.Src, Dst: s.Dst, ReqID: s.ReqID}}
	if seq, ok := h.acquires.begin(wanted); ok {
		h.ask(wanted, seq, nil)
	}
	return answer{}, nil
}

// ask tells whoever registered that an SA is wanted. h.mu is held.
func (h *Handler) ask(a acquisition, seq uint32, p *spd.Policy) {
	m := &pfkey.Message{
		Type: pfkey.TypeAcquire, SAType: a.saType, Seq: seq,
		Exts: []pfkey.Extension{host(pfkey.ExtAddressSrc, a.Src), host(pfkey.ExtAddressDst, a.Dst)},
	}
	if p != nil {
		m.Exts = append(m.Exts, &pfkey.Policy{Type: p.Type, Dir: p.Dir, ID: p.ID, Priority: p.Priority})
	}
	if a.ReqID != 0 {
		m.Exts = append(m.Exts, &pfkey.SA2{Mode: a.mode, ReqID: a.ReqID})
	}
	m.Exts = append(m.Exts, h.proposal(a.saType))
	h.log.Debug("an SA is missing", "type", a.saType.String(), "src", a.Src, "dst", a.Dst, "reqid", a.ReqID)
	h.tell(m, registered, nil)
}

// acquisition is an SA that is wanted.
type acquisition struct {
	saType pfkey.SAType
	mode   pfkey.Mode
	sad.Index
}

// acquires remembers what was asked for. It has a lock of its own, so that a
// packet without an SA waits for nobody.
type acquires struct {
	now func() time.Time

	mu       sync.Mutex
	interval time.Duration
	asked    map[acquisition]asked
	seq      uint32
}

type asked struct {
	seq uint32
	at  time.Time
}

// begin notes that an SA is asked for, and returns the question's sequence
// number, which the answers to it have (RFC 2367, section 3.1.6); or false if
// it was asked just now.
func (a *acquires) begin(wanted acquisition) (uint32, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	over := func(_ acquisition, before asked) bool { return now.Sub(before.at) >= a.interval }
	if before, ok := a.asked[wanted]; ok && !over(wanted, before) {
		return 0, false
	}
	maps.DeleteFunc(a.asked, over)
	if a.asked == nil {
		a.asked = map[acquisition]asked{}
	}
	if a.seq == math.MaxUint32 {
		a.seq = 0
	}
	a.seq++
	a.asked[wanted] = asked{a.seq, now}
	return a.seq, true
}

// done notes that a question was answered, so that the next time it is asked
// at once.
func (a *acquires) done(seq uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.asked, func(_ acquisition, before asked) bool { return before.seq == seq })
}

// failed notes that a question is not going to be answered, so that it is not
// asked again at once.
func (a *acquires) failed(seq uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, before := range a.asked {
		if before.seq == seq {
			a.asked[k] = asked{seq, a.now()}
		}
	}
}

// Of a proposal.
const (
	proposedReplay  = 32    // bytes of bitmap
	proposedAddTime = 86400 // seconds
	proposedUseTime = 28800 // seconds
	proposedBits    = 256   // of the key, at least (FreeBSD's net.key.esp_keymin)
)

// proposal is what may be agreed on: every algorithm that is not weak, and no
// encryption without authentication.
func (h *Handler) proposal(t pfkey.SAType) *pfkey.Proposal {
	p := &pfkey.Proposal{Replay: proposedReplay}
	var auths []pfkey.Comb
	for _, s := range h.supported[0].(*pfkey.Supported).Algorithms {
		if a, ok := algorithm.AuthenticationByID(s.ID); ok && a.Weak == "" && a.ICVLen > 0 {
			auths = append(auths, pfkey.Comb{Auth: s.ID, AuthMinBits: s.MinBits, AuthMaxBits: s.MaxBits})
		}
	}
	switch t {
	case pfkey.SATypeAH:
		p.Combs = auths
	case pfkey.SATypeIPComp:
		p.Combs = []pfkey.Comb{{Encrypt: algorithm.CompressDeflate}}
	case pfkey.SATypeESP:
		for _, s := range h.supported[1].(*pfkey.Supported).Algorithms {
			e, ok := algorithm.EncryptionByID(s.ID)
			if !ok || e.Weak != "" || s.MaxBits < proposedBits || e.ID == algorithm.EncryptNull {
				continue
			}
			with := auths
			if e.AEAD {
				with = []pfkey.Comb{{}}
			}
			for _, c := range with {
				c.Encrypt, c.EncryptMinBits, c.EncryptMaxBits = s.ID, max(s.MinBits, proposedBits), s.MaxBits
				p.Combs = append(p.Combs, c)
			}
		}
	}
	for i := range p.Combs {
		c := &p.Combs[i]
		c.HardAddTime, c.SoftAddTime = proposedAddTime, proposedAddTime*80/100
		c.HardUseTime, c.SoftUseTime = proposedUseTime, proposedUseTime*80/100
	}
	return p
}
