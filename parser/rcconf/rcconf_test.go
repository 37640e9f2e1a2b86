package rcconf

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// get reads a file that has one variable x, and returns it.
func get(t *testing.T, text string) string {
	t.Helper()
	var v Variables
	if err := v.Read("rc.conf", []byte(text)); err != nil {
		t.Errorf("%q: %v", text, err)
	}
	x, ok := v.Get("x")
	if !ok {
		t.Errorf("%q: x has no value", text)
	}
	return x.Text
}

func TestValuesAreThoseOfSh(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`x=`:                         "",
		`x=a`:                        "a",
		"\n\t x=a #c\n":              "a",
		`x=a#b`:                      "a#b",
		`x="a # b"`:                  "a # b",
		`x='a "$b" \c'`:              `a "$b" \c`,
		`x="a\"b\\c\$d\e"`:           `a"b\c$d\e`,
		`x=a\ b`:                     "a b",
		`x=a"b c"'d e'f`:             "ab cd ef",
		"x=\"a\\\n b\"":              "a b",
		"x=a\\\nb":                   "ab",
		"x=\"a\nb\"":                 "a\nb",
		"x='a\\\nb'":                 "a\\\nb",
		`x=1; x=2`:                   "2",
		`y=1 x=2`:                    "2",
		`y=a; x="$y ${y}b$y/c ${z}"`: "a ab" + "a/c ",
		`x="a$ b$"`:                  "a$ b$",
		`x=é`:                        "é",
		"\\\nx=1":                    "1",
		`x=a=b`:                      "a=b",
		`x="a;b"`:                    "a;b",
		`x=a\`:                       `a\`,
	} {
		if got := get(t, text); got != want {
			t.Errorf("%q: x is %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsNoAssignment(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"reboot":              `rc.conf:1:1: found "reboot", expected an assignment, as in NAME="VALUE"`,
		"a=1\n\tif true":      `rc.conf:2:2: found "if", expected an assignment, as in NAME="VALUE"`,
		"a=1 reboot":          `rc.conf:1:5: found "reboot", expected an assignment, as in NAME="VALUE"`,
		". /etc/rc.local":     `rc.conf:1:1: found ".", expected an assignment, as in NAME="VALUE"`,
		"a = 1":               `rc.conf:1:1: found "a", expected an assignment, as in NAME="VALUE"`,
		"1a=1":                `rc.conf:1:1: found "1a=1", expected an assignment, as in NAME="VALUE"`,
		"a+=1":                `rc.conf:1:1: found "a+=1", expected an assignment, as in NAME="VALUE"`,
		"a=\"x\ny=1\n":        `rc.conf:1:3: the quoted string has no end`,
		"é='x":                `rc.conf:1:1: found "é='x", expected an assignment, as in NAME="VALUE"`,
		"a=é'x":               `rc.conf:1:4: the quoted string has no end`,
		"a=$(reboot)":         `rc.conf:1:3: found a command or an expression after $: neither is possible here`,
		"a=\"`reboot`\"":      "rc.conf:1:4: found a command in backquotes: no command is run here",
		"a=${b:-c}":           `rc.conf:1:3: found ${, expected ${NAME} with the name of a variable alone`,
		"a=$1":                `rc.conf:1:3: found $1, which only a shell has`,
		"a=b|c":               `rc.conf:1:4: found '|', which is for a shell, and there is none: quote it`,
		"a=1 &":               `rc.conf:1:5: found "&", expected an assignment, as in NAME="VALUE"`,
		"a=1\r\nb=2\r\n":      `rc.conf:1:4: found the character '\r', expected text with lines that end as Unix has it`,
		"a=1\x00":             `rc.conf:1:4: found the character '\x00', expected text with lines that end as Unix has it`,
		"# c\n\na=\"1\" b c=": `rc.conf:3:7: found "b", expected an assignment, as in NAME="VALUE"`,
		strings.Repeat("x", 60): `rc.conf:1:1: found "` + strings.Repeat("x", 40) +
			`…", expected an assignment, as in NAME="VALUE"`,
	} {
		var v Variables
		err := v.Read("rc.conf", []byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if _, ok := v.Get("a"); ok {
			t.Errorf("%q: the file is wrong and has assigned something", text)
		}
	}
}

// A file can't grow beyond its size by much.
func TestValuesThatDouble(t *testing.T) {
	t.Parallel()
	text := "a=xxxxxxxxxxxxxxxx\n" + strings.Repeat("a=\"$a$a\"\n", 100)
	err := new(Variables).Read("rc.conf", []byte(text))
	if want := "rc.conf:14:3: the value has over 65536 bytes"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	err = new(Variables).Read("rc.conf", make([]byte, maxFile+1))
	if want := "rc.conf:1:1: the file has 1048577 bytes, the most is 1048576"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestLaterFilesWin(t *testing.T) {
	t.Parallel()
	var v Variables
	for file, text := range []string{"a=1\nb=2\n", "a=\"$a $b\"\n"} {
		if err := v.Read(fmt.Sprint(file), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := Value{"1 2", Position{"1", 1, 1}}
	if got, _ := v.Get("a"); got != want {
		t.Errorf("a is %+v, want %+v", got, want)
	}
}

// transcript is a plan as a person reads it.
func transcript(p Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%v (%v %s", s, s.Pos, s.Variable)
		if s.Unless != nil {
			fmt.Fprintf(&b, ", unless there is %s", strings.Join(s.Unless, " or "))
		}
		b.WriteString(")\n")
		if s.Program == "route" {
			fmt.Fprintf(&b, "\t%+v\n", s.Route)
		}
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning: %v\n", w)
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "error: %v\n", e)
	}
	return b.String()
}

func TestPlans(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) < 6 {
		t.Fatalf("files %v (%v)", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v Variables
		if err := v.Read(filepath.Base(file), text); err != nil {
			t.Fatal(err)
		}
		got := transcript(v.Plan())
		golden := strings.TrimSuffix(file, ".conf") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("cloned_interfaces=ipsec0 ifconfig_ipsec0='${a' b=\"$a\\\n\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		var v Variables
		err := v.Read("rc.conf", text)
		if err != nil {
			e, ok := err.(*Error)
			if !ok || e.Pos.Line > bytes.Count(text, []byte("\n"))+1 || e.Pos.Column > utf8.RuneCount(text)+1 || v.values != nil {
				t.Errorf("%#v", err)
			}
			return
		}
		for _, s := range v.Plan().Steps {
			if s.Variable == "" || s.Pos.Line == 0 || s.Program == "route" && !s.Route.Dst.IsValid() {
				t.Errorf("%+v", s)
			}
		}
	})
}
