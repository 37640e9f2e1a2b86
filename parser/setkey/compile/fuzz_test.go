package compile_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
)

// FuzzScript: whatever the script, reading and compiling it comes to an end, its
// errors are at places in it, and what is sent can be encoded.
func FuzzScript(f *testing.F) {
	corpus, err := os.Open("../../../testdata/setkey/corpus.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer corpus.Close()
	lines := bufio.NewScanner(corpus)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var seed struct{ Script string }
		if json.Unmarshal(lines.Bytes(), &seed) == nil {
			f.Add(seed.Script)
		}
	}
	f.Fuzz(func(t *testing.T, script string) {
		r := setkey.NewReader("file", strings.NewReader(script))
		for range len(script) + 1 {
			s, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			var syntax *setkey.Error
			if err != nil && !errors.As(err, &syntax) {
				t.Fatalf("%q: %v", script, err)
			}
			result := compile.Statement(r, s, syntax, names{})
			if syntax != nil && !result.Failed() {
				t.Errorf("%q: %v is not reported", script, syntax)
			}
			for _, e := range result.Errors {
				checkError(t, script, r, e)
			}
			for _, m := range result.Messages {
				if _, err := m.Encode(); err != nil {
					t.Errorf("%q: %v", script, err)
				}
			}
		}
		t.Errorf("%q: more statements than bytes", script)
	})
}

func checkError(t *testing.T, script string, r *setkey.Reader, e *setkey.Error) {
	t.Helper()
	if e.Pos.Offset < 0 || e.Pos.Offset > len(script) || e.Detail == "" {
		t.Fatalf("%q: %+v", script, e)
	}
	before := script[:e.Pos.Offset]
	if line := 1 + strings.Count(before, "\n"); e.Pos.Line != line {
		t.Errorf("%q: %v is in line %d", script, e, line)
	}
	if column := e.Pos.Offset - strings.LastIndex(before, "\n"); e.Pos.Column != column && isASCII(script) {
		t.Errorf("%q: %v is in column %d", script, e, column)
	}
	if n := strings.Count(r.Excerpt(e.Pos), "\n"); n != 2 {
		t.Errorf("%q: the excerpt at %v has %d lines", script, e.Pos, n)
	}
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0 }
