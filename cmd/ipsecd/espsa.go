package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"ifipsec/engine/keysock"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/pfkey/wireshark"
	"ifipsec/engine/rundir"
)

// answerTimeout bounds how long the daemon may take for a part of an answer.
const answerTimeout = 10 * time.Second

// espSA prints the ESP SAs of this namespace's daemon as Wireshark's table
// esp_sa.
func espSA(w io.Writer) error {
	dir, err := rundir.Current()
	if err != nil {
		return err
	}
	conn, err := keysock.Dial(dir.PFKey())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return rundir.ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(&pfkey.Message{Type: pfkey.TypeDump, SAType: pfkey.SATypeESP}); err != nil {
		return err
	}
	for {
		if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		m, err := conn.Receive()
		switch {
		case err != nil:
			return err
		case m.Type != pfkey.TypeDump:
			continue // told to everybody
		case m.Errno == uint8(syscall.ENOENT):
			return nil // there are none
		case m.Errno != 0:
			return fmt.Errorf("the daemon refuses to list the SAs: %w", syscall.Errno(m.Errno))
		}
		if _, err := io.WriteString(w, wireshark.Record(m)); err != nil {
			return err
		}
		if m.Seq == 0 {
			return nil
		}
	}
}
