package docs_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"ifipsec/engine/algorithm"
)

// tableRows are the rows of the Markdown tables below a heading, without the
// first column, by the names in it.
func tableRows(t *testing.T, file, heading string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| name") || strings.HasPrefix(line, "| ---") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}

func yes(weak string) string {
	if weak == "" {
		return ""
	}
	return "yes"
}

func bitsOf(octets int) string {
	if octets == 0 {
		return ""
	}
	return fmt.Sprint(8 * octets)
}

// docs/esp.md says of each algorithm what is true.
func TestESPTables(t *testing.T) {
	t.Parallel()
	check := func(rows map[string][]string, name string, want ...string) {
		t.Helper()
		got, ok := rows[name]
		delete(rows, name)
		// The first is the RFC, the last what it was proven with.
		if !ok || len(got) != len(want)+2 || fmt.Sprint(got[1:len(got)-1]) != fmt.Sprint(want) || got[0] == "" || got[len(got)-1] == "" {
			t.Errorf("%s: the page says %q, want an RFC, %q, and proof", name, got, want)
		}
	}
	rows := tableRows(t, "esp.md", "Encryption")
	for _, e := range algorithm.Encryptions() {
		name := e.Name
		if e.ID == algorithm.EncryptAESCBC {
			name += ", rijndael-cbc"
		}
		check(rows, name, e.Key.String(), fmt.Sprint(e.IVLen), fmt.Sprint(e.Align), bitsOf(e.ICVLen), yes(e.Weak))
	}
	for name := range rows {
		t.Errorf("esp.md has %s, which is no encryption algorithm", name)
	}
	rows = tableRows(t, "esp.md", "Authentication")
	for _, a := range algorithm.Authentications() {
		check(rows, a.Name, a.Key.String(), bitsOf(a.ICVLen), yes(a.Weak))
	}
	for name := range rows {
		t.Errorf("esp.md has %s, which is no authentication algorithm", name)
	}
}
