package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"ifipsec/engine/sad"

	"golang.zx2c4.com/wireguard/tun"
)

// Settings is what a tunnel is to do.
type Settings struct {
	Src, Dst netip.Addr // outer endpoints, ours and the peer's; link-local ones with the link's number as zone
	ReqID    uint32     // of the SAs that serve the tunnel
	Mark     uint32     // firewall mark (SO_MARK) of the outer packets, 0 for none; routing rules can choose a table by it
	Running  bool       // Src is an address of this host
	Up       bool       // the interface is up
}

// serves says whether packets may pass.
func (s *Settings) serves() bool { return s.Running && s.Up }

// index names the SAs to send with. Those to receive with have Src and Dst
// swapped.
func (s *Settings) index() sad.Index { return sad.Index{Src: s.Src, Dst: s.Dst, ReqID: s.ReqID} }

// Tunnel is an interface's TUN device between the kernel and the SAs.
type Tunnel struct {
	plane *Plane
	name  string
	dev   tun.Device

	settings atomic.Pointer[Settings]
	moved    atomic.Pointer[Mapping] // nil if the peer is where its SAs say
	mtu      atomic.Pointer[pathMTU] // nil if nothing is known of the path
	counters *tunnelCounters

	kept uint64 // OutPackets at the last look for keepalives; the plane's lock guards it

	start func() // reading
	close func() error
	sends sync.WaitGroup
}

func newTunnel(p *Plane, name string, dev tun.Device) *Tunnel {
	t := &Tunnel{plane: p, name: name, dev: dev, counters: (*tunnelCounters)(countersIn(p.memory(name)))}
	t.settings.Store(&Settings{})
	t.close = sync.OnceValue(t.detach)
	t.start = sync.OnceFunc(func() { t.sends.Go(newOutbound(t).run) })
	return t
}

// Name returns the name that the tunnel was attached with.
func (t *Tunnel) Name() string { return t.name }

// Settings returns what the tunnel does now.
func (t *Tunnel) Settings() Settings { return *t.settings.Load() }

// Counters returns what the tunnel has counted until now.
func (t *Tunnel) Counters() TunnelCounters { return t.counters.snapshot() }

// Configure gives the tunnel something else to do, from the next batch of
// packets on. If it fails, nothing has changed.
//
// EINVAL: endpoints that are none, or of two families. EEXIST: another tunnel
// that is running and up has the same endpoints and reqid. EPERM and other
// errors of socket(2): the outer socket can't be opened.
func (t *Tunnel) Configure(s Settings) error {
	if s.Running && (!s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Is4() != s.Dst.Is4()) {
		return fmt.Errorf("tunnel %s from %v to %v: %w", t.name, s.Src, s.Dst, syscall.EINVAL)
	}
	p := t.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, attached := p.tunnels[t]; !attached {
		return fmt.Errorf("tunnel %s: %w", t.name, os.ErrClosed)
	}
	if s.Running {
		if _, err := p.outer(kind{six: s.Dst.Is6()}); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.name, err)
		}
	}
	if err := p.serve(t, t.settings.Load(), &s); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.name, err)
	}
	t.settings.Store(&s)
	t.start()
	return nil
}

// Close takes the tunnel out of the plane, closes its device and waits until
// none of its packets is worked on.
func (t *Tunnel) Close() error { return t.close() }

func (t *Tunnel) detach() error {
	p := t.plane
	p.mu.Lock()
	delete(p.tunnels, t) // it is not configured any more
	p.mu.Unlock()

	// What was read is sent yet.
	err := t.dev.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	t.sends.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	// Serving nothing is never refused.
	_ = p.serve(t, t.settings.Load(), &Settings{})
	t.settings.Store(&Settings{})
	return err
}

// sender returns what sends along a path.
func (t *Tunnel) sender(way path, batch int) (sender, error) {
	p := t.plane
	p.mu.Lock()
	o, err := p.outer(way.kind)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s, err := o.sender(way, batch)
	if r, ok := o.(raw); ok && err == nil && p.hop != nil {
		return p.linkSender(way, batch, s, r.out)
	}
	return s, err
}
