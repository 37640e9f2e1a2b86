package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ifipsec/engine/algorithm"

	"github.com/google/go-cmp/cmp"
)

// octets is text that need not be UTF-8.
type octets string

func (o *octets) UnmarshalJSON(b []byte) error {
	var encoded struct{ Base64 []byte }
	if json.Unmarshal(b, &encoded) == nil {
		*o = octets(encoded.Base64)
		return nil
	}
	return json.Unmarshal(b, (*string)(o))
}

func (o octets) MarshalJSON() ([]byte, error) {
	if bytes.ContainsRune([]byte(o), '\uFFFD') || !bytes.Equal([]byte(o), bytes.ToValidUTF8([]byte(o), nil)) {
		return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(o))})
	}
	return json.Marshal(string(o))
}

// outcome is what a run of setkey comes to.
type outcome struct {
	RC       int      `json:"rc"`
	Stdout   octets   `json:"stdout"`
	Messages []string `json:"messages"`
}

// observed is a line of the corpus: what FreeBSD's setkey did.
type observed struct {
	ID, Category, What, Args string
	Script                   octets
	outcome
	FreeBSD11 *outcome
	Database  struct {
		Entries   string
		Errno     syscall.Errno
		AtMessage int `json:"at_message"`
	}
}

// departure is a case in which we do something else than FreeBSD, and why.
type departure struct {
	Reason string `json:"reason"`
	outcome
}

const (
	corpusFile     = "../../testdata/setkey/corpus.jsonl"
	departuresFile = "../../testdata/setkey/departures.json"
)

var update = flag.Bool("update", false, "write what we do into departures.json, where a departure is listed")

// notYet are the cases that differ and should not.
var notYet = map[string]string{}

var refusedAlgorithm = regexp.MustCompile(`syntax error at \[([a-z0-9-]+)\]\n`)

// want is what FreeBSD does, in the release that knows the script's algorithms.
func (o *observed) want() outcome {
	want := o.outcome
	if refused := refusedAlgorithm.FindStringSubmatch(string(want.Stdout)); refused != nil && o.FreeBSD11 != nil {
		e, encrypts := algorithm.EncryptionByName(refused[1])
		a, authenticates := algorithm.AuthenticationByName(refused[1])
		if encrypts && e.Era == algorithm.FreeBSD11 || authenticates && a.Era == algorithm.FreeBSD11 {
			want = *o.FreeBSD11
		}
	}
	if want.Messages == nil {
		want.Messages = []string{}
	}
	return want
}

func (o *observed) args(file string) []string {
	line, _ := strings.CutSuffix(o.Args, " < FILE")
	if line == "(no arguments)" {
		return nil
	}
	args := strings.Split(line, " ")
	for i := range args {
		if args[i] == "FILE" {
			args[i] = file
		}
	}
	return args
}

func (o *observed) database() *database {
	d := &database{errno: o.Database.Errno, atMessage: o.Database.AtMessage}
	if entries := specimens[o.Database.Entries]; entries != nil {
		d.entries = entries()
	}
	return d
}

// corpusNames resolves what resolved where the corpus was made.
type corpusNames struct{}

var corpusHosts = map[string][]string{
	"v4.example.com": {"192.0.2.1"}, "v6.example.com": {"2001:db8::1"}, "dual.example.com": {"2001:db8::2", "192.0.2.2"},
	"multi.example.com": {"192.0.2.3", "192.0.2.4"}, "gw": {"192.0.2.254"},
	"myhost.example.com": {"2001:db8::a"}, "yourhost.example.com": {"2001:db8::b"}, "localhost": {"::1", "127.0.0.1"},
}

func (corpusNames) Host(name string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, a := range corpusHosts[name] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, fmt.Errorf("no host %q", name)
	}
	return addrs, nil
}

var udpServices = map[string]uint16{"domain": 53, "http": 80, "ntp": 123, "isakmp": 500, "snmp": 161, "syslog": 514, "tftp": 69}

func (corpusNames) Service(name string) (uint16, error) {
	if port, ok := udpServices[name]; ok {
		return port, nil
	}
	return 0, fmt.Errorf("no service %q", name)
}

