package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"syscall"
)

const (
	// maxRequest bounds a request, in bytes with its newline.
	maxRequest = 16 << 10
	// maxResponse bounds a response: the status of some 10,000 interfaces with
	// long descriptions.
	maxResponse = 32 << 20
)

// request is a line from the client.
type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args"`
}

// response is the daemon's line for one request.
type response struct {
	Errno   syscall.Errno   `json:"errno,omitzero"` // of Linux, 0 for success
	Message string          `json:"message,omitzero"`
	Result  json.RawMessage `json:"result,omitzero"`
}

// Error is an error that the daemon answered with.
type Error struct {
	Errno   syscall.Errno
	Message string // what went wrong, without the text of Errno
}

// Error returns the message and the text of the errno.
func (e *Error) Error() string { return e.Message + ": " + e.Errno.Error() }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// failure is the response that carries err. EIO stands for errors without an
// errno.
func failure(err error) response {
	var errno syscall.Errno
	if !errors.As(err, &errno) || errno == 0 {
		errno = syscall.EIO
	}
	return response{Errno: errno, Message: strings.TrimSuffix(err.Error(), ": "+errno.Error())}
}

// errTooLong is returned by readLine.
var errTooLong = errors.New("message too long")

// readLine returns the next line without its newline. The bytes are valid
// until the next call. A line that the end of the stream cuts off is
// [io.ErrUnexpectedEOF].
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		// Without its newline a line of the limit is too long already.
		if n := len(line) + len(part); n > limit || n == limit && err != nil {
			return nil, errTooLong
		}
		switch {
		case err == nil && line == nil:
			return part[:len(part)-1], nil
		case err == nil:
			line = append(line, part...)
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			line = append(line, part...)
		case errors.Is(err, io.EOF) && len(line)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
