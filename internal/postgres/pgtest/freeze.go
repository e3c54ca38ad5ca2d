package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Freeze stops a process (SIGSTOP), and returns when all of its threads stand still: kill(2) returns before that, and a
// thread on another core may go on to answer meanwhile. At the end of the test the process is let go on.
func Freeze(t testing.TB, pid int) {
	t.Helper()
	Must(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) })
	Eventually(t, fmt.Sprintf("process %d stands still", pid), func() error { return stands(pid) })
}

// stands is nil if no thread of the process runs or could; one that sleeps without being stopped could (proc_pid_stat(5)).
func stands(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	if len(threads) == 0 {
		return errors.New("it has ended")
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// The state comes after the name, which stands in parentheses and may hold anything.
		_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
		if !bytes.HasPrefix(rest, []byte("T ")) {
			return fmt.Errorf("%s: %.1s", path, rest)
		}
	}
	return nil
}
