package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/strerror"
	"ifipsec/parser/ifconfig"
)

// application is a run of commands on one interface.
type application struct {
	daemon  daemon
	name    string // changes with create and name
	resolve func(ifconfig.Family, string) ([]netip.Addr, error)

	renamed bool // so that the new name is printed in the end
}

// apply sends the commands in their order. An error of most of them ends the
// run; of the others FreeBSD only warns, and the exit status is 0.
func (c *command) apply(d daemon, name string, commands []ifconfig.Command) error {
	a := application{daemon: d, name: name, resolve: c.resolve}
	// The name is printed in any case, as it may be all that a script gets.
	defer func() {
		if a.renamed {
			fmt.Fprintln(c.stdout, a.name)
		}
	}()
	// Names of hosts are looked up first: one that is unknown has no effect.
	requests := make([]func() error, len(commands))
	for n, cmd := range commands {
		var err error
		if requests[n], err = a.request(cmd); err != nil {
			return err
		}
	}
	for n, request := range requests {
		err := request()
		switch {
		case err == nil:
		case goesOn(commands[n]) && isRefusal(err):
			c.report(err)
		default:
			return err
		}
	}
	return nil
}

// goesOn says whether FreeBSD's ifconfig only warns when a command fails.
func goesOn(cmd ifconfig.Command) bool {
	switch cmd.(type) {
	case ifconfig.Tunnel, ifconfig.ReqID, ifconfig.FIB, ifconfig.TunnelFIB:
		return true
	}
	return false
}

// isRefusal says whether an error is one that FreeBSD's kernel may have for the
// commands after which ifconfig goes on. Others, such as that of a full disk or
// of a daemon that died, must not be lost.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EEXIST, syscall.EINVAL, syscall.ENXIO, syscall.EPERM,
	}, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// request returns what sends a command. Its error has FreeBSD's words.
func (a *application) request(cmd ifconfig.Command) (func() error, error) {
	switch cmd := cmd.(type) {
	case ifconfig.Create:
		return a.create, nil
	case ifconfig.Destroy:
		return func() error {
			return failed("SIOCIFDESTROY", a.daemon.Destroy(control.DestroyRequest{Name: a.name}))
		}, nil
	case ifconfig.Tunnel:
		return a.tunnel(cmd)
	case ifconfig.DeleteTunnel:
		return func() error {
			return failed("SIOCDIFPHYADDR", a.daemon.DeleteTunnel(control.DeleteTunnelRequest{Name: a.name}))
		}, nil
	case ifconfig.ReqID:
		return func() error {
			return failed("ioctl(IPSECSREQID)", a.daemon.SetReqID(control.SetReqIDRequest{Name: a.name, ReqID: cmd.ID}))
		}, nil
	case ifconfig.FIB:
		return func() error {
			return failed("ioctl (SIOCSIFFIB)", a.daemon.SetFIB(control.SetFIBRequest{Name: a.name, FIB: cmd.Table}))
		}, nil
	case ifconfig.TunnelFIB:
		return func() error {
			return failed("ioctl (SIOCSTUNFIB)", a.daemon.SetTunnelFIB(control.SetTunnelFIBRequest{Name: a.name, FIB: cmd.Table}))
		}, nil
	case ifconfig.Up:
		what := "down"
		if cmd.Up {
			what = "up"
		}
		return func() error {
			return failedShort(what, a.daemon.SetUp(control.SetUpRequest{Name: a.name, Up: cmd.Up}))
		}, nil
	case ifconfig.MTU:
		return func() error {
			return failed("ioctl SIOCSIFMTU (set mtu)", a.daemon.SetMTU(control.SetMTURequest{Name: a.name, MTU: cmd.Bytes}))
		}, nil
	case ifconfig.Metric:
		return func() error {
			return failed("ioctl SIOCSIFMETRIC (set metric)", a.daemon.SetMetric(control.SetMetricRequest{Name: a.name, Metric: cmd.Metric}))
		}, nil
	case ifconfig.Name:
		return func() error { return a.rename(cmd.New) }, nil
	case ifconfig.Description:
		return func() error {
			return failed("ioctl SIOCSIFDESCR (set descr)",
				a.daemon.SetDescription(control.SetDescriptionRequest{Name: a.name, Description: cmd.Text}))
		}, nil
	case ifconfig.AddGroup:
		return func() error {
			err := a.daemon.AddGroup(control.AddGroupRequest{Name: a.name, Group: cmd.Group})
			return failed("SIOCAIFGROUP", except(err, syscall.EEXIST))
		}, nil
	case ifconfig.RemoveGroup:
		return func() error {
			err := a.daemon.RemoveGroup(control.RemoveGroupRequest{Name: a.name, Group: cmd.Group})
			return failed("SIOCDIFGROUP", except(err, syscall.ENOENT))
		}, nil
	case ifconfig.AddAddress:
		return a.addAddress(cmd)
	case ifconfig.RemoveAddress:
		return a.removeAddress(cmd)
	}
	return nil, fmt.Errorf("%T is no command of this program", cmd)
}

