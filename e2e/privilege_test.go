package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// confined fails the test unless every thread of a process has what the daemon
// may have, and nothing else. The daemon's parent has no filter of system calls.
func confined(t *testing.T, pid int, filtered string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 3 {
		t.Fatalf("the daemon has threads %v (%v)", tasks, err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it ended
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000003000\n", "CapEff:\t0000000000003000\n",
			"CapBnd:\t0000000000003000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t" + filtered + "\n",
		} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s does not have %q:\n%s", task, want, status)
			}
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(after(string(limits), "Max core file size")); len(fields) < 2 || fields[0] != "0" || fields[1] != "0" {
		t.Errorf("core files: %v, want 0", fields)
	}
}

func after(text, what string) string {
	_, rest, _ := strings.Cut(text, what)
	return rest
}

func TestDaemonIsConfined(t *testing.T) {
	t.Parallel()
	a, _ := example(t)
	reaches(t, a, innerB)
	confined(t, daemon(t, a), "2")
	processes, err := a.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if p.Name == "ipsecd-parent" {
			confined(t, p.PID, "0")
			return
		}
	}
	t.Errorf("processes %v, want ipsecd's parent among them", processes)
}

// A container gives its root these two capabilities, at best.
func TestTwoCapabilities(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	const container = "setpriv --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all "
	for h, script := range map[*lab.Host]string{a: exampleA, b: exampleB} {
		quiet(t, h, container+"sh <<'EOF'\nset -e\n"+script+"\nEOF")
	}
	reaches(t, a, innerB)
	reaches(t, b, innerA)
	confined(t, daemon(t, a), "2")
	quiet(t, a, container+"sh -c 'ifconfig ipsec0 mtu 1300 up; ifconfig ipsec0 destroy; ipsecd -stop'")
	if got := footprintOf(t, a).Files; got != nil {
		t.Errorf("left in /run: %v", got)
	}
}

func TestMissingCapability(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	const prefix = "setpriv --inh-caps=-all --bounding-set="
	for lacks, want := range map[string]string{
		"-net_raw":            "missing CAP_NET_RAW (to send and receive ESP): operation not permitted\n",
		"-net_admin,-net_raw": "missing CAP_NET_ADMIN (to make interfaces) and CAP_NET_RAW (to send and receive ESP): operation not permitted\n",
	} {
		if got := shell(t, h, prefix+lacks+" ipsecd"); got != (lab.Result{Stderr: "ipsecd: " + want, Exit: 1}) {
			t.Errorf("ipsecd with %s: %+v, want %q", lacks, got, want)
		}
		got := shell(t, h, prefix+lacks+" ifconfig ipsec0 create")
		if got.Exit == 0 || !strings.Contains(got.Stderr, "ipsecd did not start: "+strings.TrimSpace(want)) {
			t.Errorf("ifconfig with %s: %+v, want %q", lacks, got, want)
		}
	}
	got := shell(t, h, "unshare -Ur ipsecd")
	if want := "ipsecd: missing CAP_NET_ADMIN over this network namespace, which is not this user namespace's: operation not permitted\n"; got.Stderr != want {
		t.Errorf("ipsecd in a user namespace without a network: %+v, want %q", got, want)
	}
}

// demonstration builds make demo's program.
func demonstration(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(bin, "demo-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "demo")
	if out, err := exec.Command("go", "build", "-o", program, "ifipsec/e2e/demo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// The manual page's example, by root of a user namespace who is nobody outside.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	cmd := exec.CommandContext(t.Context(), demonstration(t), "-bin", bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.HasSuffix(out, []byte("\nAll as expected.\n")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The same by somebody who is not root and has no namespace yet.
func TestDemoWithoutRoot(t *testing.T) {
	t.Parallel()
	program := demonstration(t)
	h := newHost(t, "host")
	// Distributions let everybody open it; not every machine for tests does.
	output(t, h, "mount -t tmpfs tmpfs /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun")
	got := shell(t, h, "cd / && setpriv --reuid 65534 --regid 65534 --clear-groups "+program+" -bin "+bin)
	if got.Exit != 0 || !strings.HasSuffix(got.Stdout, "\nAll as expected.\n") {
		t.Errorf("exit %d\n%s%s", got.Exit, got.Stdout, got.Stderr)
	}
}
