package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ifipsec/parser/setkey/lint"
)

// lintScript runs setkey -n on a script of testdata and returns what it says
// and its exit status.
func lintScript(t *testing.T, name string, flags string) (string, int) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join("../../testdata/setkey/lint", name+".conf"))
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	status := run([]string{flags}, world{
		stdin: strings.NewReader(string(script)), stdout: &stdout, stderr: &stderr,
		dial: func() (conn, error) { t.Error("a script that is checked needs no daemon"); return nil, os.ErrInvalid },
	})
	if stdout.Len() > 0 {
		t.Errorf("standard output: %q", stdout.String())
	}
	return stderr.String(), status
}

// The golden files show each warning, and that neighbours of what is warned of
// are not.
func TestLint(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("../../testdata/setkey/lint/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".conf")
		said, status := lintScript(t, name, "-nc")
		_, strict := lintScript(t, name, "-nWc")
		got := fmt.Sprintf("%sexit status %d, with -W %d\n", said, status, strict)
		golden := strings.TrimSuffix(script, ".conf") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got:\n%s\nwant:\n%s", name, got, want)
		}
		for _, secret := range []string{"0314253647", "VerySecure", "56657279", "too short"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: what is said has a key in it:\n%s", name, got)
			}
		}
		shown += got
	}
	for _, name := range lint.Names {
		if !strings.Contains(shown, "["+name+"]") {
			t.Errorf("no script shows the warning %s", name)
		}
	}
	if said, status := lintScript(t, "clean", "-nWc"); said != "" || status != 0 {
		t.Errorf("the clean script: exit status %d, %q", status, said)
	}
}
