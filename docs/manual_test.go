// Package docs_test holds the manual pages against mandoc's rules and against
// the programs that they describe.
package docs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/esp"
	"ifipsec/engine/sysctl"
	"ifipsec/parser/ifconfig"
	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
	"ifipsec/parser/setkey/lint"
)

// pages are the manual pages, NAME.SECTION.
var pages = []string{"if_ipsec.4", "ifconfig-ipsec.8", "ipsecd.8", "setkey.8"}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMandocFindsNothing(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("THE MANUAL PAGES ARE NOT CHECKED:", err)
	}
	found, err := exec.Command("mandoc", append([]string{"-Tlint"}, pages...)...).Output()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(found)) {
		// Whether others' pages are installed says nothing of ours.
		if !strings.Contains(line, "referenced manual not found") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

func TestReferencesToEachOther(t *testing.T) {
	t.Parallel()
	reference := regexp.MustCompile(`(?m)^\.(?:It )?Xr (\S+) (\d)`)
	for _, page := range pages {
		for _, r := range reference.FindAllStringSubmatch(read(t, page), -1) {
			for _, other := range pages {
				name, section, _ := strings.Cut(other, ".")
				if r[1] == name && r[2] != section {
					t.Errorf("%s refers to %s(%s), which is %s(%s)", page, r[1], r[2], name, section)
				}
			}
		}
	}
}

// row is a line of setkey.8's tables of algorithms.
type row struct{ keys, icv, rfc, releases, note string }

// algorithmTable returns the rows under a heading by name.
func algorithmTable(t *testing.T, heading string) map[string]row {
	t.Helper()
	_, after, found := strings.Cut(read(t, "setkey.8"), "\n.Ss "+heading+"\n")
	table, _, ended := strings.Cut(after, "\n.El\n")
	if !found || !ended {
		t.Fatalf("setkey.8 has no table under %q", heading)
	}
	rows := map[string]row{}
	for line := range strings.Lines(table) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), ".It Li ")
		if !ok {
			continue
		}
		cells := strings.Split(line, " Ta ")
		if len(cells) != 6 {
			t.Fatalf("%q has %d cells, want 6", line, len(cells))
		}
		for i := range cells {
			cells[i] = strings.Trim(cells[i], `"`)
		}
		rows[cells[0]] = row{cells[1], cells[2], cells[3], cells[4], cells[5]}
	}
	return rows
}

var releases = map[algorithm.Era]string{
	algorithm.FreeBSD11: "11-12", algorithm.FreeBSD14: "13-14", algorithm.BothEras: "11-14",
}

// lengths is how the manual page writes key lengths.
func lengths(k algorithm.KeyBits) string {
	switch {
	case k.Min == k.Max:
		return fmt.Sprint(k.Min)
	case (k.Max-k.Min)/k.Step > 3:
		return fmt.Sprintf("%d-%d", k.Min, k.Max)
	}
	var all []string
	for n := k.Min; n <= k.Max; n += k.Step {
		all = append(all, fmt.Sprint(n))
	}
	return strings.Join(all, ", ")
}

// icv is how the manual page writes how much an algorithm adds.
func icv(octets int) string {
	if octets == 0 {
		return "-"
	}
	return fmt.Sprint(8 * octets)
}

func checkRow(t *testing.T, name string, got row, keys algorithm.KeyBits, icvLen int, era algorithm.Era, weak string) {
	t.Helper()
	want := row{keys: lengths(keys), icv: icv(icvLen), rfc: got.rfc, releases: releases[era], note: got.note}
	if got != want {
		t.Errorf("%s: the manual page says %+v, want %+v", name, got, want)
	}
	if marked := strings.HasPrefix(got.note, "weak"); marked != (weak != "") {
		t.Errorf("%s: the manual page's note is %q, but what is known against it is %q", name, got.note, weak)
	}
}

func TestEncryptionTable(t *testing.T) {
	t.Parallel()
	rows := algorithmTable(t, "Encryption")
	for _, e := range algorithm.Encryptions() {
		for _, name := range append([]string{e.Name}, e.Aliases...) {
			got, ok := rows[name]
			delete(rows, name)
			if !ok {
				t.Errorf("setkey.8 does not have %s", name)
				continue
			}
			keys, era := e.Key, e.Era
			if name == "simple" {
				// It is null of the old releases, written without a key.
				keys, era = algorithm.KeyBits{}, algorithm.FreeBSD11
				got.keys = strings.Replace(got.keys, "none", "0", 1)
			}
			checkRow(t, name, got, keys, e.ICVLen, era, e.Weak)
			_, err := esp.New(esp.Config{SPI: 256, Encryption: e.ID, EncryptionKey: make([]byte, e.Key.Max/8)})
			if none := errors.Is(err, syscall.EOPNOTSUPP); none != (got.note == "no code") {
				t.Errorf("%s: the manual page's note is %q, but ESP says %v", name, got.note, err)
			}
		}
	}
	for name := range rows {
		t.Errorf("setkey.8 has %s, which is no encryption algorithm", name)
	}
}

