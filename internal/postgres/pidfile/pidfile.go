// Package pidfile reads what a server tells of itself in postmaster.pid, and what the system tells of that process. What
// it says may be out of date; whether the process is the server is for the caller to find out.
package pidfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stat are the fields of /proc/<pid>/stat that matter here.
type Stat struct {
	State byte
	Start time.Time
	CPU   time.Duration // that it has used
}

// ReadStat reads them for a process.
func ReadStat(pid int) (Stat, error) {
	fields, err := statFields(pid)
	if err != nil {
		return Stat{}, err
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return Stat{}, err
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return Stat{}, err
	}
	boot, err := bootTime()
	return Stat{
		State: fields[0][0], Start: boot.Add(time.Duration(ticks) * (time.Second / 100)),
		CPU: time.Duration(user+system) * (time.Second / 100),
	}, err
}

// Parent reads a process's state and the number of its parent.
func Parent(pid int) (state byte, parent int, err error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, 0, err
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err
}

// statFields are those after the name, which stands in parentheses and may itself hold parentheses and spaces.
func statFields(pid int) ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat cannot be understood", pid)
	}
	return fields, nil
}

// bootTime is the kernel's btime; the clock tick of Linux's /proc is 1/100 s on every architecture PostgreSQL runs on.
func bootTime() (time.Time, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat has no btime")
}

// File is what the server writes into postmaster.pid.
type File struct {
	PID    int // negative: a single-user server
	Start  time.Time
	Port   string
	Socket string // directory of its first socket
	// Segment is the identifier of the server's shared memory of System V; -1: it has not told it.
	Segment int
	Status  string // "starting", "ready", "standby" (up, but accepts nobody), "stopping"
}

// Read reads the one of the data directory dir.
func Read(dir string) (File, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return File{}, err
	}
	lines := strings.Split(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return File{}, fmt.Errorf("postmaster.pid begins with %q, which is no process id", lines[0])
	}
	f := File{PID: pid, Segment: -1}
	if len(lines) > 2 {
		if n, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64); err == nil {
			f.Start = time.Unix(n, 0)
		}
	}
	if len(lines) > 4 {
		f.Port, f.Socket = strings.TrimSpace(lines[3]), strings.TrimSpace(lines[4])
	}
	if len(lines) > 6 {
		if key := strings.Fields(lines[6]); len(key) == 2 {
			if n, err := strconv.Atoi(key[1]); err == nil {
				f.Segment = n
			}
		}
	}
	if len(lines) > 7 {
		f.Status = strings.TrimSpace(lines[7])
	}
	return f, nil
}
