package dataplane

import (
	"bytes"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Fragments are no larger than the path takes, and make the packet again.
func TestCut(t *testing.T) {
	t.Parallel()
	src, dst := netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::5")
	for _, port := range []uint16{0, 4500} {
		way := path{kind: kind{six: true, port: port}, src: src, dst: dst, peerPort: 4501}
		s := &piecesSender{messages: newMessages(nil, maxPieces, 2), way: way, id: 7}
		for _, mtu := range []int{minPathMTU6, 1281, 1320, 1500} {
			for _, size := range []int{1232, 1233, 1239, 1240, 1241, 1457, 2501, MaxPacket + headroomOut + tailroomOut} {
				packet := make([]byte, size)
				for i := range packet {
					packet[i] = byte(i * i / 7)
				}
				id := s.id + 1
				n := s.cut(packet, mtu)
				var whole []byte
				for i := range n {
					var b []byte
					for j := range 2 {
						piece := s.pieces[2*i+j]
						b = append(b, bytesOf(piece)...)
					}
					if headerLen6+len(b) > mtu {
						t.Errorf("a fragment of %d octets for a path of %d", headerLen6+len(b), mtu)
					}
					f, ok := gopacket.NewPacket(b, layers.LayerTypeIPv6Fragment, gopacket.Default).
						Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
					if !ok {
						t.Fatalf("not a fragment: % x", b)
					}
					if int(f.FragmentOffset)*8 != len(whole) || f.MoreFragments != (i < n-1) || f.Identification != id {
						t.Errorf("fragment %d of %d: offset %d after %d octets, more %v, identification %d",
							i, n, f.FragmentOffset*8, len(whole), f.MoreFragments, f.Identification)
					}
					want := layers.IPProtocolESP
					if port != 0 {
						want = layers.IPProtocolUDP
					}
					if f.NextHeader != want {
						t.Errorf("next header %v, want %v", f.NextHeader, want)
					}
					whole = append(whole, b[fragmentHeaderLen:]...)
				}
				if port != 0 {
					datagram := gopacket.NewPacket(whole, layers.LayerTypeUDP, gopacket.Default)
					udp, ok := datagram.Layer(layers.LayerTypeUDP).(*layers.UDP)
					if !ok {
						t.Fatalf("not a datagram: % x", whole[:8])
					}
					outside := &layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
					if err := udp.SetNetworkLayerForChecksum(outside); err != nil {
						t.Fatal(err)
					}
					if err, mismatches := datagram.VerifyChecksums(); err != nil || len(mismatches) > 0 {
						t.Errorf("checksum: %v, %v", err, mismatches)
					}
					if udp.SrcPort != 4500 || udp.DstPort != 4501 {
						t.Errorf("from port %v to %v", udp.SrcPort, udp.DstPort)
					}
					whole = whole[udpHeaderLen:]
				}
				if !bytes.Equal(whole, packet) {
					t.Errorf("%d octets through a path of %d are others than were sent", size, mtu)
				}
			}
		}
	}
}

func bytesOf(v unix.Iovec) []byte {
	if v.Len == 0 {
		return nil
	}
	return unsafe.Slice(v.Base, v.Len)
}
