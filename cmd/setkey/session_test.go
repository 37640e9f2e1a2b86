package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/keysock"
	"ifipsec/engine/pfkey"
)

// scripted is a connection that says what it was told to say.
type scripted struct {
	sent    []*pfkey.Message
	sendErr error
	answers []*pfkey.Message
	end     error // after the answers
}

func (c *scripted) Send(m *pfkey.Message) error {
	c.sent = append(c.sent, m)
	return c.sendErr
}

func (c *scripted) Receive() (*pfkey.Message, error) {
	if len(c.answers) == 0 {
		return nil, c.end
	}
	m := c.answers[0]
	c.answers = c.answers[1:]
	return m, nil
}

func (c *scripted) SetDeadline(time.Time) error { return nil }

func (c *scripted) Close() error { return nil }

// runWith runs setkey with a connection, and returns its status and outputs.
func runWith(c conn, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(args, world{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs,
		dial:  func() (conn, error) { return c, nil },
		names: corpusNames{}, interfaceName: corpusInterface,
		now: func() time.Time { return time.Unix(clock, 250_000_000).UTC() }, pid: 1234,
	})
	return status, out.String(), errs.String()
}

func TestFailures(t *testing.T) {
	t.Parallel()
	flushed := &pfkey.Message{Type: pfkey.TypeFlush, PID: 1234}
	for _, c := range []struct {
		name   string
		conn   *scripted
		stdin  string
		args   []string
		status int
		stdout string
		stderr string
	}{
		{"the daemon can't be written to", &scripted{sendErr: syscall.EPIPE}, "flush;", []string{"-c"}, 1, "", "setkey: broken pipe\n"},
		{"the daemon ends", &scripted{end: io.EOF}, "flush;", []string{"-c"}, 1, "", "setkey: EOF\n"},
		{"the daemon ends in a dump", &scripted{end: io.EOF}, "", []string{"-D"}, 1, "", "setkey: EOF\n"},
		{"the daemon ends when everything is said", &scripted{end: io.EOF, answers: []*pfkey.Message{flushed}}, "flush;", []string{"-c"}, 0, "", ""},
		{
			"others' answers", &scripted{answers: []*pfkey.Message{
				{Type: pfkey.TypeFlush, PID: 99, Errno: uint8(syscall.EINVAL)}, {Type: pfkey.TypeAdd, PID: 1234}, flushed,
			}}, "flush;", []string{"-c"}, 0, "", "",
		},
		{
			"an errno", &scripted{answers: []*pfkey.Message{{Type: pfkey.TypeFlush, PID: 1234, Errno: uint8(syscall.EADDRNOTAVAIL)}}},
			"\nflush;", []string{"-c"}, 0, "The result of line 2: Can't assign requested address.\n", "",
		},
		{
			"an errno without a script", &scripted{answers: []*pfkey.Message{{Type: pfkey.TypeFlush, PID: 1234, Errno: uint8(syscall.EPERM)}}},
			"", []string{"-F"}, 0, "Operation not permitted.\n", "",
		},
		{"no such script", &scripted{}, "", []string{"-f", "/nowhere/script"}, 255, "", "setkey: open /nowhere/script: no such file or directory\n"},
		{
			"a statement that is wrong", &scripted{}, "flsuh;", []string{"-c"}, 1, "line 1: syntax error at [flsuh]\nparse failed, line 1.\n",
			"-:1:1: error: unexpected \"flsuh\", expected add, get, delete, deleteall, flush, dump, spdadd, spddelete, spdflush, spddump, update or spdupdate; did you mean flush?\nflsuh;\n^\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := runWith(c.conn, c.stdin, c.args...)
			if status != c.status || stdout != c.stdout || stderr != c.stderr {
				t.Errorf("status %d, %q, %q; want %d, %q, %q", status, stdout, stderr, c.status, c.stdout, c.stderr)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	status := run([]string{"-D"}, world{stdout: io.Discard, stderr: &stderr, dial: func() (conn, error) { return nil, syscall.ECONNREFUSED }})
	if status != 1 || stderr.String() != "setkey: connection refused\n" {
		t.Errorf("status %d, %q", status, stderr.String())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A daemon that takes a request and never answers does not keep setkey for
// ever, however much it tells of others.
func TestDaemonThatNeverAnswers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := keysock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	others, err := (&pfkey.Message{Type: pfkey.TypeFlush, SAType: pfkey.SATypeESP, PID: 99}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		for err == nil {
			time.Sleep(time.Millisecond)
			_, err = c.Write(others)
		}
	}()
	var stdout, stderr bytes.Buffer
	status := run([]string{"-D"}, world{
		stdout: &stdout, stderr: &stderr, pid: 1, now: time.Now, patience: 50 * time.Millisecond,
		dial: func() (conn, error) { return keysock.Dial(path) },
	})
	if want := "setkey: the daemon has not answered for 50ms: PF_KEY socket " + path; status != 1 || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("status %d, %q, %q; want %q", status, stdout.String(), stderr.String(), want)
	}
}

// What could not be printed is no success.
func TestStandardOutputFails(t *testing.T) {
	t.Parallel()
	d := &database{}
	var stderr bytes.Buffer
	status := run([]string{"-D"}, world{
		stdout: full{}, stderr: &stderr, pid: 1, now: time.Now,
		dial: func() (conn, error) { return &databaseConn{t: t, database: d}, nil },
	})
	if status != 1 || stderr.String() != "setkey: no space left on device\n" {
		t.Errorf("status %d, %q", status, stderr.String())
	}
}

// What a statement comes to is shown before the next one is typed.
func TestInteractive(t *testing.T) {
	t.Parallel()
	typed, typing := io.Pipe()
	shown, showing := io.Pipe()
	done := make(chan int, 1)
	go func() {
		status := run([]string{"-c"}, world{
			stdin: typed, stdout: showing, stderr: io.Discard, pid: 1, now: time.Now, names: corpusNames{},
			dial: func() (conn, error) { return &databaseConn{t: t, database: &database{}}, nil },
		})
		showing.Close()
		done <- status
	}()
	want := "The result of line 1: No SAD entries.\n"
	fmt.Fprintln(typing, "dump;")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(shown, got); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	typing.Close()
	if rest, err := io.ReadAll(shown); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestDeadSAs(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"-D": 4, "-Da": 5, "-aD": 5} {
		c := &databaseConn{t: t, database: &database{entries: specimens["dump/20.spec"]()}}
		if _, stdout, _ := runWith(c, "", args); strings.Count(stdout, "sadb_seq=") != want {
			t.Errorf("%s shows %d SAs, want %d", args, strings.Count(stdout, "sadb_seq="), want)
		}
	}
}

// -x shows what goes through the daemon's sockets, each with its time.
func TestWatch(t *testing.T) {
	t.Parallel()
	inner := &pfkey.Message{Type: pfkey.TypeFlush, SAType: pfkey.SATypeESP, Seq: 3, PID: 77}
	for args, want := range map[string]string{
		"-x":  "22:13:20.250000 \nsadb_msg{ version=2 type=9(FLUSH) errno=0 satype=3\n  len=2 reserved=0 seq=3 pid=77\n\n",
		"-xx": "1700000000.250000 \nsadb_msg{ version=2 type=9(FLUSH) errno=0 satype=3\n  len=2 reserved=0 seq=3 pid=77\n\n",
		"-xh": "22:13:20.250000 \n00000000: 02 09 00 03 02 00 00 00 03 00 00 00 4d 00 00 00 \nsadb_msg{ version=2 type=9(FLUSH) errno=0 satype=3\n  len=2 reserved=0 seq=3 pid=77\n\n",
	} {
		c := &scripted{end: io.EOF, answers: []*pfkey.Message{
			{Type: pfkey.TypePromisc, SAType: 1, PID: 1234}, {Type: pfkey.TypePromisc, Inner: inner},
		}}
		status, stdout, stderr := runWith(c, "", args)
		if status != 0 || stdout != want || stderr != "" {
			t.Errorf("%s: status %d, %q, %q, want %q", args, status, stdout, stderr, want)
		}
		if len(c.sent) != 1 || c.sent[0].Type != pfkey.TypePromisc || c.sent[0].SAType != 1 || c.sent[0].PID != 1234 {
			t.Errorf("%s asks with %+v", args, c.sent)
		}
	}
	if status, _, stderr := runWith(&scripted{end: errors.New("lost")}, "", "-x"); status != 1 || stderr != "setkey: lost\n" {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// many answers a dump with so many SAs, and everything else with success.
type many struct {
	entries int
	left    int
	last    *pfkey.Message
}

func (c *many) Send(m *pfkey.Message) error {
	c.last = m
	c.left = 1
	if m.Type == pfkey.TypeDump {
		c.left = c.entries
	}
	return nil
}

func (c *many) Receive() (*pfkey.Message, error) {
	c.left--
	if c.last.Type != pfkey.TypeDump {
		return &pfkey.Message{Type: c.last.Type, PID: c.last.PID}, nil
	}
	m := sa(0x10000+uint32(c.left), "192.168.0.3", "192.168.0.5", pfkey.StateMature, 0x40)
	encrypt(m, 12, "566572795365637572654b6579212131")
	m.Type, m.Seq = pfkey.TypeDump, uint32(c.left)
	lifetime(m, pfkey.ExtLifetimeCurrent, 12, 1440, clock-60, clock-5)
	return m, nil
}

func (c *many) SetDeadline(time.Time) error { return nil }

func (c *many) Close() error { return nil }

// BenchmarkScript adds SAs by a script, without a daemon.
func BenchmarkScript(b *testing.B) {
	const lines = 10_000
	var script strings.Builder
	src := netip.MustParseAddr("10.0.0.1")
	for i := range lines {
		fmt.Fprintf(&script, "add %v 192.168.0.5 esp %d -m tunnel -u 100 -E rijndael-cbc \"VerySecureKey!!1\";\n", src, 10000+i)
		src = src.Next()
	}
	b.ReportAllocs()
	for b.Loop() {
		if status, _, stderr := runWith(&many{}, script.String(), "-c"); status != 0 {
			b.Fatal(stderr)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/line")
}

// BenchmarkDump prints SAs, without a daemon.
func BenchmarkDump(b *testing.B) {
	const entries = 10_000
	b.ReportAllocs()
	for b.Loop() {
		if status, _, stderr := runWith(&many{entries: entries}, "", "-D"); status != 0 {
			b.Fatal(stderr)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*entries), "ns/SA")
}
