package rundir

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// workerEnv tells a daemon that its parent starts it again if it dies.
const workerEnv = "IFIPSEC_WORKER"

// parentName is what the parent is called in lists of processes.
const parentName = "ipsecd-parent"

// InheritedFD is the first descriptor of those that a daemon's parent gives it.
const InheritedFD = readyFD + 1

const (
	// attempts is how many daemons in a row may die before they serve.
	attempts = 5
	// longLife is how long a daemon has lived whose death says nothing of the
	// next one.
	longLife = 10 * time.Second
	// maxDelay bounds the time between a death and the next start.
	maxDelay = 500 * time.Millisecond
)

// SystemdsOwn says whether systemd starts this daemon again if it dies, and takes
// it for dead when it ends.
func SystemdsOwn() bool { return Supervised() && os.Getenv(workerEnv) == "" }

// Supervised says whether somebody starts this daemon again if it dies:
// [Supervise], or systemd. What a command started, systemd did not, even if the
// command was a service's.
func Supervised() bool {
	return os.Getenv(workerEnv) != "" ||
		os.Getenv(readyEnv) == "" && (os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("INVOCATION_ID") != "")
}

// Supervise runs this program with the arguments of first as a child, and with
// those of later again when the child dies after it served: of a signal, or of an
// error that it could not handle. Signals that
// end a daemon are passed on. It returns the exit status for this process when
// the child ends by its own choice, or dies again and again before it serves. Each
// child has the descriptors of inherit, from [InheritedFD] on. This process holds
// nothing that could be lost.
func Supervise(log *slog.Logger, first, later []string, inherit ...*os.File) (status int) {
	// It is only a name.
	_ = os.WriteFile("/proc/self/comm", []byte(parentName), 0)
	ends := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(ends, s)
		}
	}
	s := supervisor{log: log, ends: ends, args: first, inherit: inherit}
	for {
		if status, over := s.life(); over {
			return status
		}
		if s.reported {
			s.args = later
		}
		time.Sleep(s.delay())
	}
}

type supervisor struct {
	log      *slog.Logger
	args     []string
	inherit  []*os.File
	ends     <-chan os.Signal
	end      os.Signal // one that came when there was nobody to pass it to
	reported bool      // how the start went
	unready  int       // daemons in a row that died before they served
	short    int       // daemons in a row that did not live long
}

func (s *supervisor) delay() time.Duration {
	if s.short <= 1 {
		return 0
	}
	return min(10*time.Millisecond<<min(s.short-2, 10), maxDelay)
}

// life is that of one child. over: there shall be no other.
func (s *supervisor) life() (status int, over bool) {
	born := time.Now()
	child, ready, err := startWorker(s.args, s.inherit)
	if err != nil {
		err = fmt.Errorf("start ipsecd: %w", err)
		s.log.Error("ipsecd was not started", "error", err)
		return s.died(born, false, err)
	}
	lines, died := make(chan string, 1), make(chan struct{})
	go func() {
		defer ready.Close()
		defer close(lines)
		// The end comes with the child's death, if it says nothing before.
		line, _ := bufio.NewReader(ready).ReadString('\n')
		lines <- strings.TrimSpace(line)
	}()
	go func() {
		_ = child.Wait() // the state tells
		close(died)
	}()
	serves := false
	heard := func(line string) {
		switch line {
		case "":
		case readyLine:
			serves, s.unready = true, 0
			s.report(nil)
			if s.end != nil {
				_ = child.Process.Signal(s.end)
			}
		default:
			s.report(errors.New(line))
		}
	}
	news := lines
	for {
		select {
		case line := <-news:
			heard(line)
			news = nil // there is only one
		case s.end = <-s.ends:
			// Before it serves, it would die of the signal.
			if serves {
				_ = child.Process.Signal(s.end)
			}
		case <-died:
			// What it said last may not have been heard yet.
			heard(<-lines)
			state := child.ProcessState
			if !state.Sys().(syscall.WaitStatus).Signaled() && final(state.ExitCode(), serves) {
				return state.ExitCode(), true
			}
			s.log.Error("ipsecd died", "process", state.Pid(), "how", state.String(), "after", time.Since(born))
			return s.died(born, serves, nil)
		}
	}
}

// final says whether an exit status is the child's last word: it ended as it was
// told to, or said why it won't serve.
func final(status int, served bool) bool {
	const panicked = 2 // what the Go runtime exits with
	return status == 0 || !served && status != panicked
}

// died decides whether there is to be another child.
func (s *supervisor) died(born time.Time, served bool, err error) (status int, over bool) {
	if s.short++; time.Since(born) >= longLife {
		s.short = 1
	}
	if served {
		return 0, false
	}
	// The command that waits for the first one is told.
	if !s.reported {
		if err != nil {
			s.report(err)
		}
		return 1, true
	}
	if s.unready++; s.unready == attempts {
		s.log.Error("ipsecd dies before it serves; it is not started again")
		return 1, true
	}
	return 0, false
}

func (s *supervisor) report(err error) {
	if !s.reported {
		s.reported = true
		Report(err)
	}
}

// startWorker starts this program as the daemon itself. ready is where it says
// that it serves, or why it doesn't.
func startWorker(args []string, inherit []*os.File) (cmd *exec.Cmd, ready *os.File, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(program); err != nil {
		program = "/proc/self/exe" // it was replaced or removed
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer tell.Close()
	cmd = exec.Command(program, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), workerEnv+"=1", fmt.Sprintf("%s=%d", readyEnv, readyFD))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{tell}, inherit...) // from readyFD on
	if err := cmd.Start(); err != nil {
		ready.Close()
		return nil, nil, err
	}
	return cmd, ready, nil
}
