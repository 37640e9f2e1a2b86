package main

import (
	"bytes"
	"crypto/ecdh"
	"encoding/xml"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ifipsec/e2e/bench/result"
	"ifipsec/e2e/lab"
)

func TestMain(m *testing.M) {
	lab.Init()
	os.Exit(m.Run())
}

// The whole program runs and leaves what it should. How fast anything is, a
// shared machine can't tell.
func TestSmoke(t *testing.T) {
	t.Parallel()
	lab.Require(t)
	if _, err := exec.LookPath("iperf3"); err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, because it needs iperf3:", err)
	}
	docs := t.TempDir()
	document := filepath.Join(docs, "performance.md")
	if err := os.WriteFile(document, []byte("before\n<!-- bench: begin -->\n<!-- bench: end -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	all := chosen(regexp.MustCompile(`^(tcp|udp-1300|ping|cpu)$`))
	b := bench{rounds: 1, seconds: 1, docs: docs, progress: t.Output()}
	var out bytes.Buffer
	if err := b.run(t.Context(), &out, all); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())

	f, err := os.Open(filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, err := result.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		a := run.Answer(e.row())
		if a.Missing != "" || a.Ratio.Median <= 0 {
			t.Errorf("%s: %+v, want a ratio", e.name, a)
		}
	}
	table, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "after\n", "| TCP, aes-gcm-16 | Gbit/s | "} {
		if !strings.Contains(string(table), want) {
			t.Errorf("no %q in the document:\n%s", want, table)
		}
	}
	chart, err := os.ReadFile(filepath.Join(docs, "performance.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(chart)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the chart: %v\n%s", err, chart)
		}
	}
}

// The document says what its data say.
func TestDocument(t *testing.T) {
	t.Parallel()
	const docs = "../../docs/"
	f, err := os.Open(docs + "performance.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, err := result.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	answers := answersOf(run, experiments)
	chart, err := run.Chart(answers)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"performance.md": run.Markdown(answers), "performance.svg": chart} {
		text, err := os.ReadFile(docs + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/%s is not what its data say; go run ./e2e/bench -from docs/performance.json -docs docs writes:\n%s", file, want)
		}
	}
}

// Names choose rows, so there is one row for each.
func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	names, titles := make(map[string]bool), make(map[string]bool)
	for _, e := range experiments {
		if names[e.name] || titles[e.title] {
			t.Errorf("two rows %q, %q", e.name, e.title)
		}
		names[e.name], titles[e.title] = true, true
	}
}

// What is measured once serves all rows that need it, and what is compared is
// measured in one group.
func TestCells(t *testing.T) {
	t.Parallel()
	var got [][]string
	for _, group := range cells(chosen(regexp.MustCompile(`^(tcp|tcp-cbc|udp-64|cpu)$`))) {
		var names []string
		for _, c := range group {
			names = append(names, c.traffic.name+" "+c.system.name)
		}
		got = append(got, names)
	}
	want := [][]string{
		{"TCP wireguard-go", "TCP aes-gcm-16", "TCP rijndael-cbc"},
		{"UDP 64 bytes, flood wireguard-go", "UDP 64 bytes, flood aes-gcm-16"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWireGuardConfig(t *testing.T) {
	t.Parallel()
	key := func(octet byte) *ecdh.PrivateKey {
		k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{octet}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	got := wireGuardConfig(key(1), key(2).PublicKey(), netip.MustParseAddrPort("192.0.2.1:51820"), netip.MustParseAddr("10.0.0.1"))
	want := "set=1\n" +
		"private_key=0101010101010101010101010101010101010101010101010101010101010101\n" +
		"listen_port=51820\n" +
		"replace_peers=true\n" +
		"public_key=ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59\n" +
		"endpoint=192.0.2.1:51820\n" +
		"allowed_ip=10.0.0.1/32\n\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
