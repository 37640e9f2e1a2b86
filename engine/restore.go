package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"

	"ifipsec/engine/dataplane"
	"ifipsec/engine/handover"
	"ifipsec/engine/host"
	"ifipsec/engine/ifnet"
	"ifipsec/engine/journal"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
	"ifipsec/engine/spd"
	"ifipsec/engine/sysctl"
)

// This file is how the engine goes on where another process stopped, orderly or
// not: from the journal come the databases and the interfaces, and from the
// host the devices that outlived that process.

// databases makes the databases, with what the journal has. The journal's
// directory is nil if nothing is to outlive the process. If it fails, nothing
// on the host has changed.
func (e *Engine) databases(dir *journal.Dir, records []journal.Record) error {
	k, err := decode(records)
	if err != nil {
		return err
	}
	e.clock = e.newClock(k.general.Offset)
	e.state, e.offset, e.sysctl = nil, e.clock.Offset(), sysctl.New()
	for _, name := range e.sysctl.Load(k.sysctls) {
		e.log.Warn("a variable that was set has its default again: this version does not take its value", "variable", name)
	}
	reqIDs := new(spd.ReqIDs)
	sadConfig := sad.Config{Now: e.clock.Now, Lately: e.clock.Lately, Secret: k.general.Secret, Encapsulated: func(sa *sad.SA, usable bool) {
		// Those that are restored, the plane is told of when there is one.
		if e.plane != nil {
			e.plane.Encapsulated(sa, usable)
		}
	}}
	spdConfig := spd.Config{Now: e.clock.Now, NewReqID: reqIDs.Next}
	ifsConfig := ifnet.Config{NewReqID: reqIDs.Next, NameTaken: func(name string) bool {
		_, err := e.host.BareLink(name)
		return err == nil
	}}
	if dir != nil {
		e.state = &state{dir: dir, log: e.log, counters: k.counters, memory: map[int][]byte{}}
		if k.general.Secret == nil {
			k.general = newGeneral(e.clock.Offset())
			if e.permanent {
				k.general.Seen = time.Duration(e.clock.Now().UnixNano())
			}
			sadConfig.Secret = k.general.Secret
			if err := e.state.putJSON(kindGeneral, 0, k.general); err != nil {
				return err
			}
		}
		e.state.general, e.offset = k.general, k.general.Offset
		if e.permanent {
			e.state.reserved = newReservations()
			sadConfig.Bounds, sadConfig.Low = &firstBounds, e.state.reserved.ask
		}
		sadConfig.Store = sas{dir, e.state}
		spdConfig.Store = policies{e.state}
		ifsConfig.Store = interfaces{e.state}
	}
	e.sad, e.spd, e.ifs = sad.New(sadConfig), spd.New(spdConfig), ifnet.New(ifsConfig)
	if dir == nil {
		return nil
	}
	if err := e.sad.Restore(k.sas, k.usedKeys); err != nil {
		return err
	}
	if e.permanent {
		e.state.reserveAll(slices.Collect(e.sad.All(pfkey.SATypeUnspec)))
	}
	if err := e.spd.Restore(k.policies); err != nil {
		return err
	}
	if err := e.ifs.Load(k.interfaces); err != nil {
		return err
	}
	for _, ifp := range k.interfaces {
		reqIDs.Skip(ifp.ReqID)
	}
	for _, p := range k.policies {
		for _, r := range p.Requests {
			reqIDs.Skip(r.ReqID)
		}
	}
	if err := e.state.findCounters(); err != nil {
		return err
	}
	if err := e.state.prepareCounters(0, planeCounters()); err != nil {
		return err
	}
	for _, ifp := range k.interfaces {
		if err := e.state.prepareCounters(ifp.Index, tunnelCounters()); err != nil {
			return err
		}
	}
	e.adoptable, e.moved = k.links, k.moved
	return nil
}

func planeCounters() (names []string) {
	for i := range (dataplane.Counters{}) {
		names = append(names, dataplane.Counter(i).Name())
	}
	return names
}

func tunnelCounters() (names []string) {
	for i := range (dataplane.TunnelCounters{}) {
		names = append(names, dataplane.TunnelCounter(i).Name())
	}
	return names
}

// adopt gives the interfaces the devices that outlived the process before. One
// whose link is gone ends, as it would have if the process had seen it go.
func (e *Engine) adopt(taken *handover.Descriptors) error {
	local, err := e.host.LocalAddrs()
	if err != nil {
		return err
	}
	e.ifs.SetLocalAddrs(maps.Keys(local))
	for _, ifp := range e.ifs.All() {
		err := e.adoptInterface(ifp, taken)
		if err == nil {
			continue
		}
		if !deleted(err) {
			return err
		}
		e.log.Warn("the link was deleted while no daemon ran, so the interface ends", "interface", ifp.Name, "error", err)
		if err := e.end(ifp); err != nil {
			return err
		}
	}
	// A death between two steps of a change left policies that are nobody's, or
	// not those of their interface.
	names, indices := map[string]bool{}, map[int]bool{0: true}
	for _, ifp := range e.ifs.All() {
		names[ifp.Name], indices[ifp.Index] = true, true
		if !e.hasPolicies(ifp) {
			if err := e.setPolicies(ifp); err != nil {
				return err
			}
		}
	}
	if e.state != nil {
		for index := range e.state.counters {
			if !indices[index] {
				e.state.forgetInterface(index)
			}
		}
	}
	// So do rules of routing of a process that was killed without a successor.
	e.updateRules()
	for p := range e.spd.All() {
		if p.IfName != "" && !names[p.IfName] {
			e.spd.ClearInterface(p.IfName)
		}
	}
	return nil
}

