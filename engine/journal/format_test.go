package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testHeader = Header{Version: Version, Owner: Owner{Boot: [16]byte{1, 2}, Inode: 4026531840, Cookie: 7}, Pair: [16]byte{9}}

// encode is a journal with records, as one that was just compacted.
func encode(h Header, records ...Record) []byte {
	b := appendHeader(nil, h)
	for _, r := range records {
		b = appendRecord(b, r)
	}
	commit := appendCommit(nil, uint64(len(b)))
	copy(b[headerCommit:], commit)
	return b
}

var testRecords = []Record{
	{Kind: 1, ID: 10000, Value: []byte("an SA")},
	{Kind: 1, ID: 10001, Value: []byte("another SA!")},
	{Kind: 2, ID: 1<<64 - 1, Value: []byte{}},
	{Kind: 255, ID: 0, Value: bytes.Repeat([]byte{0xff}, 1000)},
}

func recordsOf(j Journal) (records []Record) {
	for _, e := range j.Entries {
		records = append(records, e.Record)
	}
	return records
}

func TestDecode(t *testing.T) {
	t.Parallel()
	data := encode(testHeader, testRecords...)
	j, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if j.Header != testHeader || j.Committed != int64(len(data)) {
		t.Errorf("header %+v with %d octets, want %+v with %d", j.Header, j.Committed, testHeader, len(data))
	}
	if diff := cmp.Diff(testRecords, recordsOf(j)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// What was not committed was never there, whole or in part.
func TestDecodeIgnoresTheUncommitted(t *testing.T) {
	t.Parallel()
	data := encode(testHeader, testRecords...)
	longer := appendRecord(bytes.Clone(data), Record{Kind: 1, ID: 3, Value: []byte("unanswered")})
	for n := len(data); n <= len(longer); n++ {
		j, err := Decode(longer[:n])
		if err != nil || len(j.Entries) != len(testRecords) {
			t.Errorf("with %d octets of what was not committed: %d records (%v)", n-len(data), len(j.Entries), err)
		}
	}
}

func TestDecodeLaterRecordCounts(t *testing.T) {
	t.Parallel()
	j, err := Decode(encode(testHeader,
		Record{Kind: 1, ID: 5, Value: []byte("old")},
		Record{Kind: 2, ID: 5, Value: []byte("of another kind")},
		Record{Kind: 1, ID: 5, Value: []byte("new")}))
	if err != nil {
		t.Fatal(err)
	}
	want := []Record{{Kind: 2, ID: 5, Value: []byte("of another kind")}, {Kind: 1, ID: 5, Value: []byte("new")}}
	if diff := cmp.Diff(want, recordsOf(j)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if len(j.Stale) != 1 || j.Stale[0].Offset != headerLen {
		t.Errorf("stale records %+v, want the first", j.Stale)
	}
}

// A journal is read whole or not at all: no octet below the committed ones can
// be changed, and none be missing.
func TestDecodeDamage(t *testing.T) {
	t.Parallel()
	data := encode(testHeader, testRecords...)
	for n := range len(data) {
		if _, err := Decode(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut off after %d octets: %v, want ErrCorrupt", n, err)
		}
	}
	// Zeros that nothing looks at: the rest of the header and what fills
	// records up.
	padding := map[int]bool{}
	for i := headerChecksum + 4; i < headerCommit; i++ {
		padding[i] = true
	}
	for i := headerCommit + commitLen; i < headerLen; i++ {
		padding[i] = true
	}
	at := headerLen
	for _, r := range testRecords {
		for i := at + 28; i < at+32; i++ {
			padding[i] = true
		}
		for i := at + recordHeaderLen + len(r.Value); i < at+recordLen(len(r.Value)); i++ {
			padding[i] = true
		}
		at += recordLen(len(r.Value))
	}
	for i := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			_, err := Decode(damaged)
			switch {
			case padding[i]:
			case i >= 8 && i < 12:
				if !errors.Is(err, ErrVersion) && !errors.Is(err, ErrCorrupt) {
					t.Errorf("bit %d of octet %d changed: %v, want ErrVersion or ErrCorrupt", bit, i, err)
				}
			case !errors.Is(err, ErrCorrupt):
				t.Errorf("bit %d of octet %d changed: %v, want ErrCorrupt", bit, i, err)
			}
		}
	}
}

func TestDecodeNewerVersion(t *testing.T) {
	t.Parallel()
	h := testHeader
	h.Version = Version + 1
	if _, err := Decode(encode(h, testRecords...)); !errors.Is(err, ErrVersion) {
		t.Errorf("Decode = %v, want ErrVersion", err)
	}
}

// Whatever is read can be written and is read the same again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(encode(testHeader))
	f.Add(encode(testHeader, testRecords...))
	dead := encode(testHeader, testRecords...)
	copy(dead[headerLen:], "DEAD")
	f.Add(dead)
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Decode = %v, which is no refusal", err)
			}
			return
		}
		if j.Committed > int64(len(data)) {
			t.Fatalf("%d committed octets of %d", j.Committed, len(data))
		}
		again, err := Decode(encode(j.Header, recordsOf(j)...))
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if diff := cmp.Diff(recordsOf(j), recordsOf(again)); diff != "" {
			t.Fatalf("records (-first +again):\n%s", diff)
		}
	})
}
