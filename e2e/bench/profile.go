package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// profileRate is samples a second on each CPU; no divisor of the kernel's tick.
const profileRate = "997"

// profiled runs f while perf(1) watches the whole machine: what carries packets
// is the daemons and the kernel on their behalf. In the directory it leaves the
// data, and a text with the costliest functions of each program.
func profiled(ctx context.Context, dir, name string, f func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base := filepath.Join(dir, strings.NewReplacer(", ", "-", " ", "-").Replace(name))
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-a", "-g", "-F", profileRate, "-e", "cpu-clock", "-o", base+".data")
	if err := perf.Start(); err != nil {
		return fmt.Errorf("a profile needs perf(1), from Debian's package linux-perf: %w", err)
	}
	err := f()
	_ = perf.Process.Signal(syscall.SIGINT) // it may have ended by itself, which Wait tells
	if e := perf.Wait(); e != nil {
		var exit *exec.ExitError
		if !errors.As(e, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
			err = errors.Join(err, fmt.Errorf("perf record: %w", e))
		}
	}
	if err != nil {
		return err
	}
	text, err := exec.CommandContext(ctx, "perf", "report", "-i", base+".data", "--stdio", "--no-children", "-g", "none",
		"--percent-limit", "0.5", "-F", "overhead,comm,symbol").Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(base+".txt", text, 0o644)
}
