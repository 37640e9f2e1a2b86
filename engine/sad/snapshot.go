package sad

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// Snapshot is an SA as it is kept for the next process.
type Snapshot struct {
	Spec      // with the keys
	State     pfkey.SAState
	Created   time.Time
	KeyReused bool

	Born  uint64 // orders SAs by age
	Group uint64 // orders groups of SAs by age
	Used  uint64 // by which it is known when the key is used again, 0 if that does not matter

	// Bounds are those of the transform, if it has any. They are kept with its
	// Mark.
	Bounds *esp.Bounds

	// Where the counters and the state of the transform are. A size of 0 says
	// that there is none.
	Offset int64
	Size   int
}

// plain is a Snapshot in JSON, without the keys: JSON leaves copies of what
// goes through it behind.
type plain struct {
	Spec      Spec
	State     pfkey.SAState
	Created   int64 // nanoseconds
	KeyReused bool  `json:",omitempty"`
	Born      uint64
	Group     uint64
	Used      uint64 `json:",omitempty"`
	Offset    int64  `json:",omitempty"`
	Size      int    `json:",omitempty"`
}

// noKey stands for the length of a key that is nil, which one of no bits is
// not.
const noKey = 0xffff

// Append appends the snapshot to b: its length in JSON, that, and the two keys
// with their lengths before them.
func (s *Snapshot) Append(b []byte) ([]byte, error) {
	p := plain{s.Spec, s.State, s.Created.UnixNano(), s.KeyReused, s.Born, s.Group, s.Used, s.Offset, s.Size}
	p.Spec.AuthKey, p.Spec.EncryptKey = nil, nil
	text, err := json.Marshal(&p)
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	for _, k := range [][]byte{s.AuthKey, s.EncryptKey} {
		n := len(k)
		if k == nil {
			n = noKey
		}
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, k...)
	}
	return b, nil
}

// DecodeSnapshot reads what [Snapshot.Append] wrote. The keys are copies.
func DecodeSnapshot(b []byte) (Snapshot, error) {
	text, rest, err := part(b, 4)
	if err != nil {
		return Snapshot{}, err
	}
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return Snapshot{}, fmt.Errorf("a kept SA: %w", err)
	}
	s := Snapshot{
		Spec: p.Spec, State: p.State, Created: time.Unix(0, p.Created), KeyReused: p.KeyReused,
		Born: p.Born, Group: p.Group, Used: p.Used, Offset: p.Offset, Size: p.Size,
	}
	for _, k := range []*[]byte{&s.AuthKey, &s.EncryptKey} {
		*k = nil
		if len(rest) >= 2 && binary.BigEndian.Uint16(rest) == noKey {
			rest = rest[2:]
			continue
		}
		var key []byte
		if key, rest, err = part(rest, 2); err != nil {
			return Snapshot{}, err
		}
		*k = append([]byte{}, key...)
	}
	if len(rest) != 0 {
		return Snapshot{}, fmt.Errorf("a kept SA with %d bytes too many", len(rest))
	}
	return s, nil
}

// part cuts off what begins with its length in size bytes.
func part(b []byte, size int) (p, rest []byte, err error) {
	if len(b) < size {
		return nil, nil, fmt.Errorf("a kept SA that ends after %d bytes", len(b))
	}
	n := 0
	for _, c := range b[:size] {
		n = n<<8 | int(c)
	}
	if b = b[size:]; n > len(b) {
		return nil, nil, fmt.Errorf("a kept SA that ends after %d bytes of %d", len(b), n)
	}
	return b[:n], b[n:], nil
}