func (a *application) create() error {
	result, err := a.daemon.Create(control.CreateRequest{Name: a.name})
	if errors.Is(err, syscall.EEXIST) {
		return alreadyExists(a.name)
	}
	if err != nil {
		return failed("SIOCIFCREATE2", err)
	}
	a.renamed = result.Name != a.name
	a.name = result.Name
	return nil
}

func (a *application) rename(to string) error {
	err := a.daemon.Rename(control.RenameRequest{Name: a.name, NewName: to})
	if err != nil {
		return failed("ioctl SIOCSIFNAME (set name)", err)
	}
	a.renamed = true
	a.name = to
	return nil
}

func (a *application) tunnel(cmd ifconfig.Tunnel) (func() error, error) {
	src, err := a.lookUp(cmd.Family, cmd.Src)
	if err != nil {
		return nil, fmt.Errorf("error in parsing address string: %w", err)
	}
	dst, err := a.lookUp(cmd.Family, cmd.Dst)
	if err != nil {
		return nil, fmt.Errorf("error in parsing address string: %w", err)
	}
	if src.Is4() != dst.Is4() {
		return nil, errors.New("source and destination address families do not match")
	}
	what := "SIOCSIFPHYADDR"
	if cmd.Family == ifconfig.Inet6 {
		what = "SIOCSIFPHYADDR_IN6"
	}
	return func() error {
		if src.Is6() != (cmd.Family == ifconfig.Inet6) {
			return failed(what, &control.Error{
				Errno:   syscall.EAFNOSUPPORT,
				Message: fmt.Sprintf("tunnel: %v is no address of the family %s", src, cmd.Family),
			})
		}
		return failed(what, a.daemon.SetTunnel(control.SetTunnelRequest{Name: a.name, Src: src, Dst: dst}))
	}, nil
}

func (a *application) addAddress(cmd ifconfig.AddAddress) (func() error, error) {
	addr, err := a.lookUp(cmd.Family, cmd.Addr)
	if err != nil {
		return nil, fmt.Errorf("%s: bad value", cmd.Addr.Text)
	}
	q := control.AddAddressRequest{
		Address: control.Address{Addr: addr, Bits: cmd.Bits},
		Replace: cmd.Family == ifconfig.Inet && !cmd.Alias,
	}
	if cmd.Bits < 0 {
		q.Bits = ifconfig.ClassBits(addr)
	}
	if cmd.Peer.Text != "" {
		if q.Peer, err = a.lookUp(cmd.Family, cmd.Peer); err != nil {
			return nil, fmt.Errorf("%s: bad value", cmd.Peer.Text)
		}
	}
	return func() error {
		q.Name = a.name
		return failedShort("ioctl (SIOCAIFADDR)", a.daemon.AddAddress(q))
	}, nil
}

func (a *application) removeAddress(cmd ifconfig.RemoveAddress) (func() error, error) {
	addr := netip.IPv4Unspecified()
	if cmd.Family == ifconfig.Inet6 {
		addr = netip.IPv6Unspecified()
	}
	if cmd.Addr.Text != "" {
		var err error
		if addr, err = a.lookUp(cmd.Family, cmd.Addr); err != nil {
			return nil, fmt.Errorf("%s: bad value", cmd.Addr.Text)
		}
	}
	return func() error {
		return failedShort("ioctl (SIOCDIFADDR)", a.daemon.RemoveAddress(control.RemoveAddressRequest{Name: a.name, Addr: addr}))
	}, nil
}

// lookUp returns the first address of a host.
func (a *application) lookUp(family ifconfig.Family, h ifconfig.Host) (netip.Addr, error) {
	if h.Addr.IsValid() {
		return namedZone(h.Addr)
	}
	addrs, err := a.resolve(family, h.Text)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// except drops an error of one errno.
func except(err error, errno syscall.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}

// failed says in FreeBSD's words what could not be done, and in brackets what
// the daemon knows beyond that.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return &failure{fmt.Sprintf("%s: %s%s", what, strerror.Text(errno), detail(err, errno)), errno}
}

// failure is an errno in FreeBSD's words.
type failure struct {
	text  string
	errno syscall.Errno
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.errno }

// failedShort is failed with two errors in words of their own.
func failedShort(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%s: no such interface", what)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: permission denied", what)
	}
	return failed(what, err)
}

// detail is what an error says beyond its errno and what was asked for.
func detail(err error, errno syscall.Errno) string {
	var answer *control.Error
	message := strings.TrimSuffix(err.Error(), ": "+errno.Error())
	if errors.As(err, &answer) {
		// The first part repeats the request and the interface.
		_, message, _ = strings.Cut(answer.Message, ": ")
	}
	if message == "" {
		return ""
	}
	return " [" + message + "]"
}
