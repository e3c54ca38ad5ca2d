package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures were measured on.
type machine struct {
	Cores    int               `json:"cores"`
	CPU      string            `json:"cpu"`
	Memory   int64             `json:"memory"` // bytes
	Kernel   string            `json:"kernel"`
	FsyncP50 float64           `json:"fsync_p50"` // seconds, of 8 kB appended
	FsyncP99 float64           `json:"fsync_p99"`
	Versions map[string]string `json:"versions"`
}

func describeMachine(dir, pgBin, haven string) (machine, error) {
	m := machine{Cores: runtime.NumCPU(), CPU: after("/proc/cpuinfo", "model name"), Versions: map[string]string{
		"PostgreSQL": version(filepath.Join(pgBin, "postgres"), "--version"), "Haven": version(haven, "version"),
		"Patroni": version("patroni", "--version"), "etcd": version("etcd", "--version"), "HAProxy": version("haproxy", "-v"),
	}}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.Memory = int64(info.Totalram) * int64(info.Unit)
	var err error
	m.FsyncP50, m.FsyncP99, err = measureFsync(dir)
	return m, err
}

// after is the value of the first line of a file that begins with that key.
func after(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// measureFsync appends 8 kB and syncs, 500 times.
func measureFsync(dir string) (p50, p99 float64, err error) {
	path := filepath.Join(dir, "fsync")
	f, err := os.Create(path)
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(path)
	defer f.Close()
	var took []float64
	for range 500 {
		begun := time.Now()
		if _, err := f.Write(make([]byte, 8192)); err != nil {
			return 0, 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, 0, fmt.Errorf("fdatasync: %w", err)
		}
		took = append(took, time.Since(begun).Seconds())
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}
