// Package journal keeps what must outlive the process that holds it: records
// in a file, and memory in a mapped file. Both are as the process left them at
// the moment of its death, whatever that moment was.
//
// # Records
//
// A record has a kind, an ID and a value that means nothing here. The file
// begins with a header, which says whose journal it is and how many of its
// octets are committed; the records follow, each with checksums. A record is
// added by writing it behind the committed octets and then counting it among
// them, so that what a death cuts off was never there. It is removed by
// overwriting its mark, and its value with zeros: no key stays in the file
// after its SA. What takes the place of another record is added before that is
// removed; of two that are alive the later one counts.
//
// # Memory
//
// Counters that change with every packet can't be written one by one. They lie
// in memory that is a file's (see [Memory]), which the kernel keeps when the
// process is gone. Which parts of it are in use, records say.
//
// # The machine's end
//
// [Open] writes nothing through to a disk: what the machine's end leaves is
// another boot's, and refused. Of a journal of [OpenPermanent] the records are on
// the disk, whenever the power fails; the memory is lost.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the format that is written. Older versions are
// read, newer ones refused.
const Version = 1

// Errors of [Decode] and [Open]. They are wrapped with what was found.
var (
	// ErrCorrupt says that the file is not as it was written.
	ErrCorrupt = errors.New("the journal is corrupt")
	// ErrVersion says that a newer version of the program wrote the file.
	ErrVersion = errors.New("the journal is of a newer version")
	// ErrForeign says that the file belongs to another network namespace, or to
	// another boot of the machine.
	ErrForeign = errors.New("the journal is not of this namespace and boot")
)

// Owner is whose a journal is.
type Owner struct {
	Boot   [16]byte // the kernel's boot ID
	Inode  uint64   // of the network namespace
	Cookie uint64   // of the network namespace, never used again in one boot; 0 if the kernel has none
}

// Kind is what a record is about. What kinds there are is the user's to say; 0
// is none.
type Kind uint8

// Record is one entry of a journal.
type Record struct {
	Kind  Kind
	ID    uint64 // unique among the records of a kind
	Value []byte // at most MaxValue octets
}

// MaxValue is the most octets of a record's value.
const MaxValue = 1 << 16

// Header is the beginning of a journal.
type Header struct {
	Version uint32
	Owner   Owner
	Pair    [16]byte // random, and the same in the journal and in its memory
}

// The layout of the header, in big endian:
//
//	 0  magic       8
//	 8  version     4
//	12  headerLen   4
//	16  boot       16
//	32  inode       8
//	40  cookie      8
//	48  pair       16
//	64  checksum    4  of what is before it
//	72  committed   8  octets of the file, with the header
//	80  its complement
const (
	journalMagic = "ifipsecJ"
	headerLen    = 96

	headerChecksum = 64
	headerCommit   = 72
	commitLen      = 16
)

// The layout of a record, in big endian:
//
//	 0  mark        4
//	 4  kind        1  and 3 of zero
//	 8  ID          8
//	16  length      4  of the value
//	20  checksum    4  of kind, ID and length
//	24  checksum    4  of the value
//	28  zero        4
//	32  value, and zeros up to a multiple of 8
const (
	recordHeaderLen = 32
	recordChecksum  = 24         // of the value
	markLive        = 0x4c495645 // "LIVE"
	markDead        = 0x44454144 // "DEAD"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// appendHeader appends the header of a journal without records.
func appendHeader(b []byte, h Header) []byte {
	start := len(b)
	b = append(b, journalMagic...)
	b = binary.BigEndian.AppendUint32(b, h.Version)
	b = binary.BigEndian.AppendUint32(b, headerLen)
	b = append(b, h.Owner.Boot[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Owner.Inode)
	b = binary.BigEndian.AppendUint64(b, h.Owner.Cookie)
	b = append(b, h.Pair[:]...)
	b = binary.BigEndian.AppendUint32(b, checksum(b[start:]))
	b = append(b, 0, 0, 0, 0)
	b = appendCommit(b, headerLen)
	return append(b, make([]byte, headerLen-(len(b)-start))...)
}

func appendCommit(b []byte, committed uint64) []byte {
	b = binary.BigEndian.AppendUint64(b, committed)
	return binary.BigEndian.AppendUint64(b, ^committed)
}

// appendRecord appends a record that is alive.
func appendRecord(b []byte, r Record) []byte {
	b = binary.BigEndian.AppendUint32(b, markLive)
	start := len(b)
	b = append(b, byte(r.Kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, r.ID)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Value)))
	b = binary.BigEndian.AppendUint32(b, checksum(b[start:]))
	b = binary.BigEndian.AppendUint32(b, checksum(r.Value))
	b = append(b, 0, 0, 0, 0)
	b = append(b, r.Value...)
	return append(b, make([]byte, recordLen(len(r.Value))-recordHeaderLen-len(r.Value))...)
}

