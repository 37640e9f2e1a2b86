// Package interop tests the programs against a Linux kernel's IPsec, on the wire
// and in both directions. The kernel is one that package uml boots: what the
// machine's own can do does not matter.
package interop

import (
	"fmt"
	"os"
	"testing"

	"ifipsec/e2e/interop/table"
	"ifipsec/e2e/lab/programs"
)

// bin is the directory of the programs under test, and of the kernel's init.
var bin string

// cells is the table of what was tried.
var cells = table.New("A Linux kernel (Debian's user-mode-linux), inner protocol in outer protocol", columns()...)

func columns() (all []string) {
	for _, outer := range families {
		for _, inner := range families {
			all = append(all, column(outer, inner))
		}
	}
	return all
}

func column(outer, inner string) string { return inner + " in " + outer }

func TestMain(m *testing.M) {
	status := programs.Run(m, &bin)
	if err := cells.Save("linux"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}
