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
	if got, err := parseBusy([]byte(stat)); err != nil || got != 6120*time.Millisecond {
		t.Errorf("%v, %v, want 6.12s", got, err)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseMemory(t *testing.T) {
	t.Parallel()
	const status = "Name:\tipsecd\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\nThreads:\t9\n"
	if got, err := parseMemory([]byte(status)); err != nil || got != 1<<20 {
		t.Errorf("%v, %v, want 1 MiB", got, err)
	}
	for _, bad := range []string{"", "VmHWM:\t1 kB\n", "VmRSS:\tx kB\n"} {
		if _, err := parseMemory([]byte(bad)); err == nil {
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
	if busy, err := Busy(); err != nil || busy <= 0 {
		t.Errorf("Busy() = %v, %v", busy, err)
	}
	if memory, err := Memory(os.Getpid()); err != nil || memory <= 0 {
		t.Errorf("Memory() = %v, %v", memory, err)
	}
}
