// Package privilege keeps of a process's privileges those that the daemon
// needs, CAP_NET_ADMIN and CAP_NET_RAW, and gives up the rest: what can be made
// of a daemon that was broken into is then what these two allow in its network
// namespace, and no more.
//
// Keys are in the process's memory, in many places: as they came, expanded in
// ciphers, in messages that are printed. So all of the memory is kept out of
// swap and core dumps, not some of it.
//
// Everything here is about the whole process, all of its threads, and can't be
// taken back.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// needed are the capabilities of the daemon, and what for.
var needed = []struct {
	value cap.Value
	name  string
	use   string
}{
	{cap.NET_ADMIN, "CAP_NET_ADMIN", "make interfaces"},
	{cap.NET_RAW, "CAP_NET_RAW", "send and receive ESP"},
}

// Check says which of the needed capabilities are missing. An error wraps
// EPERM. They must be capabilities over the process's network namespace: those
// of a user namespace that does not own it count for nothing there.
func Check() error {
	have := cap.GetProc()
	var missing []string
	for _, n := range needed {
		if ok, err := have.GetFlag(cap.Permitted, n.value); err != nil || !ok {
			missing = append(missing, n.name+" (to "+n.use+")")
		}
	}
	if missing != nil {
		return fmt.Errorf("missing %s: %w", strings.Join(missing, " and "), syscall.EPERM)
	}
	if foreign() {
		return fmt.Errorf("missing CAP_NET_ADMIN over this network namespace, which is not this user namespace's: %w", syscall.EPERM)
	}
	return nil
}

// foreign says whether the network namespace belongs to a user namespace that
// is neither the process's nor one below it.
func foreign() bool {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return false
	}
	defer f.Close()
	owner, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err == nil {
		unix.Close(owner)
	}
	return errors.Is(err, unix.EPERM)
}

// Drop gives up all capabilities but the needed ones, lets no program that the
// process executes have more, and lets nobody but root look into the process: it
// dumps no core, and cannot be traced by others of its user. Files in /proc
// about it are root's from now on; its credentials on Unix sockets are what they
// were.
//
// A process that was given the capabilities without being root can still hand
// them on to a program that it executes; see [Seal].
func Drop() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps and tracing: %w", err)
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := dropBounding(); err != nil {
		return fmt.Errorf("drop capabilities from the bounding set: %w", err)
	}
	old, keep := cap.GetProc(), cap.NewSet()
	for _, n := range needed {
		inherit, err := old.GetFlag(cap.Inheritable, n.value)
		if err != nil {
			return err
		}
		if err := errors.Join(
			keep.SetFlag(cap.Permitted, true, n.value),
			keep.SetFlag(cap.Effective, true, n.value),
			keep.SetFlag(cap.Inheritable, inherit, n.value),
		); err != nil {
			return err
		}
	}
	if err := keep.SetProc(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// dropBounding leaves the needed capabilities in the bounding set. A process
// that may not change it can't gain anything by it either: with no_new_privs,
// it bounds nothing that Drop does not.
func dropBounding() error {
	may, err := cap.GetProc().GetFlag(cap.Effective, cap.SETPCAP)
	if err != nil || !may {
		return err
	}
	var others []cap.Value
	for v := range cap.MaxBits() {
		if v == cap.NET_ADMIN || v == cap.NET_RAW {
			continue
		}
		if in, err := cap.GetBound(v); err == nil && in {
			others = append(others, v)
		}
	}
	return cap.DropBound(others...)
}

// Seal makes the process the last one: it can execute no program, and none of
// the system calls that a daemon has no use for and that attacks on kernels
// begin with, but for those that this one needs. The capabilities can't be inherited
// any more. [Drop] comes first.
//
// The error wraps [errors.ErrUnsupported] if the kernel or the machine has no
// filter for system calls. The rest was done then.
func Seal(needed ...uint32) error {
	keep := cap.GetProc()
	// What is not inheritable is not ambient either.
	if err := keep.ClearFlag(cap.Inheritable); err != nil {
		return err
	}
	if err := keep.SetProc(); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return filter(needed)
}

// LockMemory keeps the process's memory out of swap, what it has and what it
// will have. It must come before [Drop] when the limit on locked memory
// (RLIMIT_MEMLOCK) has to be raised first, which takes CAP_SYS_RESOURCE. An
// error says that the memory is not locked, because the limit forbids it, and
// wraps EPERM.
func LockMemory() error {
	infinite := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &infinite); err != nil {
		// With any other limit the process would end as soon as it has that
		// much: Go's runtime reserves far more than it uses, and can't go on when
		// it is refused more.
		return fmt.Errorf("raise the limit on locked memory: %w", err)
	}
	return lockAll()
}

// lockAll locks pages when they are used. Those that are only reserved would be
// a multiple of them.
func lockAll() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}
