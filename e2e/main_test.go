// Package e2e tests the programs as their users have them: typed on hosts that
// lab makes, and judged by what they print, what traffic gets through and what
// is on the wire.
package e2e

import (
	"flag"
	"os"
	"testing"

	"ifipsec/e2e/lab/programs"
)

var update = flag.Bool("update", false, "write the golden files")

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }
