// Package strerror has the texts of errnos as FreeBSD's strerror(3) gives them.
package strerror

import (
	"syscall"
	"unicode"
	"unicode/utf8"
)

// words are the texts that differ from Linux's.
var words = map[syscall.Errno]string{
	syscall.ENXIO:         "Device not configured",
	syscall.EADDRNOTAVAIL: "Can't assign requested address",
	syscall.EAFNOSUPPORT:  "Address family not supported by protocol family",
}

// Text returns FreeBSD's text of an errno of Linux.
func Text(errno syscall.Errno) string {
	if s, ok := words[errno]; ok {
		return s
	}
	// Go's texts are those of Linux without the capital.
	s := errno.Error()
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}
