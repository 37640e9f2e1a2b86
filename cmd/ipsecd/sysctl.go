package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"ifipsec/engine/control"
	"ifipsec/engine/rundir"
	"ifipsec/engine/strerror"
	"ifipsec/engine/sysctl"
)

// sysctls is sysctl(8) for the variables of the daemon of this namespace, which
// it starts if there is something to set. It returns the exit status.
func sysctls(args []string, stdout, stderr io.Writer) int {
	client, err := dialForSysctls(args)
	if err != nil {
		fmt.Fprintln(stderr, "ipsecd:", err)
		return 1
	}
	defer client.Close()
	return sysctlsOf(client, args, stdout, stderr)
}

func dialForSysctls(args []string) (*control.Client, error) {
	dir, err := rundir.Current()
	if err != nil {
		return nil, err
	}
	dial := func() (*control.Client, error) { return control.Dial(dir.Control()) }
	for _, arg := range args {
		if strings.Contains(arg, "=") {
			return rundir.Dial(dir, dial)
		}
	}
	client, err := dial()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, rundir.ErrNotRunning
	}
	return client, err
}

// sysctlsOf does one argument after the other: NAME=VALUE sets a variable, NAME
// prints it or those below it, and no argument prints all. What is wrong with
// one does not keep the others from being done.
func sysctlsOf(h control.Handler, args []string, stdout, stderr io.Writer) (status int) {
	if len(args) == 0 {
		args = []string{""}
	}
	for _, arg := range args {
		name, value, set := strings.Cut(arg, "=")
		var err error
		if set {
			err = setSysctl(h, strings.TrimSpace(name), strings.TrimSpace(value), stdout)
		} else {
			err = printSysctls(h, name, stdout)
		}
		if err != nil {
			fmt.Fprintln(stderr, "ipsecd:", sysctlError(arg, err))
			status = 1
		}
	}
	return status
}

func setSysctl(h control.Handler, name, value string, stdout io.Writer) error {
	n, err := sysctl.ParseValue(value)
	if err != nil {
		return err
	}
	result, err := h.SetSysctl(control.SetSysctlRequest{Name: name, Value: n})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %d -> %d\n", name, result.Old, n)
	return nil
}

func printSysctls(h control.Handler, name string, stdout io.Writer) error {
	result, err := h.Sysctls(control.SysctlsRequest{})
	if err != nil {
		return err
	}
	found := false
	for _, v := range result.Variables {
		if name == "" || v.Name == name || strings.HasPrefix(v.Name, name+".") {
			fmt.Fprintf(stdout, "%s: %d\n", v.Name, v.Value)
			found = true
		}
	}
	if !found {
		return syscall.ENOENT
	}
	return nil
}

// sysctlError says in sysctl(8)'s words what is wrong with an argument.
func sysctlError(arg string, err error) string {
	if e, ok := errors.AsType[sysctl.SyntaxError](err); ok {
		return e.Error()
	}
	errno, known := errors.AsType[syscall.Errno](err)
	switch {
	case errno == syscall.ENOENT:
		name, _, _ := strings.Cut(arg, "=")
		return fmt.Sprintf("unknown oid '%s'", strings.TrimSpace(name))
	case known:
		return fmt.Sprintf("%s: %s", arg, strerror.Text(errno))
	default:
		return fmt.Sprintf("%s: %v", arg, err)
	}
}
