// Setkey is setkey(8): it edits and prints the security association and the
// security policy database of this network namespace, over PF_KEYv2.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ifipsec/engine/keysock"
	"ifipsec/engine/pfkey"
	"ifipsec/engine/rundir"
	"ifipsec/parser/setkey/compile"
)

const usage = `usage: setkey [-v] -c
       setkey [-v] -f filename
       setkey [-v] -e "<script>"
       setkey [-Pagltv] -D
       setkey [-Pv] -F
       setkey [-h] -x
`

// socketEnv names another PF_KEY socket than this namespace's daemon's.
const socketEnv = "PFKEY_SOCKET"

// The exit statuses of FreeBSD's setkey beside 0 and 1.
const (
	exitRead = 2   // the script can't be read
	exitOpen = 255 // the script can't be opened
)

// conn is a PF_KEY socket.
type conn interface {
	Send(*pfkey.Message) error
	Receive() (*pfkey.Message, error)
	SetDeadline(time.Time) error
	Close() error
}

// world is what the program has outside itself.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	dial           func() (conn, error)
	names          compile.Names
	now            func() time.Time
	pid            uint32
	// interfaceName names the interface with a number, or returns "".
	interfaceName func(uint32) string
	// patience bounds the wait for each answer.
	patience time.Duration
}

// answerTimeout is for a daemon that hangs. FreeBSD's setkey waits a second; a
// daemon, unlike a kernel, may be kept waiting by others.
const answerTimeout = 10 * time.Second

func main() {
	os.Exit(run(hideScript(os.Args[1:]), world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		dial: dial, names: compile.System{}, now: time.Now, pid: uint32(os.Getpid()),
		interfaceName: interfaceName, patience: answerTimeout,
	}))
}

func dial() (conn, error) {
	if path := os.Getenv(socketEnv); path != "" {
		return keysock.Dial(path)
	}
	dir, err := rundir.Current()
	if err != nil {
		return nil, err
	}
	return rundir.Dial(dir, func() (*keysock.Conn, error) { return keysock.Dial(dir.PFKey()) })
}

// mode is what setkey is asked to do.
type mode int

const (
	modeNone mode = iota
	modeScript
	modeDump
	modeFlush
	modeWatch
)

// options are the command line.
type options struct {
	mode        mode
	filename    string // of the script
	script      io.Reader
	policies    bool        // -P
	all         bool        // -a: dead SAs too
	short       bool        // -l
	verbose     bool        // -v
	hexadecimal bool        // -h
	check       bool        // -n: the script only
	strict      bool        // -W: warnings fail it
	scope       pfkey.Scope // -g, -t
	timestamps  int         // the number of -x
}

// statusError ends the program before it has begun.
type statusError struct {
	status int
	reason string
}

func (e *statusError) Error() string { return e.reason }

// parseArgs reads the command line as getopt(3) does: letters may be joined,
// the last mode wins, and what follows the options is ignored.
func parseArgs(args []string, stdin io.Reader) (o options, err error) {
	misuse := &statusError{status: 1, reason: usage}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		letters := args[0][1:]
		args = args[1:]
		if letters == "-" {
			break
		}
		for letters != "" {
			letter := letters[0]
			letters = letters[1:]
			if letter == 'f' || letter == 'e' {
				value := letters
				letters = ""
				if value == "" {
					if len(args) == 0 {
						return o, misuse
					}
					value, args = args[0], args[1:]
				}
				if err := o.setScript(letter, value); err != nil {
					return o, err
				}
				continue
			}
			switch letter {
			case 'c':
				o.mode, o.filename, o.script = modeScript, "-", stdin
			case 'D':
				o.mode = modeDump
			case 'F':
				o.mode = modeFlush
			case 'x':
				o.mode = modeWatch
				o.timestamps++
			case 'P':
				o.policies = true
			case 'a':
				o.all = true
			case 'l':
				o.short = true
			case 'v':
				o.verbose = true
			case 'h':
				o.hexadecimal = true
			case 'n':
				o.check = true
			case 'W':
				o.strict = true
			case 'g':
				o.scope |= pfkey.ScopeGlobal
			case 't':
				o.scope |= pfkey.ScopeIfnet
			default:
				return o, misuse
			}
		}
	}
	if o.mode == modeNone || o.check && o.mode != modeScript || o.strict && !o.check {
		return o, misuse
	}
	return o, nil
}

func (o *options) setScript(letter byte, value string) error {
	if o.mode == modeScript && o.filename != "-" {
		return &statusError{status: exitOpen, reason: "setkey: more than one script\n"}
	}
	o.mode = modeScript
	if letter == 'e' {
		o.filename, o.script = "(-e)", strings.NewReader(value)
		return nil
	}
	f, err := os.Open(value)
	if err != nil {
		return &statusError{status: exitOpen, reason: fmt.Sprintf("setkey: %v\n", err)}
	}
	o.filename, o.script = value, f
	return nil
}

func run(args []string, w world) int {
	o, err := parseArgs(args, w.stdin)
	if err != nil {
		status := err.(*statusError)
		out := w.stderr
		if status.reason == usage {
			out = w.stdout
		}
		fmt.Fprint(out, status.reason)
		return status.status
	}
	if o.check {
		return check(o, w)
	}
	c, err := w.dial()
	if err != nil {
		fmt.Fprintf(w.stderr, "setkey: %v\n", err)
		return 1
	}
	defer c.Close()
	s := &session{options: o, world: w, conn: c, out: bufio.NewWriter(w.stdout)}
	status := s.run()
	if err := s.out.Flush(); err != nil {
		fmt.Fprintf(w.stderr, "setkey: %v\n", err)
		return 1
	}
	return status
}
