// Package ifnet is the state of ipsecN interfaces with the rules of FreeBSD's
// if_ipsec(4) and if_clone(9): units, names, reqids, tunnel endpoints, groups.
// It does no I/O and knows nothing of the host but what it is told.
//
// Errors name the interface and wrap the [syscall.Errno] that FreeBSD answers
// with. A call that fails changes nothing.
package ifnet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"net/netip"
)

// Cloner is the name of the interfaces' kind: what is given to create one with
// any unit, the stem of the names, and the group that every one joins.
const Cloner = "ipsec"

const (
	// MaxUnit is the highest unit (FreeBSD's IF_MAXUNIT).
	MaxUnit = 0x7fff
	// MaxName is the longest name of an interface or group, in bytes (IFNAMSIZ
	// without the final NUL).
	MaxName = 15
	// MaxDescription is the longest description, in bytes (the default of
	// FreeBSD's net.ifdescr_maxlen, without the final NUL).
	MaxDescription = 1023
	// MinAutoReqID is the lowest reqid that is assigned automatically.
	MinAutoReqID = 16384
)

// allInterfaces is the group that every interface of a host is in.
const allInterfaces = "all"

// reqIDTries bounds the search for an automatic reqid that no interface has.
const reqIDTries = 64

// Config is what a [Table] needs from outside. The zero value is usable.
type Config struct {
	// NewReqID returns reqids from [MinAutoReqID] up, each once until they
	// wrap. It is shared with whatever else assigns reqids. Nil: a counter of
	// the table's own.
	NewReqID func() uint32
	// NameTaken says whether the host has a link of this name that is not the
	// table's. Nil: it has none.
	NameTaken func(name string) bool
	// Store keeps the interfaces for the next process; nil keeps nothing.
	Store Store
}

// Table holds the interfaces of one host. Its owner serializes the calls, as
// one change of configuration is more than one call anyway.
type Table struct {
	cfg       Config
	list      []*Interface // in order of creation
	lastIndex int
	local     map[netip.Addr]struct{}
}

// New returns a table without interfaces on a host without addresses.
func New(cfg Config) *Table {
	if cfg.NewReqID == nil {
		last := uint32(0)
		cfg.NewReqID = func() uint32 {
			last = max(last+1, MinAutoReqID)
			return last
		}
	}
	if cfg.NameTaken == nil {
		cfg.NameTaken = func(string) bool { return false }
	}
	return &Table{cfg: cfg, local: map[netip.Addr]struct{}{}}
}

// Create makes an interface without a tunnel. The name is "ipsec" for the
// lowest free unit, or "ipsecN". EEXIST: the unit or the name is taken. EINVAL:
// not such a name. ENOSPC: a unit over [MaxUnit], or none is free.
func (t *Table) Create(name string) (Interface, error) {
	unit, err := t.unit(name)
	if err != nil {
		return Interface{}, fmt.Errorf("create %s: %w", name, err)
	}
	ifp := &Interface{
		Name:   Cloner + strconv.Itoa(unit),
		Index:  t.lastIndex + 1,
		Unit:   unit,
		Groups: []string{allInterfaces, Cloner},
	}
	if err := t.keep(nil, ifp); err != nil {
		return Interface{}, fmt.Errorf("create %s: %w", ifp.Name, err)
	}
	t.lastIndex = ifp.Index
	t.list = append(t.list, ifp)
	return ifp.snapshot(), nil
}

