package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"ifipsec/engine/readable"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const tunPath = "/dev/net/tun"

// TUN says how a TUN device is to be.
type TUN struct {
	Name string // a name that no link has
	MTU  int    // in bytes

	// Offload lets the kernel hand over TCP and UDP segments before they are
	// split, and take them joined. Some kernels refuse what is joined (EINVAL
	// on writing); without it every packet is a read or write of its own.
	Offload bool
}

// Device is a TUN device that is open. Its channel of events stays empty: see
// [Host.Watch]. One goroutine at a time may read.
type Device struct {
	tun.Device
	readable *readable.File
	index    int
	drained  bool // by the last Read: there was nothing more
}

// CreateTUN makes a TUN device in the thread's network namespace. It is down,
// and has no IPv6 link-local address when it comes up. It is gone when it is
// closed, unless it is made to persist.
//
// EEXIST: a link has the name. EPERM: not root. ENOENT: the host has no
// /dev/net/tun. EINVAL: no name for a link, or no MTU that a TUN can have.
func (h *Host) CreateTUN(t TUN) (*Device, error) {
	dev, err := openDevice(t, unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", t.Name, err)
	}
	l, err := h.link(t.Name)
	if err == nil {
		dev.index = l.Attrs().Index
		err = h.prepare(l, t.MTU)
	}
	if err != nil {
		dev.Close()
		return nil, fmt.Errorf("create %s: %w", t.Name, err)
	}
	return dev, nil
}

// AdoptTUN opens the TUN device that persisted as the link with an index, which
// must have t's name, and changes nothing about it.
//
// ENXIO: there is no such link. EBUSY: a process has it open. EINVAL: it is no
// TUN device.
func (h *Host) AdoptTUN(t TUN, index int) (*Device, error) {
	// TUNSETIFF makes a device if there is none of the name, or finds another.
	// It is closed then, and no worse for it.
	l, err := h.link(t.Name)
	if err == nil && l.Attrs().Index != index {
		err = fmt.Errorf("it is link %d, want %d: %w", l.Attrs().Index, index, syscall.ENXIO)
	}
	var dev *Device
	if err == nil {
		dev, err = openDevice(t, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", t.Name, err)
	}
	if l, err = h.link(t.Name); err == nil && l.Attrs().Index != index {
		err = fmt.Errorf("it is link %d now, want %d: %w", l.Attrs().Index, index, syscall.ENXIO)
	}
	if err != nil {
		dev.Close()
		return nil, fmt.Errorf("adopt %s: %w", t.Name, err)
	}
	dev.index = index
	return dev, nil
}

// TakeTUN makes a device of the open file of one, which it owns from now on, and
// which is the link with an index. EINVAL: the file is no TUN device.
func TakeTUN(fd, index int) (*Device, error) {
	dev, err := newDevice(fd)
	if err != nil {
		return nil, fmt.Errorf("take over the TUN device of link %d: %w", index, err)
	}
	dev.index = index
	return dev, nil
}

// newDevice makes a device of the open file of one, which it owns from now on.
func newDevice(fd int) (*Device, error) {
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := &Device{Device: dev}
	if fd, err = leavePoller(dev.File()); err == nil {
		d.readable, err = readable.New(fd, dev.Close)
	}
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return d, nil
}

// leavePoller takes a file out of Go's poller, in which it is from its making, and
// returns its new descriptor.
func leavePoller(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	e := conn.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(e, err); err != nil {
		return -1, os.NewSyscallError("F_DUPFD_CLOEXEC", err)
	}
	// os.NewFile leaves alone what blocks.
	if err := unix.SetNonblock(fd, false); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	polled := *f
	*f = *os.NewFile(uintptr(fd), f.Name())
	return fd, errors.Join(unix.SetNonblock(fd, true), polled.Close())
}

// readAhead is how many packets a Read takes, if they are there. The device gives one
// at a time, or one segment that is split into many.
const readAhead = 64

// BatchSize implements [tun.Device]. There must be room for a whole segment whenever the
// device is looked at, which is while less than readAhead packets have come.
func (d *Device) BatchSize() int {
	if n := d.Device.BatchSize(); n > 1 {
		return readAhead - 1 + n
	}
	return readAhead // no segments
}

// Read implements [tun.Device]. It waits for packets.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	if _, err := d.readable.Acquire(); err != nil {
		return 0, err
	}
	defer d.readable.Release()
	for !d.readable.Stopped() {
		if d.drained {
			if err := d.readable.Wait(); err != nil {
				return 0, err
			}
		}
		if n, err := d.readSome(bufs, sizes, offset); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, os.ErrClosed
}

