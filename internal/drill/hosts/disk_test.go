package hosts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestSmallDiskFillsAndEmpties(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	unmount, err := SmallDisk(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	undo, err := Fill(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), make([]byte, 4096), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to the full disk: %v", err)
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), make([]byte, 4096), 0o600); err != nil {
		t.Error(err)
	}
	if err := unmount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// TestSyncIsSlowedAndFails syncs in a child process again and again, and reads what it says.
func TestSyncIsSlowedAndFails(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	dir := t.TempDir()
	var out lines
	cmd := exec.Command("sh", "-c", `while :; do dd if=/dev/zero of=f bs=1 count=1 conv=fsync 2>/dev/null; echo $?; sleep 0.02; done`)
	cmd.Dir, cmd.Stdout = dir, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }()
	took := func(n int) time.Duration {
		begun, from := time.Now(), out.count("")
		await(t, "syncs", func() bool { return out.count("") >= from+n })
		return time.Since(begun)
	}
	took(1)
	pids := []int{cmd.Process.Pid}
	undo, err := SlowSync(pids, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	took(1)
	if d := took(3); d < 1900*time.Millisecond { // the first of them may have begun before
		t.Errorf("three slowed syncs took %s", d)
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if undo, err = FailSync(pids, filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	await(t, "a failed sync", func() bool { return out.count("1\n") > 0 })
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	took(1)
	failed := out.count("1\n")
	took(3)
	if out.count("1\n") > failed {
		t.Error("syncs fail after the undo")
	}
}

// lines collects a program's output.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count tells how many lines are exactly that; with "": how many there are.
func (l *lines) count(line string) int {
	l.mu.Lock()
	text := l.text.String()
	l.mu.Unlock()
	if line == "" {
		return strings.Count(text, "\n")
	}
	n := 0
	for s := range strings.Lines(text) {
		if s == line {
			n++
		}
	}
	return n
}
