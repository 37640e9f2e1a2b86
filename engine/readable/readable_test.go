package readable

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe returns a file, and what makes it readable by a byte.
func pipe(t testing.TB) (f *File, write func()) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	f, err := New(fds[0], func() error { return unix.Close(fds[0]) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		unix.Close(fds[1])
	})
	return f, func() {
		if _, err := unix.Write(fds[1], []byte{0}); err != nil {
			t.Error(err)
		}
	}
}

// readByte waits for a byte and reads it.
func readByte(f *File) error {
	fd, err := f.Acquire()
	if err != nil {
		return err
	}
	defer f.Release()
	for {
		switch n, err := unix.Read(fd, make([]byte, 1)); {
		case n == 1:
			return nil
		case err != unix.EAGAIN:
			return err
		}
		if err := f.Wait(); err != nil {
			return err
		}
	}
}

// pauses are times after which a file is waited for in different ways.
var pauses = []time.Duration{0, patience / 10, patience, 3 * patience}

func TestWait(t *testing.T) {
	t.Parallel()
	f, write := pipe(t)
	for range 5 {
		for _, pause := range pauses {
			got := make(chan error)
			go func() { got <- readByte(f) }()
			time.Sleep(pause)
			select {
			case err := <-got:
				t.Fatalf("there was something to read after %v: %v", pause, err)
			default:
			}
			write()
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What came before anybody waited is told too.
func TestWaitForWhatIsThere(t *testing.T) {
	t.Parallel()
	f, write := pipe(t)
	if _, err := f.Acquire(); err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	write()
	// None may wait with poll(2).
	threads.Add(2 * Threads)
	defer threads.Add(-2 * Threads)
	for range 2 {
		if err := f.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, pause := range pauses {
		f, write := pipe(t)
		got := make(chan error)
		go func() { got <- readByte(f) }()
		time.Sleep(pause)
		f.Stop()
		if err := <-got; err != os.ErrClosed {
			t.Errorf("stopped after %v: %v", pause, err)
		}
		if !f.Stopped() {
			t.Error("it says that it isn't stopped")
		}
		write() // the descriptor is open yet
		if err := readByte(f); err != nil {
			t.Errorf("what came after the stop is lost: %v", err)
		}
		if err := readByte(f); err != os.ErrClosed {
			t.Errorf("it waits again: %v", err)
		}
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	for _, pause := range pauses[1:] { // the reader has it by then
		f, _ := pipe(t)
		got := make(chan error)
		go func() { got <- readByte(f) }()
		time.Sleep(pause)
		closed := make(chan error)
		fd, err := f.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		go func() { closed <- f.Close() }()
		if err := <-got; err != os.ErrClosed {
			t.Errorf("closed after %v: %v", pause, err)
		}
		select {
		case err := <-closed:
			t.Fatalf("closed while it is used: %v", err)
		case <-time.After(time.Millisecond):
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Errorf("the descriptor is closed while it is used: %v", err)
		}
		f.Release()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if _, err := f.Acquire(); err != os.ErrClosed {
			t.Errorf("acquired after Close: %v", err)
		}
		if err := f.Close(); err != os.ErrClosed {
			t.Errorf("closed again: %v", err)
		}
	}
}

// Files that nothing comes from keep no threads.
func TestThreads(t *testing.T) {
	count := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	before := count()
	const n = 200
	var waiting sync.WaitGroup
	files := make([]*File, n)
	for i := range files {
		files[i], _ = pipe(t)
		waiting.Go(func() {
			if err := readByte(files[i]); err != os.ErrClosed {
				t.Error(err)
			}
		})
	}
	time.Sleep(3 * patience)
	if n := count() - before; n > 50 {
		t.Errorf("%d files have made %d threads", len(files), n)
	}
	for _, f := range files {
		f.Stop()
	}
	waiting.Wait()
}

// A goroutine that goes from Go's poller to poll(2) does not leave the others without
// somebody who tells them.
func TestOthersAreTold(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0)) // as it is
	runtime.GOMAXPROCS(runtime.NumCPU() + Threads)
	f, write := pipe(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer f.Stop()
	waiting.Go(func() {
		for readByte(f) == nil {
		}
	})
	arrived := make(chan time.Time, 1)
	go func() {
		defer close(arrived)
		for b := make([]byte, 1); ; {
			if _, err := r.Read(b); err != nil {
				return
			}
			arrived <- time.Now()
		}
	}()
	var took []time.Duration
	for range 21 {
		sleep(2 * patience) // both wait for Go's poller
		write()
		sleep(patience / 10) // one waits for poll(2)
		sent := time.Now()
		if _, err := w.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		sleep(2 * patience) // this goroutine's thread does not tell it
		took = append(took, (<-arrived).Sub(sent))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > patience/2 {
		t.Errorf("it takes %v, up to %v, until another reader is told", median, took[len(took)-1])
	}
}

// sleep is time.Sleep without a thread in Go's poller.
func sleep(d time.Duration) {
	rest := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&rest, nil) // shorter is no harm
}

func BenchmarkWait(b *testing.B) {
	f, write := pipe(b)
	back, answer := pipe(b)
	var answering sync.WaitGroup
	answering.Go(func() {
		for readByte(f) == nil {
			answer()
		}
	})
	for b.Loop() {
		write()
		if err := readByte(back); err != nil {
			b.Fatal(err)
		}
	}
	f.Stop()
	answering.Wait()
}
