package proc

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	const stat = "123 (a) (b c) S 1 123 123 0 -1 4194560 2000 0 3 0 250 75 0 0 20 0 8 0 1000 1 2 3"
	if got, err := parseStat([]byte(stat)); err != nil || got != 3250*time.Millisecond {
		t.Errorf("%v, %v, want 3.25s", got, err)
	}
	for _, bad := range []string{"", "123 (a", "123 (a) S 1 2", "123 (a) S 1 123 123 0 -1 4194560 2000 0 3 0 x 75"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
}

func TestParseBusy(t *testing.T) {
	t.Parallel()
	const stat = "cpu  100 1 200 99999 50 4 300 7 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
	busy, softirq, err := parseBusy([]byte(stat))
	if err != nil || busy != 6120*time.Millisecond || softirq != 3*time.Second {
		t.Errorf("%v, %v, %v, want 6.12s and 3s", busy, softirq, err)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 7 x"} {
		if _, _, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseMemory(t *testing.T) {
	t.Parallel()
	const status = "Name:\tipsecd\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\nThreads:\t9\n"
	now, most, err := parseMemory([]byte(status))
	if err != nil || now != 1<<20 || most != 2<<20 {
		t.Errorf("%v, %v, %v, want 1 MiB and 2 MiB", now, most, err)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", "VmHWM:\t1 kB\nVmRSS:\tx kB\n"} {
		if _, _, err := parseMemory([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// The files of this kernel can be read, and say something.
func TestSelf(t *testing.T) {
	t.Parallel()
	if _, err := CPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if busy, softirq, err := Busy(); err != nil || busy <= 0 || softirq > busy {
		t.Errorf("Busy() = %v, %v, %v", busy, softirq, err)
	}
	if now, most, err := Memory(os.Getpid()); err != nil || now <= 0 || most < now {
		t.Errorf("Memory() = %v, %v, %v", now, most, err)
	}
}
