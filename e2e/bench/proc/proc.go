// Package proc reads from /proc what processes and the machine have used.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: Linux's USER_HZ, which is 100 on every
// architecture that Go knows.
const tick = time.Second / 100

// CPU returns the CPU time that a process has used, in user mode and in the
// kernel, its ended threads included.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(stat)
}

// parseStat reads /proc/PID/stat, proc_pid_stat(5).
func parseStat(stat []byte) (time.Duration, error) {
	// The second field is the program's name, which may hold anything.
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("/proc/PID/stat: no program name in %q", stat)
	}
	// The first of these is field 3; utime and stime are 14 and 15.
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat: %d fields after the name, expected at least 13", len(fields))
	}
	return ticks("/proc/PID/stat", fields[11:13])
}

// Busy returns the time that the machine's CPUs were not idle since it was
// started, whatever they did.
func Busy() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(stat)
}

// parseBusy reads the first line of /proc/stat, proc_stat(5): user, nice,
// system, idle, iowait, irq, softirq, steal. Guests' time is in user and nice.
func parseBusy(stat []byte) (time.Duration, error) {
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat: expected the sum of all CPUs, found %q", line)
	}
	return ticks("/proc/stat", append(fields[1:4], fields[6:9]...))
}

func ticks(file string, fields []string) (sum time.Duration, err error) {
	for _, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// Memory returns the resident memory of a process in bytes.
func Memory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseMemory(status)
}

// parseMemory reads /proc/PID/status, proc_pid_status(5).
func parseMemory(status []byte) (int64, error) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/status: %w", err)
		}
		return kB << 10, nil
	}
	return 0, errors.New("/proc/PID/status: no VmRSS")
}
