package table

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(dirEnv, dir)
	table := New("a peer", "4 in 4", "6 in 4")
	table.Set("aes-cbc 128", "4 in 4", true)
	table.Set("des-cbc", "4 in 4", true)
	table.Set("des-cbc", "6 in 4", false)
	table.Lacks("keyed-md5", "nobody has it")
	const want = "" +
		"a peer\n" +
		"               4 in 4  6 in 4\n" +
		"  aes-cbc 128  ok      -\n" +
		"  des-cbc      ok      FAILED\n" +
		"  keyed-md5    -       -       nobody has it\n"
	if err := table.Save("peer"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "peer.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("the table is\n%swant\n%s", got, want)
	}
}
