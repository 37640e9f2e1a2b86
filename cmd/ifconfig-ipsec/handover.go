package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// handedOver is in the environment of an ifconfig that was handed over to, so
// that two copies of this program do not pass a command line to and fro.
const handedOver = "IFIPSEC_HANDED_OVER"

// handOver replaces this program by the system's ifconfig, with the same
// arguments: the first one on PATH, in /sbin or in /usr/sbin that is not this
// program under another name.
func handOver(args []string) error {
	if os.Getenv(handedOver) != "" {
		return fmt.Errorf("this is not the system's ifconfig: %w", os.ErrNotExist)
	}
	other, err := otherIfconfig()
	if err != nil {
		return err
	}
	err = syscall.Exec(other, append([]string{"ifconfig"}, args...), append(os.Environ(), handedOver+"=1"))
	return fmt.Errorf("%s: %w", other, err)
}

func otherIfconfig() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	self, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/sbin", "/usr/sbin") {
		candidate := filepath.Join(dir, "ifconfig")
		// An empty or relative entry would run what lies in any directory.
		st, err := os.Stat(candidate)
		if err != nil || !filepath.IsAbs(candidate) || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 || os.SameFile(self, st) {
			continue
		}
		return candidate, nil
	}
	return "", fmt.Errorf("ifconfig of the system: %w", os.ErrNotExist)
}
