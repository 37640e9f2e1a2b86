package docs_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
)

var update = flag.Bool("update", false, "make the completions of the shells anew")

// grammar is what a shell can complete of a program's command line.
type grammar struct {
	Program string
	Options []string // with their minus
	Files   []string // options that a file follows
	Other   []string // options, and commands of interfaces, that something else follows

	// Of ifconfig, what follows an interface: right after it, and anywhere.
	First, Commands []string
}

// Function is a name for a function of the shell's.
func (g grammar) Function() string { return "_" + strings.ReplaceAll(g.Program, "-", "_") }

// grammars are made of the tables and switches that parse.
func grammars(t *testing.T) []grammar {
	t.Helper()
	all := []grammar{
		{Program: "ifconfig-ipsec", Options: letters(t, "../parser/ifconfig/parse.go"), Other: []string{"-f", "-g", "-G"},
			First: []string{"create", "plumb"}},
		{Program: "ipsecd", Options: flags(t, "../cmd/ipsecd/main.go"), Files: []string{"-rc", "-state-dir"}},
		{Program: "setkey", Options: append(letters(t, "../cmd/setkey/main.go"), "-e", "-f"), Files: []string{"-f"}, Other: []string{"-e"}},
	}
	const table = "../parser/ifconfig/table.go"
	ifconfig := &all[0]
	for _, word := range words(t, table, "table") {
		ifconfig.Commands = append(ifconfig.Commands, word)
		entry := regexp.MustCompile(`(?m)^\t"` + word + `":\s+(now\(|\{0,)`)
		if !entry.MatchString(read(t, table)) {
			ifconfig.Other = append(ifconfig.Other, word)
		}
	}
	ifconfig.First = append(ifconfig.First, words(t, "../parser/ifconfig/parse.go", "families")...)
	for n := range all {
		for _, list := range [][]string{all[n].Options, all[n].Commands, all[n].Other} {
			slices.Sort(list)
		}
		if len(all[n].Options) < 8 {
			t.Errorf("%s has the options %q only: they are parsed otherwise now", all[n].Program, all[n].Options)
		}
	}
	return all
}

// letters are the options in the cases of a switch.
func letters(t *testing.T, file string) []string {
	t.Helper()
	all := map[string]bool{}
	for _, c := range regexp.MustCompile(`(?m)^\s*case ('.'(?:, '.')*):`).FindAllStringSubmatch(read(t, file), -1) {
		for letter := range strings.SplitSeq(strings.ReplaceAll(c[1], "'", ""), ", ") {
			all["-"+letter] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}

// flags are those that a file defines with package flag.
func flags(t *testing.T, file string) (all []string) {
	t.Helper()
	for _, f := range regexp.MustCompile(`flags\.[A-Z]\w+\("([^"]+)"`).FindAllStringSubmatch(read(t, file), -1) {
		all = append(all, "-"+f[1])
	}
	return all
}

var shells = map[string]*template.Template{
	"bash/%s": parse(`# Made of the tables that parse, by: go test ./docs -update
{{.Function}}()
{
	local word=${COMP_WORDS[COMP_CWORD]} all='{{join .Options}}'
	COMPREPLY=()
	case ${COMP_WORDS[COMP_CWORD-1]} in
{{- if .Files}}
	{{bar .Files}})
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return ;;
{{- end}}
{{- if .Other}}
	{{bar .Other}})
		return ;;
{{- end}}
	esac
{{- if .Commands}}
	local n interfaces=0
	for ((n = 1; n < COMP_CWORD; n++)); do
		case $interfaces${COMP_WORDS[n]} in
		0-[fgG]) n=$((n + 1)) ;;
		0-*) ;;
		*) interfaces=$((interfaces + 1)) ;;
		esac
	done
	case $interfaces in
	0) all="$all ipsec $({{.Program}} -l 2>/dev/null)" ;;
	1) all='{{join .First}} {{join .Commands}}' ;;
	*) all='{{join .Commands}}' ;;
	esac
{{- end}}
	mapfile -t COMPREPLY < <(compgen -W "$all" -- "$word")
}
complete -F {{.Function}} {{.Program}}
`),
	"zsh/_%s": parse(`#compdef {{.Program}}
# Made of the tables that parse, by: go test ./docs -update
local -a all
all=({{join .Options}})
case ${words[CURRENT-1]} in
{{- if .Files}}
{{bar .Files}})
	_files
	return ;;
{{- end}}
{{- if .Other}}
{{bar .Other}})
	return 1 ;;
{{- end}}
esac
{{- if .Commands}}
local n interfaces=0
for ((n = 2; n < CURRENT; n++)); do
	case $interfaces${words[n]} in
	0-[fgG]) n=$((n + 1)) ;;
	0-*) ;;
	*) interfaces=$((interfaces + 1)) ;;
	esac
done
case $interfaces in
0) all+=(ipsec $({{.Program}} -l 2>/dev/null)) ;;
1) all=({{join .First}} {{join .Commands}}) ;;
*) all=({{join .Commands}}) ;;
esac
{{- end}}
compadd -- $all
`),
}

func parse(text string) *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"join": func(list []string) string { return strings.Join(list, " ") },
		"bar":  func(list []string) string { return strings.Join(list, "|") },
	}).Parse(text))
}

// What the shells complete is what the programs understand.
func TestCompletions(t *testing.T) {
	t.Parallel()
	for _, g := range grammars(t) {
		for path, text := range shells {
			file := filepath.Join("completion", fmt.Sprintf(path, g.Program))
			var want strings.Builder
			if err := text.Execute(&want, g); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(want.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if read(t, file) != want.String() {
				t.Errorf("%s is not what the tables say: go test ./docs -update makes it anew", file)
			}
		}
	}
}

// completed is what bash offers at the end of a line.
func completed(t *testing.T, line ...string) []string {
	t.Helper()
	script := fmt.Sprintf(`. completion/bash/%[1]s; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); %[2]s; printf '%%s\n' "${COMPREPLY[@]}"`,
		line[0], grammar{Program: line[0]}.Function())
	out, err := exec.Command("bash", append([]string{"-c", script, "bash"}, line...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", line, err, out)
	}
	return strings.Fields(string(out))
}

func TestCompletionsInBash(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ line, want []string }{
		{[]string{"ifconfig-ipsec", "ip"}, []string{"ipsec"}},
		{[]string{"ifconfig-ipsec", "ipsec0", "cr"}, []string{"create"}},
		{[]string{"ifconfig-ipsec", "-v", "ipsec0", "inet"}, []string{"inet", "inet6"}},
		{[]string{"ifconfig-ipsec", "-f", "inet:cidr", "-v", "ipsec0", "pl"}, []string{"plumb"}},
		{[]string{"ifconfig-ipsec", "ipsec0", "create", "re"}, []string{"remove", "reqid"}},
		{[]string{"ifconfig-ipsec", "ipsec0", "inet", "tun"}, []string{"tunnel", "tunnelfib"}},
		{[]string{"ifconfig-ipsec", "ipsec0", "reqid", ""}, nil},
		{[]string{"setkey", "-D"}, []string{"-D"}},
		{[]string{"setkey", "-f", "completion_t"}, []string{"completion_test.go"}},
		{[]string{"ipsecd", "-st"}, []string{"-state-dir", "-status", "-stop"}},
	} {
		got := completed(t, test.line...)
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
	// Other shells are not asked, only whether they understand it.
	if zsh, err := exec.LookPath("zsh"); err == nil {
		files, _ := filepath.Glob("completion/zsh/*")
		for _, file := range files {
			if out, err := exec.Command(zsh, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
}