func TestAuthenticationTable(t *testing.T) {
	t.Parallel()
	rows := algorithmTable(t, "Authentication")
	for _, a := range algorithm.Authentications() {
		got, ok := rows[a.Name]
		delete(rows, a.Name)
		if !ok {
			t.Errorf("setkey.8 does not have %s", a.Name)
			continue
		}
		checkRow(t, a.Name, got, a.Key, a.ICVLen, a.Era, a.Weak)
	}
	for name := range rows {
		t.Errorf("setkey.8 has %s, which is no authentication algorithm", name)
	}
}

func TestCompressionTable(t *testing.T) {
	t.Parallel()
	rows := algorithmTable(t, "Compression")
	for _, c := range algorithm.Compressions() {
		if got := rows[c.Name]; got.releases != releases[c.Era] {
			t.Errorf("%s: setkey.8 says it is in %q, want %q", c.Name, got.releases, releases[c.Era])
		}
		delete(rows, c.Name)
	}
	for name := range rows {
		t.Errorf("setkey.8 has %s, which is no compression algorithm", name)
	}
}

// entries are the words of the lines that begin an entry of a list of flags or
// commands.
func entries(t *testing.T, page string) []string {
	t.Helper()
	return macroWords(t, page, `(?m)^\.It (?:Xo\n\.)?((?:Fl|Cm) .*)$`)
}

// mentions are the words of the lines that name a command or another word of a
// language.
func mentions(t *testing.T, page string) []string {
	t.Helper()
	return macroWords(t, page, `(?m)^\.(?:It |It Xo\n\.)?((?:Cm|Li) .*)$`)
}

func macroWords(t *testing.T, page, line string) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile(line).FindAllStringSubmatch(read(t, page), -1) {
		all = append(all, strings.Fields(m[1])...)
	}
	return all
}

// usage runs a program that this test builds and returns how it says that it is
// used.
func usage(t *testing.T, program string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), program)
	if out, err := exec.Command("go", "build", "-o", file, "ifipsec/cmd/"+program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	out, _ := exec.Command(file, args...).CombinedOutput() // wrong usage is an error
	if !strings.Contains(string(out), "usage: ") {
		t.Fatalf("%s %q does not say its usage:\n%s", program, args, out)
	}
	return string(out)
}

func TestFlagsOfUsageAreDocumented(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		page, program string
		args          []string
		words         bool // flags are words, not letters that may be joined
	}{
		{page: "setkey.8", program: "setkey"},
		{page: "ifconfig-ipsec.8", program: "ifconfig-ipsec", args: []string{"-?"}},
		{page: "ipsecd.8", program: "ipsecd", args: []string{"-h"}, words: true},
	} {
		t.Run(test.program, func(t *testing.T) {
			t.Parallel()
			documented := entries(t, test.page)
			flag := regexp.MustCompile(`(?:^|[\s\[])-([A-Za-z][A-Za-z-]*)`)
			for _, f := range flag.FindAllStringSubmatch(usage(t, test.program, test.args...), -1) {
				names := strings.Split(f[1], "")
				if test.words {
					names = []string{f[1]}
				}
				for _, name := range names {
					if !slices.Contains(documented, name) {
						t.Errorf("%s does not document -%s", test.page, name)
					}
				}
			}
		})
	}
}

// Usages are FreeBSD's, and do not have every letter that is understood.
func TestLettersOfOptionsAreDocumented(t *testing.T) {
	t.Parallel()
	for page, file := range map[string]string{
		"setkey.8": "../cmd/setkey/main.go", "ifconfig-ipsec.8": "../parser/ifconfig/parse.go",
	} {
		source := read(t, file)
		documented := entries(t, page)
		cases := regexp.MustCompile(`(?m)^\s*case ('.'(?:, '.')*):`).FindAllStringSubmatch(source, -1)
		if len(cases) < 7 {
			t.Errorf("%s has %d cases of letters: options are parsed otherwise now", file, len(cases))
		}
		for _, c := range cases {
			for letter := range strings.SplitSeq(strings.ReplaceAll(c[1], "'", ""), ", ") {
				if !slices.Contains(documented, letter) {
					t.Errorf("%s does not document -%s, which %s understands", page, letter, file)
				}
			}
		}
	}
}

// words returns the strings in a variable's value that a Go file has: the words
// of a language that its parser knows.
func words(t *testing.T, file, variable string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != variable {
			return true
		}
		for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
			if entry, ok := element.(*ast.KeyValueExpr); ok {
				element = entry.Key
			}
			if entry, ok := element.(*ast.CompositeLit); ok {
				element = entry.Elts[0]
			}
			word, err := strconv.Unquote(element.(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			all = append(all, word)
		}
		return false
	})
	if len(all) == 0 {
		t.Fatalf("%s has no words in a variable %s", file, variable)
	}
	return all
}

