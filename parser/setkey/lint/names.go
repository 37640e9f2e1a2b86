package lint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
)

// Local answers for names as another [compile.Names] does, but for hosts, of
// which it knows those of /etc/hosts: what a script says about names elsewhere
// is for the host on which it runs, and a check asks nobody over the network.
type Local struct {
	compile.Names
	unknown map[string]bool // what was said of names
}

var hostsFile = net.Resolver{
	PreferGo: true,
	Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server is asked")
	},
}

// Host implements [compile.Names].
func (l *Local) Host(name string) ([]netip.Addr, error) {
	addrs, err := hostsFile.LookupNetIP(context.Background(), "ip", name)
	if err != nil {
		err = fmt.Errorf("%q is not in /etc/hosts, so that the statement is not checked further", name)
		if l.unknown == nil {
			l.unknown = map[string]bool{}
		}
		l.unknown[err.Error()] = true
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// Unresolved turns an error that says no more than that a name is unknown here
// into a warning.
func (l *Local) Unresolved(r *setkey.Reader, e *setkey.Error) (Warning, bool) {
	if !l.unknown[e.Detail] {
		return Warning{}, false
	}
	return Warning{Pos: e.Pos, Name: UnresolvedName, Text: e.Detail, Excerpt: r.Excerpt(e.Pos)}, true
}
