package privilege

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The program's jumps are right for every forbidden call, on every machine.
func TestProgram(t *testing.T) {
	t.Parallel()
	const errno = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for name, arch := range architectures {
		vm, err := bpf.NewVM(program(arch, forbidden))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		answer := func(number, arch uint32) uint32 {
			// The kernel has the words in the machine's order, and the VM reads
			// them in the network's.
			data := binary.BigEndian.AppendUint32(nil, number)
			n, err := vm.Run(append(binary.BigEndian.AppendUint32(data, arch), make([]byte, 56)...))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return uint32(n)
		}
		for _, number := range forbidden {
			if got := answer(number, arch); got != errno {
				t.Errorf("%s: call %d gets %#x, want EPERM", name, number, got)
			}
		}
		for _, number := range []uint32{unix.SYS_READ, unix.SYS_CLONE, unix.SYS_SENDMMSG, unix.SYS_MADVISE, unix.SYS_IOCTL} {
			if got := answer(number, arch); got != unix.SECCOMP_RET_ALLOW {
				t.Errorf("%s: call %d gets %#x, want that it is allowed", name, number, got)
			}
		}
		if got := answer(unix.SYS_READ, unix.AUDIT_ARCH_I386); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("%s: a call of another machine's gets %#x, want the end", name, got)
		}
		if got := answer(unix.SYS_READ|x32Bit, arch); name == "amd64" && got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("a call of x32's gets %#x, want the end", got)
		}
	}
}

// What a daemon needs is not forbidden to it, and everything else is as ever.
func TestNeeded(t *testing.T) {
	t.Parallel()
	got := forbiddenBut([]uint32{unix.SYS_BPF})
	for _, number := range forbidden {
		if has := slices.Contains(got, number); has != (number != unix.SYS_BPF) {
			t.Errorf("call %d is forbidden: %v", number, has)
		}
	}
	if len(forbiddenBut(nil)) != len(forbidden) {
		t.Error("something is allowed to those who need nothing")
	}
}
