package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// operation is one kind of request: how a handler is called with its JSON.
type operation struct {
	changes bool // so that only the privileged may ask for it
	call    func(h Handler, args []byte) (any, error)
}

var operations = map[string]operation{
	"create":          changing(Handler.Create),
	"destroy":         changing(silent(Handler.Destroy)),
	"set_tunnel":      changing(silent(Handler.SetTunnel)),
	"delete_tunnel":   changing(silent(Handler.DeleteTunnel)),
	"set_reqid":       changing(silent(Handler.SetReqID)),
	"set_tunnel_fib":  changing(silent(Handler.SetTunnelFIB)),
	"set_fib":         changing(silent(Handler.SetFIB)),
	"add_address":     changing(silent(Handler.AddAddress)),
	"remove_address":  changing(silent(Handler.RemoveAddress)),
	"set_up":          changing(silent(Handler.SetUp)),
	"set_mtu":         changing(silent(Handler.SetMTU)),
	"rename":          changing(silent(Handler.Rename)),
	"set_description": changing(silent(Handler.SetDescription)),
	"add_group":       changing(silent(Handler.AddGroup)),
	"remove_group":    changing(silent(Handler.RemoveGroup)),
	"set_metric":      changing(silent(Handler.SetMetric)),
	"interfaces":      reading(Handler.Interfaces),
	"statistics":      reading(Handler.Statistics),
	"sysctls":         reading(Handler.Sysctls),
	"set_sysctl":      changing(Handler.SetSysctl),
	"diagnose":        reading(Handler.Diagnose),
}

// none is the result of a request that has none.
type none struct{}

// silent gives a method without a result an empty one.
func silent[Q any](f func(Handler, Q) error) func(Handler, Q) (none, error) {
	return func(h Handler, q Q) (none, error) { return none{}, f(h, q) }
}

func changing[Q, R any](f func(Handler, Q) (R, error)) operation {
	o := reading(f)
	o.changes = true
	return o
}

func reading[Q, R any](f func(Handler, Q) (R, error)) operation {
	return operation{call: func(h Handler, args []byte) (any, error) {
		var q Q
		if err := decode(args, &q); err != nil {
			return nil, err
		}
		if c, ok := any(&q).(checker); ok {
			if err := c.check(); err != nil {
				return nil, fmt.Errorf("request refused: %w", err)
			}
		}
		return f(h, q)
	}}
}

// decode takes exactly one JSON value that has no field that v lacks.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one value on the line")
	}
	return fmt.Errorf("malformed request: %v: %w", err, syscall.EBADMSG)
}
