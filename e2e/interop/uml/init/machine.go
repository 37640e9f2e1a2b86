package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
)

// path is where programs are.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// modules are those of Debian's kernel that the peer of an IPsec tunnel needs.
var modules = []string{
	"ipv6", "af_key", "xfrm_user", "esp4", "esp6", "ip_vti", "ip6_vti", "sch_netem",
	"authenc", "authencesn", "seqiv", "echainiv", "hmac", "cbc", "ctr", "gcm", "ghash-generic",
	"ansi_cprng", "sha512_generic", "rmd160", "xcbc", "des_generic", "blowfish_generic", "cast5_generic",
	"camellia_generic", "chacha20poly1305", "chacha_generic", "poly1305_generic",
}

// settings are those under /proc/sys. An address can be used at once, nobody
// looks for routers, and the kernel need not look for modules: there is no
// modprobe for it.
var settings = map[string]string{
	"kernel/modprobe":                                          "",
	"net/ipv6/conf/default/accept_dad":                         "0",
	"net/ipv6/conf/default/accept_ra":                          "0",
	"net/ipv6/conf/" + uml.Interface + "/accept_dad":           "0",
	"net/ipv6/conf/" + uml.Interface + "/accept_ra":            "0",
	"net/ipv6/conf/" + uml.Interface + "/router_solicitations": "0",
}

// setUp makes a machine.
func setUp() error {
	for target, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/run": "tmpfs", "/tmp": "tmpfs"} {
		if err := mount(kind, target, kind); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	if err := load(modules); err != nil {
		return err
	}
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return err
		}
	}
	for _, name := range []string{"lo", uml.Interface} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", name, err)
		}
	}
	return nil
}

func mount(source, target, kind string) error {
	return unix.Mount(source, target, kind, unix.MS_NOSUID, "")
}

// load loads kernel modules, and before each those that it depends on.
func load(names []string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	dir := filepath.Join("/usr/lib/uml/modules", unix.ByteSliceToString(uts.Release[:]))
	deps, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	// A line is a file, a colon, and the files that must be loaded before it,
	// last one first.
	files := make(map[string][]string)
	for line := range strings.Lines(string(deps)) {
		file, before, _ := strings.Cut(line, ":")
		order := append([]string{file}, strings.Fields(before)...)
		slices.Reverse(order)
		files[strings.TrimSuffix(filepath.Base(file), ".ko")] = order
	}
	for _, name := range names {
		if files[name] == nil {
			return fmt.Errorf("there is no kernel module %s in %s", name, dir)
		}
		for _, file := range files[name] {
			if err := loadFile(filepath.Join(dir, file)); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("load kernel module %s: %w", file, err)
			}
		}
	}
	return nil
}

func loadFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// serialLine opens a serial line that changes no byte.
func serialLine(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	termios, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	termios.Iflag, termios.Oflag, termios.Lflag = 0, 0, 0
	termios.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B38400
	termios.Cc[unix.VMIN], termios.Cc[unix.VTIME] = 1, 0
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, termios)
}

func shell(script string) (lab.Result, error) {
	cmd := exec.Command("sh", "-c", script)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return lab.Result{}, err
	}
	return lab.Result{Stdout: stdout.String(), Stderr: stderr.String(), Exit: cmd.ProcessState.ExitCode()}, nil
}
