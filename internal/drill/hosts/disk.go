package hosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a file system of that size (bytes) on an empty directory. Undo takes it away with all it holds; nothing may run on it
// any more.
func SmallDisk(dir string, size int64) (Undo, error) {
	if err := unix.Mount("haven-small-disk", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		return nil, fmt.Errorf("mount a small file system on %s: %w", dir, err)
	}
	return func(context.Context) error {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}, nil
}

// ballast is the file that Fill leaves.
const ballast = "haven-drill-ballast"

// Fill writes into the directory until its file system is full.
func Fill(dir string) (Undo, error) {
	path := filepath.Join(dir, ballast)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fill %s: %w", dir, err)
	}
	_, full := io.Copy(f, endless{})
	err = f.Close()
	undo := func(context.Context) error { return os.Remove(path) }
	if !errors.Is(full, syscall.ENOSPC) {
		return nil, errors.Join(fmt.Errorf("fill %s: ended without being full: %w", dir, full), err, undo(context.Background()))
	}
	return undo, nil
}

// endless reads as zeros without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// SlowSync makes every fsync and fdatasync of these processes, and of all that they start, take that much longer, with
// the system call injection of strace(1).
func SlowSync(pids []int, by time.Duration) (Undo, error) {
	return inject(pids, fmt.Sprintf("fsync,fdatasync:delay_enter=%d", by.Microseconds()), "")
}

// FailSync makes fsync and fdatasync of files below path fail with EIO.
func FailSync(pids []int, path string) (Undo, error) {
	return inject(pids, "fsync,fdatasync:error=EIO", path)
}

func inject(pids []int, what, path string) (Undo, error) {
	if len(pids) == 0 {
		return nil, errors.New("inject: no process")
	}
	args := []string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=fsync,fdatasync", "-e", "inject=" + what}
	if path != "" {
		args = append(args, "-P", path)
	}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.Command("strace", args...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("inject: %w: install strace", err)
	}
	undo := func(context.Context) error {
		// Detaches; it may have ended with the last of its processes. SIGINT would be ignored by what a shell has started in the background.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		return traced(pids, false)
	}
	if err := traced(pids, true); err != nil {
		return nil, errors.Join(err, undo(context.Background()))
	}
	return undo, nil
}

// traced waits until all of the processes that live are traced, or none is.
func traced(pids []int, want bool) error {
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		whole := true
		for _, pid := range pids {
			whole = whole && (state(pid) == 0 || (tracer(pid) != 0) == want)
		}
		if whole {
			return nil
		}
		if time.Since(begun) > verifyFor {
			return fmt.Errorf("inject: traced should be %v for processes %v", want, pids)
		}
	}
}

func tracer(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "TracerPid:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
