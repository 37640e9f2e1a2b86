package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/engine/algorithm"
)

// recordedDump is what FreeBSD's setkey printed for a database's entries.
type recordedDump struct {
	ID, What, Args string
	Entries        []string
	Output         string
}

// TestRecordedDumps adds the entries of FreeBSD's dumps to a daemon with setkey
// and compares what setkey prints of them, times and counts apart. Entries that
// no statement makes (another state, usage, lifetimes in bytes) are compared in
// package text.
func TestRecordedDumps(t *testing.T) {
	t.Parallel()
	made := []string{"01", "03", "04", "06", "09", "10", "13", "15", "18", "19", "25", "31", "36"}
	file, err := os.Open("../testdata/setkey/dumps.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := newHost(t, "hostA")
	compared := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var d recordedDump
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(made, d.ID) {
			continue
		}
		compared++
		var script strings.Builder
		for _, e := range d.Entries {
			script.WriteString(statement(t, e))
		}
		quiet(t, h, setkey("flush;\nspdflush;\n"+script.String()))
		if diff := cmp.Diff(blocks(d.Output), blocks(output(t, h, "setkey "+d.Args))); diff != "" {
			t.Errorf("dump %s, %s (-FreeBSD +here):\n%s\nmade by:\n%s", d.ID, d.What, diff, script.String())
		}
	}
	if compared != len(made) {
		t.Errorf("%d dumps were compared, want %d", compared, len(made))
	}
}

// blocks cuts a dump into its entries, in an order of their own, without what
// depends on when and how often the dump is made.
func blocks(dump string) []string {
	for _, changing := range []string{
		`(created|current|last): [A-Z ][^\t\n]*`, `diff: \d+`, `current: \d+\(bytes\)`, `allocated: \d+`,
		`sadb_seq=\d+ pid=\d+`, `spid=\d+ seq=\d+ pid=\d+`,
	} {
		dump = regexp.MustCompile(changing).ReplaceAllStringFunc(dump, func(s string) string {
			return s[:strings.IndexAny(s, ":=")]
		})
	}
	var all []string
	for line := range strings.Lines(dump) {
		// Long keys go on in lines that begin with a blank.
		if len(all) == 0 || line[0] != '\t' && line[0] != ' ' {
			all = append(all, "")
		}
		all[len(all)-1] += line
	}
	slices.Sort(all)
	return all
}

// statement is what makes an entry: "sa" or "sp", then words KEY=VALUE.
func statement(t *testing.T, entry string) string {
	t.Helper()
	kind, rest, _ := strings.Cut(entry, " ")
	words := map[string]string{}
	var requests []string
	for _, w := range strings.Fields(rest) {
		key, value, _ := strings.Cut(w, "=")
		words[key] = value
		if key == "req" {
			requests = append(requests, value)
		}
	}
	number := func(key string) uint64 {
		if words[key] == "" {
			return 0
		}
		n, err := strconv.ParseUint(words[key], 0, 64)
		if err != nil {
			t.Fatalf("%s: %v", entry, err)
		}
		return n
	}
	if kind == "sp" {
		end := func(addr, bits, port string) string {
			s := words[addr]
			if words[bits] != "" {
				s += "/" + words[bits]
			}
			if words[port] != "" {
				s += "[" + words[port] + "]"
			}
			return s
		}
		proto := "any"
		if words["proto"] != "" {
			proto = words["proto"]
		}
		return fmt.Sprintf("spdadd %s %s %s -P %s %s %s;\n", end("src", "splen", "sport"), end("dst", "dplen", "dport"),
			proto, words["dir"], words["type"], strings.Join(requests, " "))
	}

	protocol, flags := words["satype"], number("flags")
	if flags&1 != 0 {
		protocol += "-old"
	}
	s := fmt.Sprintf("add %s %s %s %s -u %d", words["src"], words["dst"], protocol, words["spi"], number("reqid"))
	if words["mode"] != "" {
		s += " -m " + words["mode"]
	}
	if flags&0x200 != 0 {
		s += " -f zero-pad"
	}
	switch {
	case words["bigreplay"] != "":
		s += fmt.Sprintf(" -r %d", number("bigreplay"))
	case words["replay"] != "":
		s += fmt.Sprintf(" -r %d", number("replay"))
	}
	if words["oai"] != "" {
		s += fmt.Sprintf(" -natt %s[%s] %s[%s]", words["oai"], words["natsport"], words["oar"], words["natdport"])
	}
	if words["satype"] == "ipcomp" {
		alg, ok := algorithm.CompressionByID(uint8(number("enc")))
		if !ok {
			t.Fatalf("%s: no such compression", entry)
		}
		return s + " -C " + alg.Name + ";\n"
	}
	if words["enc"] != "" {
		alg, ok := algorithm.EncryptionByID(uint8(number("enc")))
		if !ok {
			t.Fatalf("%s: no such encryption", entry)
		}
		s += fmt.Sprintf(" -E %s 0x%s", alg.Name, words["ekey"])
	}
	if words["auth"] != "" {
		alg, ok := algorithm.AuthenticationByID(uint8(number("auth")))
		if !ok {
			t.Fatalf("%s: no such authentication", entry)
		}
		s += " -A " + alg.Name
		if words["akey"] != "" {
			s += " 0x" + words["akey"]
		}
	}
	return s + ";\n"
}

// TestDocumentedScripts runs the examples of FreeBSD's manual pages as they are
// printed, on a host whose /etc/hosts knows their names.
func TestDocumentedScripts(t *testing.T) {
	t.Parallel()
	file, err := os.Open("../testdata/setkey/corpus.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := newHost(t, "hostA")
	hosts := filepath.Join(t.TempDir(), "hosts")
	const names = "192.0.2.254 gw\n2001:db8::a myhost.example.com\n2001:db8::b yourhost.example.com\n"
	if err := os.WriteFile(hosts, []byte(names), 0o644); err != nil {
		t.Fatal(err)
	}
	quiet(t, h, "mount --bind "+hosts+" /etc/hosts")
	run := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c struct {
			ID, Category, What, Args string
			Script                   json.RawMessage
			Stdout                   json.RawMessage
			RC                       int
			FreeBSD11                *struct{ RC int }
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if c.Category != "doc" || c.Args != "-f FILE" {
			continue
		}
		var script, stdout string
		if json.Unmarshal(c.Script, &script) != nil || json.Unmarshal(c.Stdout, &stdout) != nil {
			continue // not text
		}
		run++
		quiet(t, h, setkey("flush;\nspdflush;"))
		path := filepath.Join(filepath.Dir(hosts), c.ID)
		if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		want := c.RC
		if c.FreeBSD11 != nil {
			want = min(want, c.FreeBSD11.RC) // what either release takes is taken
		}
		got := shell(t, h, "setkey -f "+path)
		t.Logf("%s, %s: exit status %d\n%s", c.ID, c.What, got.Exit, got.Stdout)
		if got.Exit != want {
			t.Errorf("%s, %s: exit status %d, want %d\n%s\n%s%s", c.ID, c.What, got.Exit, want, script, got.Stdout, got.Stderr)
		}
		if !strings.Contains(script, "add ") || got.Exit != 0 {
			continue
		}
		if left := output(t, h, "setkey -D") + output(t, h, "setkey -DP"); left == "No SAD entries.\nNo SPD entries.\n" {
			t.Errorf("%s, %s: nothing is in the databases", c.ID, c.What)
		}
	}
	if run == 0 {
		t.Error("no examples")
	}
}