func TestWordsOfLanguagesAreDocumented(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		page, file, variable string
		documented           func(*testing.T, string) []string
	}{
		{"setkey.8", "../parser/setkey/token.go", "options", entries},
		{"setkey.8", "../parser/setkey/token.go", "additions", entries},
		{"setkey.8", "../parser/setkey/token.go", "keywords", mentions},
		{"ifconfig-ipsec.8", "../parser/ifconfig/table.go", "table", entries},
		{"ifconfig-ipsec.8", "../parser/ifconfig/parse.go", "families", mentions},
	} {
		documented := test.documented(t, test.page)
		for _, word := range words(t, test.file, test.variable) {
			if test.variable == "options" {
				word = strings.TrimPrefix(word, "-") // Fl puts it there
			}
			if !slices.Contains(documented, word) {
				t.Errorf("%s does not document %q, which is one of %s's %s", test.page, word, test.file, test.variable)
			}
		}
	}
}

// The variables are listed with their defaults, in their order.
func TestVariablesAreDocumented(t *testing.T) {
	t.Parallel()
	var want, got []string
	for v := range sysctl.All() {
		want = append(want, fmt.Sprintf("%v: %d", v, v.Default()))
	}
	for _, m := range regexp.MustCompile(`(?m)^\.It Va (\S+) : No (-?\d+)$`).FindAllStringSubmatch(read(t, "if_ipsec.4"), -1) {
		got = append(got, m[1]+": "+m[2])
	}
	if !slices.Equal(got, want) {
		t.Errorf("if_ipsec.4 has the variables %q, want %q", got, want)
	}
}

// Each case in which setkey departs from FreeBSD's is named in a comment above
// the item that describes it.
// The warnings of setkey -n are part of what it promises.
func TestWarningsAreDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, "setkey.8")
	for _, name := range lint.Names {
		if !strings.Contains(page, ".It Cm "+name+"\n") {
			t.Errorf("setkey.8 does not describe the warning %s", name)
		}
	}
}

func TestDeparturesAreDescribed(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../testdata/setkey/departures.json")
	if err != nil {
		t.Fatal(err)
	}
	var departures map[string]struct{ Reason string }
	if err := json.Unmarshal(file, &departures); err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(read(t, "setkey.8"), "\n.Sh DEPARTURES FROM FREEBSD\n")
	described := map[string]bool{}
	for _, comment := range regexp.MustCompile(`(?m)^\.\\" corpus:(.*)\n\.It$`).FindAllStringSubmatch(section, -1) {
		for id := range strings.FieldsSeq(comment[1]) {
			described[id] = true
			if _, ok := departures[id]; !ok {
				t.Errorf("setkey.8 describes case %s, in which setkey does not depart from FreeBSD's", id)
			}
		}
	}
	for id, d := range departures {
		if !described[id] {
			t.Errorf("setkey.8 does not describe case %s: %s", id, d.Reason)
		}
	}
}

// examples are the literal displays of a page's EXAMPLES, as a reader sees them.
func examples(t *testing.T, page string) []string {
	t.Helper()
	_, after, _ := strings.Cut(read(t, page), "\n.Sh EXAMPLES\n")
	section, _, _ := strings.Cut(after, "\n.Sh ")
	var all []string
	for _, display := range regexp.MustCompile(`(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed$`).FindAllStringSubmatch(section, -1) {
		all = append(all, strings.ReplaceAll(display[1], `\e`, `\`))
	}
	if len(all) == 0 {
		t.Fatalf("%s has no examples", page)
	}
	return all
}

func TestExamplesAreOfTheLanguages(t *testing.T) {
	t.Parallel()
	statement := regexp.MustCompile(`^(add|update|get|delete|deleteall|flush|dump|spd[a-z]+)\b`)
	scripts, lines := 0, 0
	for _, page := range pages {
		for _, example := range examples(t, page) {
			if statement.MatchString(example) {
				checkScript(t, page, example)
				scripts++
				continue
			}
			example = strings.ReplaceAll(example, "\\\n", " ")
			for example != "" {
				line, rest, _ := strings.Cut(example, "\n")
				example = rest
				if line == "setkey -c" {
					var script string
					script, example, _ = strings.Cut(example, "^D\n")
					checkScript(t, page, script)
					scripts++
				}
				if args, ok := strings.CutPrefix(line, "ifconfig "); ok {
					checkIfconfig(t, page, args)
					lines++
				}
			}
		}
	}
	if scripts < 6 || lines < 10 {
		t.Errorf("found %d scripts and %d lines for ifconfig: the pages have more", scripts, lines)
	}
}

func checkScript(t *testing.T, page, script string) {
	t.Helper()
	r := setkey.NewReader(page, strings.NewReader(script))
	for {
		s, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v in\n%s", page, err, script)
			return
		}
		for _, e := range compile.Statement(r, s, nil, compile.System{}).Errors {
			t.Errorf("%s: %v in\n%s", page, e, script)
		}
	}
}

func checkIfconfig(t *testing.T, page, args string) {
	t.Helper()
	var list []string
	for _, arg := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(args, -1) {
		list = append(list, strings.Trim(arg, `"`))
	}
	if _, err := ifconfig.Parse(list, ifconfig.Format{}); err != nil {
		t.Errorf("%s: ifconfig %s: %v", page, args, err)
	}
}
