package key

import (
	"net/netip"
	"slices"
	"syscall"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/spd"
)

// PoliciesChanged tells everybody that an interface has other policies.
func (h *Handler) PoliciesChanged(added, removed []*spd.Policy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range removed {
		m := h.policy(p)
		m.Type = pfkey.TypeSPDDelete
		h.tell(m, everybody, nil)
	}
	for _, p := range added {
		m := h.policy(p)
		m.Type = pfkey.TypeSPDAdd
		h.tell(m, everybody, nil)
	}
}

// spdAdd adds a policy (SADB_X_SPDADD, and SADB_X_SPDSETIDX, which FreeBSD
// makes no difference of).
func (h *Handler) spdAdd(_ *Session, m *pfkey.Message) (answer, error) {
	return changePolicy(m, h.spd.Add)
}

// spdUpdate adds a policy in place of another, if there is one (SADB_X_SPDUPDATE).
func (h *Handler) spdUpdate(_ *Session, m *pfkey.Message) (answer, error) {
	return changePolicy(m, h.spd.Update)
}

func changePolicy(m *pfkey.Message, change func(spd.Policy) (*spd.Policy, error)) (answer, error) {
	s, x, err := selected(m)
	if err != nil {
		return answer{}, err
	}
	p := spd.Policy{Selector: s, Dir: x.Dir, Type: x.Type, Requests: x.Requests, Priority: x.Priority}
	if l := m.Hard(); l != nil {
		p.AddTime, p.UseTime = l.AddTime, l.UseTime
	}
	added, err := change(p)
	if err != nil {
		return answer{}, err
	}
	reply := echo(m, pfkey.ExtPolicy, pfkey.ExtLifetimeHard, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	described := *x
	described.ID, described.Requests = added.ID, added.Requests
	reply.Exts[0] = &described
	return answer{message: reply, others: everybody}, nil
}

// spdDelete removes the policy with a selector and direction (SADB_X_SPDDELETE).
func (h *Handler) spdDelete(_ *Session, m *pfkey.Message) (answer, error) {
	s, x, err := selected(m)
	if err != nil {
		return answer{}, err
	}
	switch x.Type {
	case pfkey.PolicyDiscard, pfkey.PolicyNone, pfkey.PolicyIPsec:
	default:
		return answer{}, invalid("policy type %v, want discard, none or ipsec", x.Type)
	}
	p, err := h.spd.Delete(x.Dir, s)
	if err != nil {
		return answer{}, err
	}
	reply := echo(m, pfkey.ExtPolicy, pfkey.ExtAddressSrc, pfkey.ExtAddressDst)
	described := *x
	described.ID = p.ID
	reply.Exts[0] = &described
	return answer{message: reply, others: everybody}, nil
}

// spdDelete2 removes the policy with an ID (SADB_X_SPDDELETE2).
func (h *Handler) spdDelete2(_ *Session, m *pfkey.Message) (answer, error) {
	if err := need(m, pfkey.ExtPolicy); err != nil {
		return answer{}, err
	}
	if _, err := h.spd.DeleteID(pfkey.Find[*pfkey.Policy](m).ID); err != nil {
		return answer{}, err
	}
	return answer{message: echo(m, pfkey.ExtPolicy), others: everybody}, nil
}

// spdGet answers with the policy with an ID (SADB_X_SPDGET).
func (h *Handler) spdGet(_ *Session, m *pfkey.Message) (answer, error) {
	if err := need(m, pfkey.ExtPolicy); err != nil {
		return answer{}, err
	}
	p, err := h.spd.Get(pfkey.Find[*pfkey.Policy](m).ID)
	if err != nil {
		return answer{}, err
	}
	reply := h.policy(p)
	reply.Type, reply.Seq, reply.PID = m.Type, m.Seq, m.PID
	return answer{message: reply}, nil
}

// spdDump answers with all policies of the scopes that are set in the place of
// the SA type, or of all if that is 0 (SADB_X_SPDDUMP). ENOENT if there is none.
func (h *Handler) spdDump(_ *Session, m *pfkey.Message) (answer, error) {
	policies := slices.Collect(h.spd.All())
	if scopes := pfkey.Scope(m.SAType); scopes != 0 {
		policies = slices.DeleteFunc(policies, func(p *spd.Policy) bool { return p.Scope&scopes == 0 })
	}
	if len(policies) == 0 {
		return answer{}, syscall.ENOENT
	}
	return answer{dump: func(yield func(*pfkey.Message) bool) {
		for i, p := range policies {
			reply := h.policy(p)
			reply.Type, reply.Seq, reply.PID = m.Type, uint32(len(policies)-1-i), m.PID
			if !yield(reply) {
				return
			}
		}
	}}, nil
}

// spdFlush removes all policies but the interfaces' (SADB_X_SPDFLUSH).
func (h *Handler) spdFlush(_ *Session, m *pfkey.Message) (answer, error) {
	if len(m.Exts) > 0 {
		return answer{}, invalid("%v message with extensions, want none", m.Type)
	}
	h.spd.Flush()
	return answer{message: echo(m), others: everybody}, nil
}

// selected is the selector and the policy extension of a message.
func selected(m *pfkey.Message) (spd.Selector, *pfkey.Policy, error) {
	if err := need(m, pfkey.ExtAddressSrc, pfkey.ExtAddressDst, pfkey.ExtPolicy); err != nil {
		return spd.Selector{}, nil, err
	}
	src, dst := m.Src(), m.Dst()
	return spd.Selector{
		Src: prefix(src), Dst: prefix(dst), SrcPort: src.Addr.Port(), DstPort: dst.Addr.Port(), Proto: src.Proto,
	}, pfkey.Find[*pfkey.Policy](m), nil
}

func prefix(a *pfkey.Address) netip.Prefix {
	return netip.PrefixFrom(a.Addr.Addr(), int(a.PrefixLen))
}

// policy is what GET and DUMP answer of a policy, but for the type, the sequence
// number and the PID.
func (h *Handler) policy(p *spd.Policy) *pfkey.Message {
	m := &pfkey.Message{Reserved: references}
	m.Exts = append(selector(p), &pfkey.Policy{
		Type: p.Type, Dir: p.Dir, Scope: p.Scope, ID: p.ID, Priority: p.Priority, Requests: p.Requests,
	})
	if p.AddTime != 0 || p.UseTime != 0 {
		m.Exts = append(m.Exts, h.policyLifetimes(p)...)
	}
	return m
}

func selector(p *spd.Policy) []pfkey.Extension {
	return []pfkey.Extension{
		&pfkey.Address{Kind: pfkey.ExtAddressSrc, Proto: p.Proto, PrefixLen: uint8(p.Src.Bits()), Addr: netip.AddrPortFrom(p.Src.Addr(), p.SrcPort)},
		&pfkey.Address{Kind: pfkey.ExtAddressDst, Proto: p.Proto, PrefixLen: uint8(p.Dst.Bits()), Addr: netip.AddrPortFrom(p.Dst.Addr(), p.DstPort)},
	}
}

func (h *Handler) policyLifetimes(p *spd.Policy) []pfkey.Extension {
	return []pfkey.Extension{
		&pfkey.Lifetime{Kind: pfkey.ExtLifetimeCurrent, AddTime: h.seconds(p.Created), UseTime: h.seconds(p.LastUsed())},
		&pfkey.Lifetime{Kind: pfkey.ExtLifetimeHard, AddTime: p.AddTime, UseTime: p.UseTime},
	}
}
