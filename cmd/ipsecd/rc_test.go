package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/parser/rcconf"
)

// A file is applied on a host that has some interfaces, where some commands
// fail.
func TestRC(t *testing.T) {
	t.Parallel()
	const file = `cloned_interfaces="ipsec0 ipsec1"
create_args_ipsec0="reqid 100"
ifconfig_ipsec0="tunnel 192.0.2.1 192.0.2.2"
ifconfig_ipsec1_name="vpn0"
ifconfig_vpn0_descr="a b"
ipsec_enable="YES"
static_routes="lan"
route_lan="-net 10.0.0.0/8 172.16.0.5"
`
	for name, test := range map[string]struct {
		text      string
		show, dry bool
		links     string
		fails     string // the command that does
		want      string
		status    int
	}{
		"all is new": {
			text: file,
			want: "run: ifconfig [ipsec0 create reqid 100]\n" +
				"run: ifconfig [ipsec1 create]\n" +
				"run: ifconfig [ipsec1 name vpn0]\n" +
				"run: ifconfig [ipsec0 tunnel 192.0.2.1 192.0.2.2]\n" +
				"run: ifconfig [ipsec0 up]\n" +
				"run: ifconfig [vpn0 description a b]\n" +
				"run: setkey [-f /etc/ipsec.conf]\n" +
				"add: {10.0.0.0/8 172.16.0.5 }\n",
		},
		"again": {
			text: file, links: "ipsec0 vpn0", show: true,
			want: "ifconfig ipsec0 tunnel 192.0.2.1 192.0.2.2\n" +
				"run: ifconfig [ipsec0 tunnel 192.0.2.1 192.0.2.2]\n" +
				"ifconfig ipsec0 up\n" +
				"run: ifconfig [ipsec0 up]\n" +
				"ifconfig vpn0 description 'a b'\n" +
				"run: ifconfig [vpn0 description a b]\n" +
				"setkey -f /etc/ipsec.conf\n" +
				"run: setkey [-f /etc/ipsec.conf]\n" +
				"route add -net 10.0.0.0/8 172.16.0.5\n" +
				"add: {10.0.0.0/8 172.16.0.5 }\n",
		},
		"only shown": {
			text: "cloned_interfaces=ipsec0 ifconfig_ipsec0=DHCP", show: true, dry: true,
			want: "ipsecd: warning: FILE:1:26: DHCP is ignored: an ipsec interface can't have it\n" +
				"ifconfig ipsec0 create\n",
		},
		"one fails": {
			text: "cloned_interfaces='ipsec0 ipsec1'\ncreate_args_ipsec0='reqid 1'\n", fails: "ipsec0 create reqid 1",
			want: "run: ifconfig [ipsec0 create reqid 1]\n" +
				"ipsecd: FILE:2:1: create_args_ipsec0: ifconfig ipsec0 create reqid 1: exit status 1\n" +
				"run: ifconfig [ipsec1 create]\n",
			status: 1,
		},
		"an error in a value": {
			text:   "cloned_interfaces='ipsec0'\nstatic_routes=a\nroute_a=b\n",
			want:   "ipsecd: FILE:3:1: route_a: expected a destination and a gateway\n",
			status: 1,
		},
		"no assignment": {
			text:   "cloned_interfaces='ipsec0'\nreboot\n",
			want:   "ipsecd: FILE:2:1: found \"reboot\", expected an assignment, as in NAME=\"VALUE\"\n",
			status: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "rc.conf")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			r := rc{
				stdout: &b, stderr: &b, show: test.show, dry: test.dry,
				run: func(program string, args []string) error {
					fmt.Fprintf(&b, "run: %s %v\n", program, args)
					if test.fails == strings.Join(args, " ") {
						return errors.New("exit status 1")
					}
					return nil
				},
				exists: func(link string) bool { return strings.Contains(" "+test.links+" ", " "+link+" ") },
				add:    func(r rcconf.Route) error { fmt.Fprintf(&b, "add: %v\n", r); return nil },
			}
			if status := r.apply(path); status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if diff := cmp.Diff(test.want, strings.ReplaceAll(b.String(), path, "FILE")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
