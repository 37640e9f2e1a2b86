package e2e

import (
	"os"
	"strings"
	"testing"

	"ifipsec/e2e/lab"
)

// boot gives a host the files of a FreeBSD host, in its /run, does what is done
// with them at boot, and returns what that prints.
func boot(t *testing.T, h *lab.Host, rc, ipsec string) string {
	t.Helper()
	for file, text := range map[string]string{"/run/rc.conf": rc, "/run/ipsec.conf": ipsec} {
		if err := os.WriteFile(h.Path(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return output(t, h, "ipsecd -rc /run/rc.conf")
}

// Two hosts have a tunnel when they have booted, and networks behind it.
func TestBootFromRCConf(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	const keys = `flush;
add 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u REQID -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 192.168.0.5 192.168.0.3 esp 10001 -m tunnel -u REQID -E aes-gcm-16 0x101112131415161718191a1b1c1d1e1f20212223;
`
	printedA := boot(t, a, `# FreeBSD's words
hostname="hostA"
cloned_interfaces="ipsec0"
create_args_ipsec0="reqid 100"
ifconfig_ipsec0="inet 172.16.0.3/16 172.16.0.5 tunnel 192.168.0.3 192.168.0.5"
ifconfig_ipsec0_ipv6="inet6 fd00:1::3/64"
ifconfig_ipsec0_alias0="inet 172.16.1.3/32 172.16.1.5"
ifconfig_ipsec0_descr="to host B"
ipsec_enable="YES"
ipsec_file="/run/ipsec.conf"
static_routes="lan"
route_lan="-net 10.5.0.0/16 172.16.0.5"
ipv6_static_routes="lan"
ipv6_route_lan="fd00:5:: -prefixlen 48 -iface ipsec0"
`, strings.ReplaceAll(keys, "REQID", "100"))
	printedB := boot(t, b, `cloned_interfaces="ipsec7"
ifconfig_ipsec7_name="vpn"
create_args_ipsec7="reqid 200 tunnel 192.168.0.5 192.168.0.3"
ifconfig_vpn="inet 172.16.0.5/16 172.16.0.3"
ifconfig_vpn_ipv6="inet6 fd00:1::5/64"
ipsec_enable="YES"
ipsec_file="/run/ipsec.conf"
`, strings.ReplaceAll(keys, "REQID", "200"))
	// The name is what ifconfig prints when it renames.
	if printedA != "" || printedB != "vpn\n" {
		t.Errorf("printed %q and %q, want nothing and the new name", printedA, printedB)
	}
	for _, addr := range prefixes("10.5.0.1/32", "fd00:5::1/128") {
		if err := b.AddAddr("lo", addr); err != nil {
			t.Fatal(err)
		}
		reaches(t, a, addr.Addr())
	}
	reaches(t, b, innerA)
	shown := output(t, a, "ifconfig ipsec0")
	for _, want := range []string{"\tdescription: to host B\n", "\treqid: 100\n", "\tinet 172.16.1.3 ", "\tinet6 fd00:1::3 "} {
		if !strings.Contains(shown, want) {
			t.Errorf("ifconfig ipsec0 shows no %q:\n%s", want, shown)
		}
	}
	// Once more changes nothing that is seen.
	quiet(t, a, "ipsecd -rc /run/rc.conf")
	quiet(t, b, "ipsecd -rc /run/rc.conf")
	if again := output(t, a, "ifconfig ipsec0"); again != shown {
		t.Errorf("booted again, ifconfig ipsec0 shows\n%s\nwant\n%s", again, shown)
	}
	reaches(t, a, innerB)
}

// What is wrong is said with its place, and what a command says is seen.
func TestRCConfWithErrors(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	if err := os.WriteFile(h.Path("/run/rc.conf"), []byte("cloned_interfaces=\"ipsec0\"\nifconfig_ipsec0=\"tunnel 192.0.2.1\"\nreboot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := lab.Result{Stderr: "ipsecd: /run/rc.conf:3:1: found \"reboot\", expected an assignment, as in NAME=\"VALUE\"\n", Exit: 1}
	if got := shell(t, h, "ipsecd -rc /run/rc.conf"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if pids := daemons(t, h); pids != nil {
		t.Errorf("a file with an error has started %v", pids)
	}
	got := shell(t, h, "sed -i '/reboot/d' /run/rc.conf; ipsecd -v -rc /run/rc.conf")
	lines := strings.Split(strings.TrimSpace(got.Stderr), "\n")
	if got.Exit != 1 || got.Stdout != "ifconfig ipsec0 create\nifconfig ipsec0 tunnel 192.0.2.1\nifconfig ipsec0 up\n" || len(lines) != 2 ||
		!strings.HasPrefix(lines[0], "ifconfig: ") ||
		lines[1] != "ipsecd: /run/rc.conf:2:1: ifconfig_ipsec0: ifconfig ipsec0 tunnel 192.0.2.1: exit status 1" {
		t.Errorf("%+v", got)
	}
}
