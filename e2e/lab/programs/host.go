package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ifipsec/e2e/lab"
)

// dir is where Run built the programs.
var dir string

// NewHost makes a host with the programs under test, which ends with the test.
// If the test fails, it shows the daemon's log, and it fails if the race
// detector found something.
func NewHost(t testing.TB, name string) *lab.Host {
	t.Helper()
	lab.Require(t)
	h, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	races := raceReports(t)
	h.Env = []string{
		"PATH=" + dir + ":" + os.Getenv("PATH"),
		"TZ=UTC",
		// The detector's reports must not go where the programs' output is
		// compared, and a program need not wait for them when it ends.
		"GORACE=atexit_sleep_ms=0 log_path=" + races + "/report",
	}
	t.Cleanup(func() {
		if t.Failed() {
			if log, err := os.ReadFile(h.Path("/run/ifipsec") + "/" + RunDir(h) + "/log"); err == nil {
				t.Logf("the daemon's log on %s:\n%s", h.Name, log)
			}
		}
		if err := h.Close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
		reports, _ := filepath.Glob(races + "/*")
		for _, path := range reports {
			report, _ := os.ReadFile(path)
			t.Errorf("data race on %s:\n%s", h.Name, report)
		}
	})
	return h
}

// raceReports makes a directory that not only root's programs can write to.
func raceReports(t testing.TB) string {
	t.Helper()
	races, err := os.MkdirTemp(dir, "races-")
	if err == nil {
		err = os.Chmod(races, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	return races
}

// RunDir is the name of the daemon's directory in /run/ifipsec of a host; empty
// if it has none.
func RunDir(h *lab.Host) string {
	entries, err := os.ReadDir(h.Path("/run/ifipsec"))
	if err != nil || len(entries) == 0 {
		return ""
	}
	return entries[0].Name()
}

// Shell runs a script on a host.
func Shell(t testing.TB, h *lab.Host, script string) lab.Result {
	t.Helper()
	r, err := h.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Quiet runs a script that must succeed and print nothing.
func Quiet(t testing.TB, h *lab.Host, script string) {
	t.Helper()
	if r := Shell(t, h, script); r != (lab.Result{}) {
		t.Fatalf("%s: %s\nexit %d, stdout %q, stderr %q; want silence and 0", h.Name, script, r.Exit, r.Stdout, r.Stderr)
	}
}

// Output runs a script that must succeed, and returns what it prints.
func Output(t testing.TB, h *lab.Host, script string) string {
	t.Helper()
	r := Shell(t, h, script)
	if r.Exit != 0 || r.Stderr != "" {
		t.Fatalf("%s: %s\nexit %d, stdout %q, stderr %q; want 0 and nothing on stderr", h.Name, script, r.Exit, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Setkey is the shell command that gives statements to setkey.
func Setkey(statements string) string {
	return "setkey -c <<'END'\n" + strings.TrimSuffix(statements, "\n") + "\nEND\n"
}
