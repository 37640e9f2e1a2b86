package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"ifipsec/e2e/lab"
)

// wireGuardModule is the reference's Go module, whose root is its program.
const wireGuardModule = "golang.zx2c4.com/wireguard"

const wireGuardPort = 51820

// buildWireGuard builds the version of wireguard-go that go.mod names.
func buildWireGuard(ctx context.Context, program string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, wireGuardModule).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", wireGuardModule, err, out)
	}
	return nil
}

// wireGuardVersion is the version that go.mod names.
func wireGuardVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", wireGuardModule).Output()
	return strings.TrimSpace(string(out)), err
}

// setUpWireGuard runs wireguard-go on both hosts and joins them by wg0.
func setUpWireGuard(ctx context.Context, p *pair) error {
	keyA, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	keyB, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	for _, end := range []struct {
		host         *lab.Host
		own, peer    *ecdh.PrivateKey
		peerOuter    netip.Addr
		inner, other netip.Addr
	}{
		{p.a, keyA, keyB, outerB, innerA, innerB},
		{p.b, keyB, keyA, outerA, innerB, innerA},
	} {
		if _, err := end.host.Background(ctx, "wireguard-go", "--foreground", "wg0"); err != nil {
			return err
		}
		config := wireGuardConfig(end.own, end.peer.PublicKey(), netip.AddrPortFrom(end.peerOuter, wireGuardPort), end.other)
		err := lab.Until(5*time.Second, func() error { return configure(end.host, config) })
		if err != nil {
			return fmt.Errorf("%s: wireguard-go: %w", end.host.Name, err)
		}
		err = end.host.Do(func() error {
			link, err := netlink.LinkByName("wg0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, tunnelMTU)
		})
		if err != nil {
			return err
		}
		if err := end.host.AddAddr("wg0", netip.PrefixFrom(end.inner, 24)); err != nil {
			return err
		}
		if err := end.host.SetUp("wg0"); err != nil {
			return err
		}
	}
	return nil
}

// wireGuardConfig is a request of WireGuard's cross-platform configuration
// protocol (wireguard.com/xplatform) that sets everything of a device with one
// peer.
func wireGuardConfig(own *ecdh.PrivateKey, peer *ecdh.PublicKey, endpoint netip.AddrPort, allowed netip.Addr) string {
	return "set=1\n" +
		"private_key=" + hex.EncodeToString(own.Bytes()) + "\n" +
		fmt.Sprintf("listen_port=%d\n", wireGuardPort) +
		"replace_peers=true\n" +
		"public_key=" + hex.EncodeToString(peer.Bytes()) + "\n" +
		"endpoint=" + endpoint.String() + "\n" +
		"allowed_ip=" + netip.PrefixFrom(allowed, 32).String() + "\n\n"
}

// configure sends a request to the host's wireguard-go.
func configure(h *lab.Host, request string) error {
	path := h.Path("/run/wireguard/wg0.sock")
	if _, err := os.Stat(path); err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "errno=0\n" {
		return fmt.Errorf("answered %q to a configuration, expected errno=0", answer)
	}
	return nil
}
