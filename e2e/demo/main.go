// Demo types the example of if_ipsec(4) on two hosts that it makes itself, and
// shows that the tunnel works: pings, a TCP stream, and a capture of the cable
// that holds nothing but ESP. It leaves nothing behind. Who is not root needs a
// machine that lets everybody make namespaces and open /dev/net/tun.
//
//	demo [-bin DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/lab"
)

// timeLimit is far more than the demo takes: something hangs.
const timeLimit = time.Minute

// streamSize is the length of the TCP stream in bytes.
const streamSize = 32 << 20

func main() {
	lab.Init()
	bin := flag.String("bin", "bin", "directory of ifconfig, setkey and ipsecd")
	flag.Parse()
	if os.Geteuid() != 0 {
		os.Exit(asRoot())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	_, notTerminal := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	d := demo{out: os.Stdout, bold: notTerminal == nil && os.Getenv("NO_COLOR") == ""}
	if err := d.run(ctx, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

// asRoot runs the demo as root of a user namespace.
func asRoot() (exit int) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED: this is not root, and there can be no namespace where it is:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// What is typed, as the manual page has it.
var (
	scriptA = []string{
		`ifconfig ipsec0 create reqid 100`,
		`ifconfig ipsec0 inet tunnel 192.168.0.3 192.168.0.5`,
		`ifconfig ipsec0 inet 172.16.0.3/16 172.16.0.5`,
		`setkey -c <<END
add 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u 100 -E rijndael-cbc "VerySecureKey!!1";
add 192.168.0.5 192.168.0.3 esp 10001 -m tunnel -u 100 -E rijndael-cbc "VerySecureKey!!2";
END`,
	}
	scriptB = []string{
		`ifconfig ipsec0 create reqid 200`,
		`ifconfig ipsec0 inet tunnel 192.168.0.5 192.168.0.3`,
		`ifconfig ipsec0 inet 172.16.0.5/16 172.16.0.3`,
		`setkey -c <<END
add 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u 200 -E rijndael-cbc "VerySecureKey!!1";
add 192.168.0.5 192.168.0.3 esp 10001 -m tunnel -u 200 -E rijndael-cbc "VerySecureKey!!2";
END`,
	}
	innerA = netip.MustParseAddr("172.16.0.3")
	innerB = netip.MustParseAddr("172.16.0.5")
)

// spis are the SPIs of the example, each with the direction that it serves.
var spis = map[uint32]string{
	10000: "192.168.0.3 -> 192.168.0.5",
	10001: "192.168.0.5 -> 192.168.0.3",
}

type demo struct {
	out  io.Writer
	bold bool
}

func (d demo) run(ctx context.Context, bin string) (err error) {
	for _, program := range []string{"ifconfig", "setkey", "ipsecd"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return fmt.Errorf("%w (make builds the programs; -bin says where they are)", err)
		}
	}
	d.say("Two hosts, joined by a cable:\n\n" +
		"    hostA 192.168.0.3 ------------------ 192.168.0.5 hostB")
	a, err := newHost("hostA", bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := newHost("hostB", bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	err = lab.Connect(
		lab.Port{Host: a, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.0.3/24")}},
		lab.Port{Host: b, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.0.5/24")}},
		1500,
	)
	if err != nil {
		return err
	}

	d.say("\nThe example of the manual page if_ipsec(4), typed on both. A Unix command\n" +
		"that succeeds says nothing:\n")
	for _, command := range scriptA {
		if err := d.typeQuiet(ctx, a, command); err != nil {
			return err
		}
	}
	d.say("")
	for _, command := range scriptB {
		if err := d.typeQuiet(ctx, b, command); err != nil {
			return err
		}
	}

	if err := d.traffic(ctx, a, b); err != nil {
		return err
	}

	d.say("What the programs say about it:\n")
	for _, show := range []struct{ command, want string }{
		{"ifconfig ipsec0", "tunnel inet 192.168.0.3 --> 192.168.0.5"},
		{"setkey -D", "spi=10000(0x00002710)"},
		{"setkey -DP -t", "esp/tunnel/192.168.0.3-192.168.0.5/unique:100"},
	} {
		if err := d.typeWant(ctx, a, show.command, show.want); err != nil {
			return err
		}
		d.say("")
	}

	d.say("And away with it:\n")
	for _, h := range []*lab.Host{a, b} {
		for _, command := range []string{"ifconfig ipsec0 destroy", "setkey -F", "ipsecd -stop"} {
			if err := d.typeQuiet(ctx, h, command); err != nil {
				return err
			}
		}
		links, err := h.Links()
		if err != nil {
			return err
		}
		if slices.Contains(links, "ipsec0") {
			return fmt.Errorf("%s: ipsec0 is still there", h.Name)
		}
	}
	d.say("\nAll as expected.")
	return nil
}

// traffic sends pings and a stream through the tunnel while it watches the
// cable.
func (d demo) traffic(ctx context.Context, a, b *lab.Host) error {
	capture, err := a.Capture("eth0", 96)
	if err != nil {
		return err
	}
	d.say("\nPings through the tunnel, from either end:\n")
	for _, leg := range []struct {
		from *lab.Host
		to   netip.Addr
	}{{a, innerB}, {b, innerA}} {
		d.prompt(leg.from, fmt.Sprintf("ping -c 3 %s", leg.to))
		got, err := leg.from.Ping(ctx, lab.Ping{To: leg.to, Count: 3, Interval: 100 * time.Millisecond, Output: d.out})
		if err != nil {
			return err
		}
		if got.Received != 3 {
			return fmt.Errorf("%s: %d of 3 pings to %s were answered", leg.from.Name, got.Received, leg.to)
		}
		d.say("")
	}
	took, err := lab.Stream(ctx, a, b, innerB, streamSize)
	if err != nil {
		return err
	}
	d.say(fmt.Sprintf("A TCP stream of %d MB from hostA to hostB: arrived intact, %.0f Mbit/s.\n",
		streamSize>>20, streamSize*8/took.Seconds()/1e6))

	packets, err := capture.Stop()
	if err != nil {
		return err
	}
	return d.cable(packets)
}

// cable shows what was on the cable, and returns an error unless that was the
// example's ESP in both directions and nothing else.
func (d demo) cable(packets []lab.Packet) error {
	counts, others := lab.CountESP(packets)
	d.say("What was on the cable meanwhile:\n")
	for _, spi := range slices.Sorted(maps.Keys(counts)) {
		d.say(fmt.Sprintf("    %7d  ESP, SPI %d  %s", counts[spi], spi, spis[spi]))
	}
	d.say(fmt.Sprintf("    %7d  anything else, ARP apart\n", len(others)))
	if len(others) > 0 {
		return fmt.Errorf("there was something else than ESP on the cable, first %v", others[0])
	}
	for spi := range counts {
		if spis[spi] == "" {
			return fmt.Errorf("there was ESP with SPI %d on the cable, which nobody asked for", spi)
		}
	}
	for spi, direction := range spis {
		if counts[spi] == 0 {
			return fmt.Errorf("there was no ESP with SPI %d (%s) on the cable", spi, direction)
		}
	}
	return nil
}

func newHost(name, bin string) (*lab.Host, error) {
	h, err := lab.New(name)
	if err != nil {
		return nil, err
	}
	return h, h.Prepend(bin)
}

// typeQuiet types a command that must succeed and say nothing.
func (d demo) typeQuiet(ctx context.Context, h *lab.Host, command string) error {
	output, err := d.typeCommand(ctx, h, command)
	if err == nil && output != "" {
		err = fmt.Errorf("%s: %s: printed something, and should not", h.Name, firstLine(command))
	}
	return err
}

// typeWant types a command that must succeed and print a text.
func (d demo) typeWant(ctx context.Context, h *lab.Host, command, want string) error {
	output, err := d.typeCommand(ctx, h, command)
	if err == nil && !strings.Contains(output, want) {
		err = fmt.Errorf("%s: %s: did not print %q", h.Name, firstLine(command), want)
	}
	return err
}

// typeCommand shows a command and what it prints, as a terminal would.
func (d demo) typeCommand(ctx context.Context, h *lab.Host, command string) (output string, err error) {
	d.prompt(h, command)
	result, err := h.Shell(ctx, command)
	if err != nil {
		return "", err
	}
	output = result.Stdout + result.Stderr
	fmt.Fprint(d.out, output)
	if result.Exit != 0 {
		return output, fmt.Errorf("%s: %s: exit status %d", h.Name, firstLine(command), result.Exit)
	}
	return output, nil
}

// prompt shows a command as it looks when it is typed into sh.
func (d demo) prompt(h *lab.Host, command string) {
	prompt := h.Name + "# "
	for line := range strings.Lines(command) {
		line = strings.TrimSuffix(line, "\n")
		if d.bold {
			line = "\x1b[1m" + line + "\x1b[0m"
		}
		fmt.Fprintln(d.out, prompt+line)
		prompt = "> "
	}
}

func (d demo) say(text string) { fmt.Fprintln(d.out, text) }

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
