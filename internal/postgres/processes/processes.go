// Package processes finds and signals the processes of a PostgreSQL server by what the system says of them, whoever
// started them. It guarantees that no living process is signalled for its directory or its number alone: a process is the
// server's if its executable is the server's and its working directory is the data directory. When to end a server,
// and how often to look again, is the caller's business.
package processes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/havenha/haven/internal/postgres/pidfile"
	"golang.org/x/sys/unix"
)

// Server says by what the processes of a server are known.
type Server struct {
	DataDir string `json:"data_dir"`
	// Executables are the paths that they may run from, as /proc/<pid>/exe names them.
	Executables []string `json:"executables"`
}

// List returns the pids of all processes of the server. Zombies, which hold nothing any more, are not among them;
// processes that are just ending are: they may still hold the shared memory without which no server can start again. With
// an error, nothing is known.
func (s Server) List() ([]int, error) {
	dir, err := s.place()
	if err != nil {
		return nil, fmt.Errorf("list the server's processes: %w", err)
	}
	all, err := all()
	if err != nil {
		return nil, fmt.Errorf("list the server's processes: %w", err)
	}
	var out []int
	for _, pid := range all {
		is, err := s.has(pid, dir)
		if err != nil {
			return nil, fmt.Errorf("list the server's processes: %w", err)
		}
		if is {
			out = append(out, pid)
		}
	}
	return out, nil
}

// place is where a server stands.
type place struct {
	path string      // without symbolic links; empty if the directory is gone
	info fs.FileInfo // nil if the directory is gone
}

func (s Server) place() (place, error) {
	info, err := os.Stat(s.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return place{path: filepath.Clean(s.DataDir)}, nil
	}
	if err != nil {
		return place{}, err
	}
	path, err := filepath.EvalSymlinks(s.DataDir)
	return place{path: path, info: info}, err
}

func all() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Has tells whether pid is a process of the server at this moment.
func (s Server) Has(pid int) bool {
	dir, err := s.place()
	if err != nil {
		return false
	}
	is, err := s.has(pid, dir)
	return err == nil && is
}

// deleted is what the system appends to the name of a file that was removed while it is in use (proc(5)).
const deleted = " (deleted)"

// has tells whether a process is the server's. With an error that is not known: by its user and its name it may be, and the system does not
// let us look at it.
func (s Server) has(pid int, dir place) (bool, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	exe, err := os.Readlink(proc + "/exe")   // names of links are read first: they cannot wait for a disk
	ending := errors.Is(err, fs.ErrNotExist) // its memory is being given back, and with it its executable
	if errors.Is(err, fs.ErrPermission) && dir.ownedAlike(proc) && s.namedAlike(proc) {
		return false, fmt.Errorf("process %d cannot be looked at, and may be one of the server in %s: run Haven as that user, or as root with the capability CAP_SYS_PTRACE: %w", pid, dir.path, err)
	}
	if !ending && (err != nil || !slices.Contains(s.Executables, strings.TrimSuffix(exe, deleted))) {
		return false, nil
	}
	name, err := os.Readlink(proc + "/cwd")
	if err != nil {
		return false, nil
	}
	if strings.TrimSuffix(name, deleted) == dir.path {
		return true, nil
	}
	if ending || dir.info == nil { // kernel threads are without an executable, too
		return false, nil
	}
	cwd, err := os.Stat(proc + "/cwd")
	return err == nil && os.SameFile(cwd, dir.info), nil
}

// namedAlike tells whether a process has the name of a program of the server, which everybody may read (proc(5), comm).
func (s Server) namedAlike(proc string) bool {
	const most = 15 // of its letters
	name, err := os.ReadFile(proc + "/comm")
	return err == nil && slices.ContainsFunc(s.Executables, func(e string) bool {
		base := filepath.Base(e)
		return strings.TrimSuffix(string(name), "\n") == base[:min(most, len(base))]
	})
}

// ownedAlike tells whether a process, by its directory below /proc, runs as the owner of the data directory.
func (p place) ownedAlike(proc string) bool {
	info, err := os.Stat(proc)
	if err != nil || p.info == nil {
		return false
	}
	its, known := info.Sys().(*syscall.Stat_t)
	owner, is := p.info.Sys().(*syscall.Stat_t)
	return known && is && its.Uid == owner.Uid && owner.Uid != 0 // PostgreSQL does not run as root
}

// Signal signals pid if it still is a process of the server; one that has ended is no error.
func (s Server) Signal(pid int, sig unix.Signal) error {
	return signalIf(pid, sig, func() bool { return s.Has(pid) })
}

// signalIf holds pid by a pidfd while it looks, which keeps the number from meaning another process between the look and
// the signal.
func signalIf(pid int, sig unix.Signal, ours func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !ours() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// Descendants returns the pids of all living processes below ancestor, by the parents that the system names. No file
// outside of /proc is touched, so a disk that does not answer does not hold it up.
func Descendants(ancestor int) ([]int, error) {
	pids, err := all()
	if err != nil {
		return nil, fmt.Errorf("list the descendants of process %d: %w", ancestor, err)
	}
	parents := map[int]int{}
	for _, pid := range pids {
		if state, parent, err := pidfile.Parent(pid); err == nil && state != 'Z' {
			parents[pid] = parent
		}
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		_, lives := parents[pid]
		return !lives || !below(pid, ancestor, parents)
	}), nil
}

// maxDepth bounds the way up to an ancestor: what is read while processes come and go may lead in a circle.
const maxDepth = 1000

func below(pid, ancestor int, parents map[int]int) bool {
	for range maxDepth {
		if pid = parents[pid]; pid == ancestor || pid <= 0 {
			break
		}
	}
	return pid == ancestor
}

// KillDescendant ends pid if it still is below ancestor; one that has ended is no error.
func KillDescendant(pid, ancestor int) error {
	return signalIf(pid, unix.SIGKILL, func() bool {
		up := pid
		for range maxDepth {
			_, parent, err := pidfile.Parent(up)
			if err != nil || parent <= 1 || parent == ancestor {
				return err == nil && parent == ancestor
			}
			up = parent
		}
		return false
	})
}

// Describe says of processes that should be gone what is known of why they are not.
func Describe(pids []int) string {
	text := fmt.Sprintf("processes %v are still there", pids)
	for _, pid := range pids {
		if st, err := pidfile.ReadStat(pid); err == nil && st.State == 'D' {
			text += fmt.Sprintf("; process %d is in uninterruptible sleep (state D), most likely in a disk that does not answer", pid)
		}
	}
	return text
}
