// Package uml runs a Linux kernel of its own as a process on a lab host: Debian's
// user-mode-linux. That kernel has XFRM, ESP and VTI, whatever the machine's
// kernel has, so it is a peer that shares nothing with the programs under test.
//
// Its root file system is the machine's, read-only; /proc, /run and /tmp are its
// own. Its first process is ifipsec/e2e/interop/uml/init, which does what the
// methods of [Kernel] ask for.
package uml

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ifipsec/e2e/lab"
)

// Interface is the name that the kernel's network interface has inside.
const Interface = "vec0"

// Ready is the line with which the kernel's init says that it listens. In its
// stead comes the reason why it does not.
const Ready = "ready"

const (
	program     = "linux.uml"
	memory      = "mem=256M"
	bootTimeout = 30 * time.Second // a second, on a machine that does nothing else
	callTimeout = 30 * time.Second // more than anything asked for takes
)

// Kernel is a Linux kernel that runs. It does what its methods ask for one after
// the other.
//
// Run no scripts while others send to the kernel: one in a few that started
// programs while packets came in was seen to stand still.
type Kernel struct {
	host    *lab.Host
	busy    sync.Mutex
	client  *rpc.Client
	console *console
	ended   chan struct{}
}

// Require skips a test where no such kernel can run, in the way of [lab.Require].
func Require(t lab.TB) {
	t.Helper()
	lab.Require(t)
	lab.RequireProgram(t, program, "user-mode-linux")
}

// Build builds the kernel's first process into a directory.
func Build(dir string) error {
	cmd := exec.Command("go", "build", "-o", initPath(dir), "ifipsec/e2e/interop/uml/init")
	// Statically linked, and in no case with the race detector: it needs more
	// address space than the kernel gives to a process.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

func initPath(dir string) string { return filepath.Join(dir, "uml-init") }

// Boot boots a kernel on a host, in a second or so. Its network interface
// [Interface] sends and receives what ifname of the host does, which must be
// used by nobody else. Dir is where Build built to. The kernel ends with the
// host.
func Boot(h *lab.Host, ifname, dir string) (*Kernel, error) {
	k, err := boot(h, ifname, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: boot %s: %w", h.Name, program, err)
	}
	return k, nil
}

func boot(h *lab.Host, ifname, dir string) (*Kernel, error) {
	// The host's own kernel has no part in what the interface carries.
	if err := h.Sysctl("net/ipv6/conf/"+ifname+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	theirs, ours, err := serialLine()
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	k := &Kernel{host: h, console: new(console), ended: make(chan struct{})}
	cmd := exec.Command(path, memory,
		"rootfstype=hostfs", "rootflags=/", "ro", "init="+initPath(dir),
		// Kernel messages go to the console; serial line 0 is ours. The run
		// directory is where it keeps the socket that we do not use.
		"con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:4", "uml_dir=/run",
		"vec0:transport=raw,ifname="+ifname,
		// When it panics, it ends.
		"panic=-1",
	)
	cmd.Stdout, cmd.Stderr = k.console, k.console
	cmd.ExtraFiles = theirs[:]
	// The processes of the kernel's processes are ended with the host, and hold
	// the console open until then.
	cmd.WaitDelay = time.Second
	err = h.Start(cmd)
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // what it says of itself is on the console
		close(k.ended)
		ours.Close()
	}()

	lines := bufio.NewReader(ours)
	answer := make(chan error, 1)
	go func() {
		line, err := lines.ReadString('\n')
		if line = strings.TrimSpace(line); err == nil && line != Ready {
			err = errors.New(line)
		}
		answer <- err
	}()
	select {
	case err = <-answer:
	case <-time.After(bootTimeout):
		err = fmt.Errorf("not up after %v", bootTimeout)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-k.ended
		return nil, fmt.Errorf("%w; on its console:\n%s", err, k.Console())
	}
	k.client = rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{lines, ours})
	return k, nil
}

// line is our end of a serial line.
type line struct{ r, w *os.File }

func (l line) Read(p []byte) (int, error)  { return l.r.Read(p) }
func (l line) Write(p []byte) (int, error) { return l.w.Write(p) }
func (l line) Close() error                { return errors.Join(l.r.Close(), l.w.Close()) }

// serialLine makes a serial line: what the kernel reads from and writes to, and
// our end.
func serialLine() (theirs [2]*os.File, ours line, err error) {
	in, w, err := os.Pipe()
	if err != nil {
		return theirs, ours, err
	}
	r, out, err := os.Pipe()
	if err != nil {
		in.Close()
		w.Close()
		return theirs, ours, err
	}
	return [2]*os.File{in, out}, line{r, w}, nil
}

// Shell runs a script of sh(1) under the kernel.
func (k *Kernel) Shell(ctx context.Context, script string) (lab.Result, error) {
	var result lab.Result
	return result, k.call(ctx, "Shell", script, &result)
}

// errSilent is of a call that the kernel did not answer.
var errSilent = errors.New("no answer")

// Ping sends echo requests from the kernel. Nobody is told what ping(8) would
// print. On a busy machine the serial line can be silent until more comes over it,
// so that a kernel that does not answer is asked once more, which is no harm.
func (k *Kernel) Ping(ctx context.Context, p lab.Ping) (result lab.PingResult, err error) {
	p.Output = nil
	for range 2 {
		var answer lab.PingResult
		if err = k.call(ctx, "Ping", p, &answer); !errors.Is(err, errSilent) {
			return answer, err
		}
	}
	return result, err
}

// ListenESPInUDP opens a UDP socket on which the kernel takes ESP (RFC 3948). It
// stays open as long as the kernel runs.
func (k *Kernel) ListenESPInUDP(ctx context.Context, addr netip.AddrPort) error {
	return k.call(ctx, "ListenESPInUDP", addr, new(struct{}))
}

// Echo serves TCP connections at an address of the kernel, as long as it runs:
// whatever is sent there comes back.
func (k *Kernel) Echo(ctx context.Context, addr netip.AddrPort) error {
	return k.call(ctx, "Echo", addr, new(struct{}))
}

func (k *Kernel) call(ctx context.Context, method string, args, reply any) error {
	k.busy.Lock()
	defer k.busy.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("%w in %v", errSilent, callTimeout))
	defer cancel()
	call := k.client.Go("Init."+method, args, reply, make(chan *rpc.Call, 1))
	var err error
	select {
	case <-call.Done:
		err = call.Error
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	// The line is open as long as the kernel runs.
	if errors.Is(err, rpc.ErrShutdown) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		<-k.ended
		err = fmt.Errorf("the kernel has ended; on its console:\n%s", k.Console())
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", k.host.Name, method, err)
	}
	return nil
}

// Console returns the kernel's messages.
func (k *Kernel) Console() string { return k.console.String() }

type console struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}
