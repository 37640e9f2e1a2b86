package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// outputTimeout bounds the wait for those that hold a command's output open when
// it has ended, as a daemon should not.
const outputTimeout = 5 * time.Second

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	Exit           int // exit status; -1 if a signal ended it
}

// Command runs a program on the host, waits for it and returns what it did. The
// error tells that it could not be run, or that ctx ended it: an exit status
// other than 0 is none.
func (h *Host) Command(ctx context.Context, argv ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	cmd := h.command(ctx, argv)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := h.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	result := Result{Stdout: stdout.String(), Stderr: stderr.String(), Exit: -1}
	if cmd.ProcessState != nil {
		result.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result, fmt.Errorf("%s: %s: %w", h.Name, strings.Join(argv, " "), ctx.Err())
	case err != nil && !errors.As(err, &exit):
		return result, fmt.Errorf("%s: %s: %w", h.Name, strings.Join(argv, " "), err)
	}
	return result, nil
}

// Shell runs a script of sh(1).
func (h *Host) Shell(ctx context.Context, script string) (Result, error) {
	return h.Command(ctx, "sh", "-c", script)
}

// Background is a program that runs on a host.
type Background struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	done   chan struct{}
	err    error
}

// Background starts a program on the host. It ends with ctx, or with the host.
func (h *Host) Background(ctx context.Context, argv ...string) (*Background, error) {
	b := &Background{cmd: h.command(ctx, argv), done: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.output, &b.output
	if err := h.Start(b.cmd); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", h.Name, strings.Join(argv, " "), err)
	}
	// Always waited for: the host can't end before its processes are reaped.
	go func() {
		b.err = b.cmd.Wait()
		close(b.done)
	}()
	return b, nil
}

// PID is the program's process ID as the maker of the host sees it.
func (b *Background) PID() int { return b.cmd.Process.Pid }

// Signal sends the program a signal.
func (b *Background) Signal(sig os.Signal) error { return b.cmd.Process.Signal(sig) }

// Wait waits until the program ends. It returns what the program wrote to
// standard output and standard error together, and its exit status, -1 if a
// signal ended it.
func (b *Background) Wait() (output string, exit int) {
	<-b.done
	return b.output.String(), b.cmd.ProcessState.ExitCode()
}

// Done is closed when the program has ended.
func (b *Background) Done() <-chan struct{} { return b.done }

// Prepend puts a directory in front of the PATH of the host's commands.
func (h *Host) Prepend(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	h.Env = append(slices.Clone(h.Env), "PATH="+dir+string(os.PathListSeparator)+h.getenv("PATH"))
	return nil
}

func (h *Host) command(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Path, cmd.Err = h.lookPath(argv[0])
	cmd.Env = h.Env
	cmd.WaitDelay = outputTimeout
	return cmd
}

// Start starts a command that its caller has made, in all of the host's
// namespaces. The command's environment and path are the caller's business. The
// caller must wait for it: the host can't end before its processes are reaped.
func (h *Host) Start(cmd *exec.Cmd) error {
	// Entering a mount namespace leads to its root directory.
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	cmd.Dir = dir
	// The PID namespace is that of the thread's children, not of the thread.
	return h.inside(cmd.Start, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWUTS, unix.CLONE_NEWNS)
}

// lookPath finds a program on the host's own PATH.
func (h *Host) lookPath(program string) (string, error) {
	if strings.ContainsRune(program, '/') {
		return program, nil
	}
	for _, dir := range filepath.SplitList(h.getenv("PATH")) {
		path := filepath.Join(dir, program)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: program, Err: exec.ErrNotFound}
}

// getenv looks a variable up as exec does: the last one of a name counts.
func (h *Host) getenv(name string) string {
	for _, v := range slices.Backward(h.Env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}
