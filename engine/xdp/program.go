// Package xdp sends and receives frames of Ethernet links past the kernel's IP, by
// sockets of address family AF_XDP and a program that picks what they receive: whole
// ESP packets between pairs of addresses that it was told. All else takes its way as
// if the program were not there. See the kernel's Documentation/networking/af_xdp.rst.
package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// MaxPairs is the pairs of addresses that a program can be told.
	MaxPairs = 1 << 16
	// maxSockets is the sockets that a program can give frames to.
	maxSockets = 1 << 10
)

// Program is the program and what it works with, in the kernel. It is made with
// [Load], with a capability that a process may want to give up afterwards, and can be
// handed to another process as [Program.Files].
type Program struct {
	program *ebpf.Program
	pairs   *ebpf.Map // from a pair to a place
	sockets *ebpf.Map // from place.First+queue to a socket
}

// pair is whom an ESP packet is from and to; of IPv4 in the form ::ffff:192.0.2.1.
type pair struct{ Src, Dst [16]byte }

// place is where the sockets of a link are.
type place struct {
	Link   uint32 // its index: a socket takes nothing from another link
	First  uint32 // the socket of queue 0
	Queues uint32
	Own    [6]byte // the link's address: what is for others is not for us
	Unused [2]byte
}

// Load makes a program. EPERM: it takes CAP_BPF and CAP_NET_ADMIN, before Linux 5.8
// CAP_SYS_ADMIN. EINVAL, ENOSYS and others: the kernel is without BPF, or AF_XDP.
func Load() (_ *Program, err error) {
	p := new(Program)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("load the program for AF_XDP: %w", err), p.Close())
		}
	}()
	p.pairs, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "ipsec_pairs", Type: ebpf.Hash, KeySize: 32, ValueSize: 20, MaxEntries: MaxPairs, Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return nil, err
	}
	p.sockets, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "ipsec_sockets", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: maxSockets,
	})
	if err != nil {
		return nil, err
	}
	p.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ipsec_esp", Type: ebpf.XDP, License: "BSD", Instructions: instructions(p.pairs.FD(), p.sockets.FD()),
	})
	return p, err
}

// Files returns what [Inherit] takes. They are the caller's to close.
func (p *Program) Files() (files []*os.File, err error) {
	for _, fd := range []int{p.program.FD(), p.pairs.FD(), p.sockets.FD()} {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return files, os.NewSyscallError("fcntl", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "BPF"))
	}
	return files, nil
}

// Inherit makes a program of the descriptors of [Program.Files], the first of which
// is given, when the process that had it before has ended. It takes no privilege, but
// before Linux 5.19 EPERM is what a host can say all the same
// (kernel.unprivileged_bpf_disabled).
func Inherit(first int) (_ *Program, err error) {
	p := new(Program)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("take over the program for AF_XDP: %w", err), p.Close())
		}
	}()
	for i := range 3 {
		unix.CloseOnExec(first + i)
	}
	if p.program, err = ebpf.NewProgramFromFD(first); err != nil {
		return nil, err
	}
	if p.pairs, err = ebpf.NewMapFromFD(first + 1); err != nil {
		return nil, err
	}
	if p.sockets, err = ebpf.NewMapFromFD(first + 2); err != nil {
		return nil, err
	}
	return p, p.leaveAll()
}

