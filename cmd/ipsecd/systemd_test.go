package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ifipsec/e2e/lab"
)

// activatedEnv makes this test's binary take sockets as the daemon does, and say
// which.
const activatedEnv = "IFIPSEC_TEST_ACTIVATED"

func TestMain(m *testing.M) {
	if os.Getenv(activatedEnv) == "" {
		os.Exit(m.Run())
	}
	a, err := activatedSockets()
	fmt.Printf("%d %d %v\n", len(a.controls), len(a.keys), err)
	if err := a.close(); err != nil {
		fmt.Println(err)
	}
}

func TestActivatedSockets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		networks []string
		names    string
		want     string
	}{
		"none":       {nil, "", "0 0 <nil>\n"},
		"both":       {[]string{"unixpacket", "unix"}, "pfkey:control", "1 1 <nil>\n"},
		"two of one": {[]string{"unix", "unix"}, "control:control", "2 0 <nil>\n"},
		"wrong type": {
			[]string{"unix", "unix"}, "control:pfkey",
			"0 0 socket DIR/1 (unix, FileDescriptorName=pfkey) from systemd, expected a Unix socket: control of ListenStream or pfkey of ListenSequentialPacket\n",
		},
		"wrong name": {
			[]string{"unixpacket"}, "keys",
			"0 0 socket DIR/0 (unixpacket, FileDescriptorName=keys) from systemd, expected a Unix socket: control of ListenStream or pfkey of ListenSequentialPacket\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "ipsecd-") // the test's own is too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ exec "+os.Args[0])
			for i, network := range test.networks {
				l, err := net.ListenUnix(network, &net.UnixAddr{Name: fmt.Sprintf("%s/%d", dir, i), Net: network})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				f, err := l.File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
			cmd.Env = append(os.Environ(), activatedEnv+"=1", "GORACE=atexit_sleep_ms=0",
				fmt.Sprintf("LISTEN_FDS=%d", len(test.networks)), "LISTEN_FDNAMES="+test.names)
			out, err := cmd.CombinedOutput()
			if got := strings.ReplaceAll(string(out), dir, "DIR"); err != nil || got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// maxExposure is in tenths, of systemd's measure from 0 to 10.
const maxExposure = "25"

// The units are right in systemd's opinion, and leave the service little.
func TestUnits(t *testing.T) {
	t.Parallel()
	lab.RequireProgram(t, "systemd-analyze", "systemd")
	dir := t.TempDir()
	program := filepath.Join(dir, "ipsecd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("systemd/*")
	if err != nil || len(files) != 4 {
		t.Fatalf("units %v (%v), want 4", files, err)
	}
	var units []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// As make install does, to where the program is.
		text = bytes.ReplaceAll(text, []byte("/usr/local/sbin"), []byte(dir))
		unit := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(unit, text, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	analyze := func(args ...string) (string, error) {
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "SYSTEMD_COLORS=0", "SYSTEMD_EMOJI=0")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := analyze(append([]string{"verify", "--man=no"}, units...)...); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := analyze("security", "--offline=yes", "--threshold="+maxExposure, filepath.Join(dir, "ipsecd.service"))
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	t.Log(regexp.MustCompile("Overall .*").FindString(out))
}

// A unit without the daemon's capabilities or device would be valid, too.
func TestUnitLeavesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for file, lines := range map[string][]string{
		"ipsecd.service": {
			"Type=notify", "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW", "DeviceAllow=/dev/net/tun rw",
			"RuntimeDirectory=ifipsec", "RuntimeDirectoryPreserve=yes", "LimitMEMLOCK=infinity",
		},
		"ipsecd-control.socket": {"ListenStream=/run/ifipsec/control", "FileDescriptorName=" + controlSocket, "SocketMode=0666"},
		"ipsecd-pfkey.socket":   {"ListenSequentialPacket=/run/ifipsec/pfkey", "FileDescriptorName=" + pfkeySocket, "SocketMode=0600"},
		"ipsecd-rc.service":     {"Type=oneshot", "ExecStart=/usr/local/sbin/ipsecd -v -rc /etc/ipsecd.conf"},
	} {
		text, err := os.ReadFile("systemd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s does not have %s", file, line)
			}
		}
	}
}
