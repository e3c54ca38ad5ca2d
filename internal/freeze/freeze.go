// Package freeze stops processes in tests, so that they stand still when it returns.
package freeze

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take to stand still: one in an uninterruptible wait does so only after it.
const patience = 20 * time.Second

// errEnded: the process is gone, or nothing is left of it but its exit status.
var errEnded = errors.New("it has ended")

// Process stops a process (SIGSTOP), and returns when all of its threads stand still: kill(2) returns before that, and a
// thread on another core may go on to answer meanwhile. At the end of the test the process is let go on.
func Process(t testing.TB, pid int) {
	t.Helper()
	if err := stop(t, pid); err != nil {
		t.Fatalf("freeze process %d: %v", pid, err)
	}
}

// Processes stops several, as Process does. Those that end meanwhile are passed over.
func Processes(t testing.TB, pids []int) {
	t.Helper()
	for _, pid := range pids {
		if err := stop(t, pid); err != nil && !errors.Is(err, errEnded) {
			t.Fatalf("freeze process %d: %v", pid, err)
		}
	}
}

// stop stops a process and waits until it stands still.
func stop(t testing.TB, pid int) error {
	err := unix.Kill(pid, unix.SIGSTOP)
	if errors.Is(err, unix.ESRCH) {
		return errEnded
	}
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) }) // it may be gone
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err = stands(pid); err == nil || errors.Is(err, errEnded) {
			return err
		}
	}
	return fmt.Errorf("it does not stand still: %w", err)
}

// stands is nil if no thread of the process runs or could; one that sleeps without being stopped could (proc_pid_stat(5)).
func stands(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	if len(threads) == 0 {
		return errEnded
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			return err // it has ended; whether the process has, the next look tells
		}
		// The state comes after the name, which stands in parentheses and may hold anything.
		_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
		if bytes.HasPrefix(rest, []byte("Z ")) {
			return errEnded
		}
		if !bytes.HasPrefix(rest, []byte("T ")) {
			return fmt.Errorf("%s: %.1s", path, rest)
		}
	}
	return nil
}
