package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"ifipsec/parser/ifconfig"
)

// resolve returns the addresses of a family that a name has, at least one.
func resolve(family ifconfig.Family, host string) ([]netip.Addr, error) {
	network := "ip4"
	if family == ifconfig.Inet6 {
		network = "ip6"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
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
