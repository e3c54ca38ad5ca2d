package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Processes are the pids of all processes of the server: those whose executable is the server's and whose working
// directory is the data directory. (A process is never ours for its directory alone: a shell may stand there.) Zombies,
// which can do nothing any more, are not among them.
func (i *Instance) Processes() ([]int, error) {
	dir, err := os.Stat(i.opt.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the server's processes: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the server's processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && i.isServerProcess(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (i *Instance) isServerProcess(pid int, dir fs.FileInfo) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	cwd, err := os.Stat(proc + "/cwd")
	if err != nil || !os.SameFile(cwd, dir) {
		return false
	}
	exe, err := os.Readlink(proc + "/exe")
	return err == nil && slices.Contains(i.executables(), strings.TrimSuffix(exe, " (deleted)"))
}

// executables are the paths that a process of our server may run from: our own program's, and that of the server that
// was seen last, which may have been started by another one.
func (i *Instance) executables() []string {
	paths := []string{i.bin("postgres")}
	if real, err := filepath.EvalSymlinks(paths[0]); err == nil {
		paths = append(paths, real)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.exe != "" {
		paths = append(paths, i.exe)
	}
	return paths
}

// procStat are the fields of /proc/<pid>/stat that matter here.
type procStat struct {
	state byte
	start time.Time
}

func readProcStat(pid int) (procStat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name in parentheses may itself hold parentheses and spaces.
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat cannot be understood", pid)
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return procStat{}, err
	}
	boot, err := bootTime()
	return procStat{state: fields[0][0], start: boot.Add(time.Duration(ticks) * (time.Second / 100))}, err
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

// pidFile is what the server writes into postmaster.pid.
type pidFile struct {
	pid    int // negative: a single-user server
	start  time.Time
	port   string
	socket string // directory of its first socket
	status string // "starting", "ready", "standby" (up, but accepts nobody), "stopping"
}

func (i *Instance) readPidFile() (pidFile, error) {
	raw, err := os.ReadFile(i.path("postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pidFile{}, fmt.Errorf("postmaster.pid begins with %q, which is no process id", lines[0])
	}
	f := pidFile{pid: pid}
	if len(lines) > 2 {
		if n, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64); err == nil {
			f.start = time.Unix(n, 0)
		}
	}
	if len(lines) > 4 {
		f.port, f.socket = strings.TrimSpace(lines[3]), strings.TrimSpace(lines[4])
	}
	if len(lines) > 7 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f, nil
}

// isPostmaster tells whether pid is the server of our data directory: by executable and working directory, or where
// these may not be read, by a start time within three seconds of the file's (Patroni's rule).
func (i *Instance) isPostmaster(f pidFile) bool {
	if f.pid <= 1 || f.pid == os.Getpid() || f.pid == os.Getppid() {
		return false
	}
	st, err := readProcStat(f.pid)
	if err != nil || st.state == 'Z' {
		return false
	}
	proc := "/proc/" + strconv.Itoa(f.pid)
	exe, errExe := os.Readlink(proc + "/exe")
	cwd, errCwd := os.Stat(proc + "/cwd")
	if errExe != nil || errCwd != nil {
		return st.start.Sub(f.start).Abs() <= 3*time.Second
	}
	dir, err := os.Stat(i.opt.DataDir)
	name := filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	return err == nil && os.SameFile(cwd, dir) && (name == "postgres" || name == "postmaster")
}

// clearZombieLocks removes the lock files of a server that is dead but has not been reaped by its parent (a slow process
// 1): its number still exists, so a new server would take it for alive and refuse to start.
func (i *Instance) clearZombieLocks() error {
	locks := []string{i.path("postmaster.pid")}
	dirs := strings.Split(i.opt.SocketDir, ",")
	port := strconv.Itoa(i.opt.Port)
	if f, err := i.readPidFile(); err == nil && f.socket != "" {
		dirs = append(dirs, f.socket)
		port = firstOf(f.port, port)
	}
	for _, dir := range dirs {
		if dir = strings.TrimSpace(dir); filepath.IsAbs(dir) {
			locks = append(locks, filepath.Join(dir, ".s.PGSQL."+port+".lock"))
		}
	}
	slices.Reverse(locks) // postmaster.pid last: it names the others
	for _, lock := range locks {
		raw, err := os.ReadFile(lock)
		if err != nil {
			continue // absent, or of somebody else: the server itself will judge
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil {
			continue
		}
		if st, err := readProcStat(pid); err == nil && st.state == 'Z' {
			if _, err := removeFile(lock); err != nil {
				return fmt.Errorf("remove the lock file of a dead server: %w", err)
			}
		}
	}
	return nil
}
