package main

import (
	"errors"
	"fmt"
	"io"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
)

// check reads a script to its end and says everything that is wrong with it.
// Nothing takes effect, and no daemon is asked, so that whoever writes scripts
// for other hosts needs neither a daemon nor privileges.
func check(o options, w world) int {
	r := setkey.NewReader(o.filename, o.script)
	status := 0
	for {
		statement, err := r.Next()
		if errors.Is(err, io.EOF) {
			return status
		}
		var syntax *setkey.Error
		if err != nil && !errors.As(err, &syntax) {
			fmt.Fprintf(w.stderr, "setkey: %v\n", err)
			return exitRead
		}
		result := compile.Statement(r, statement, syntax, w.names)
		for _, e := range result.Errors {
			diagnose(w.stderr, r, e)
		}
		if result.Failed() {
			status = 1
		}
	}
}

// diagnose says where in a script what is wrong, and shows the line.
func diagnose(stderr io.Writer, r *setkey.Reader, e *setkey.Error) {
	kind := "error"
	if e.Warning {
		kind = "warning"
	}
	fmt.Fprintf(stderr, "%s:%d:%d: %s: %s\n%s", e.Pos.Filename, e.Pos.Line, e.Pos.Column, kind, e.Detail, r.Excerpt(e.Pos))
}
