package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/durable"
	"github.com/havenha/haven/internal/postgres/pidfile"
	"github.com/havenha/haven/internal/postgres/processes"
)

// Processes are the pids of all processes of the server: those whose executable is the server's and whose working
// directory is the data directory. (A process is never ours for its directory alone: a shell may stand there.) Zombies,
// which can do nothing any more, are not among them.
func (i *Instance) Processes() ([]int, error) { return i.Target().List() }

// Target says by what the processes of this server are known, for whoever else is to end them.
func (i *Instance) Target() processes.Server {
	return processes.Server{DataDir: i.opt.DataDir, Executables: i.executables()}
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

// isPostmaster tells whether pid is the server of our data directory: by executable and working directory, or where
// these may not be read, by a start time within three seconds of the file's (Patroni's rule).
func (i *Instance) isPostmaster(f pidfile.File) bool {
	if f.PID <= 1 || f.PID == os.Getpid() || f.PID == os.Getppid() {
		return false
	}
	st, err := pidfile.ReadStat(f.PID)
	if err != nil || st.State == 'Z' {
		return false
	}
	proc := "/proc/" + strconv.Itoa(f.PID)
	exe, errExe := os.Readlink(proc + "/exe")
	cwd, errCwd := os.Stat(proc + "/cwd")
	if errExe != nil || errCwd != nil {
		return st.Start.Sub(f.Start).Abs() <= 3*time.Second
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
	if f, err := pidfile.Read(i.opt.DataDir); err == nil && f.Socket != "" {
		dirs = append(dirs, f.Socket)
		port = firstOf(f.Port, port)
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
		if st, err := pidfile.ReadStat(pid); err == nil && st.State == 'Z' {
			if _, err := durable.Remove(lock); err != nil {
				return fmt.Errorf("remove the lock file of a dead server: %w", err)
			}
		}
	}
	return nil
}
