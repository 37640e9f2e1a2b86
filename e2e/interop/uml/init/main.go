// Init is the first process of a kernel that package uml boots. It makes a
// machine of what it finds, and then does what it is asked for on the first
// serial line, as a server of net/rpc. It is of no use anywhere else.
package main

import (
	"fmt"
	"net/netip"
	"net/rpc"
	"os"

	"golang.org/x/sys/unix"

	"ifipsec/e2e/interop/uml"
	"ifipsec/e2e/lab"
)

func main() {
	// A kernel whose first process ends panics. That is right: then it ends
	// too, and whoever waits for it is told.
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is the first process of a kernel that package uml boots")
		os.Exit(1)
	}
	if err := mount("dev", "/dev", "devtmpfs"); err != nil && err != unix.EBUSY {
		panic(err)
	}
	line, err := serialLine("/dev/ttyS0")
	if err != nil {
		panic(err)
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(line, err)
		return
	}
	fmt.Fprintln(line, uml.Ready)
	rpc.ServeConn(line)
}

func init() {
	if err := rpc.Register(new(Init)); err != nil {
		panic(err)
	}
}

// Init has the methods of uml.Kernel.
type Init struct{}

// Shell runs a script of sh(1).
func (*Init) Shell(script string, result *lab.Result) (err error) {
	*result, err = shell(script)
	return err
}

// Ping sends echo requests.
func (*Init) Ping(p lab.Ping, result *lab.PingResult) (err error) {
	*result, err = p.Run(background)
	return err
}

// ListenESPInUDP opens a UDP socket that takes ESP.
func (*Init) ListenESPInUDP(addr netip.AddrPort, _ *struct{}) error { return listenESPInUDP(addr) }

// Echo serves TCP connections.
func (*Init) Echo(addr netip.AddrPort, _ *struct{}) error { return echo(addr) }
