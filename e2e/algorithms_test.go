package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// ciphers and macs are the algorithms that carry packets, by setkey's names,
// with the sizes of their keys in bytes.
var (
	ciphers = []struct {
		name string
		key  int
	}{
		{"null", 0}, {"rijndael-cbc", 16}, {"aes-cbc", 24}, {"rijndael-cbc", 32},
		{"aes-ctr", 20}, {"aes-ctr", 36}, {"des-cbc", 8}, {"3des-cbc", 24},
		{"blowfish-cbc", 16}, {"cast128-cbc", 16}, {"cast128-cbc", 10}, {"camellia-cbc", 16}, {"camellia-cbc", 32},
	}
	aeads = []struct {
		name string
		key  int
	}{
		{"aes-gcm-16", 20}, {"aes-gcm-16", 28}, {"aes-gcm-16", 36}, {"chacha20-poly1305", 36},
	}
	macs = []struct {
		name string
		key  int
	}{
		{"null", 0}, {"hmac-md5", 16}, {"hmac-sha1", 20}, {"keyed-md5", 16}, {"keyed-sha1", 20},
		{"hmac-sha2-256", 32}, {"hmac-sha2-384", 48}, {"hmac-sha2-512", 64},
		{"hmac-ripemd160", 20}, {"aes-xcbc-mac", 16},
	}
)

// key returns a key of a size, another for each SPI.
func key(spi uint32, size int) string {
	if size == 0 {
		return `""`
	}
	return "0x" + strings.Repeat(fmt.Sprintf("%08x", spi*0x9e3779b1), (size+3)/4)[:2*size]
}

// Each cipher and each authenticator carries packets of both families and of
// any size that fits, both ways.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	tn := newTunnel(0)
	quiet(t, a, tn.interfaceA())
	quiet(t, b, tn.interfaceB())
	algorithms := func(spi uint32) (all []string) {
		for i, c := range ciphers {
			mac := macs[i%len(macs)]
			all = append(all, fmt.Sprintf("-E %s %s -A %s", c.name, key(spi, c.key), mac.name))
			// Only the null cipher has a key to be given, of no bytes.
			if mac.key > 0 {
				all[i] += " " + key(spi+1, mac.key)
			}
		}
		for _, c := range aeads {
			all = append(all, fmt.Sprintf("-E %s %s", c.name, key(spi, c.key)))
		}
		return all
	}
	count := len(slices.Concat(ciphers, aeads))
	for i := range count {
		spiAB, spiBA := uint32(0x1000+4*i), uint32(0x1002+4*i)
		ab, ba := tn, tn
		ab.algorithms, ba.algorithms = algorithms(spiAB)[i], algorithms(spiBA)[i]
		statements := func(reqid int) string {
			return "flush;\n" + ab.add(outerA, outerB, spiAB, reqid) + ba.add(outerB, outerA, spiBA, reqid)
		}
		t.Run(strings.Join(names(ab.algorithms), "+"), func(t *testing.T) {
			quiet(t, a, setkey(statements(tn.reqidA())))
			quiet(t, b, setkey(statements(tn.reqidB())))
			for n := range tn.innerA {
				reaches(t, a, tn.innerB[n])
				reaches(t, b, tn.innerA[n])
			}
			sizes(t, a, tn.innerB[0])
		})
	}
}

// names returns the names of the algorithms in setkey's -E and -A.
func names(algorithms string) (names []string) {
	words := strings.Fields(algorithms)
	for i, word := range words {
		if word == "-E" || word == "-A" {
			names = append(names, words[i+1])
		}
	}
	return names
}
