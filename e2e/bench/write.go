package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/bench/result"
)

// write writes the run where it is to go.
func (b *bench) write(run *result.Run, answers []result.Answer) error {
	files := []string{b.data}
	if b.docs != "" {
		document := filepath.Join(b.docs, "performance.md")
		text, err := os.ReadFile(document)
		if err != nil {
			return err
		}
		replaced, err := result.Replace(string(text), run.Markdown(answers))
		if err != nil {
			return fmt.Errorf("%s: %w", document, err)
		}
		chart, err := run.Chart(answers)
		if err != nil {
			return err
		}
		if err := errors.Join(
			os.WriteFile(document, []byte(replaced), 0o644),
			os.WriteFile(filepath.Join(b.docs, "performance.svg"), []byte(chart), 0o644),
		); err != nil {
			return err
		}
		files = append(files, filepath.Join(b.docs, "performance.json"))
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		if err := errors.Join(run.Write(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// machine says where it is measured.
func machine(ctx context.Context) (m result.Machine, err error) {
	m = result.Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if m.WireGuard, err = wireGuardVersion(ctx); err != nil {
		return m, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	// New namespaces have the machine's.
	tcp, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return m, err
	}
	m.TCP = strings.TrimSpace(string(tcp))
	info, err := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m, err
}

// describe is a line about what was measured.
func describe(v values) string {
	var all []string
	for _, m := range slices.Sorted(maps.Keys(v)) {
		all = append(all, fmt.Sprintf("%.4g %s", v[m], m))
	}
	return strings.Join(all, ", ")
}