// Close gives up the program, which ends when nobody has it any more.
func (p *Program) Close() error {
	var errs []error
	if p.program != nil {
		errs = append(errs, p.program.Close())
	}
	for _, m := range []*ebpf.Map{p.pairs, p.sockets} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// take has a link receive what is sent from one address to another.
func (p *Program) take(src, dst netip.Addr, at place) error {
	return p.pairs.Put(pair{src.As16(), dst.As16()}, at)
}

// leave is the contrary of take.
func (p *Program) leave(src, dst netip.Addr) error {
	err := p.pairs.Delete(pair{src.As16(), dst.As16()})
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// leaveAll forgets what it was told.
func (p *Program) leaveAll() error {
	var known []pair
	var key pair
	var at place
	for all := p.pairs.Iterate(); all.Next(&key, &at); {
		known = append(known, key)
	}
	for _, k := range known {
		if err := p.pairs.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// attach runs the program for what a link receives until what it returns is closed, or
// the process ends. It does so when the kernel has made a packet of what arrived: in
// the drivers' mode some of them can do less for all other packets.
func (p *Program) attach(index int) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: p.program, Interface: index, Flags: link.XDPGenericMode})
}

// Offsets in frames of Ethernet and in the headers behind its own, in octets.
const (
	etherLen = 14

	etherType = 12

	ip4Len      = 20
	ip4Fragment = 6
	ip4Protocol = 9
	ip4Src      = 12

	ip6Len  = 40
	ip6Next = 6
	ip6Src  = 8
)

// Offsets in the kernel's struct xdp_md.
const (
	mdData    = 0
	mdDataEnd = 4
	mdLink    = 12
	mdQueue   = 16
)

// xdpPass is what the program says of a frame that is not for it.
const xdpPass = 2

// instructions is the program. It passes what has options, extension headers or tags,
// fragments, and what is larger than a socket can take.
func instructions(pairs, sockets int) asm.Instructions {
	const (
		ctx, frame, end = asm.R6, asm.R7, asm.R8
		at              = asm.R0 // a place
		keyAt           = -32    // on the stack
	)
	key := func(i int) int16 { return int16(keyAt + 4*i) }
	p := asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(frame, ctx, mdData, asm.Word),
		asm.LoadMem(end, ctx, mdDataEnd, asm.Word),
		// What is too large for a socket's memory would be lost.
		asm.Mov.Reg(asm.R2, frame),
		asm.Add.Imm(asm.R2, MaxFrame+1),
		asm.JLE.Reg(asm.R2, end, "pass"),
		asm.Mov.Reg(asm.R2, frame),
		asm.Add.Imm(asm.R2, etherLen+ip4Len),
		asm.JGT.Reg(asm.R2, end, "pass"),
		asm.LoadMem(asm.R3, frame, etherType, asm.Half),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.JEq.Imm(asm.R3, unix.ETH_P_IPV6, "six"),
		asm.JNE.Imm(asm.R3, unix.ETH_P_IP, "pass"),

		// IPv4 without options, of ESP and no fragment.
		asm.LoadMem(asm.R3, frame, etherLen, asm.Byte),
		asm.JNE.Imm(asm.R3, 0x45, "pass"),
		asm.LoadMem(asm.R3, frame, etherLen+ip4Protocol, asm.Byte),
		asm.JNE.Imm(asm.R3, unix.IPPROTO_ESP, "pass"),
		asm.LoadMem(asm.R3, frame, etherLen+ip4Fragment, asm.Half),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.And.Imm(asm.R3, 0x3fff), // more fragments, and the offset
		asm.JNE.Imm(asm.R3, 0, "pass"),
		asm.Mov.Imm(asm.R3, 0),
	}
	for i := range 2 { // source and destination
		p = append(p,
			asm.StoreMem(asm.RFP, key(4*i), asm.R3, asm.Word),
			asm.StoreMem(asm.RFP, key(4*i+1), asm.R3, asm.Word),
			asm.LoadMem(asm.R4, frame, int16(etherLen+ip4Src+4*i), asm.Word),
			asm.StoreMem(asm.RFP, key(4*i+3), asm.R4, asm.Word),
		)
	}
	p = append(p,
		asm.Mov.Imm(asm.R3, 0xffff),
		asm.HostTo(asm.BE, asm.R3, asm.Word), // ::ffff:0:0
		asm.StoreMem(asm.RFP, key(2), asm.R3, asm.Word),
		asm.StoreMem(asm.RFP, key(6), asm.R3, asm.Word),
		asm.Ja.Label("ask"),

		// IPv6 with ESP right behind its header.
		asm.Mov.Reg(asm.R2, frame).WithSymbol("six"),
		asm.Add.Imm(asm.R2, etherLen+ip6Len),
		asm.JGT.Reg(asm.R2, end, "pass"),
		asm.LoadMem(asm.R3, frame, etherLen+ip6Next, asm.Byte),
		asm.JNE.Imm(asm.R3, unix.IPPROTO_ESP, "pass"),
	)
	for i := range 8 {
		p = append(p,
			asm.LoadMem(asm.R4, frame, int16(etherLen+ip6Src+4*i), asm.Word),
			asm.StoreMem(asm.RFP, key(i), asm.R4, asm.Word))
	}
	return append(p,
		asm.LoadMapPtr(asm.R1, pairs).WithSymbol("ask"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, keyAt),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(at, 0, "pass"),

		asm.LoadMem(asm.R3, at, 0, asm.Word), // place.Link
		asm.LoadMem(asm.R4, ctx, mdLink, asm.Word),
		asm.JNE.Reg(asm.R3, asm.R4, "pass"),
		asm.LoadMem(asm.R3, at, 12, asm.Word), // place.Own
		asm.LoadMem(asm.R4, frame, 0, asm.Word),
		asm.JNE.Reg(asm.R3, asm.R4, "pass"),
		asm.LoadMem(asm.R3, at, 16, asm.Half),
		asm.LoadMem(asm.R4, frame, 4, asm.Half),
		asm.JNE.Reg(asm.R3, asm.R4, "pass"),
		asm.LoadMem(asm.R2, ctx, mdQueue, asm.Word),
		asm.LoadMem(asm.R3, at, 8, asm.Word), // place.Queues
		asm.JGE.Reg(asm.R2, asm.R3, "pass"),
		asm.LoadMem(asm.R3, at, 4, asm.Word), // place.First
		asm.Add.Reg(asm.R2, asm.R3),
		asm.LoadMapPtr(asm.R1, sockets),
		asm.Mov.Imm(asm.R3, xdpPass), // where there is no socket
		asm.FnRedirectMap.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	)
}
