package control

import (
	"fmt"
	"strings"
)

type flagName struct {
	bit  uint32
	name string
}

// flagString writes a bit set as the kernel's printf does with %b: the number
// in hexadecimal and the names of the bits that have one, lowest first.
func flagString(set uint32, names []flagName) string {
	var in []string
	for _, n := range names {
		if set&n.bit != 0 {
			in = append(in, n.name)
		}
	}
	return fmt.Sprintf("%x<%s>", set, strings.Join(in, ","))
}
