package main

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ifipsec/e2e/lab"
)

func TestMain(m *testing.M) {
	lab.Init()
	os.Exit(m.Run())
}

// A demonstration that can't fail shows nothing: programs that do nothing, or
// the wrong thing, must not pass.
func TestFailsWithPrograms(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	for name, test := range map[string]struct{ script, want string }{
		"that do nothing":  {"exit 0", "hostA: 0 of 3 pings to 172.16.0.5 were answered"},
		"that fail":        {"exit 1", "hostA: ifconfig ipsec0 create reqid 100: exit status 1"},
		"that say a thing": {"echo hello", "hostA: ifconfig ipsec0 create reqid 100: printed something, and should not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			for _, program := range []string{"ifconfig", "setkey", "ipsecd"} {
				if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"+test.script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			err := demo{out: io.Discard}.run(t.Context(), bin)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}

func TestFailsWithoutPrograms(t *testing.T) {
	t.Parallel()
	if err := (demo{out: io.Discard}).run(t.Context(), t.TempDir()); err == nil {
		t.Error("no error without programs")
	}
}

// frame is an Ethernet frame with an IPv4 packet of a protocol.
func frame(t *testing.T, protocol layers.IPProtocol, payload []byte) lab.Packet {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, SrcIP: net.IPv4(192, 168, 0, 3), DstIP: net.IPv4(192, 168, 0, 5), Protocol: protocol},
		gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	return lab.Packet{Data: buf.Bytes()}
}

func TestCable(t *testing.T) {
	t.Parallel()
	esp := func(spi uint32) lab.Packet {
		return frame(t, layers.IPProtocolESP, append(binary.BigEndian.AppendUint32(nil, spi), make([]byte, 60)...))
	}
	clear := frame(t, layers.IPProtocolICMPv4, make([]byte, 64))
	for name, test := range map[string]struct {
		packets []lab.Packet
		want    string // in the error; "": none
	}{
		"both directions": {[]lab.Packet{esp(10000), esp(10001)}, ""},
		"one direction":   {[]lab.Packet{esp(10000)}, "no ESP with SPI 10001"},
		"nothing":         {nil, "no ESP with SPI"},
		"another SPI":     {[]lab.Packet{esp(10000), esp(10001), esp(10002)}, "ESP with SPI 10002 on the cable, which nobody asked for"},
		"clear text":      {[]lab.Packet{esp(10000), clear, esp(10001)}, "something else than ESP on the cable, first Ethernet/IPv4/ICMPv4"},
	} {
		err := demo{out: io.Discard}.cable(test.packets)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: error = %v, want %q", name, err, test.want)
		}
	}
}
