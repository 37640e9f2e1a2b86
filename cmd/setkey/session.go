package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"ifipsec/engine/pfkey"
	"ifipsec/engine/pfkey/text"
	"ifipsec/engine/strerror"
	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
)

// session is one run of the program with a PF_KEY socket.
type session struct {
	options options
	world
	conn conn
	out  *bufio.Writer // standard output
}

func (s *session) run() int {
	switch s.options.mode {
	case modeScript:
		return s.script()
	case modeDump:
		if s.options.policies {
			return s.whole(pfkey.TypeSPDDump)
		}
		return s.whole(pfkey.TypeDump)
	case modeFlush:
		if s.options.policies {
			return s.whole(pfkey.TypeSPDFlush)
		}
		return s.whole(pfkey.TypeFlush)
	default:
		return s.watch()
	}
}

// interactive shows what there is to show before it waits for more of a script,
// which somebody may be typing.
type interactive struct {
	script io.Reader
	out    *bufio.Writer
}

func (i interactive) Read(p []byte) (int, error) {
	if err := i.out.Flush(); err != nil {
		return 0, err
	}
	return i.script.Read(p)
}

// script runs a script, statement by statement. It ends at the first one that
// is wrong; those before it stand.
func (s *session) script() int {
	r := setkey.NewReader(s.options.filename, interactive{s.options.script, s.out})
	for {
		statement, err := r.Next()
		if errors.Is(err, io.EOF) {
			return 0
		}
		var syntax *setkey.Error
		if err != nil && !errors.As(err, &syntax) {
			fmt.Fprintf(s.stderr, "setkey: %v\n", err)
			return exitRead
		}
		result := compile.Statement(r, statement, syntax, s.names)
		for _, e := range result.Errors {
			s.complain(r, e)
		}
		if result.Failed() {
			return s.failed(result.Errors)
		}
		for _, m := range result.Messages {
			if err := s.ask(m, r.End().Line); err != nil {
				fmt.Fprintf(s.stderr, "setkey: %v\n", err)
				return 1
			}
		}
	}
}

// complain prints an error in FreeBSD's words on standard output, and in ours
// on standard error.
func (s *session) complain(r *setkey.Reader, e *setkey.Error) {
	if e.Message != "" {
		fmt.Fprintf(s.out, "line %d: %s at [%s]\n", e.Line, e.Message, e.Shown)
	}
	s.out.Flush() // a failure comes again at the end
	complain(s.stderr, r, e)
}

func (s *session) failed(errs []*setkey.Error) int {
	last := errs[len(errs)-1]
	if !last.Fatal {
		fmt.Fprintf(s.out, "parse failed, line %d.\n", last.Line)
	}
	return 1
}

// whole sends a message about a whole database.
func (s *session) whole(t pfkey.MsgType) int {
	m := &pfkey.Message{Type: t}
	if t == pfkey.TypeSPDDump {
		// FreeBSD's setkey says the scopes that it wants in this place.
		m.SAType = pfkey.SAType(s.options.scope)
	}
	if err := s.ask(m, 0); err != nil {
		fmt.Fprintf(s.stderr, "setkey: %v\n", err)
		return 1
	}
	return 0
}

// ask sends a message and prints its answers. An answer with an errno is
// printed, with the script's line if it is not 0, and is no error here.
func (s *session) ask(m *pfkey.Message, line int) error {
	m.PID = s.pid
	if s.options.short {
		fmt.Fprint(s.out, text.ShortHeader)
	}
	if err := s.trace(m); err != nil {
		return err
	}
	if err := s.conn.SetDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	if err := s.conn.Send(m); err != nil {
		return err
	}
	for {
		answer, err := s.conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the daemon has not answered for %v: %w", s.patience, err)
		}
		if err != nil {
			return err
		}
		if !s.answers(answer, m.Type) {
			continue
		}
		if err := s.conn.SetDeadline(time.Now().Add(s.patience)); err != nil {
			return err
		}
		if s.options.verbose {
			if err := s.debug(answer); err != nil {
				return err
			}
		}
		if answer.Errno != 0 {
			if line != 0 {
				fmt.Fprintf(s.out, "The result of line %d: ", line)
			}
			fmt.Fprintf(s.out, "%s.\n", reason(answer))
			return nil
		}
		if err := s.print(answer); err != nil {
			return err
		}
		if answer.Seq == 0 {
			return nil
		}
	}
}

