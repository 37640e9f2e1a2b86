package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// A service manager is told when the daemon serves and when it ends, and needs
// no parent of the daemon's beside it.
func TestNotifiesServiceManager(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.Path("/run/notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	d, err := h.Background(t.Context(), "sh", "-c", "NOTIFY_SOCKET=/run/notify exec ipsecd")
	if err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		n, err := manager.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("the manager is told %q (%v), want %q", buf[:n], err, want)
		}
	}
	told("READY=1")
	quiet(t, h, "ifconfig ipsec0 create")
	processes, err := h.Processes()
	if err != nil || len(processes) != 1 || processes[0].PID != d.PID() {
		t.Errorf("processes %v (%v), want the daemon alone", processes, err)
	}
	if err := d.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told("STOPPING=1")
	if out, exit := d.Wait(); exit != 0 {
		t.Errorf("exit status %d\n%s", exit, out)
	}
}

// A PF_KEY program that connects to the socket that systemd has made starts the
// daemon, which is the one of the commands too.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	lab.RequireProgram(t, "systemd-socket-activate", "systemd")
	h := newHost(t, "host")
	d, err := h.Background(t.Context(), "sh", "-c", "INVOCATION_ID=1 exec systemd-socket-activate -E INVOCATION_ID -E GORACE"+
		" --seqpacket --fdname=pfkey -l /run/pfkey ipsecd")
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Until(patience, func() error {
		return unix.Access(h.Path("/run/pfkey"), unix.F_OK)
	})
	if err != nil {
		t.Fatal(err)
	}
	if pids := daemons(t, h); pids != nil {
		t.Errorf("daemons %v before anybody asked", pids)
	}
	if got := output(t, h, "PFKEY_SOCKET=/run/pfkey setkey -D"); got != "No SAD entries.\n" {
		t.Errorf("setkey -D: %q", got)
	}
	if pid := daemon(t, h); pid != d.PID() {
		t.Errorf("the daemon is process %d, want %d", pid, d.PID())
	}
	quiet(t, h, "setkey -c <<'EOF'\nadd 192.0.2.3 192.0.2.5 esp 10000 -m tunnel -E rijndael-cbc \"VerySecureKey!!1\";\nEOF")
	if got := output(t, h, "PFKEY_SOCKET=/run/pfkey setkey -D"); !strings.HasPrefix(got, "192.0.2.3 192.0.2.5\n") {
		t.Errorf("setkey -D: %q", got)
	}
	quiet(t, h, "ipsecd -stop")
	if out, exit := d.Wait(); exit != 0 {
		t.Errorf("exit status %d\n%s", exit, out)
	}
}
