package engine

import (
	"fmt"
	"syscall"
	"time"

	"ifipsec/engine/control"
	"ifipsec/engine/sysctl"
)

// Sysctls implements [control.Handler].
func (e *Engine) Sysctls(control.SysctlsRequest) (result control.SysctlsResult, err error) {
	for v := range sysctl.All() {
		result.Variables = append(result.Variables, control.Sysctl{Name: v.String(), Value: e.sysctl.Get(v)})
	}
	return result, nil
}

// SetSysctl implements [control.Handler].
func (e *Engine) SetSysctl(r control.SetSysctlRequest) (control.SetSysctlResult, error) {
	v, ok := sysctl.Find(r.Name)
	if !ok {
		return control.SetSysctlResult{}, fmt.Errorf("unknown oid '%.100s': %w", r.Name, syscall.ENOENT)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	old, err := e.sysctl.Set(v, r.Value)
	if err != nil {
		return control.SetSysctlResult{}, err
	}
	if err := e.state.putJSON(kindSysctls, 0, e.sysctl.Changed()); err != nil {
		_, _ = e.sysctl.Set(v, old) // it was taken before
		return control.SetSysctlResult{}, fmt.Errorf("%v is not kept: %w", v, err)
	}
	e.applySysctls()
	if old != r.Value {
		e.log.Info("a variable was set", "variable", v.String(), "from", old, "to", r.Value)
	}
	return control.SetSysctlResult{Old: old}, nil
}

// applySysctls tells the databases of the variables. The data plane reads its
// own with every batch.
func (e *Engine) applySysctls() {
	e.sad.Tune(e.sysctl.Get(sysctl.PreferredOldSA) != 0, seconds(e.sysctl.Get(sysctl.LarvalLifetime)))
	e.key.SetAcquireInterval(seconds(e.sysctl.Get(sysctl.BlockAcqLifetime)))
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
