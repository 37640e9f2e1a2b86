package main

import (
	"strings"
	"unsafe"
)

// hideScript returns a copy of a command line and blots out the script of -e in
// the original. The original's strings are the memory that ps(1) and everybody
// else on the host reads in /proc/PID/cmdline, and scripts have keys in them.
//
// They can be read until then: who must not risk that uses -c or -f.
func hideScript(args []string) []string {
	own := make([]string, len(args))
	for i, arg := range args {
		own[i] = strings.Clone(arg)
	}
	for i, arg := range own {
		letters, isOption := strings.CutPrefix(arg, "-")
		if !isOption {
			continue
		}
		switch before, script, found := strings.Cut(letters, "e"); {
		case !found || strings.Contains(before, "f"): // -ffile
		case script != "":
			blot(args[i][len(arg)-len(script):])
		case i+1 < len(args):
			blot(args[i+1])
		}
	}
	return own
}

// blot overwrites a string of the process's arguments, which is ordinary memory
// on the stack that Linux gave the process.
func blot(arg string) {
	b := unsafe.Slice(unsafe.StringData(arg), len(arg))
	for i := range b {
		b[i] = 'x'
	}
}
