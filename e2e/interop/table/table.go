// Package table keeps what the tests with another implementation of ESP have
// tried, as a table that a person reads: a row an algorithm, a column a pair of
// outer and inner protocol. A hole in it has its reason.
package table

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// dirEnv names the directory to which [Table.Save] writes.
const dirEnv = "IFIPSEC_TABLES"

// Table is what was tried with one peer. It can be used by several goroutines.
type Table struct {
	peer    string
	columns []string

	mu    sync.Mutex
	rows  []string // names, in the order in which they came
	cells map[[2]string]bool
	lacks map[string]string
}

// New makes an empty table of what is tried with a peer.
func New(peer string, columns ...string) *Table {
	return &Table{peer: peer, columns: columns, cells: make(map[[2]string]bool), lacks: make(map[string]string)}
}

// Set says whether it worked. It panics if there is no such column.
func (t *Table) Set(row, column string, worked bool) {
	if !slices.Contains(t.columns, column) {
		panic("the table has no column " + column)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addRow(row)
	t.cells[[2]string{row, column}] = worked
}

// Lacks gives the reason why a row has holes. It panics if that is no reason.
func (t *Table) Lacks(row, reason string) {
	if reason == "" {
		panic("the table has holes without a reason in row " + row)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addRow(row)
	t.lacks[row] = reason
}

func (t *Table) addRow(row string) {
	if !slices.Contains(t.rows, row) {
		t.rows = append(t.rows, row)
	}
}

// String returns the table as text.
func (t *Table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", t.peer)
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join(t.columns, "\t"))
	for _, row := range t.rows {
		fmt.Fprintf(w, "  %s", row)
		for _, column := range t.columns {
			mark := "-"
			if worked, ok := t.cells[[2]string{row, column}]; ok && worked {
				mark = "ok"
			} else if ok {
				mark = "FAILED"
			}
			fmt.Fprintf(w, "\t%s", mark)
		}
		fmt.Fprintf(w, "\t%s\n", t.lacks[row])
	}
	// A strings.Builder takes everything.
	_ = w.Flush()
	return trimLines(s.String())
}

// trimLines takes the blanks from the ends of lines.
func trimLines(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

// Save writes the table to a file NAME.txt in the directory that IFIPSEC_TABLES
// names, for `make interop` to print. Without such a directory it does nothing.
func (t *Table) Save(name string) error {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, name+".txt"), []byte(t.String()), 0o644)
}
