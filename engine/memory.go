package engine

import "runtime/debug"

// Go's collector lets garbage grow to a share of what is live. A TUN device has
// tables of some megabytes, of which hardly anything is ever written to, so they
// take no memory; but the garbage that they entitle to does.
const (
	deviceTables = 2 << 20  // bytes of an open device
	otherLive    = 32 << 20 // of everything else, and the garbage that is let grow
)

// collect sets how much garbage may grow beside n devices.
func collect(n int) {
	debug.SetGCPercent(100 * otherLive / (otherLive + n*deviceTables))
}
