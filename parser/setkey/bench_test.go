package setkey_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"ifipsec/parser/setkey"
)

// script is so many add statements, one a line.
func script(lines int) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "add 10.%d.%d.%d 192.168.0.5 esp %d -m tunnel -u %d -E rijndael-cbc \"VerySecureKey!!1\" -A hmac-sha1 0x0102030405060708090a0b0c0d0e0f1011121314;\n",
			i>>16&255, i>>8&255, i&255, 10000+i, 100+i%1000)
	}
	return b.String()
}

// BenchmarkReader shows that the time for a line does not grow with the script.
func BenchmarkReader(b *testing.B) {
	for _, lines := range []int{1000, 10_000, 100_000} {
		text := script(lines)
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := setkey.NewReader("bench", strings.NewReader(text))
				for {
					if _, err := r.Next(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/line")
		})
	}
}
