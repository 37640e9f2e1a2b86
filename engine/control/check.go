package control

import (
	"fmt"
	"net/netip"
	"syscall"
)

// checker is a request with rules of its own, which need no interface to be
// checked.
type checker interface{ check() error }

// check keeps to FreeBSD's in_aifaddr_ioctl and in6_update_ifa for a
// point-to-point interface.
func (r *AddAddressRequest) check() error {
	a := r.Addr
	switch {
	case !usable(a):
		return fmt.Errorf("%v can't be an inner address: %w", a, syscall.EINVAL)
	case r.Bits < 0 || r.Bits > a.BitLen():
		return fmt.Errorf("prefix length %d of %v, want 0 to %d: %w", r.Bits, a, a.BitLen(), syscall.EINVAL)
	case a.Is4() && (!r.Peer.IsValid() || r.Peer.IsUnspecified()):
		return fmt.Errorf("%v needs the address of the other end: %w", a, syscall.EDESTADDRREQ)
	case r.Peer.IsValid() && (!usable(r.Peer) || r.Peer.BitLen() != a.BitLen()):
		return fmt.Errorf("%v can't be the other end of %v: %w", r.Peer, a, syscall.EINVAL)
	case a.Is6() && r.Peer.IsValid() && r.Bits != 128:
		return fmt.Errorf("%v has a destination, so its prefix length must be 128, not %d: %w", a, r.Bits, syscall.EINVAL)
	}
	return nil
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6()
}

func (r *RemoveAddressRequest) check() error {
	if !r.Addr.IsValid() || r.Addr.Is4In6() {
		return fmt.Errorf("%v can't be an inner address: %w", r.Addr, syscall.EINVAL)
	}
	return nil
}

func (r *SetMTURequest) check() error {
	if r.MTU < MinMTU || r.MTU > MaxMTU {
		return fmt.Errorf("mtu %d, want %d to %d: %w", r.MTU, MinMTU, MaxMTU, syscall.EINVAL)
	}
	return nil
}
