package dataplane

import (
	"bytes"
	"encoding/binary"
	"ifipsec/engine/sysctl"
	"testing"
)

// checksumOK says whether an IPv4 header's checksum is right.
func checksumOK(p []byte) bool {
	var sum uint32
	for i := 0; i < headerLen4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum+sum>>16) == 0xffff
}

// RFC 6040, figure 4.
func TestDecapsulateECN(t *testing.T) {
	t.Parallel()
	const drop = 255
	table := map[uint8][4]uint8{ // by inner; Not-ECT, ECT(1), ECT(0), CE of the outer
		0:       {0, 0, 0, drop},
		ecnECT0: {ecnECT0, ecnECT1, ecnECT0, ecnCE},
		ecnECT1: {ecnECT1, ecnECT1, ecnECT1, ecnCE},
		ecnCE:   {ecnCE, ecnCE, ecnCE, ecnCE},
	}
	const ds = 0xb8
	for inner, row := range table {
		for outer, want := range row {
			for _, p := range [][]byte{ip4(100), ip6(100)} {
				setTrafficClass(p, ds|inner)
				keep := decapsulateECN(p, uint8(outer), sysctl.ECNAllowed)
				if keep != (want != drop) {
					t.Errorf("inner %d, outer %d: kept %v", inner, outer, keep)
				}
				if keep && trafficClass(p) != ds|want {
					t.Errorf("inner %d, outer %d: class %#x, want %#x", inner, outer, trafficClass(p), ds|want)
				}
				if p[0]>>4 == 4 && !checksumOK(p) {
					t.Errorf("inner %d, outer %d: wrong checksum", inner, outer)
				}
			}
		}
	}
}

// In the modes in which the tunnel does not carry ECN, an inner packet comes out as
// it went in, whatever was marked outside.
func TestDecapsulateWithoutECN(t *testing.T) {
	t.Parallel()
	for _, mode := range []int64{sysctl.ECNForbidden, sysctl.ECNIgnore} {
		for outer := range uint8(4) {
			for inner := range uint8(4) {
				for _, p := range [][]byte{ip4(100), ip6(100)} {
					setTrafficClass(p, inner)
					before := bytes.Clone(p)
					if keep := decapsulateECN(p, outer, mode); !keep || !bytes.Equal(p, before) {
						t.Errorf("mode %d, inner %d, outer %d: kept %v, header % x, want % x", mode, inner, outer, keep, p[:headerLen4], before[:headerLen4])
					}
				}
			}
		}
	}
}

func TestSetTrafficClassKeepsTheRest(t *testing.T) {
	t.Parallel()
	for class := range 256 {
		p := ip6(100)
		p[1], p[2], p[3] = 0x0a, 0xbc, 0xde // flow label
		setTrafficClass(p, uint8(class))
		if trafficClass(p) != uint8(class) || p[0]>>4 != 6 || p[1]&0x0f != 0x0a || p[2] != 0xbc {
			t.Fatalf("class %d: header % x", class, p[:4])
		}
		q := ip4(100)
		setTrafficClass(q, uint8(class))
		if trafficClass(q) != uint8(class) || !checksumOK(q) {
			t.Fatalf("class %d: header % x", class, q[:20])
		}
	}
}

// What a peer has sealed can be anything.
func FuzzInnerPacket(f *testing.F) {
	f.Add(ip4(100), uint8(protoIPv4), uint8(ecnCE))
	f.Add(ip6(100), uint8(protoIPv6), uint8(ecnECT1))
	f.Add(ip4(20), uint8(protoIPv6), uint8(0))
	f.Add([]byte{0x4f}, uint8(protoIPv4), uint8(0))
	f.Add([]byte(nil), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, payload []byte, next, outer uint8) {
		packet, ok := trim(payload, next)
		if !ok {
			return
		}
		if family(packet) != next || len(packet) > len(payload) {
			t.Fatalf("%d octets of family %d from %d of family %d", len(packet), family(packet), len(payload), next)
		}
		outermost(packet)
		class := trafficClass(packet)
		if decapsulateECN(packet, outer, sysctl.ECNForbidden); trafficClass(packet)&^ecnMask != class&^ecnMask {
			t.Fatal("the DS field is changed")
		}
	})
}
