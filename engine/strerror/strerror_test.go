package strerror

import (
	"syscall"
	"testing"
)

func TestTextsOfErrnos(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]string{
		syscall.EEXIST:        "File exists",
		syscall.EINVAL:        "Invalid argument",
		syscall.EPERM:         "Operation not permitted",
		syscall.ENXIO:         "Device not configured",
		syscall.EADDRNOTAVAIL: "Can't assign requested address",
		syscall.EDESTADDRREQ:  "Destination address required",
		syscall.ENAMETOOLONG:  "File name too long",
		syscall.ENOSPC:        "No space left on device",
	} {
		if got := Text(errno); got != want {
			t.Errorf("Text(%d) = %q, want %q", errno, got, want)
		}
	}
}
