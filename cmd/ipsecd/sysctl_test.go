package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ifipsec/engine/control"
	"ifipsec/engine/sysctl"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// variables answers as an engine does.
type variables struct {
	control.Handler
	table *sysctl.Table
}

func (v variables) Sysctls(control.SysctlsRequest) (r control.SysctlsResult, err error) {
	for id := range sysctl.All() {
		r.Variables = append(r.Variables, control.Sysctl{Name: id.String(), Value: v.table.Get(id)})
	}
	return r, nil
}

func (v variables) SetSysctl(q control.SetSysctlRequest) (control.SetSysctlResult, error) {
	id, ok := sysctl.Find(q.Name)
	if !ok {
		return control.SetSysctlResult{}, &control.Error{Errno: syscall.ENOENT, Message: "unknown oid"}
	}
	if id == sysctl.MaxNesting {
		return control.SetSysctlResult{}, &control.Error{Errno: syscall.EPERM, Message: "set_sysctl"}
	}
	old, err := v.table.Set(id, q.Value)
	return control.SetSysctlResult{Old: old}, err
}

// The golden file is a terminal's: what was typed, printed and returned.
func TestSysctlTranscript(t *testing.T) {
	t.Parallel()
	h := variables{table: sysctl.New()}
	var transcript strings.Builder
	for _, args := range []string{
		"",
		"net.inet.ipsec.dfbit",
		"net.inet.ipsec.dfbit=2",
		"net.inet.ipsec.dfbit net.key.larval_lifetime=0x3c net.key.larval_lifetime",
		"net.key",
		"net.inet.ipsec.dfbit=3",
		"net.inet.ipsec.dfbit=yes net.inet.ipsec.ecn=1",
		"net.inet.ipsec.df",
		"net.inet.ipsec.async_crypto=1 net.inet.ipsec.dfbit",
		"net.link.ipsec.max_nesting=2",
	} {
		fmt.Fprintln(&transcript, strings.TrimSpace("# ipsecd -sysctl "+args))
		if status := sysctlsOf(h, strings.Fields(args), &transcript, &transcript); status != 0 {
			fmt.Fprintf(&transcript, "(exit status %d)\n", status)
		}
	}
	golden := filepath.Join("testdata", "sysctl.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(transcript.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), transcript.String()); diff != "" {
		t.Errorf("transcript (-want +got):\n%s", diff)
	}
}
