package rundir

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lifeEnv makes this test's binary a parent, and the child that it starts one
// that does what the letters say, a letter for each life:
//
//	s serves and dies
//	d dies before it serves
//	p serves and panics
//	f serves and fails
//	r refuses to serve
//	e serves and ends in order
//	w serves and waits for a signal, on which it ends
const (
	lifeEnv  = "IFIPSEC_TEST_LIVES"
	livesEnv = "IFIPSEC_TEST_COUNT" // a file with a line for each life
)

// live is the parent, or the child in one of its lives.
func live(lives string) {
	if !Supervised() {
		os.Exit(Supervise(slog.New(slog.NewTextHandler(os.Stderr, nil)), []string{"first"}, []string{"later"}))
	}
	count, err := os.OpenFile(os.Getenv(livesEnv), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(count, strings.Join(os.Args[1:], " "))
	before, _ := os.ReadFile(count.Name())
	life := bytes.Count(before, []byte("\n")) - 1
	switch lives[min(life, len(lives)-1)] {
	case 's':
		Report(nil)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case 'd':
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case 'p':
		Report(nil)
		os.Exit(2)
	case 'f':
		Report(nil)
		os.Exit(1)
	case 'r':
		Report(fmt.Errorf("no reason"))
		os.Exit(1)
	case 'e':
		Report(nil)
		os.Exit(0)
	case 'w':
		ends := make(chan os.Signal, 1)
		signal.Notify(ends, syscall.SIGTERM)
		Report(nil)
		<-ends
		os.Exit(0)
	}
	time.Sleep(time.Minute)
}

// supervised runs a parent, which is told to end if it lives on.
func supervised(t *testing.T, lives string) (status, n int, args, log string) {
	t.Helper()
	count := filepath.Join(t.TempDir(), "lives")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), lifeEnv+"="+lives, livesEnv+"="+count)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(lives, "w") {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if before, _ := os.ReadFile(count); bytes.Count(before, []byte("\n")) >= len(lives) {
				break
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	_ = cmd.Wait()
	all, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), bytes.Count(all, []byte("\n")), strings.ReplaceAll(string(all), "\n", " "), stderr.String()
}

func TestSupervise(t *testing.T) {
	t.Parallel()
	for lives, want := range map[string]struct {
		status, lives int
		says          string
	}{
		"e":       {0, 1, ""},
		"r":       {1, 1, ""},
		"d":       {1, 1, "ipsecd died"}, // nobody waits for a daemon that never served
		"spfe":    {0, 4, "ipsecd died"},
		"sr":      {1, 2, "ipsecd died"},
		"sdddddd": {1, 6, "it is not started again"},
		"sddsdde": {0, 7, "ipsecd died"},
		"w":       {0, 1, ""},
		"ssw":     {0, 3, "ipsecd died"},
	} {
		t.Run(lives, func(t *testing.T) {
			t.Parallel()
			status, n, args, log := supervised(t, lives)
			if status != want.status || n != want.lives || !strings.Contains(log, want.says) {
				t.Errorf("exit status %d after %d lives, want %d after %d; the log:\n%s", status, n, want.status, want.lives, log)
			}
			if wantArgs := strings.TrimSpace("first " + strings.Repeat("later ", n-1)); strings.TrimSpace(args) != wantArgs {
				t.Errorf("arguments %q, want %q", args, wantArgs)
			}
		})
	}
}
