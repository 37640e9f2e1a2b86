package privilege

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// forbidden are system calls that neither the daemon nor Go's runtime makes.
// A list of those that they do make would be shorter to attack, but would have
// to follow every release of Go and of the libraries, and a call that is missing
// there ends tunnels.
var forbidden = []uint32{
	// Other programs and processes.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV,
	unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	// Namespaces and file systems.
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_MOUNT,
	unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_FSCONFIG, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT,
	// The kernel itself.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
	unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_PERSONALITY,
	// What is large, and where flaws of kernels were found.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
}

// architectures are how the kernel names machines to filters.
var architectures = map[string]uint32{
	"amd64":   unix.AUDIT_ARCH_X86_64,
	"arm64":   unix.AUDIT_ARCH_AARCH64,
	"ppc64le": unix.AUDIT_ARCH_PPC64LE,
	"riscv64": unix.AUDIT_ARCH_RISCV64,
	"s390x":   unix.AUDIT_ARCH_S390X,
}

// Where the kernel's struct seccomp_data has them.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// x32Bit is in the numbers of amd64's calls with 32-bit pointers.
const x32Bit = 0x40000000

// program is the filter: EPERM for forbidden calls. The calls of another
// architecture have other numbers, and no process of ours makes any: it ends.
func program(arch uint32, forbidden []uint32) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	if arch == unix.AUDIT_ARCH_X86_64 {
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
	}
	for i, number := range forbidden {
		// To the last instruction.
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipTrue: uint8(len(forbidden) - i)})
	}
	return append(p,
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}

// forbiddenBut is what is forbidden without some calls.
func forbiddenBut(needed []uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(forbidden), func(number uint32) bool { return slices.Contains(needed, number) })
}

// filter installs the program for all threads. It forbids none of the needed calls.
func filter(needed []uint32) error {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("filter system calls on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	raw, err := bpf.Assemble(program(arch, forbiddenBut(needed)))
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(&prog)
	switch {
	case errno == unix.ENOSYS, errno == unix.EINVAL:
		return fmt.Errorf("filter system calls: %w: %w", errno, errors.ErrUnsupported)
	case errno != 0:
		return fmt.Errorf("filter system calls: %w", errno)
	case thread != 0:
		return fmt.Errorf("filter system calls: thread %d has a filter of its own", thread)
	}
	return nil
}