// recordLen is the octets of a record with a value of n.
func recordLen(n int) int { return recordHeaderLen + (n+7)&^7 }

// Entry is a record that is alive and where it is.
type Entry struct {
	Record
	Offset int64 // in the file
}

// Journal is what is in a journal file.
type Journal struct {
	Header
	Entries   []Entry // in the order in which they were written, one for a kind and ID
	Committed int64   // octets; what follows them was never committed
	Stale     []Entry // alive, but others were written to take their places
}

// Decode reads the content of a journal file. The values are parts of data.
//
// Every octet below the committed ones must be as it was written, else the
// error wraps [ErrCorrupt]; [ErrVersion] tells of a newer format.
func Decode(data []byte) (Journal, error) {
	var j Journal
	if len(data) < 16 || string(data[:8]) != journalMagic {
		return j, fmt.Errorf("%w: it does not begin as a journal does", ErrCorrupt)
	}
	// The version says how to read on, so that it comes first.
	j.Version = binary.BigEndian.Uint32(data[8:])
	if j.Version > Version {
		return j, fmt.Errorf("%w: %d, want at most %d", ErrVersion, j.Version, Version)
	}
	if len(data) < headerLen || j.Version == 0 || binary.BigEndian.Uint32(data[12:]) != headerLen ||
		binary.BigEndian.Uint32(data[headerChecksum:]) != checksum(data[:headerChecksum]) {
		return j, fmt.Errorf("%w: its header is damaged", ErrCorrupt)
	}
	copy(j.Owner.Boot[:], data[16:])
	j.Owner.Inode = binary.BigEndian.Uint64(data[32:])
	j.Owner.Cookie = binary.BigEndian.Uint64(data[40:])
	copy(j.Pair[:], data[48:])
	committed := binary.BigEndian.Uint64(data[headerCommit:])
	if committed != ^binary.BigEndian.Uint64(data[headerCommit+8:]) || committed < headerLen {
		return j, fmt.Errorf("%w: the number of committed octets is damaged", ErrCorrupt)
	}
	if committed > uint64(len(data)) {
		return j, fmt.Errorf("%w: it has %d octets of %d", ErrCorrupt, len(data), committed)
	}
	j.Committed = int64(committed)

	last := map[key]int{} // index of the entry
	var all []Entry
	for at := int64(headerLen); at < j.Committed; {
		r, live, size, err := decodeRecord(data[at:committed])
		if err != nil {
			return Journal{}, fmt.Errorf("%w at octet %d: %w", ErrCorrupt, at, err)
		}
		if live {
			k := key{r.Kind, r.ID}
			if before, again := last[k]; again {
				j.Stale = append(j.Stale, all[before])
				all[before].Kind = 0
			}
			last[k] = len(all)
			all = append(all, Entry{r, at})
		}
		at += int64(size)
	}
	for _, e := range all {
		if e.Kind != 0 {
			j.Entries = append(j.Entries, e)
		}
	}
	return j, nil
}

// decodeRecord reads the record at the beginning of data. size is how many
// octets it has there.
func decodeRecord(data []byte) (r Record, live bool, size int, err error) {
	if len(data) < recordHeaderLen {
		return r, false, 0, fmt.Errorf("%d octets are no record", len(data))
	}
	mark := binary.BigEndian.Uint32(data)
	if mark != markLive && mark != markDead {
		return r, false, 0, fmt.Errorf("a record with mark %#x", mark)
	}
	if binary.BigEndian.Uint32(data[20:]) != checksum(data[4:20]) {
		return r, false, 0, errors.New("the checksum of a record's header is wrong")
	}
	n := binary.BigEndian.Uint32(data[16:])
	if n > MaxValue || data[4] == 0 {
		return r, false, 0, fmt.Errorf("a record of kind %d and %d octets", data[4], n)
	}
	size = recordLen(int(n))
	if size > len(data) {
		return r, false, 0, fmt.Errorf("a record of %d octets, of which there are %d", size, len(data))
	}
	if mark == markDead {
		return r, false, size, nil
	}
	r = Record{Kind: Kind(data[4]), ID: binary.BigEndian.Uint64(data[8:]), Value: data[recordHeaderLen:][:n:n]}
	if binary.BigEndian.Uint32(data[24:]) != checksum(r.Value) {
		return r, false, 0, errors.New("the checksum of a record's value is wrong")
	}
	return r, true, size, nil
}

// key is what a record is found by.
type key struct {
	kind Kind
	id   uint64
}
