// Package e2e tests the programs as their users have them: typed on hosts that
// lab makes, and judged by what they print, what traffic gets through and what
// is on the wire.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ifipsec/e2e/lab"
)

var update = flag.Bool("update", false, "write the golden files")

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) {
	lab.Init()
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if lab.Available() == nil {
		dir, err := build()
		defer os.RemoveAll(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "build the programs:", err)
			return 1
		}
		bin = dir
	}
	return m.Run()
}

// build builds the programs into a new directory, with the race detector if
// this test has it.
func build() (dir string, err error) {
	dir, err = os.MkdirTemp("", "ifipsec-e2e-")
	if err != nil {
		return dir, err
	}
	// Not only root runs them.
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	args := []string{"build", "-o", dir + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "ifipsec/cmd/ifconfig-ipsec", "ifipsec/cmd/setkey", "ifipsec/cmd/ipsecd")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return dir, errors.Join(err, errors.New(string(out)))
	}
	return dir, os.Symlink("ifconfig-ipsec", filepath.Join(dir, "ifconfig"))
}
