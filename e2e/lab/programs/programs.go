// Package programs builds the programs under test, and makes hosts that have
// them, for the packages of tests that use them as their users do.
package programs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ifipsec/e2e/lab"
)

// Run runs a package's tests, with the programs in the directory that bin names
// while they run, and returns the exit status. A TestMain calls it:
//
//	func TestMain(m *testing.M) { os.Exit(programs.Run(m, &bin)) }
//
// Where there can be no hosts, the tests are run without programs: they are
// about to say so.
func Run(m *testing.M, bin *string) int {
	lab.Init()
	if lab.Available() == nil {
		var err error
		dir, err = os.MkdirTemp("", "ifipsec-bin-")
		if err == nil {
			defer os.RemoveAll(dir)
			err = Build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "build the programs:", err)
			return 1
		}
		*bin = dir
	}
	return m.Run()
}

// Build builds the programs into a directory, ifconfig by that name too; with
// the race detector, if the caller is built with it.
func Build(dir string) error {
	// Not only root runs them.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-o", dir + "/"}
	if Race {
		args = append(args, "-race")
	}
	args = append(args, "ifipsec/cmd/ifconfig-ipsec", "ifipsec/cmd/setkey", "ifipsec/cmd/ipsecd")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return os.Symlink("ifconfig-ipsec", filepath.Join(dir, "ifconfig"))
}
