package rundir

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// claimant is what this test's binary does with a network namespace, as a user,
// when it is one of several processes there.
func claimant() {
	switch what := os.Getenv(claimantEnv); what {
	case "daemon":
		claim, err := TakeNamespace()
		fmt.Println(err)
		hold()
		if err := claim.Release(); err != nil {
			panic(err)
		}
	case "stranger":
		l, err := net.Listen(claimNetwork, claimName)
		fmt.Println(err)
		hold()
		if err == nil {
			l.Close()
		}
	default:
		panic(what)
	}
}

const claimantEnv = "IFIPSEC_TEST_CLAIMANT"

// hold waits until standard input ends.
func hold() {
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// claim starts a claimant and returns its process and what it says.
func claim(t *testing.T, what string, attr *syscall.SysProcAttr, prefix ...string) (pid int, said string, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	if prefix != nil {
		cmd = exec.Command(prefix[0], append(prefix[1:], fmt.Sprintf("/proc/%d/exe", os.Getpid()))...)
	}
	cmd.Env = append(os.Environ(), claimantEnv+"="+what)
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", what, err, stderr.String())
		}
	}
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if err != nil {
		end()
		t.Fatalf("%s: %v", what, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(string(line[:n])), end
}

func TestTakeNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can make network namespaces, and this test is not root")
	}
	here := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	first, said, end := claim(t, "daemon", here)
	if said != "<nil>" {
		t.Fatalf("the first daemon: %s", said)
	}
	enter := []string{"nsenter", "-n", "-t", fmt.Sprint(first), "--"}
	_, said, endSecond := claim(t, "daemon", nil, enter...)
	endSecond()
	if want := fmt.Sprintf("another ipsecd runs in this network namespace, and its sockets are elsewhere (process %d): address already in use", first); said != want {
		t.Errorf("a second daemon: %s, want %s", said, want)
	}
	_, said, endOther := claim(t, "daemon", here)
	endOther()
	if said != "<nil>" {
		t.Errorf("a daemon of another namespace: %s", said)
	}
	end()
}

// Who is not root can have the name, and keeps no daemon from starting.
func TestStrangerHasTheNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can make network namespaces, and this test is not root")
	}
	stranger, said, end := claim(t, "stranger", &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET, Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
	})
	defer end()
	if said != "<nil>" {
		t.Fatalf("the stranger: %s", said)
	}
	_, said, endDaemon := claim(t, "daemon", nil, "nsenter", "-n", "-t", fmt.Sprint(stranger), "--")
	endDaemon()
	if want := fmt.Sprintf("the Unix socket @ifipsec is in use by user 65534 (process %d)", stranger); said != want {
		t.Errorf("a daemon: %s, want %s", said, want)
	}
}

func TestStrangerError(t *testing.T) {
	t.Parallel()
	err := error(&StrangerError{Err: syscall.EAGAIN})
	if !errors.Is(err, syscall.EAGAIN) || err.Error() != "the Unix socket @ifipsec is in use: resource temporarily unavailable" {
		t.Errorf("%v", err)
	}
}
