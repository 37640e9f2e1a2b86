package main

import (
	"errors"
	"fmt"
	"io"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
	"ifipsec/parser/setkey/lint"

	"github.com/alecthomas/participle/v2/lexer"
)

// check reads a script to its end and says everything that is wrong with it,
// and what is unwise. Nothing takes effect, and no daemon is asked, so that
// whoever writes scripts for other hosts needs neither a daemon nor privileges.
func check(o options, w world) int {
	r := setkey.NewReader(o.filename, o.script)
	var linter lint.Linter
	names := lint.Local{Names: w.names}
	failures, warnings := 0, 0
	warn := func(found []lint.Warning) {
		for _, f := range found {
			diagnose(w.stderr, f.Pos, "warning", fmt.Sprintf("%s [%s]", f.Text, f.Name), f.Excerpt)
		}
		warnings += len(found)
	}
	for {
		statement, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var syntax *setkey.Error
		if err != nil && !errors.As(err, &syntax) {
			fmt.Fprintf(w.stderr, "setkey: %v\n", err)
			return exitRead
		}
		result := compile.Statement(r, statement, syntax, &names)
		for _, e := range result.Errors {
			if found, unresolved := names.Unresolved(r, e); unresolved {
				warn([]lint.Warning{found})
				continue
			}
			complain(w.stderr, r, e)
			if e.Warning {
				warnings++
			} else {
				failures++
			}
		}
		if !result.Failed() {
			warn(linter.Statement(r, statement, result))
		}
	}
	warn(linter.End())
	if failures+warnings > 0 {
		fmt.Fprintf(w.stderr, "%s: %s, %s\n", o.filename, count(failures, "error"), count(warnings, "warning"))
	}
	if failures > 0 || o.strict && warnings > 0 {
		return 1
	}
	return 0
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// complain says where in a script what is wrong, and shows the line.
func complain(stderr io.Writer, r *setkey.Reader, e *setkey.Error) {
	kind := "error"
	if e.Warning {
		kind = "warning"
	}
	diagnose(stderr, e.Pos, kind, e.Detail, r.Excerpt(e.Pos))
}

func diagnose(stderr io.Writer, pos lexer.Position, kind, text, excerpt string) {
	fmt.Fprintf(stderr, "%s:%d:%d: %s: %s\n%s", pos.Filename, pos.Line, pos.Column, kind, text, excerpt)
}
