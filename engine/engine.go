// Package engine is one host's IPsec: it puts together the databases, the
// interfaces, the data plane and what is asked of Linux, and keeps them
// agreeing with one another. The rules are in the packages below it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"ifipsec/engine/clock"
	"ifipsec/engine/dataplane"
	"ifipsec/engine/handover"
	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/journal"
	"ifipsec/engine/key"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
	"ifipsec/engine/sysctl"
	"ifipsec/engine/xdp"
)

// Config is what an [Engine] needs from outside.
type Config struct {
	Log *slog.Logger
	// Offload opens the TUN devices with segmentation offload.
	Offload bool
	// PacketSocket sends ESP right to Ethernet links, past the host's IP and its
	// firewall.
	PacketSocket bool
	// XDP is for sending ESP right to Ethernet links, and receiving it from there, past
	// all that the host does to packets. It goes with PacketSocket, which serves where
	// that can't be had; nil: it is not wanted.
	XDP *xdp.Program
	// StateDir is a directory for what is to outlive the process, for this engine
	// alone; its parent must exist. Empty: nothing does.
	StateDir string
	// PermanentDir is a directory on a disk for what is to outlive the machine, for
	// this engine alone. Empty: nothing does. It needs a StateDir.
	PermanentDir string
	// Taken are [Engine.Files] of the engine before this one, which left; nil if
	// that gave nothing. What is left of them is the caller's to close.
	Taken *handover.Descriptors
}

// Engine is one host's IPsec. It serves ifconfig as a control.Handler and
// PF_KEY through [Engine.Key].
type Engine struct {
	log       *slog.Logger
	offload   bool
	permanent bool // what is kept outlives the machine
	direct    bool // Config.PacketSocket
	host      *host.Host
	newClock  func(offset time.Duration) *clock.Clock
	clock     *clock.Clock
	sysctl    *sysctl.Table
	state     *state        // nil if nothing is to outlive the process
	offset    time.Duration // of the wall clock, as it was last seen
	sad       *sad.DB
	spd       *spd.DB
	key       *key.Handler
	plane     *dataplane.Plane

	mu      sync.Mutex // held for every change of an interface
	ifs     *ifnet.Table
	tunnels map[int]*dataplane.Tunnel // by the interface's index in ifs
	devices map[int]*host.Device      // likewise
	links   map[int]string            // names of interfaces, by the index of their Linux link

	indices sync.Map // of interfaces in ifs, by *dataplane.Tunnel

	moved     map[int]dataplane.Mapping // what the process before knew, by the interface's index in ifs
	adoptable map[int]link              // what the process before left, by the interface's index in ifs
}

// New returns an engine that goes on where the one before it stopped, if that
// had the same directory for its state; else without interfaces. The caller
// closes it.
func New(cfg Config) (*Engine, error) {
	h, err := host.Open()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		log:      cfg.Log,
		offload:  cfg.Offload,
		newClock: clock.New,
		direct:   cfg.PacketSocket,
		host:     h,
		tunnels:  map[int]*dataplane.Tunnel{},
		devices:  map[int]*host.Device{},
		links:    map[int]string{},
	}
	if err := e.open(cfg.StateDir, cfg.PermanentDir); err != nil {
		h.Close()
		return nil, err
	}
	e.key = key.New(key.Config{SAD: e.sad, SPD: e.spd, Log: cfg.Log, Now: e.clock.Now, Wall: e.clock.Wall})
	plane := dataplane.Config{SAD: e.sad, Log: cfg.Log, Sysctl: e.sysctl, NoSA: e.acquire, Memory: e.counterMemory, Take: cfg.Taken.Take, Moved: e.keepMoved, Held: true}
	if e.direct {
		plane.Hop = e.hop
	}
	if cfg.XDP != nil {
		plane.XDP = xdp.NewLinks(cfg.XDP)
	}
	e.plane = dataplane.New(plane)
	e.applySysctls()
	for sa := range e.sad.All(pfkey.SATypeESP) {
		if sa.NATT != nil {
			e.plane.Encapsulated(sa, true)
		}
	}
	err = e.adopt(cfg.Taken)
	if err == nil {
		err = e.resync()
	}
	if err != nil {
		// Whatever is wrong may be put right: nothing that was kept is lost.
		return nil, errors.Join(err, e.Leave())
	}
	e.plane.Begin()
	return e, nil
}

