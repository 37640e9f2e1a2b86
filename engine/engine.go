// Package engine is one host's IPsec: it puts together the databases, the
// interfaces, the data plane and what is asked of Linux, and keeps them
// agreeing with one another. The rules are in the packages below it.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"ifipsec/engine/dataplane"
	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/key"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
)

// Config is what an [Engine] needs from outside.
type Config struct {
	Log *slog.Logger
	// Offload opens the TUN devices with segmentation offload.
	Offload bool
}

// Engine is one host's IPsec. It serves ifconfig as a control.Handler and
// PF_KEY through [Engine.Key].
type Engine struct {
	log     *slog.Logger
	offload bool
	host    *host.Host
	sad     *sad.DB
	spd     *spd.DB
	key     *key.Handler
	plane   *dataplane.Plane

	mu      sync.Mutex // held for every change of an interface
	ifs     *ifnet.Table
	tunnels map[int]*dataplane.Tunnel // by the interface's index in ifs
	links   map[int]string            // names of interfaces, by the index of their Linux link
}

// New returns an engine without interfaces. The caller closes it.
func New(cfg Config) (*Engine, error) {
	h, err := host.Open()
	if err != nil {
		return nil, err
	}
	reqIDs := new(spd.ReqIDs)
	e := &Engine{
		log:     cfg.Log,
		offload: cfg.Offload,
		host:    h,
		spd:     spd.New(spd.Config{NewReqID: reqIDs.Next}),
		ifs: ifnet.New(ifnet.Config{NewReqID: reqIDs.Next, NameTaken: func(name string) bool {
			_, err := h.Link(name)
			return err == nil
		}}),
		tunnels: map[int]*dataplane.Tunnel{},
		links:   map[int]string{},
	}
	e.sad = sad.New(sad.Config{Encapsulated: func(sa *sad.SA, usable bool) { e.plane.Encapsulated(sa, usable) }})
	e.key = key.New(key.Config{SAD: e.sad, SPD: e.spd, Log: cfg.Log})
	e.plane = dataplane.New(dataplane.Config{SAD: e.sad, Log: cfg.Log, NoSA: e.acquire})
	if err := e.resync(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
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
	// What changed before the watch began.
	if err := e.resync(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { e.expire(ctx) })
	defer wg.Wait()
	for change := range changes {
		e.follow(change)
	}
	return ctx.Err()
}

// Close destroys the interfaces and ends the data plane. What the interfaces
// had on the host, addresses and routes, goes with them.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	// The plane closes what the interfaces have all at once: for Linux, one
	// link after the other would take much longer.
	err := e.plane.Close()
	for _, ifp := range e.ifs.All() {
		if _, err := e.ifs.Destroy(ifp.Name); err == nil {
			e.forget(ifp)
		}
	}
	e.host.Close()
	return err
}