// answers says whether a message answers this program's request. What others
// change in the databases is told to everybody; what one asks of them is not.
func (s *session) answers(m *pfkey.Message, request pfkey.MsgType) bool {
	switch request {
	case pfkey.TypeGet, pfkey.TypeDump, pfkey.TypeSPDDump:
		return m.Type == request
	}
	return m.Type == request && m.PID == s.pid
}

// trace shows a message that is about to be sent, with -v and -h.
func (s *session) trace(m *pfkey.Message) error {
	if s.options.verbose {
		if err := s.debug(m); err != nil {
			return err
		}
	}
	if s.options.hexadecimal {
		b, err := m.Encode()
		if err != nil {
			return err
		}
		if err := text.HexDump(s.out, b); err != nil {
			return err
		}
	}
	if s.options.verbose || s.options.hexadecimal {
		return s.out.Flush() // it may be a while to the answer
	}
	return nil
}

func (s *session) debug(m *pfkey.Message) error {
	if err := text.Debug(s.out, m); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out)
	return err
}

// reason is why a request failed.
func reason(m *pfkey.Message) string {
	errno := syscall.Errno(m.Errno)
	if errno == syscall.ENOENT {
		switch m.Type {
		case pfkey.TypeDelete, pfkey.TypeGet, pfkey.TypeSPDDelete:
			return "No entry"
		case pfkey.TypeDump:
			return "No SAD entries"
		case pfkey.TypeSPDDump:
			return "No SPD entries"
		}
	}
	return strerror.Text(errno)
}

// print shows what was asked for.
func (s *session) print(m *pfkey.Message) error {
	p := &text.Printer{Now: s.now(), Interface: s.interfaceName}
	switch m.Type {
	case pfkey.TypeGet:
		return p.SADump(s.out, m)
	case pfkey.TypeDump:
		sa := pfkey.Find[*pfkey.SA](m)
		switch {
		case sa != nil && sa.State == pfkey.StateDead && !s.options.all:
			return nil
		case s.options.short:
			return p.ShortDump(s.out, m)
		}
		return p.SADump(s.out, m)
	case pfkey.TypeSPDDump:
		return p.PolicyDump(s.out, m)
	}
	return nil
}

func interfaceName(index uint32) string {
	ifp, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return ""
	}
	return ifp.Name
}

// watch prints the messages that go through the daemon's sockets.
func (s *session) watch() int {
	promisc := &pfkey.Message{Type: pfkey.TypePromisc, SAType: 1, PID: s.pid}
	if err := s.conn.Send(promisc); err != nil {
		fmt.Fprintf(s.stderr, "setkey: %v\n", err)
		return 1
	}
	for {
		if err := s.out.Flush(); err != nil {
			return 1 // run tells
		}
		m, err := s.conn.Receive()
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err == nil {
			err = s.watched(m)
		}
		if err != nil {
			fmt.Fprintf(s.stderr, "setkey: %v\n", err)
			return 1
		}
	}
}

func (s *session) watched(m *pfkey.Message) error {
	if m.Inner == nil {
		return nil // the answer to promisc
	}
	when := text.TimeOfDay(s.now())
	if s.options.timestamps > 1 {
		when = text.Timestamp(s.now())
	}
	fmt.Fprint(s.out, when)
	if s.options.hexadecimal {
		b, err := m.Inner.Encode()
		if err != nil {
			return err
		}
		if err := text.HexDump(s.out, b); err != nil {
			return err
		}
	}
	return s.debug(m.Inner)
}