// unit parses a name for Create and reserves nothing yet.
func (t *Table) unit(name string) (int, error) {
	digits, ok := strings.CutPrefix(name, Cloner)
	if !ok || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
		return 0, fmt.Errorf("want %s, or %s and a unit: %w", Cloner, Cloner, syscall.EINVAL)
	}
	if digits == "" {
		used := make(map[int]bool, len(t.list))
		for _, ifp := range t.list {
			used[ifp.Unit] = true
		}
		for unit := range MaxUnit + 1 {
			if !used[unit] && !t.taken(Cloner+strconv.Itoa(unit)) {
				return unit, nil
			}
		}
		return 0, fmt.Errorf("all units from 0 to %d are taken: %w", MaxUnit, syscall.ENOSPC)
	}
	unit, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the unit is over %d: %w", MaxUnit, syscall.EINVAL)
	}
	if unit > MaxUnit {
		return 0, fmt.Errorf("the unit is over %d: %w", MaxUnit, syscall.ENOSPC)
	}
	if t.taken(name) || slices.ContainsFunc(t.list, func(i *Interface) bool { return i.Unit == int(unit) }) {
		return 0, syscall.EEXIST
	}
	return int(unit), nil
}

func (t *Table) taken(name string) bool {
	return t.find(name) != nil || t.cfg.NameTaken(name)
}

func (t *Table) find(name string) *Interface {
	for _, ifp := range t.list {
		if ifp.Name == name {
			return ifp
		}
	}
	return nil
}

// change applies f to a copy of the interface and keeps it if f succeeds.
// ENXIO: no such interface.
func (t *Table) change(name, what string, f func(*Interface) error) (Interface, error) {
	ifp := t.find(name)
	if ifp == nil {
		return Interface{}, fmt.Errorf("%s %s: %w", what, name, syscall.ENXIO)
	}
	next := ifp.snapshot()
	if err := f(&next); err != nil {
		return Interface{}, fmt.Errorf("%s %s: %w", what, name, err)
	}
	if err := t.keep(ifp, &next); err != nil {
		return Interface{}, fmt.Errorf("%s %s: %w", what, name, err)
	}
	*ifp = next
	return ifp.snapshot(), nil
}

// Destroy removes an interface and returns what it was. ENXIO: there is none.
func (t *Table) Destroy(name string) (Interface, error) {
	for n, ifp := range t.list {
		if ifp.Name == name {
			t.list = slices.Delete(t.list, n, n+1)
			if t.cfg.Store != nil {
				t.cfg.Store.Delete(ifp.Index)
			}
			return *ifp, nil
		}
	}
	return Interface{}, fmt.Errorf("destroy %s: %w", name, syscall.ENXIO)
}

// Get returns an interface. ENXIO: there is none of this name.
func (t *Table) Get(name string) (Interface, error) {
	return t.change(name, "interface", func(*Interface) error { return nil })
}

// Restore puts an interface back to what a snapshot of it says, when the host
// refused what follows from a change or made one of its own. An interface that
// was destroyed since stays so.
func (t *Table) Restore(snapshot Interface) {
	for _, ifp := range t.list {
		if ifp.Index == snapshot.Index {
			// What can't be kept, the next process finds as it was.
			_ = t.keep(ifp, &snapshot)
			*ifp = snapshot.snapshot()
		}
	}
}

// All returns the interfaces in order of creation.
func (t *Table) All() []Interface {
	all := make([]Interface, len(t.list))
	for n, ifp := range t.list {
		all[n] = ifp.snapshot()
	}
	return all
}

// Rename gives an interface any name that a Linux link may have. EINVAL: not
// such a name. ENAMETOOLONG. EEXIST: another link has it. ENXIO.
func (t *Table) Rename(name, to string) (Interface, error) {
	return t.change(name, "rename", func(ifp *Interface) error {
		switch {
		case to == name:
			return nil
		case len(to) > MaxName:
			return fmt.Errorf("%q has over %d bytes: %w", to, MaxName, syscall.ENAMETOOLONG)
		case !validLinkName(to):
			return fmt.Errorf("%q is no name for a link: %w", to, syscall.EINVAL)
		case t.taken(to):
			return fmt.Errorf("%s: %w", to, syscall.EEXIST)
		}
		ifp.Name = to
		return nil
	})
}

// validLinkName keeps to Linux's dev_valid_name, and to what can be printed
// and given to a command: no control characters, no leading minus.
func validLinkName(name string) bool {
	return name != "" && name != "." && name != ".." && name[0] != '-' &&
		!strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r)
		})
}
