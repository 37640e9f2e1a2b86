package lab

import (
	"os"
	"sync"
)

// TB is what [Require] needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

var available = sync.OnceValue(Available)

// Require skips a test where no host can be made, and says why. Where the
// environment has CI=true or IFIPSEC_NO_SKIP set, the test fails instead: there
// a skipped test would go unseen.
func Require(t TB) {
	t.Helper()
	err := available()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" || os.Getenv("IFIPSEC_NO_SKIP") != "" {
		t.Fatalf("this test needs hosts: %v", err)
	}
	t.Skipf("SKIPPED, because it needs hosts: %v", err)
}
