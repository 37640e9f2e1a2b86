package engine

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/journal"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/sad"
)

// BenchmarkAdd adds SAs to a database that keeps nothing, and to one that keeps
// everything.
func BenchmarkAdd(b *testing.B) {
	add := func(b *testing.B, dir *journal.Dir) {
		e := &Engine{log: slog.New(slog.DiscardHandler)}
		if err := e.databases(dir, nil); err != nil {
			b.Fatal(err)
		}
		spec := sad.Spec{
			Src: netip.MustParseAddr("192.168.0.3"), Dst: netip.MustParseAddr("192.168.0.5"),
			SAType: pfkey.SATypeESP, Mode: pfkey.ModeTunnel, ReqID: 100, SPI: 1000, Replay: 32,
			Encrypt: algorithm.EncryptAESGCM16, EncryptKey: make([]byte, 20),
		}
		for b.Loop() {
			spec.SPI++
			spec.EncryptKey[0], spec.EncryptKey[1], spec.EncryptKey[2] = byte(spec.SPI), byte(spec.SPI>>8), byte(spec.SPI>>16)
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
		dir, _, err := journal.Open(filepath.Join(parent, "state"), journal.Owner{},
			func(*journal.Dir, []journal.Record) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		defer dir.Close()
		add(b, dir)
	})
}
