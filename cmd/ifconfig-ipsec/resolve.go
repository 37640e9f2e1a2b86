package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"ifipsec/parser/ifconfig"
)

// errUnknownHost has the words of FreeBSD's gai_strerror(3).
var errUnknownHost = nameError("Name does not resolve")

// nameError is why a name has no address.
type nameError string

func (e nameError) Error() string { return string(e) }

// resolve returns the addresses of a family that a name has, at least one.
func resolve(family ifconfig.Family, host string) ([]netip.Addr, error) {
	network := "ip4"
	if family == ifconfig.Inet6 {
		network = "ip6"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
		return nil, errUnknownHost
	}
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	for n := range addrs {
		addrs[n] = addrs[n].Unmap()
	}
	return addrs, nil
}

// namedZone replaces a zone that is the number of a link by the link's name.
func namedZone(a netip.Addr) (netip.Addr, error) {
	index, err := strconv.Atoi(a.Zone())
	if err != nil {
		return a, nil
	}
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return a, fmt.Errorf("%v: %w", a, err)
	}
	return a.WithZone(link.Name), nil
}
