package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		status       int
		stderr       string
	}{
		{"nothing wrong", "flush;\ndelete 10.0.0.1 10.0.0.2 esp 1000;\n", 0, ""},
		{
			"a warning", "get ::1 ::2 esp 1 -m any -m tunnel;", 0,
			"-:1:29: warning: -m says nothing here: an SA is found without its mode\nget ::1 ::2 esp 1 -m any -m tunnel;\n                            ^\n" +
				"-: 0 errors, 1 warning\n",
		},
		{
			"every error",
			"flush x;\nadd ::1 ::2 esp 1 -E aes-cbc \"Secret\";\nflush @ rest;\nspdadd ::1 ::2 any -P out ipsec\n\tesp/tunnel//use;\nspdflush",
			1,
			"-:1:7: error: unexpected \"x\", expected esp, esp-old, ah, ah-old, ipcomp, tcp or ;\nflush x;\n      ^\n" +
				"-:2:30: error: aes-cbc: key has 48 bits, must have 128, 192 or 256 bits\nadd ::1 ::2 esp 1 -E aes-cbc ********;\n                             ^\n" +
				"-:3:7: error: no word begins with \"@\"\nflush @\n      ^\n" +
				"-:5:2: error: policy: a tunnel needs its endpoints: esp/tunnel/SOURCE-DESTINATION/LEVEL\n\tesp/tunnel//use;\n\t^\n" +
				"-:6:9: error: the script ends inside a statement, expected ;\nspdflush\n        ^\n" +
				"-: 5 errors, 0 warnings\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			status := run([]string{"-n", "-c"}, world{
				stdin: strings.NewReader(c.script), stdout: &stdout, stderr: &stderr, names: corpusNames{},
				dial: func() (conn, error) { return nil, errors.New("the daemon is asked") },
			})
			if status != c.status || stdout.Len() > 0 {
				t.Errorf("status %d, %q, want %d", status, stdout.String(), c.status)
			}
			if diff := cmp.Diff(c.stderr, stderr.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckFails(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	status := run([]string{"-nc"}, world{stdin: iotest.ErrReader(errors.New("broken")), stderr: &stderr})
	if status != exitRead || stderr.String() != "setkey: -: broken\n" {
		t.Errorf("status %d, %q", status, stderr.String())
	}
	var stdout bytes.Buffer
	if status := run([]string{"-n", "-D"}, world{stdout: &stdout}); status != 1 || stdout.String() != usage {
		t.Errorf("-n -D: status %d, %q", status, stdout.String())
	}
}
