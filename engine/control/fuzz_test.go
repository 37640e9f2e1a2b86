package control

import (
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// What a client sends is answered, whatever it is, and a client without
// privileges changes nothing.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		`{"op":"create","args":{"name":"ipsec0"}}`,
		`{"op":"set_tunnel","args":{"name":"ipsec0","src":"192.168.0.3","dst":"192.168.0.5"}}`,
		`{"op":"add_address","args":{"name":"ipsec0","addr":"172.16.0.3","bits":16,"peer":"172.16.0.5"}}`,
		`{"op":"interfaces","args":{}}`, `{"op":"diagnose","args":{"name":"ipsec0"}}`,
		`{"op":"set_mtu","args":{"name":"ipsec0","mtu":-1}}`, `{}`, `null`, `[`, "",
	} {
		f.Add([]byte(line), true)
		f.Add([]byte(line), false)
	}
	f.Fuzz(func(t *testing.T, line []byte, privileged bool) {
		h := new(recorder)
		s := server{handler: h, log: slog.New(slog.DiscardHandler)}
		s.answer(line, privileged, &unix.Ucred{Pid: 1, Uid: 1000})
		switch h.last.(type) {
		case nil, InterfacesRequest, StatisticsRequest, DiagnoseRequest, SysctlsRequest:
		default:
			if !privileged {
				t.Errorf("%q without privileges: the handler got %#v", line, h.last)
			}
		}
	})
}
