package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"ifipsec/e2e/lab"
)

// victimEnv makes this test's binary a program that has a lab and is to be
// killed.
const victimEnv = "IFIPSEC_LAB_TEST_VICTIM"

func TestMain(m *testing.M) {
	lab.Init()
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	os.Exit(m.Run())
}

func host(t *testing.T, name string) *lab.Host {
	t.Helper()
	lab.Require(t)
	h, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close host %s: %v", name, err)
		}
	})
	return h
}

// pair returns two hosts that a link joins, with addresses of both families.
func pair(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	a, b = host(t, "hostA"), host(t, "hostB")
	err := lab.Connect(
		lab.Port{Host: a, Name: "eth0", Addrs: prefixes("192.168.0.3/24", "fd00::3/64")},
		lab.Port{Host: b, Name: "eth0", Addrs: prefixes("192.168.0.5/24", "fd00::5/64")},
		1500,
	)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func prefixes(all ...string) (ps []netip.Prefix) {
	for _, p := range all {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func shell(t *testing.T, h *lab.Host, script string) lab.Result {
	t.Helper()
	r, err := h.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for _, p := range []struct {
		from *lab.Host
		lab.Ping
	}{
		{a, lab.Ping{To: netip.MustParseAddr("192.168.0.5"), Count: 3}},
		{b, lab.Ping{To: netip.MustParseAddr("192.168.0.3"), Count: 3, Size: 1400}},
		{a, lab.Ping{To: netip.MustParseAddr("fd00::5"), Count: 3, From: netip.MustParseAddr("fd00::3")}},
	} {
		var out strings.Builder
		p.Output, p.Timeout = &out, 10*time.Second // for a busy machine
		got, err := p.from.Ping(t.Context(), p.Ping)
		if err != nil {
			t.Error(err)
		} else if want := (lab.PingResult{Sent: 3, Received: 3}); got != want {
			t.Errorf("ping %s = %+v, want %+v\n%s", p.To, got, want, &out)
		}
		if want := "3 packets transmitted, 3 packets received, 0.0% packet loss"; !strings.Contains(out.String(), want) {
			t.Errorf("ping printed %q, want %q in it", &out, want)
		}
	}
}

func TestPingWithoutAnswer(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	got, err := a.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr("192.168.0.9"), Count: 2, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.PingResult{Sent: 2}); got != want {
		t.Errorf("ping = %+v, want %+v", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Ping(ctx, lab.Ping{To: netip.MustParseAddr("192.168.0.9"), Timeout: time.Minute}); err == nil {
		t.Error("ping outlived its context")
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	a := host(t, "hostA")
	a.Env = append(a.Env, "GREETING=hello")
	got := shell(t, a, `uname -n; echo "$GREETING" >&2; exit 3`)
	if want := (lab.Result{Stdout: "hostA\n", Stderr: "hello\n", Exit: 3}); got != want {
		t.Errorf("Shell = %+v, want %+v", got, want)
	}
	if _, err := a.Command(t.Context(), "no-such-program"); err == nil {
		t.Error("a program that is not there was run")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got, err := a.Command(ctx, "sleep", "60"); err == nil || got.Exit != -1 {
		t.Errorf("sleep outlived its context: %+v, %v", got, err)
	}
}

func TestPrepend(t *testing.T) {
	t.Parallel()
	a := host(t, "hostA")
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ifconfig"), []byte("#!/bin/sh\necho ours\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := a.Prepend(bin); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, a, "ifconfig"); got.Stdout != "ours\n" {
		t.Errorf("sh ran another ifconfig: %+v", got)
	}
	if got, err := a.Command(t.Context(), "ifconfig"); err != nil || got.Stdout != "ours\n" {
		t.Errorf("Command ran another ifconfig: %+v, %v", got, err)
	}
}

func TestHostsArePrivate(t *testing.T) {
	t.Parallel()
	a, b := host(t, "hostA"), host(t, "hostB")
	shell(t, a, "mkdir /run/ifipsec; touch /run/ifipsec/ours")
	if got := shell(t, b, "ls -A /run"); got.Stdout != "" {
		t.Errorf("another host's /run has %q, want nothing", got.Stdout)
	}
	if _, err := os.Stat("/run/ifipsec/ours"); err == nil {
		t.Error("a host's /run is the machine's")
	}
	if got := shell(t, a, "ls /run/ifipsec"); got.Stdout != "ours\n" {
		t.Errorf("the host's own /run has %q, want its file", got.Stdout)
	}
	if got := shell(t, a, "ls -d /proc/[0-9]* | wc -l"); strings.TrimSpace(got.Stdout) > "5" {
		t.Errorf("a host sees %s processes, want its own", strings.TrimSpace(got.Stdout))
	}
	if links, err := a.Links(); err != nil || !slices.Equal(links, []string{"lo"}) {
		t.Errorf("a new host has the links %v (%v), want lo", links, err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	a := host(t, "hostA")
	shell(t, a, "(sleep 0.05 & exec true) & wait")
	err := lab.Until(5*time.Second, func() error {
		all, err := a.Processes()
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("the host has %v", all)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBackground(t *testing.T) {
	t.Parallel()
	a := host(t, "hostA")
	p, err := a.Background(t.Context(), "sh", "-c", "trap 'echo ended; exit 7' TERM; echo begun; while :; do sleep 0.01; done")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	all, err := a.Processes()
	if err != nil || !slices.ContainsFunc(all, func(q lab.Process) bool { return q.PID == p.PID() && q.Name == "sh" }) {
		t.Errorf("Processes = %v, %v, want sh with PID %d", all, err, p.PID())
	}
	if err := p.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	if out, exit := p.Wait(); out != "begun\n" || exit != -1 {
		t.Errorf("Wait = %q, %d, want what it wrote, and -1 of a killed program", out, exit)
	}
}

func TestCapture(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	c, err := a.Capture("eth0", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr("192.168.0.5"), Count: 10, Size: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr("fd00::3"), Count: 10}); err != nil {
		t.Fatal(err)
	}
	packets, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, p := range packets {
		decoded := p.Decode()
		switch {
		case p.Chatter():
		case decoded.Layer(layers.LayerTypeICMPv4) != nil:
			got["IPv4"]++
			if want := 14 + 20 + 8 + 1000; len(p.Data) != want || p.Length != want {
				t.Errorf("captured %d bytes of %d, want all of %d", len(p.Data), p.Length, want)
			}
		case decoded.Layer(layers.LayerTypeICMPv6Echo) != nil:
			got["IPv6"]++
		default:
			got[decoded.String()]++
		}
	}
	if diff := cmp.Diff(map[string]int{"IPv4": 20, "IPv6": 20}, got); diff != "" {
		t.Errorf("packets on the link (-want +got):\n%s", diff)
	}

	path := filepath.Join(t.TempDir(), "ping.pcap")
	if err := lab.WritePCAP(path, packets); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() < 20*1000 {
		t.Errorf("capture file: %v, %v", st, err)
	}
}

// A frame that is sent as it is arrives as it was.
func TestInject(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	capture, err := b.Capture("eth0", 0)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, strings.Repeat("x", 60)...)
	if err := a.Inject("eth0", frame); err != nil {
		t.Fatal(err)
	}
	packets, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(packets, func(p lab.Packet) bool { return slices.Equal(p.Data, frame) }) {
		t.Errorf("the frame is not among the %d captured", len(packets))
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if _, err := lab.Stream(t.Context(), a, b, netip.MustParseAddr("192.168.0.5"), 10<<20); err != nil {
		t.Error(err)
	}
	if _, err := lab.Stream(t.Context(), b, a, netip.MustParseAddr("fd00::3"), 0); err != nil {
		t.Error(err)
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	conn, err := b.ListenUDP(netip.MustParseAddrPort("192.168.0.5:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := a.SendUDP(netip.MustParseAddrPort(conn.LocalAddr().String()), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("received %q, %v", buf[:n], err)
	}
}

func TestAddressesAndRoutes(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := b.AddAddr("eth0", netip.MustParsePrefix("10.1.1.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := a.AddRoute(netip.MustParsePrefix("10.1.0.0/16"), netip.MustParseAddr("192.168.0.5"), "eth0"); err != nil {
		t.Fatal(err)
	}
	ping := lab.Ping{To: netip.MustParseAddr("10.1.1.1"), Timeout: 50 * time.Millisecond}
	if got, err := a.Ping(t.Context(), ping); err != nil || got.Received != 1 {
		t.Errorf("ping over the route = %+v, %v", got, err)
	}
	if err := b.DelAddr("eth0", netip.MustParsePrefix("10.1.1.1/32")); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Ping(t.Context(), ping); err != nil || got.Received != 0 {
		t.Errorf("ping an address that is gone = %+v, %v", got, err)
	}
}

// Labs don't know of each other, although names and addresses are the same.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			a, _ := pair(t)
			if got, err := a.Ping(t.Context(), lab.Ping{To: netip.MustParseAddr("192.168.0.5")}); err != nil || got.Received != 1 {
				t.Errorf("ping = %+v, %v", got, err)
			}
		})
	}
}

// victim makes a lab with a process in it, says where, and waits to be killed.
func victim() {
	h, err := lab.New("victim")
	if err == nil {
		err = lab.Connect(lab.Port{Host: h, Name: "eth0"}, lab.Port{Host: h, Name: "eth1"}, 1500)
	}
	if err == nil {
		// One that has left its parent, as a daemon does.
		_, err = h.Shell(context.Background(), "setsid sh -c 'echo >/run/up; sleep 600; :' >/dev/null 2>&1 & while ! [ -e /run/up ]; do :; done")
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("init", h.PID())
	all, err := h.Processes()
	for _, p := range all {
		fmt.Println(p.Name, p.PID, err)
	}
	fmt.Println("done")
	select {}
}

// Two runs of a program with a lab, at once; when they are killed, nothing is
// left of either.
func TestNothingOutlivesTheMaker(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	for i := range 2 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe")
			// What the victim starts has its environment. The numbers of its
			// namespaces would not do as a mark: the kernel gives them out
			// again at once.
			mark := fmt.Sprintf("%s=%d-%d", victimEnv, os.Getpid(), i)
			cmd.Env = append(os.Environ(), mark)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var names []string
			for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "done"; {
				fields := strings.Fields(lines.Text())
				names = append(names, fields[0])
			}
			if !slices.Contains(names, "init") || !slices.Contains(names, "sh") {
				t.Errorf("the victim's processes are %v, want init and sh", names)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			err = lab.Until(5*time.Second, func() error {
				environments, _ := filepath.Glob("/proc/[0-9]*/environ")
				for _, file := range environments {
					if env, err := os.ReadFile(file); err == nil && bytes.Contains(env, []byte(mark)) {
						return fmt.Errorf("%s: a process of the victim's is still there", file)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
