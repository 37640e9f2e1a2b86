//go:build !race

package programs

// Race says whether the programs are built with the race detector, which makes
// them slower.
const Race = false
