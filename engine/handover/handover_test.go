package handover

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// accepting listens, and gives the connection of the one successor to old.
func accepting(t *testing.T, old func(*Predecessor)) (path string, done <-chan struct{}) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "handover")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", st.Mode(), err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer l.Close()
		p, err := Accept(l)
		if err != nil {
			t.Error(err)
			return
		}
		old(p)
	}()
	return path, ended
}

// What is written to a file before it is given, and after, arrives in order.
func TestHandover(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var oldErr error
	path, done := accepting(t, func(p *Predecessor) {
		_, _ = w.Write([]byte("before "))
		oldErr = p.Give(Files{"pipe": r, "other end": w})
		r.Close()
		_, _ = w.Write([]byte("after"))
		oldErr = errors.Join(oldErr, p.Done())
	})
	s, files, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if err := s.Serves(); err != nil {
		t.Error(err)
	}
	<-done
	if oldErr != nil {
		t.Errorf("the old daemon: %v", oldErr)
	}
	fd := files.Take("pipe")
	if fd < 0 || files.Take("pipe") >= 0 || files.Take("nothing") >= 0 {
		t.Fatal("a file is taken once, and only if it was given")
	}
	w.Close()
	unix.Close(files.Take("other end"))
	f := os.NewFile(uintptr(fd), "pipe")
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "before after" {
		t.Errorf("read %q (%v), want all that was written", got, err)
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	path, _ := accepting(t, func(p *Predecessor) { p.Refuse(errors.New("not now")) })
	if _, _, err := Take(path); err == nil || !strings.HasSuffix(err.Error(), ": not now") {
		t.Errorf("Take = %v, want the reason", err)
	}
}

// The old daemon is told when the new one fails, at whatever point.
func TestSuccessorFails(t *testing.T) {
	t.Parallel()
	for what, fail := range map[string]func(path string) error{
		"while it takes": func(path string) error {
			conn, err := net.Dial("unix", path)
			if err == nil {
				err = conn.Close()
			}
			return err
		},
		"when it should serve": func(path string) error {
			s, files, err := Take(path)
			if err == nil {
				files.Close()
				s.Abandon()
			}
			return err
		},
		"in other words": func(path string) error {
			s, files, err := Take(path)
			if err == nil {
				files.Close()
				_, err = s.conn.Write([]byte("well\n"))
			}
			return err
		},
	} {
		var err error
		path, done := accepting(t, func(p *Predecessor) { err = errors.Join(p.Give(Files{"null": os.Stderr}), p.Done()) })
		if err := fail(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		<-done
		if err == nil {
			t.Errorf("%s: the old daemon believes that it is replaced", what)
		}
	}
}

// Whatever the other end says, Take returns.
func TestTakeNonsense(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"", "\n", "name\n\n.\n", "\nname\n.\n", "\n\n", strings.Repeat("x", 5000), ".\n"} {
		path, _ := accepting(t, func(p *Predecessor) {
			_, _ = p.conn.Write([]byte(says))
			p.conn.Close()
		})
		if _, _, err := Take(path); err == nil {
			t.Errorf("%.20q: no error", says)
		}
	}
}

func TestTakeWithoutDaemon(t *testing.T) {
	t.Parallel()
	if _, _, err := Take(filepath.Join(t.TempDir(), "handover")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Take = %v, want ENOENT", err)
	}
	var none *Descriptors
	if none.Take("x") >= 0 {
		t.Error("there is something in nothing")
	}
	none.Close()
}
