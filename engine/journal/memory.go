package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Memory is memory that outlives the process: a file, mapped. What is stored
// there costs what storing in any memory costs, and is there when the file is
// opened again, whatever ended the process.
//
// Parts of it are handed out by [Memory.Alloc] and given back by
// [Memory.Free]. Which parts are in use is not in the file: after opening one
// again, [Memory.At] says it for each. Its methods may be called concurrently.
type Memory struct {
	mu     sync.Mutex
	file   *os.File
	size   int64 // of the file, in bytes; a multiple of chunkSize
	chunks map[int64]*chunk
	order  []*chunk // in the order in which they were mapped
	next   int      // of order, where the last part was found

	mmap func(fd int, offset int64, length, prot, flags int) ([]byte, error)
}

// chunk is a part of the file that is mapped as a whole.
type chunk struct {
	offset int64
	mem    []byte
	used   []bool // by unit
	free   int    // units
	next   int    // unit behind the last part that was found
}

const (
	chunkSize = 1 << 20
	// unit is what memory is handed out in multiples of: a line of cache, so
	// that no two parts share one.
	unit = 64
	// chunkUnits is the units of a chunk of the usual size.
	chunkUnits = chunkSize / unit

	memoryMagic     = "ifipsecM"
	memoryHeaderLen = 8 + 8 + 16
)

// createMemory makes an empty memory in place of any that there is.
func createMemory(path string, pair [16]byte) (*Memory, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	m := newMemory(file)
	c, err := m.grow(chunkSize)
	if err != nil {
		m.Close()
		return nil, err
	}
	copy(c.mem, memoryHeader(pair))
	c.take(0, 1)
	return m, nil
}

func newMemory(file *os.File) *Memory {
	return &Memory{file: file, chunks: map[int64]*chunk{}, mmap: unix.Mmap}
}

func memoryHeader(pair [16]byte) []byte {
	return append([]byte(memoryMagic+"\x00\x00\x00\x00\x00\x00\x00\x01"), pair[:]...)
}

// openMemory opens a memory again. No part of it is in use.
func openMemory(path string, pair [16]byte) (*Memory, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m := newMemory(file)
	st, err := file.Stat()
	if err == nil && (st.Size() == 0 || st.Size()%chunkSize != 0) {
		err = fmt.Errorf("%w: its memory has %d bytes, want whole parts of %d", ErrCorrupt, st.Size(), chunkSize)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	header := make([]byte, memoryHeaderLen)
	if _, err := file.ReadAt(header, 0); err != nil {
		file.Close()
		return nil, err
	}
	if !bytes.Equal(header, memoryHeader(pair)) {
		file.Close()
		return nil, fmt.Errorf("%w: its memory is another journal's", ErrCorrupt)
	}
	m.size = st.Size()
	c, err := m.mapped(0, chunkSize)
	if err != nil {
		m.Close()
		return nil, err
	}
	c.take(0, 1)
	return m, nil
}

// Alloc returns size bytes of zeros, aligned to a line of cache, and their
// offset in the file. ENOSPC: the file system is full. ENOMEM.
func (m *Memory) Alloc(size int) (offset int64, mem []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := units(size)
	for i := range m.order {
		at := (m.next + i) % len(m.order)
		if c := m.order[at]; c.free >= n {
			if first, ok := c.find(n); ok {
				m.next = at
				return c.hand(first, n, size)
			}
		}
	}
	if err := m.mapRest(); err != nil {
		return 0, nil, err
	}
	c, err := m.grow((int64(size) + chunkSize - 1) / chunkSize * chunkSize)
	if err != nil {
		return 0, nil, err
	}
	m.next = len(m.order) - 1
	return c.hand(0, n, size)
}

// At returns the memory that was handed out with this offset and size before
// the file was opened again. An error wraps ErrCorrupt if it can't have been.
func (m *Memory) At(offset int64, size int) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := units(size)
	if size <= 0 || offset < 0 || offset%unit != 0 || offset+int64(n*unit) > m.size {
		return nil, fmt.Errorf("%w: %d bytes of memory at %d of %d", ErrCorrupt, size, offset, m.size)
	}
	base := offset / chunkSize * chunkSize
	length := int64(chunkSize)
	if size > chunkSize {
		length = (int64(size) + chunkSize - 1) / chunkSize * chunkSize
	}
	c, err := m.mapped(base, length)
	if err != nil {
		return nil, err
	}
	first := int(offset-base) / unit
	if first+n > len(c.used) {
		return nil, fmt.Errorf("%w: %d bytes of memory at %d", ErrCorrupt, size, offset)
	}
	for _, used := range c.used[first : first+n] {
		if used {
			return nil, fmt.Errorf("%w: the memory at %d is in use twice", ErrCorrupt, offset)
		}
	}
	c.take(first, n)
	return c.mem[offset-base:][:size:size], nil
}

