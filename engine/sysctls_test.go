package engine

import (
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"

	"ifipsec/engine/control"
	"ifipsec/engine/sysctl"
)

// What was set is there after a death, and databases know of it; what was
// refused has changed nothing.
func TestSysctlsOutliveTheProcess(t *testing.T) {
	cfg := Config{Log: slog.New(slog.DiscardHandler), Offload: true, StateDir: filepath.Join(t.TempDir(), "state")}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, n int64) (control.SetSysctlResult, error) {
		return e.SetSysctl(control.SetSysctlRequest{Name: name, Value: n})
	}
	for range 2 {
		if _, err := set("net.key.preferred_oldsa", 1); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := set("net.key.larval_lifetime", 7); err != nil || r.Old != 30 {
		t.Errorf("set: %v, %v, want 30 before", r, err)
	}
	for name, want := range map[string]error{"net.key.preferred_oldsa": syscall.EINVAL, "net.key.nothing": syscall.ENOENT} {
		if _, err := set(name, 2); !errors.Is(err, want) {
			t.Errorf("%s=2: %v, want %v", name, err, want)
		}
	}
	if err := e.Leave(); err != nil {
		t.Fatal(err)
	}
	if e, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	result, err := e.Sysctls(control.SysctlsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range result.Variables {
		id, _ := sysctl.Find(v.Name)
		want := map[sysctl.Variable]int64{sysctl.PreferredOldSA: 1, sysctl.LarvalLifetime: 7}[id]
		if want == 0 {
			want = id.Default()
		}
		if v.Value != want {
			t.Errorf("%s is %d, want %d", v.Name, v.Value, want)
		}
	}
}
