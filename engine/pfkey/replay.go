package pfkey

import "math"

// ReplayPackets returns the replay window that the message asks for, in
// packets; 0 means no check. The window of an SA extension is in bytes of
// bitmap, as on FreeBSD, because that is what setkey's -r sends. A program that
// means packets, as Linux's do, gets a window eight times as large, which
// refuses nothing that it would have let pass.
func (m *Message) ReplayPackets() uint32 {
	if r := Find[*SAReplay](m); r != nil {
		return r.Packets
	}
	if sa := Find[*SA](m); sa != nil {
		return uint32(sa.Replay) * 8
	}
	return 0
}

// ReplayWindow is the other way round: how a window of so many packets stands
// in a message. It returns the value of [SA.Replay], and an extension for
// windows beyond 2040 packets, which is nil for smaller ones.
func ReplayWindow(packets uint32) (uint8, *SAReplay) {
	size := (uint64(packets) + 7) / 8
	if size > math.MaxUint8 {
		return math.MaxUint8, &SAReplay{Packets: packets}
	}
	return uint8(size), nil
}
