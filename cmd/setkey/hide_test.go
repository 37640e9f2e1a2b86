package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHideScript(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"-c":              "-c",
		"-f|file":         "-f|file",
		"-fleet":          "-fleet",
		"-e|flush;":       "-e|xxxxxx",
		"-ve|flush;":      "-ve|xxxxxx",
		"-eflush;":        "-exxxxxx",
		"-D|-P":           "-D|-P",
		"-e":              "-e",
		"-n|-e|flush;|-W": "-n|-e|xxxxxx|-W",
	} {
		// Strings of their own, for literals can't be written to.
		var args []string
		for arg := range strings.SplitSeq(given, "|") {
			args = append(args, string([]byte(arg)))
		}
		own := hideScript(args)
		if got := strings.Join(own, "|"); got != given {
			t.Errorf("%s: the copy is %s", given, got)
		}
		if got := strings.Join(args, "|"); got != want {
			t.Errorf("%s: the original is %s, want %s", given, got, want)
		}
	}
}

// While setkey talks to the daemon, nobody sees the script in the list of
// processes.
func TestProcessListHasNoKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const key = "0x5365637265744b65795365637265744b65790a0a"
	cmd := exec.Command(builtBinary(t), "-e", "add 10.0.0.1 10.0.0.2 esp 1000 -E aes-gcm-16 "+key+";")
	cmd.Env = append(os.Environ(), "PFKEY_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	// It waits for an answer from here on.
	if _, err := conn.Read(make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	shown, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if args := strings.Split(string(shown), "\x00"); strings.Contains(string(shown), key) || !slices.Contains(args, "-e") {
		t.Errorf("the list of processes shows %q", args)
	}
	conn.Close()
	_ = cmd.Wait()
}
