package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"github.com/cilium/ebpf/link"
)

// Links are the links that a program has sockets on. Its methods may be called
// concurrently.
type Links struct {
	program *Program

	mu    sync.Mutex
	taken [maxSockets]bool // of the program's places
}

// NewLinks returns the links of a program, none at first.
func NewLinks(p *Program) *Links { return &Links{program: p} }

// Link is a link with the program and sockets on it.
type Link struct {
	// Sockets are those of the link's first queues, at least of one.
	Sockets []*Socket

	links    *Links
	place    place
	attached link.Link
	detach   func() error
	close    func() error
}

// Open puts the program and sockets on a link with at most so many receive queues.
// EBUSY: another process has done so, or another program is there. EOPNOTSUPP: there is
// no room for so many.
func (l *Links) Open(index, queues int) (_ *Link, err error) {
	first, err := l.reserve(queues)
	if err != nil {
		return nil, fmt.Errorf("AF_XDP for link %d: %w", index, err)
	}
	at := place{Link: uint32(index), First: uint32(first), Queues: uint32(queues)}
	o := &Link{links: l, place: at}
	o.detach = sync.OnceValue(func() error {
		if o.attached == nil {
			return nil
		}
		return o.attached.Close()
	})
	o.close = sync.OnceValue(o.end)
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	for queue := range queues {
		s, err := newSocket(index, queue)
		if err != nil && queue > 0 {
			// There are no more queues in use, or is no more memory to lock. What
			// comes to a queue without a socket goes the kernel's way.
			break
		}
		if err != nil {
			return nil, err
		}
		o.Sockets = append(o.Sockets, s)
		if err := l.program.sockets.Put(at.First+uint32(queue), uint32(s.fd)); err != nil {
			return nil, fmt.Errorf("AF_XDP for link %d: %w", index, err)
		}
	}
	if o.attached, err = l.program.attach(index); err != nil {
		return nil, fmt.Errorf("AF_XDP for link %d: %w", index, err)
	}
	return o, nil
}

// reserve finds places for sockets.
func (l *Links) reserve(n int) (first int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for free := 0; first+free < maxSockets; {
		if l.taken[first+free] {
			first, free = first+free+1, 0
			continue
		}
		if free++; free == n {
			for i := range n {
				l.taken[first+i] = true
			}
			return first, nil
		}
	}
	return 0, fmt.Errorf("no room for %d more queues: %w", n, syscall.EOPNOTSUPP)
}

// Take has the link, which has an address of its own, receive what is sent from one
// address to another. Another link that did leaves it.
func (o *Link) Take(src, dst netip.Addr, own [6]byte) error {
	at := o.place
	at.Own = own
	return o.links.program.take(src, dst, at)
}

// Leave has no link receive what is sent from one address to another.
func (l *Links) Leave(src, dst netip.Addr) error { return l.program.leave(src, dst) }

// Detach ends receiving, but for what has been received. What comes later goes the
// kernel's way.
func (o *Link) Detach() error { return o.detach() }

// Close detaches the link and closes its sockets. Nobody may use them any more.
func (o *Link) Close() error { return o.close() }

func (o *Link) end() error {
	errs := []error{o.Detach()}
	for _, s := range o.Sockets {
		errs = append(errs, s.Close())
	}
	o.links.mu.Lock()
	defer o.links.mu.Unlock()
	for i := range o.place.Queues {
		o.links.taken[o.place.First+i] = false
	}
	return errors.Join(errs...)
}