func (corpusNames) Interface(name string) (int, error) {
	if i := slices.Index(interfaces, name); i > 0 {
		return i, nil
	}
	return 0, fmt.Errorf("no interface %q", name)
}

func corpusInterface(index uint32) string {
	if int(index) < len(interfaces) {
		return interfaces[index]
	}
	return ""
}

func readCorpus(t *testing.T) []*observed {
	t.Helper()
	f, err := os.Open(corpusFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*observed
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		o := &observed{}
		if err := json.Unmarshal(lines.Bytes(), o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	if err := lines.Err(); err != nil || len(all) == 0 {
		t.Fatalf("%s: %d cases, %v", corpusFile, len(all), err)
	}
	return all
}

func readDepartures(t *testing.T) map[string]departure {
	t.Helper()
	b, err := os.ReadFile(departuresFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]departure{}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatalf("%s: %v", departuresFile, err)
	}
	return all
}

func writeDepartures(t *testing.T, all map[string]departure) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(all); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(departuresFile, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// runInProcess runs setkey with the names, the clock and the process number of
// the corpus. It also returns standard error.
func runInProcess(t *testing.T, o *observed) (outcome, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(o.Script), 0o600); err != nil {
		t.Fatal(err)
	}
	d := o.database()
	var stdout, stderr bytes.Buffer
	status := run(o.args(file), world{
		stdin: strings.NewReader(string(o.Script)), stdout: &stdout, stderr: &stderr,
		dial:  func() (conn, error) { return &databaseConn{t: t, database: d}, nil },
		names: corpusNames{}, interfaceName: corpusInterface,
		now: func() time.Time { return time.Unix(clock, 0).UTC() }, pid: 1234,
	})
	return d.outcome(t, status, stdout.String()), stderr.String()
}

func (d *database) outcome(t *testing.T, status int, stdout string) outcome {
	t.Helper()
	got := outcome{RC: status, Stdout: octets(stdout), Messages: []string{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.messages {
		got.Messages = append(got.Messages, words(t, m))
	}
	return got
}

// TestCorpus compares every case, but for standard error, which is ours.
func TestCorpus(t *testing.T) {
	t.Parallel()
	departures := readDepartures(t)
	counts := map[string]*[3]int{}
	known := map[string]bool{}
	for _, o := range readCorpus(t) {
		known[o.ID] = true
		count := counts[o.Category]
		if count == nil {
			count = &[3]int{}
			counts[o.Category] = count
		}
		t.Run(o.ID, func(t *testing.T) {
			run := runInProcess
			if strings.Contains(o.Args, "/dev/stdin") {
				run = runBinary // it has a standard input of its own
			}
			got, stderr := run(t, o)
			compare(t, o, departures, count, got, stderr)
		})
	}
	for id := range departures {
		if !known[id] {
			t.Errorf("departure %s is not in the corpus", id)
		}
	}
	for id := range notYet {
		if !known[id] {
			t.Errorf("not-yet case %s is not in the corpus", id)
		}
	}
	if *update {
		writeDepartures(t, departures)
	}
	total := [3]int{}
	for _, category := range slices.Sorted(maps.Keys(counts)) {
		n := counts[category]
		t.Logf("%-12s equal %3d, departed %2d, not yet %d", category, n[0], n[1], n[2])
		for i := range n {
			total[i] += n[i]
		}
	}
	t.Logf("%-12s equal %3d, departed %2d, not yet %d", "all", total[0], total[1], total[2])
}

func compare(t *testing.T, o *observed, departures map[string]departure, count *[3]int, got outcome, stderr string) {
	t.Helper()
	want := o.want()
	d, departs := departures[o.ID]
	diff := cmp.Diff(want, got)
	switch reason, accepted := notYet[o.ID]; {
	case accepted && diff == "":
		t.Errorf("%s is as on FreeBSD by now: it is not a case for later any more", o.What)
	case accepted:
		count[2]++
		t.Logf("not yet: %s", reason)
	case departs && *update:
		departures[o.ID] = departure{d.Reason, got}
	case departs && diff == "":
		t.Errorf("%s is as on FreeBSD by now: it is no departure any more", o.What)
	case departs:
		count[1]++
		if diff := cmp.Diff(d.outcome, got); diff != "" {
			t.Errorf("%s, a departure: %s\n%s(-expected +here):\n%s", o.What, d.Reason, o.Script, diff)
		}
		if got.RC != 0 && stderr == "" {
			t.Errorf("%s, a departure: refused without a reason", o.What)
		}
	case diff != "":
		t.Errorf("%s\n%s\n(-FreeBSD +here):\n%s\nstandard error: %s", o.What, o.Script, diff, stderr)
	default:
		count[0]++
	}
}

// The binary is built once, by the first test that runs it.
var binary struct {
	once sync.Once
	path string
	err  error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "setkey")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary.path = filepath.Join(dir, "setkey")
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

func builtBinary(t *testing.T) string {
	t.Helper()
	binary.once.Do(func() {
		if out, err := exec.Command("go", "build", "-o", binary.path, ".").CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// needsWorld finds the cases that depend on what only runInProcess fakes: the
// clock, the process number, and what is no numeric address, service and scope.
func (o *observed) needsWorld() bool {
	if o.Database.Entries != "" {
		return true
	}
	if strings.HasPrefix(o.Args, "-") && strings.ContainsAny(strings.Fields(o.Args)[0], "hv") && !strings.HasPrefix(o.Args, "--") {
		return true
	}
	for _, name := range []string{"example.com", "gw", "localhost", "%", "a_b"} {
		if strings.Contains(string(o.Script), name) {
			return true
		}
	}
	return false
}

// runBinary runs the program itself with a socket.
func runBinary(t *testing.T, o *observed) (outcome, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(o.Script), 0o600); err != nil {
		t.Fatal(err)
	}
	d := o.database()
	socket := listen(t, d)
	cmd := exec.CommandContext(t.Context(), builtBinary(t), o.args(file)...)
	cmd.Env = []string{socketEnv + "=" + socket, "TZ=UTC"}
	cmd.Stdin = strings.NewReader(string(o.Script))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return d.outcome(t, cmd.ProcessState.ExitCode(), stdout.String()), stderr.String()
}

// TestCorpusBinary runs cases of all sorts through the program itself and a
// socket.
func TestCorpusBinary(t *testing.T) {
	t.Parallel()
	departures := readDepartures(t)
	seen := map[string]int{}
	for _, o := range readCorpus(t) {
		// All of the command line, and every tenth of the language.
		seen[o.Category]++
		if o.needsWorld() || o.Category != "cli" && seen[o.Category]%10 != 1 {
			continue
		}
		t.Run(o.ID, func(t *testing.T) {
			t.Parallel()
			got, stderr := runBinary(t, o)
			compare(t, o, departures, &[3]int{}, got, stderr)
		})
	}
}

// listen serves the database on a socket until the end of the test.
func listen(t *testing.T, d *database) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			serving.Go(func() { serve(t, c, d) })
		}
	})
	return path
}

func serve(t *testing.T, c *net.UnixConn, d *database) {
	defer c.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			return
		}
		for _, answer := range d.answer(t, buf[:n]) {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// TestKeysStayOffStandardError runs every case and looks for its keys.
func TestKeysStayOffStandardError(t *testing.T) {
	t.Parallel()
	quoted := regexp.MustCompile(`"[^"]{6,}"|0[xX][0-9a-fA-F]{9,}`)
	for _, o := range readCorpus(t) {
		if strings.Contains(o.Args, "/dev/stdin") {
			continue
		}
		_, stderr := runInProcess(t, o)
		for _, k := range quoted.FindAllString(string(o.Script), -1) {
			if inner := strings.Trim(k, `"`); strings.Contains(stderr, inner) {
				t.Errorf("%s %s: %s is on standard error:\n%s", o.ID, o.What, strconv.Quote(inner), stderr)
			}
		}
	}
}