func (e *Engine) adoptInterface(ifp ifnet.Interface, taken *handover.Descriptors) error {
	l, created := e.adoptable[ifp.Index]
	if !created {
		return syscall.ENXIO
	}
	if l.Index == 0 {
		dev, err := e.recreateDevice(ifp)
		if err != nil {
			return fmt.Errorf("make %s again: %w", ifp.Name, err)
		}
		e.attach(ifp, dev)
		return nil
	}
	name, err := e.host.LinkName(l.Index)
	if err != nil {
		return err
	}
	var dev *host.Device
	if fd := taken.Take(deviceName(l.Index)); fd >= 0 {
		dev, err = host.TakeTUN(fd, l.Index)
	} else {
		dev, err = e.host.AdoptTUN(host.TUN{Name: name, Offload: e.offload}, l.Index)
	}
	if err != nil {
		return err
	}
	if name != ifp.Name {
		e.log.Info("interface renamed while no daemon ran", "interface", name, "from", ifp.Name)
		e.spd.ClearInterface(ifp.Name)
		ifp.Name = name
		e.ifs.Restore(ifp)
	}
	e.attach(ifp, dev)
	return nil
}

// recreateDevice makes the device of an interface whose link is gone with the
// machine. If the link is still there, because only the memory was lost, it has
// nobody who serves it.
func (e *Engine) recreateDevice(ifp ifnet.Interface) (*host.Device, error) {
	dev, err := e.createDevice(ifp)
	if !errors.Is(err, syscall.EEXIST) {
		return dev, err
	}
	old, err := e.host.BareLink(ifp.Name)
	if err != nil {
		return nil, err
	}
	if dev, err = e.host.AdoptTUN(host.TUN{Name: ifp.Name, Offload: e.offload}, old.Index); err != nil {
		return nil, err
	}
	return dev, e.state.putJSON(kindLink, ifp.Index, link{old.Index})
}

// deviceName is what the device of a link is called among what an engine gives
// to the next one.
func deviceName(link int) string { return "TUN device of link " + strconv.Itoa(link) }

// Files returns what the next engine can go on with, so that packets wait there
// from [Engine.Leave] on: the devices and the outer sockets. They are the
// engine's.
func (e *Engine) Files() handover.Files {
	e.mu.Lock()
	defer e.mu.Unlock()
	files := handover.Files(e.plane.Files())
	for _, dev := range e.devices {
		files[deviceName(dev.Index())] = dev.File()
	}
	return files
}

// end removes an interface of which there is no device.
func (e *Engine) end(ifp ifnet.Interface) error {
	_, err := e.ifs.Destroy(ifp.Name)
	e.spd.ClearInterface(ifp.Name)
	e.state.forgetInterface(ifp.Index)
	return err
}

// hasPolicies says whether the policies of an interface are those that it
// should have.
func (e *Engine) hasPolicies(ifp ifnet.Interface) bool {
	want, have := e.policies(ifp), e.spd.Interface(ifp.Name)
	if len(want) != len(have) {
		return false
	}
	for i, p := range have {
		if p.Dir != want[i].Dir || p.Selector != want[i].Selector || p.Priority != want[i].Priority ||
			len(p.Requests) != 1 || p.Requests[0] != want[i].Requests[0] {
			return false
		}
	}
	return true
}

// attach makes a tunnel of an interface's device.
func (e *Engine) attach(ifp ifnet.Interface, dev *host.Device) {
	e.devices[ifp.Index] = dev
	e.links[dev.Index()] = ifp.Name
	tunnel := e.plane.Attach(ifp.Name, dev)
	e.tunnels[ifp.Index] = tunnel
	collect(len(e.tunnels))
	e.indices.Store(tunnel, ifp.Index)
	if m, ok := e.moved[ifp.Index]; ok {
		tunnel.Move(m)
	}
}

// keepMoved keeps where the peer of a tunnel is: if it only listens, nothing else
// would tell the next process. It must not wait for e.mu; see
// [dataplane.Config].
func (e *Engine) keepMoved(t *dataplane.Tunnel, m dataplane.Mapping) {
	index, ok := e.indices.Load(t)
	if !ok || e.state == nil {
		return
	}
	if m == (dataplane.Mapping{}) {
		e.state.delete(kindMoved, uint64(index.(int)))
		return
	}
	if err := e.state.putJSON(kindMoved, index.(int), m); err != nil {
		e.log.Warn("where the peer is, is not kept", "interface", t.Name(), "error", err)
	}
}

// counterMemory is where the plane's counters or those of a tunnel are.
func (e *Engine) counterMemory(tunnel string) []byte {
	if e.state == nil {
		return nil
	}
	index := 0
	if tunnel != "" {
		ifp, err := e.ifs.Get(tunnel)
		if err != nil {
			return nil
		}
		index = ifp.Index
	}
	return e.state.memory[index]
}

// Leave ends the engine and leaves everything for the next one, which goes on
// with the interfaces, their addresses and routes, and the databases. Without a
// directory for the state it is [Engine.Close].
func (e *Engine) Leave() error {
	if e.state == nil {
		return e.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.plane.Close()
	e.host.Close()
	return errors.Join(err, e.state.dir.Close())
}
