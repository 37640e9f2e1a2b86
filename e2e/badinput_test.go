package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/lab"
)

// state is all that the programs show of a host.
func state(t *testing.T, h *lab.Host) (all string) {
	t.Helper()
	for _, command := range []string{"ifconfig ipsec0", "ifconfig ipsec1", "setkey -D", "setkey -DP"} {
		all += "# " + command + "\n" + normalise(output(t, h, command))
	}
	return all
}

// Bad input is answered as FreeBSD answers it, and changes nothing. On standard
// error the programs may say more: ifconfig in the same line.
func TestBadInput(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	newTunnel(0).setUp(t, a, b)
	newTunnel(1).setUp(t, a, b)
	before := state(t, a)
	const key = "0x031425364758697a8b9cadbecfe0f10213243546"
	for _, test := range []struct {
		what, script string
		want         lab.Result
	}{
		{"wrong key length", setkey("add 10.0.0.1 10.0.0.2 esp 1000 -E rijndael-cbc 0x031425364758697a8b9cadbecfe0f1;"), lab.Result{
			Stdout: "line 1: Invalid key length at [0x031425364758697a8b9cadbecfe0f1]\nparse failed, line 1.\n", Exit: 1,
		}},
		{"unknown algorithm", setkey("\nadd 10.0.0.1 10.0.0.2 esp 1000 -E rot13 " + key + ";"), lab.Result{
			Stdout: "line 2: syntax error at [rot13]\nparse failed, line 2.\n", Exit: 1,
		}},
		{"bad address", setkey("add -n 10.0.0.1 10.0.0.256 esp 1000 -E aes-gcm-16 " + key + ";"), lab.Result{
			Stdout: "line 1: Name does not resolve at [10.0.0.256]\nparse failed, line 1.\n", Exit: 1,
		}},
		{"duplicate SPI", setkey("\nadd 192.168.0.3 192.168.0.5 esp 10000 -m tunnel -u 100 -E aes-gcm-16 " + key + ";"), lab.Result{
			Stdout: "The result of line 2: File exists.\n",
		}},
		{"reserved SPI", setkey("add 10.0.0.1 10.0.0.2 esp 255 -E aes-gcm-16 " + key + ";"), lab.Result{
			Stdout: "The result of line 1: Invalid argument.\n",
		}},
		{"SA that is not there", setkey("delete 192.168.0.3 192.168.0.5 esp 9999;"), lab.Result{
			Stdout: "The result of line 1: No entry.\n",
		}},
		{"an interface's policy", setkey("spdflush;"), lab.Result{}},
		{"no arguments for setkey", "setkey", lab.Result{Exit: 1, Stdout: "usage: setkey [-v] -c\n" +
			"       setkey [-v] -f filename\n" +
			"       setkey [-v] -e \"<script>\"\n" +
			"       setkey [-Pagltv] -D\n" +
			"       setkey [-Pv] -F\n" +
			"       setkey [-h] -x\n"}},
		{"interface not there", "ifconfig ipsec7", lab.Result{
			Stderr: "ifconfig: interface ipsec7 does not exist", Exit: 1,
		}},
		{"tunnel on an interface not there", "ifconfig ipsec7 inet tunnel 192.168.0.3 192.168.0.5", lab.Result{
			Stderr: "ifconfig: interface ipsec7 does not exist", Exit: 1,
		}},
		{"interface there already", "ifconfig ipsec0 create", lab.Result{
			Stderr: "ifconfig: interface ipsec0 already exists", Exit: 1,
		}},
		{"reqid of another interface", "ifconfig ipsec0 reqid 101", lab.Result{
			Stderr: "ifconfig: ioctl(IPSECSREQID): File exists",
		}},
		{"endpoint that can be none", "ifconfig ipsec0 inet tunnel 0.0.0.0 192.168.0.5", lab.Result{
			Stderr: "ifconfig: SIOCSIFPHYADDR: Can't assign requested address",
		}},
		{"endpoint that is no address", "ifconfig ipsec0 inet tunnel 192.168.0.3 192.168.0.256", lab.Result{
			Stderr: "ifconfig: error in parsing address string: ", Exit: 1,
		}},
		{"MTU out of bounds", "ifconfig ipsec0 mtu 1279", lab.Result{
			Stderr: "ifconfig: ioctl SIOCSIFMTU (set mtu): Invalid argument", Exit: 1,
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			got := shell(t, a, test.script)
			if strings.HasPrefix(got.Stderr, test.want.Stderr) && (test.want.Stderr == "" || strings.Count(got.Stderr, "\n") == 1) {
				got.Stderr = test.want.Stderr
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", test.script, diff)
			}
			if diff := cmp.Diff(before, state(t, a)); diff != "" {
				t.Errorf("%s\nchanged the state (-before +after):\n%s", test.script, diff)
			}
		})
	}
	reaches(t, a, newTunnel(0).innerB[0])
}
