package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/engine/control"
	"ifipsec/engine/rundir"
	"ifipsec/parser/ifconfig"
)

var update = flag.Bool("update", false, "write the transcripts in testdata/ifconfig anew")

// Transcripts are what a user types and sees. Lines that start with "$ " are
// typed; besides ifconfig there are words for what happens around it:
//
//	$ daemon starts       (until then there is none, and create may start it)
//	$ daemon refuses      changes, as for a user who is not root
//	$ addresses ADDR ...  the host has these from now on
//	$ links NAME ...      the host has these links that are not ours
//	$ system ifconfig     there is one to hand over to
//
// An exit status other than 0 follows the output in parentheses, and lines that
// start with "# " are comments.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../testdata/ifconfig/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// stage is where a transcript is played.
type stage struct {
	t      *testing.T
	engine *fakeEngine
	socket string // empty: no daemon runs
	links  []string
	system bool
	env    string
}

// replay does what a transcript types and returns it with what came out.
func replay(t *testing.T, transcript string) string {
	s := &stage{t: t, engine: newFakeEngine()}
	var out bytes.Buffer
	for line := range strings.Lines(transcript) {
		typed, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		if ok {
			fmt.Fprintf(&out, "$ %s\n", typed)
			s.do(typed, &out)
		} else if strings.HasPrefix(line, "# ") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func (s *stage) do(typed string, out *bytes.Buffer) {
	words := shellWords(typed)
	s.env = ""
	if value, ok := strings.CutPrefix(words[0], "IFCONFIG_FORMAT="); ok {
		s.env, words = value, words[1:]
	}
	switch words[0] {
	case "ifconfig":
		c := command{
			stdout: out, stderr: out, format: s.env, dial: s.dial, resolve: s.resolve,
			handOver: func(args []string) error {
				if !s.system {
					return fmt.Errorf("none: %w", os.ErrNotExist)
				}
				return fmt.Errorf("handed over: %q", args)
			},
			linkExists: func(name string) bool { return slices.Contains(s.links, name) },
		}
		if status := c.run(words[1:]); status != 0 {
			fmt.Fprintf(out, "(%d)\n", status)
		}
	case "daemon":
		s.engine.refuse(words[1] == "refuses")
		s.start()
	case "addresses":
		s.engine.setLocal(words[1:])
	case "links":
		s.links = words[1:]
	case "system":
		s.system = true
	default:
		s.t.Fatalf("nobody knows what this is: %s", typed)
	}
}

func (s *stage) start() {
	if s.socket == "" {
		s.socket = s.engine.serve(s.t)
	}
}

func (s *stage) dial(start bool) (daemon, error) {
	if start {
		s.start()
	}
	if s.socket == "" {
		return nil, rundir.ErrNotRunning
	}
	return control.Dial(s.socket)
}

func (s *stage) resolve(family ifconfig.Family, host string) ([]netip.Addr, error) {
	switch host + "/" + string(family) {
	case "gw4.example/inet":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	case "gw6.example/inet6":
		return []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil
	}
	return nil, errors.New("no such host")
}

// shellWords splits at spaces that are not in double quotes.
func shellWords(s string) []string {
	var words []string
	quoted := false
	for n, part := range strings.Split(s, `"`) {
		if quoted = n%2 == 1; quoted {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}
