package engine

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/clock"
	"ifipsec/engine/journal"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// BenchmarkAdd adds SAs to a database that keeps nothing, and to one that keeps
// everything.
func BenchmarkAdd(b *testing.B) {
	add := func(b *testing.B, dir *journal.Dir) {
		e := &Engine{newClock: clock.New, log: slog.New(slog.DiscardHandler)}
		if err := e.databases(dir, nil); err != nil {
			b.Fatal(err)
		}
		spec := exampleSpec()
		for b.Loop() {
			nextSpec(&spec)
			if _, err := e.sad.Add(spec); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("forgotten", func(b *testing.B) { add(b, nil) })
	b.Run("kept", func(b *testing.B) {
		// As /run: memory.
		parent, err := os.MkdirTemp("/dev/shm", "journal-")
		if err != nil {
			b.Skip(err)
		}
		defer os.RemoveAll(parent)
		dir, _, err := journal.Open(filepath.Join(parent, "state"), journal.Owner{}, func(*journal.Dir, []journal.Record) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		defer dir.Close()
		add(b, dir)
	})
}

// BenchmarkDisk adds an SA to a database on a disk, and deletes it.
func BenchmarkDisk(b *testing.B) {
	dir := b.TempDir()
	e := &Engine{newClock: clock.New, log: slog.New(slog.DiscardHandler), permanent: true}
	p := journal.Permanent{Dir: filepath.Join(dir, "disk"), Memory: filepath.Join(dir, "run")}
	d, _, err := journal.OpenPermanent(p, journal.Owner{}, e.renewer(journal.Owner{}), e.databases)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	spec := exampleSpec()
	for b.Loop() {
		nextSpec(&spec)
		if _, err := e.sad.Add(spec); err != nil {
			b.Fatal(err)
		}
		if err := e.sad.Delete(spec.SAType, spec.Src, spec.Dst, spec.SPI); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRestore makes the databases of a journal with 20,000 SAs.
func BenchmarkRestore(b *testing.B) {
	parent, err := os.MkdirTemp("/dev/shm", "journal-")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(parent)
	e := &Engine{newClock: clock.New, log: slog.New(slog.DiscardHandler)}
	dir, _, err := journal.Open(filepath.Join(parent, "state"), journal.Owner{}, e.databases)
	if err != nil {
		b.Fatal(err)
	}
	spec := exampleSpec()
	for range 20000 {
		nextSpec(&spec)
		if _, err := e.sad.Add(spec); err != nil {
			b.Fatal(err)
		}
	}
	dir.Close()
	for b.Loop() {
		e := &Engine{newClock: clock.New, log: slog.New(slog.DiscardHandler)}
		dir, refused, err := journal.Open(filepath.Join(parent, "state"), journal.Owner{}, e.databases)
		if err != nil || refused != nil {
			b.Fatal(err, refused)
		}
		dir.Close()
	}
}

func exampleSpec() sad.Spec {
	return sad.Spec{
		Src: netip.MustParseAddr("192.168.0.3"), Dst: netip.MustParseAddr("192.168.0.5"),
		SAType: pfkey.SATypeESP, Mode: pfkey.ModeTunnel, ReqID: 100, SPI: 1000, Replay: 32,
		Encrypt: algorithm.EncryptAESGCM16, EncryptKey: make([]byte, 20),
	}
}

// nextSpec makes the description of an SA that of another one.
func nextSpec(s *sad.Spec) {
	s.SPI++
	s.EncryptKey[0], s.EncryptKey[1], s.EncryptKey[2] = byte(s.SPI), byte(s.SPI>>8), byte(s.SPI>>16)
}
