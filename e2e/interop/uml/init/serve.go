package main

import (
	"context"
	"io"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// background is the context of what the kernel does: it ends with the kernel.
var background = context.Background()

// listenESPInUDP opens a UDP socket from which the kernel takes what is ESP. The
// rest, an IKE daemon's, nobody reads.
func listenESPInUDP(addr netip.AddrPort) error {
	family, local := sockaddr(addr)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP); err != nil {
		return err
	}
	return unix.Bind(fd, local)
}

// echo sends back what it receives.
func echo(addr netip.AddrPort) error {
	listener, err := net.Listen("tcp", addr.String())
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				// Whoever is at the other end knows what is missing.
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return nil
}

func sockaddr(addr netip.AddrPort) (family int, _ unix.Sockaddr) {
	if addr.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}
