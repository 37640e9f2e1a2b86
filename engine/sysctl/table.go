package sysctl

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
)

// Table is the values of the variables. Its methods may be called concurrently;
// reading takes no lock.
type Table struct{ values [count]atomic.Int64 }

// New returns a table of the defaults.
func New() *Table {
	t := new(Table)
	for v := range All() {
		t.values[v].Store(v.Default())
	}
	return t
}

// Get returns a variable's value.
func (t *Table) Get(v Variable) int64 { return t.values[v].Load() }

// Set gives a variable another value and returns the one before. EINVAL: the
// value is out of the variable's range, and nothing has changed.
func (t *Table) Set(v Variable, to int64) (old int64, err error) {
	if min, max := v.Range(); to < min || to > max {
		return 0, fmt.Errorf("%v=%d, want %d to %d: %w", v, to, min, max, syscall.EINVAL)
	}
	return t.values[v].Swap(to), nil
}

// SyntaxError is a text that is no value.
type SyntaxError string

// Error says it in the words of sysctl(8).
func (e SyntaxError) Error() string { return fmt.Sprintf("invalid integer '%.40s'", string(e)) }

// Unwrap returns EINVAL.
func (e SyntaxError) Unwrap() error { return syscall.EINVAL }

// ParseValue reads a value as sysctl(8) does: decimal, or octal or hexadecimal
// as in C. Its error is a [SyntaxError].
func ParseValue(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 0, 32)
	if err != nil {
		return 0, SyntaxError(text)
	}
	return n, nil
}

// Changed returns by name the values that are not the defaults.
func (t *Table) Changed() map[string]int64 {
	changed := map[string]int64{}
	for v := range All() {
		if n := t.Get(v); n != v.Default() {
			changed[v.String()] = n
		}
	}
	return changed
}

// Load sets what Changed returned. What this version does not know, or does not
// allow any more, keeps its default; it is named in the result.
func (t *Table) Load(changed map[string]int64) (refused []string) {
	for name, n := range changed {
		v, ok := Find(name)
		if ok {
			if _, err := t.Set(v, n); err == nil {
				continue
			}
		}
		refused = append(refused, name)
	}
	return refused
}