// Free takes back what Alloc or At returned. Nobody may look at it any more.
func (m *Memory) Free(offset int64, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.order {
		if offset >= c.offset && offset < c.offset+int64(len(c.mem)) {
			first := int(offset-c.offset) / unit
			for i := range units(size) {
				c.used[first+i] = false
			}
			c.free += units(size)
			return
		}
	}
}

// grow makes the file longer and returns the new part. The space is reserved:
// writing to memory that the file system has no room for would kill the process.
func (m *Memory) grow(size int64) (*chunk, error) {
	err := unix.Fallocate(int(m.file.Fd()), 0, m.size, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = m.file.WriteAt(make([]byte, size), m.size)
	}
	if err != nil {
		// Part of it may have been possible.
		return nil, fmt.Errorf("%d bytes of memory: %w", size, errors.Join(err, m.file.Truncate(m.size)))
	}
	c, err := m.mapped(m.size, size)
	if err != nil {
		return nil, errors.Join(err, m.file.Truncate(m.size))
	}
	m.size += size
	return c, nil
}

// mapRest maps what no At asked for, so that it can be handed out.
func (m *Memory) mapRest() error {
	for at := int64(0); at < m.size; {
		c, err := m.mapped(at, chunkSize)
		if err != nil {
			return err
		}
		at += int64(len(c.mem))
	}
	return nil
}

// mapped returns the part of the file at offset, which it maps if it isn't.
func (m *Memory) mapped(offset, size int64) (*chunk, error) {
	if c := m.chunks[offset]; c != nil {
		if int64(len(c.mem)) < size {
			return nil, fmt.Errorf("%w: the memory at %d is in use twice", ErrCorrupt, offset)
		}
		return c, nil
	}
	for _, c := range m.order {
		if offset < c.offset+int64(len(c.mem)) && c.offset < offset+size {
			return nil, fmt.Errorf("%w: the memory at %d is in use twice", ErrCorrupt, offset)
		}
	}
	mem, err := m.mmap(int(m.file.Fd()), offset, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	c := &chunk{offset: offset, mem: mem, used: make([]bool, size/unit), free: int(size / unit)}
	m.chunks[offset] = c
	m.order = append(m.order, c)
	return c, nil
}

// Close gives the memory up. Who still looks at it dies.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.order {
		_ = unix.Munmap(c.mem)
	}
	m.order, m.chunks = nil, nil
	return m.file.Close()
}

// find returns the first of n free units in a row. Where they are, At maps one
// chunk, so that they must not reach beyond it.
func (c *chunk) find(n int) (first int, ok bool) {
	if n > chunkUnits {
		return 0, c.free == len(c.used) && n <= len(c.used)
	}
	run := 0
	for i := range len(c.used) + c.next {
		at := (c.next + i) % len(c.used)
		if at%chunkUnits == 0 {
			run = 0
		}
		if c.used[at] {
			run = 0
		} else if run++; run == n {
			c.next = (at + 1) % len(c.used)
			return at + 1 - n, true
		}
	}
	return 0, false
}

func (c *chunk) take(first, n int) {
	for i := range n {
		c.used[first+i] = true
	}
	c.free -= n
}

// hand hands out units that are free.
func (c *chunk) hand(first, n, size int) (int64, []byte, error) {
	c.take(first, n)
	mem := c.mem[first*unit:][:size:size]
	clear(c.mem[first*unit:][:n*unit])
	return c.offset + int64(first*unit), mem, nil
}

// units is how many units a part takes: what needs more than a chunk of the usual
// size has the one that it is in for itself.
func units(size int) int {
	n := max(1, (size+unit-1)/unit)
	if n > chunkUnits {
		n = (n + chunkUnits - 1) / chunkUnits * chunkUnits
	}
	return n
}
