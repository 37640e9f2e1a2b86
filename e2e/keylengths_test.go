package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// keyLengths are setkey(8)'s: for each algorithm the least and the greatest
// length of a key in bits, and the step between them.
var keyLengths = []struct {
	option, name   string
	min, max, step int
}{
	{"-E", "null", 0, 2048, 8},
	{"-E", "des-cbc", 64, 64, 8},
	{"-E", "3des-cbc", 192, 192, 8},
	{"-E", "blowfish-cbc", 40, 448, 8},
	{"-E", "cast128-cbc", 40, 128, 8},
	{"-E", "aes-cbc", 128, 256, 64},
	{"-E", "rijndael-cbc", 128, 256, 64},
	{"-E", "camellia-cbc", 128, 256, 64},
	{"-E", "aes-ctr", 160, 288, 64},
	{"-E", "aes-gcm-16", 160, 288, 64},
	{"-E", "chacha20-poly1305", 288, 288, 8},
	{"-A", "hmac-md5", 128, 128, 8},
	{"-A", "hmac-sha1", 160, 160, 8},
	{"-A", "keyed-md5", 128, 128, 8},
	{"-A", "keyed-sha1", 160, 160, 8},
	{"-A", "hmac-sha2-256", 256, 256, 8},
	{"-A", "hmac-sha2-384", 384, 384, 8},
	{"-A", "hmac-sha2-512", 512, 512, 8},
	{"-A", "hmac-ripemd160", 160, 160, 8},
	{"-A", "aes-xcbc-mac", 128, 128, 8},
}

// Every length of a key that setkey(8) has makes an SA, and every other is
// refused before anything is done.
func TestKeyLengths(t *testing.T) {
	t.Parallel()
	h := newHost(t, "host")
	quiet(t, h, "setkey -F")
	for _, a := range keyLengths {
		t.Run(a.name, func(t *testing.T) {
			add := func(spi, bits int) string {
				algorithm := fmt.Sprintf("%s %s %s", a.option, a.name, key(uint32(spi), bits/8))
				if a.option == "-A" {
					algorithm = "-E null \"\" " + algorithm
				}
				return fmt.Sprintf("add 192.168.0.3 192.168.0.5 esp %d -m tunnel %s;\n", spi, algorithm)
			}
			var good []int
			for bits := a.min; bits <= a.max; bits += a.step {
				good = append(good, bits)
			}
			var statements strings.Builder
			statements.WriteString("flush;\n")
			for _, bits := range good {
				statements.WriteString(add(1000+bits, bits))
			}
			quiet(t, h, setkey(statements.String()))
			if got := strings.Count(output(t, h, "setkey -D"), "spi="); got != len(good) {
				t.Errorf("%d SAs are there, want %d", got, len(good))
			}
			quiet(t, h, "setkey -F")
			for _, bits := range []int{0, 8, a.min - 8, a.min + 8, a.max - 8, a.max + 8, 2 * a.max} {
				if bits < 0 || slices.Contains(good, bits) {
					continue
				}
				r := shell(t, h, setkey(add(1000, bits)))
				if r.Exit != 1 || !strings.Contains(r.Stdout, "parse failed, line 1.") {
					t.Errorf("a key of %d bits: exit %d, %q; want that parsing fails", bits, r.Exit, r.Stdout)
				}
				if all := output(t, h, "setkey -D"); all != "No SAD entries.\n" {
					t.Errorf("a key of %d bits made an SA:\n%s", bits, all)
				}
			}
		})
	}
}
