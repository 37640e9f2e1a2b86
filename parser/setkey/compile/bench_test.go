package compile_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"ifipsec/parser/setkey"
	"ifipsec/parser/setkey/compile"
)

// BenchmarkCompile reads and compiles add statements, and shows that the time
// for a line does not grow with the script.
func BenchmarkCompile(b *testing.B) {
	for _, lines := range []int{1000, 10_000, 100_000} {
		var text strings.Builder
		for i := range lines {
			fmt.Fprintf(&text, "add 10.%d.%d.%d 192.168.0.5 esp %d -m tunnel -u %d -E rijndael-cbc \"VerySecureKey!!1\" -A hmac-sha1 0x0102030405060708090a0b0c0d0e0f1011121314;\n",
				i>>16&255, i>>8&255, i&255, 10000+i, 100+i%1000)
		}
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := setkey.NewReader("bench", strings.NewReader(text.String()))
				for {
					s, err := r.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					if result := compile.Statement(r, s, nil, compile.System{}); len(result.Messages) != 1 {
						b.Fatal(result.Errors)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/line")
		})
	}
}
