package ifnet

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"syscall"
)

// Store keeps interfaces where they outlive the process. The table calls it
// before a change counts.
type Store interface {
	// Put keeps an interface, in place of the one with its index. If it fails,
	// nothing has changed.
	Put(Interface) error
	// Delete forgets an interface.
	Delete(index int)
}

// Append appends the interface to b, as it is kept for the next process.
func (i *Interface) Append(b []byte) ([]byte, error) {
	text, err := json.Marshal(i)
	return append(b, text...), err
}

// DecodeInterface reads what [Interface.Append] wrote.
func DecodeInterface(b []byte) (Interface, error) {
	var i Interface
	if err := json.Unmarshal(b, &i); err != nil {
		return Interface{}, fmt.Errorf("a kept interface: %w", err)
	}
	return i, nil
}

// Load puts the interfaces of another process's table into this one, which
// must be empty. None is running until [Table.SetLocalAddrs] says so. If it
// fails, nothing has changed.
func (t *Table) Load(interfaces []Interface) error {
	next := make([]*Interface, 0, len(interfaces))
	for _, i := range interfaces {
		c := i.snapshot()
		c.Running = false
		next = append(next, &c)
	}
	slices.SortFunc(next, func(a, b *Interface) int { return a.Index - b.Index })
	names, units, reqids := map[string]bool{}, map[int]bool{}, map[uint32]bool{0: false}
	for n, i := range next {
		switch {
		case !validLinkName(i.Name), i.Unit < 0, i.Unit > MaxUnit, i.Index < 1,
			i.Src.IsValid() != i.Dst.IsValid(), i.Src.BitLen() != i.Dst.BitLen(), len(i.Description) > MaxDescription:
			return fmt.Errorf("a kept interface %+v: %w", *i, syscall.EINVAL)
		case names[i.Name], units[i.Unit], reqids[i.ReqID], n > 0 && next[n-1].Index == i.Index:
			return fmt.Errorf("two kept interfaces with the name, unit, reqid or index of %s: %w", i.Name, syscall.EEXIST)
		}
		names[i.Name], units[i.Unit] = true, true
		if i.ReqID != 0 {
			reqids[i.ReqID] = true
		}
		t.lastIndex = max(t.lastIndex, i.Index)
	}
	t.list = next
	return nil
}

// keep puts an interface into the store, if it is not there as it is.
func (t *Table) keep(before, after *Interface) error {
	if t.cfg.Store == nil || before != nil && reflect.DeepEqual(before, after) {
		return nil
	}
	return t.cfg.Store.Put(after.snapshot())
}
