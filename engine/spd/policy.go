package spd

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
)

// MaxRequests is the number of requests that a policy may have (FreeBSD's
// IPSEC_MAXREQ).
const MaxRequests = 4

// Policy is one entry of the database. Once it is in the database it does not
// change.
type Policy struct {
	Selector
	Dir  pfkey.Direction // in or out
	Type pfkey.PolicyType

	// Scope is global for policies that are added, where 0 stands for it, and
	// ifnet for those that belong to the interface IfName.
	Scope  pfkey.Scope
	IfName string

	Requests []Request // in the order of the policy; of type ipsec only
	Priority uint32    // policies with lower values are consulted first

	AddTime uint64 // seconds from Created to the policy's end, 0 for no end
	UseTime uint64 // seconds without use to the policy's end, 0 for no end

	// Set by the database.
	ID      uint32
	Created time.Time

	used *atomic.Int64 // nanoseconds from Created to the last use
}

// Request is what a policy asks for: a protocol, a mode, a level, the tunnel's
// endpoints and the reqid of its SAs.
type Request = pfkey.Request

// Selector says which packets a policy is about. Two selectors are the same
// only if they are written the same: 10.0.0.1/24 is not 10.0.0.2/24, although
// they match the same packets.
type Selector struct {
	Src, Dst         netip.Prefix // of one family
	SrcPort, DstPort uint16       // 0 for any
	Proto            uint8        // upper-layer protocol, [AnyProto] for any
}

// AnyProto is IPSEC_ULPROTO_ANY.
const AnyProto = 255

// Packet is what selectors look at in a packet. Ports are 0 if it has none.
type Packet struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
}

// Matches says whether the packet is one that s is about.
func (s *Selector) Matches(p Packet) bool {
	return (s.Proto == AnyProto || s.Proto == p.Proto) &&
		(s.SrcPort == 0 || s.SrcPort == p.SrcPort) &&
		(s.DstPort == 0 || s.DstPort == p.DstPort) &&
		s.Src.Contains(p.Src.WithZone("")) && s.Dst.Contains(p.Dst.WithZone(""))
}

func (s Selector) String() string {
	return fmt.Sprintf("%v[%d] %v[%d] protocol %d", s.Src, s.SrcPort, s.Dst, s.DstPort, s.Proto)
}

// LastUsed returns when a packet last matched the policy, or when it was made
// if none did.
func (p *Policy) LastUsed() time.Time {
	return p.Created.Add(time.Duration(p.used.Load()))
}

// end returns when the policy's lifetime is over, zero if it has none.
func (p *Policy) end() time.Time {
	var end time.Time
	if p.AddTime != 0 {
		end = after(p.Created, p.AddTime)
	}
	if p.UseTime != 0 {
		if unused := after(p.LastUsed(), p.UseTime); end.IsZero() || unused.Before(end) {
			end = unused
		}
	}
	return end
}

// mortal says whether the policy has a lifetime.
func (p *Policy) mortal() bool { return p.AddTime != 0 || p.UseTime != 0 }

// after adds seconds to a time, which is never reached if they are too many.
func after(t time.Time, seconds uint64) time.Time {
	const most = uint64(1<<63-1) / uint64(time.Second)
	return t.Add(time.Duration(min(seconds, most)) * time.Second)
}

// check finds fault with a policy, as FreeBSD's key_spdadd and key_msg2sp do.
func (p *Policy) check() error {
	if err := checkSelector(p.Dir, &p.Selector); err != nil {
		return err
	}
	switch p.Type {
	case pfkey.PolicyDiscard, pfkey.PolicyNone:
		return nil
	case pfkey.PolicyIPsec:
	default:
		return invalid("policy type %v, want discard, none or ipsec", p.Type)
	}
	if len(p.Requests) == 0 || len(p.Requests) > MaxRequests {
		return invalid("a policy of type ipsec with %d requests, want 1 to %d", len(p.Requests), MaxRequests)
	}
	for i := range p.Requests {
		if err := checkRequest(&p.Requests[i]); err != nil {
			return fmt.Errorf("request %d: %w", i+1, err)
		}
	}
	return nil
}

func checkSelector(d pfkey.Direction, s *Selector) error {
	if d != pfkey.DirIn && d != pfkey.DirOut {
		return invalid("policy direction %v, want in or out", d)
	}
	if !s.Src.IsValid() || !s.Dst.IsValid() {
		return invalid("a policy needs a source and a destination prefix")
	}
	if s.Src.Addr().Is4() != s.Dst.Addr().Is4() {
		return invalid("source %v and destination %v are of different families", s.Src, s.Dst)
	}
	return nil
}

func checkRequest(r *Request) error {
	switch r.Proto {
	case syscall.IPPROTO_ESP, syscall.IPPROTO_AH, syscall.IPPROTO_COMP:
	default:
		return fmt.Errorf("protocol %d, want esp, ah or ipcomp: %w", r.Proto, syscall.EPROTONOSUPPORT)
	}
	switch r.Mode {
	case pfkey.ModeTransport, pfkey.ModeTunnel:
	default:
		return invalid("mode %v, want transport or tunnel", r.Mode)
	}
	switch r.Level {
	case pfkey.LevelDefault, pfkey.LevelUse, pfkey.LevelRequire, pfkey.LevelUnique:
	default:
		return invalid("level %v, want default, use, require or unique", r.Level)
	}
	src, dst := r.Src.Addr(), r.Dst.Addr()
	if src.IsValid() != dst.IsValid() {
		return invalid("a request with one endpoint, want both or none")
	}
	if src.IsValid() && src.Is4() != dst.Is4() {
		return invalid("endpoints %v and %v are of different families", src, dst)
	}
	if r.Mode == pfkey.ModeTunnel && !src.IsValid() {
		return invalid("a tunnel without endpoints")
	}
	return nil
}

// stored returns the copy of a policy that the database keeps.
func (p Policy) stored() *Policy {
	if p.Type == pfkey.PolicyIPsec {
		p.Requests = slices.Clone(p.Requests)
	} else {
		p.Requests = nil
	}
	p.used = new(atomic.Int64)
	return &p
}

// invalid is an EINVAL that says what is wrong.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}