// CheckPermanent says whether an engine can have these as its StateDir and its
// PermanentDir. EEXIST: one that had no PermanentDir has left its state.
func CheckPermanent(state, permanent string) error {
	if permanent != "" && journal.Exists(state) {
		return fmt.Errorf("what an ipsecd without a directory for its state has left in %s can't be moved to %s: %w",
			state, permanent, syscall.EEXIST)
	}
	return nil
}

// open makes the databases, with what is in the directory for the state.
func (e *Engine) open(path, permanent string) error {
	if path == "" {
		return e.databases(nil, nil)
	}
	owner, err := journal.ThisOwner()
	if err != nil {
		return err
	}
	var refused *journal.Refused
	switch e.permanent = permanent != ""; {
	case !e.permanent:
		_, refused, err = journal.Open(path, owner, e.databases)
	default:
		if err := CheckPermanent(path, permanent); err != nil {
			return err
		}
		_, refused, err = journal.OpenPermanent(journal.Permanent{Dir: permanent, Memory: path}, owner, e.renewer(owner), e.databases)
	}
	if err != nil {
		return err
	}
	if refused != nil {
		e.log.Error("what an earlier daemon left can't be used, so this one begins with nothing; "+
			"its interfaces, if there are any, can be removed with ip link delete",
			"reason", refused.Cause, "kept", refused.Kept)
	}
	return nil
}

// Key returns what PF_KEY sockets talk to.
func (e *Engine) Key() *key.Handler { return e.key }

// Run follows the host's changes and the lifetimes of SAs and policies until
// ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	changes, err := e.host.Watch(ctx)
	if err != nil {
		return err
	}
	if e.direct {
		if err := e.host.WatchHops(ctx, e.plane.HopsChanged); err != nil {
			return err
		}
		e.plane.HopsChanged()
	}
	// What changed before the watch began.
	if err := e.resync(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { e.expire(ctx) })
	wg.Go(func() { e.state.reserve(ctx, e.clock.Now) })
	defer wg.Wait()
	for change := range changes {
		e.follow(change)
	}
	return ctx.Err()
}

// hop is where packets go first, for the data plane.
func (e *Engine) hop(src, dst netip.Addr, mark uint32) (dataplane.Hop, error) {
	h, err := e.host.Hop(src, dst, mark)
	return dataplane.Hop(h), err
}

// Close destroys the interfaces and ends the data plane. What the interfaces
// had on the host, addresses and routes, goes with them, and nothing is left
// for another engine, but for what is to outlive the machine.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kept error
	if e.permanent {
		// First, so that the next engine knows that the devices are not there, even
		// if this one is killed now.
		kept = e.state.dir.Remove()
	}
	for _, dev := range e.devices {
		// It fails if the link was deleted from outside.
		_ = dev.Persist(false)
	}
	// The plane closes what the interfaces have all at once: for Linux, one
	// link after the other would take much longer.
	err := errors.Join(kept, e.plane.Close())
	if e.permanent {
		err = errors.Join(err, e.state.finish(e.clock.Now()))
	}
	for _, ifp := range e.ifs.All() {
		if _, err := e.ifs.Destroy(ifp.Name); err == nil {
			e.forget(ifp)
		}
	}
	e.updateRules()
	e.host.Close()
	if e.state != nil {
		err = errors.Join(err, e.state.dir.Close())
	}
	if e.state != nil && !e.permanent {
		err = errors.Join(err, e.state.dir.Remove())
	}
	return err
}
