package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runHandOver makes this test's binary hand over with its arguments.
const runHandOver = "IFIPSEC_TEST_HANDOVER"

func TestMain(m *testing.M) {
	if os.Getenv(runHandOver) == "" {
		os.Exit(m.Run())
	}
	fmt.Println("error:", handOver(os.Args[1:]))
	os.Exit(1)
}

// otherProgram writes an ifconfig that says that it was run.
func otherProgram(t *testing.T, mode os.FileMode) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := "#!/bin/sh\necho system: \"$@\"\nexit 3\n"
	if err := os.WriteFile(filepath.Join(dir, "ifconfig"), []byte(script), mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ownProgram links this program under the name ifconfig.
func ownProgram(t *testing.T) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "ifconfig")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOtherIfconfigIsNotThisOne(t *testing.T) {
	system := otherProgram(t, 0o755)
	t.Setenv("PATH", strings.Join([]string{
		"", ".", ownProgram(t), otherProgram(t, 0o644), filepath.Join(t.TempDir(), "none"), system, otherProgram(t, 0o755),
	}, ":"))
	t.Chdir(otherProgram(t, 0o755))
	got, err := otherIfconfig()
	if want := filepath.Join(system, "ifconfig"); err != nil || got != want {
		t.Errorf("otherIfconfig = %q, %v, want %q", got, err, want)
	}
}

// Not parallel: a program that is being written when another is started can't
// be started itself (ETXTBSY).
func TestHandOverRunsTheOther(t *testing.T) {
	cmd := exec.Command(filepath.Join(ownProgram(t), "ifconfig"), "eth0", "a b", "up")
	cmd.Env = []string{runHandOver + "=1", "PATH=" + ownProgram(t) + ":" + otherProgram(t, 0o755)}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || string(out) != "system: eth0 a b up\n" {
		t.Errorf("%q, %v, want what the other says and its status 3", out, err)
	}
}

func TestHandOverEndsBetweenTwoOfThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.WriteFile(filepath.Join(copied, "ifconfig"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "eth0")
	cmd.Env = []string{runHandOver + "=1", "PATH=" + copied}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not the system's ifconfig") {
		t.Errorf("%q, %v, want it to end with an error", out, err)
	}
}
