package lab

import (
	"fmt"
	"time"
)

// Until calls f again and again until it returns nil, for what happens soon but
// not at once. When the time is up it returns f's last error.
func Until(timeout time.Duration, f func() error) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", timeout, err)
		}
	}
}