// readSome reads what is there. Where one was waited for, it does not look for more:
// mostly there is none.
func (d *Device) readSome(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	alone := d.drained
	d.drained = false
	for segment := d.Device.BatchSize(); len(bufs)-n >= segment; {
		more, err := d.Device.Read(bufs[n:], sizes[n:], offset)
		for i, size := range sizes[n:][:more] {
			mendChecksum(bufs[n+i][offset:][:size])
		}
		n += more
		if errors.Is(err, unix.EAGAIN) {
			d.drained = true
			return n, nil
		}
		if err != nil || alone {
			return n, err
		}
	}
	return n, nil
}

// Write implements [tun.Device].
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	if _, err := d.readable.Acquire(); err != nil {
		return 0, err
	}
	defer d.readable.Release()
	return d.Device.Write(bufs, offset)
}

// Close closes the device when what is being read and written has been.
func (d *Device) Close() error { return d.readable.Close() }

// Index is the index of the device's link.
func (d *Device) Index() int { return d.index }

// Persist says whether the device lives on, with its addresses and routes,
// when nobody has it open. EBADF or EBADFD: it is gone.
func (d *Device) Persist(on bool) error {
	value := 0
	if on {
		value = 1
	}
	conn, err := d.File().SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := conn.Control(func(fd uintptr) { set = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, value) }); err != nil {
		return err
	}
	return os.NewSyscallError("TUNSETPERSIST", set)
}

// openDevice opens a TUN device with these flags.
func openDevice(t TUN, flags uint16) (*Device, error) {
	fd, err := openTUN(t, flags)
	if err != nil {
		return nil, err
	}
	return newDevice(fd)
}

func openTUN(t TUN, flags uint16) (fd int, err error) {
	request, err := unix.NewIfreq(t.Name)
	if err != nil || t.Name == "" {
		return -1, fmt.Errorf("%q is no name for a link: %w", t.Name, syscall.EINVAL)
	}
	fd, err = unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf("open %s, which the kernel's module tun provides: %w", tunPath, err)
	case err != nil:
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
	flags |= unix.IFF_TUN | unix.IFF_NO_PI
	if t.Offload {
		flags |= unix.IFF_VNET_HDR
	}
	request.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	if err != nil {
		unix.Close(fd)
	}
	switch {
	case errors.Is(err, unix.EBUSY) && flags&unix.IFF_TUN_EXCL != 0:
		return -1, fmt.Errorf("a link has the name: %w", syscall.EEXIST)
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("another process has it open: %w", err)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("needs CAP_NET_ADMIN: %w", err)
	case err != nil:
		return -1, fmt.Errorf("TUNSETIFF: %w", err)
	}
	return fd, nil
}

// prepare does what has to be done before the link comes up for the first time.
func (h *Host) prepare(l netlink.Link, mtu int) error {
	err := h.netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE)
	// A kernel without IPv6 makes no link-local address either.
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("turn off automatic IPv6 addresses: %w", err)
	}
	return h.setMTU(l, mtu)
}

func (h *Host) setMTU(l netlink.Link, mtu int) error {
	if mtu <= 0 {
		return fmt.Errorf("MTU %d: %w", mtu, syscall.EINVAL)
	}
	if err := h.netlink.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("MTU %d: %w", mtu, err)
	}
	return nil
}
