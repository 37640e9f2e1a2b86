// Package peer decides who may talk to the daemon's sockets, and how many at a
// time, so that a client that goes mad harms only itself.
package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Privileged says whether a user, as SO_PEERCRED names the one who connected,
// may do everything: root of the daemon's user namespace, and the user who runs
// the daemon.
func Privileged(uid uint32) bool { return privileged(uid, uint32(os.Geteuid()), unmapped()) }

// privileged knows that all users of other user namespaces look the same, also
// to a daemon that has no user of its own in its namespace.
func privileged(uid, own, unmapped uint32) bool {
	return uid == 0 || uid == own && uid != unmapped
}

// unmapped is the user that the kernel shows for those who have no number in
// this user namespace.
var unmapped = sync.OnceValue(func() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err == nil {
		if uid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			return uint32(uid)
		}
	}
	return 65534
})

// Crowd bounds the connections of peers that are told apart by a K, such as
// their user or their process. It is used concurrently.
type Crowd[K comparable] struct {
	Most int // connections in all
	Each int // connections of one peer

	mu      sync.Mutex
	total   int
	members map[K]int
}

// Enter counts a connection. EUSERS, in an error that calls the peer by the
// name: it has too many, or all together have. Only who was let in leaves.
func (c *Crowd[K]) Enter(k K, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.members[k] >= c.Each:
		return fmt.Errorf("%s has %d connections: %w", name, c.Each, syscall.EUSERS)
	case c.total >= c.Most:
		return fmt.Errorf("%d connections are open: %w", c.Most, syscall.EUSERS)
	}
	if c.members == nil {
		c.members = map[K]int{}
	}
	c.members[k]++
	c.total++
	return nil
}

// Leave ends what Enter began.
func (c *Crowd[K]) Leave(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.members[k]--; c.members[k] == 0 {
		delete(c.members, k)
	}
}
