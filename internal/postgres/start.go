package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/postgres/pidfile"
	"github.com/havenha/haven/internal/postgres/processes"
	"golang.org/x/sys/unix"
)

// Start starts the server in a session of its own, after Configure. It returns when the server accepts connections (a
// standby: read-only ones). If it exits instead, the error holds the end of its log. If it still lives when ctx or
// CtlTimeout ends, the Server is returned together with an error that is ErrNotReady: a standby may need long to become
// consistent.
func (i *Instance) Start(ctx context.Context, s Settings) (*Server, error) {
	return i.start(ctx, s, false)
}

// StartArmed is Start of a primary whose Launcher must hold a deadline for it, and refuses to start it otherwise. Without a
// Launcher it is Start.
func (i *Instance) StartArmed(ctx context.Context, s Settings) (*Server, error) {
	return i.start(ctx, s, true)
}

func (i *Instance) start(ctx context.Context, s Settings, armed bool) (*Server, error) {
	if err := i.mayStart(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	disk, err := i.Inspect()
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	if err := i.checkStartable(disk); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	var raised map[string]string
	if disk.StandbySignal || disk.Copy || exists(i.path("recovery.signal")) {
		raised = raisedForStandby(s, disk.Control)
	}
	server, was, err := i.launch(i.arguments(s, raised), armed)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	i.log.Info("server started", "pid", server.pid, "standby", disk.StandbySignal)
	return server, i.awaitReady(ctx, server, was)
}

func (i *Instance) checkStartable(d Disk) error {
	switch {
	case d.Kind != DiskData:
		return fmt.Errorf("%s is no data directory (%s)", i.opt.DataDir, d.Kind)
	case d.Torn:
		return fmt.Errorf("%w: %s; a new copy must be made", ErrTorn, i.opt.DataDir)
	case d.Control.Version != i.version/10000:
		return fmt.Errorf("the data directory %s is of PostgreSQL %d, but the programs in %s are of %d: set postgresql.bin_dir to those of %d, or upgrade the data with pg_upgrade",
			i.opt.DataDir, d.Control.Version, i.opt.BinDir, i.version/10000, d.Control.Version)
	}
	return nil
}

// mayStart refuses while processes of an earlier server live.
func (i *Instance) mayStart() error {
	pids, err := i.Processes()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("processes of an earlier server still run in %s: %v", i.opt.DataDir, pids)
	}
	return i.clearZombieLocks()
}

// before is what stood before a server was started, by which it is known what that one did.
type before struct {
	log  int64     // where its part of the log begins
	opts time.Time // when postmaster.opts was written; zero: it was not there
}

// launch starts the process and its watcher.
func (i *Instance) launch(args []string, armed bool) (server *Server, was before, err error) {
	out, err := i.openLog()
	if err != nil {
		return nil, was, err
	}
	defer out.Close()
	if was.opts, err = i.optsWritten(); err != nil {
		return nil, was, err
	}
	if was.log, err = out.Seek(0, io.SeekEnd); err != nil {
		return nil, was, err
	}
	if i.launcher != nil {
		server, err = i.launchByOther(args, was, armed)
		return server, was, err
	}
	// Not exec.CommandContext: the server outlives every context, and us.
	cmd := exec.Command(i.bin("postgres"), args...)
	cmd.Dir = i.opt.DataDir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = i.environment(i.grandparent()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: i.credential()}
	if err := cmd.Start(); err != nil {
		return nil, was, err
	}
	reap := func() string {
		_ = cmd.Wait()
		return cmd.ProcessState.String()
	}
	server, err = newServer(cmd.Process.Pid, reap, false, time.Now())
	if err != nil {
		return nil, was, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	i.setServer(server)
	return server, was, nil
}

// optsWritten is when the last server that was started here wrote postmaster.opts; zero: there is none.
func (i *Instance) optsWritten() (time.Time, error) {
	info, err := os.Stat(i.path("postmaster.opts"))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// endedAtOnce says how a server ended that was just started, with the end of its log. It is ErrRead unless the server has not even
// written postmaster.opts: it does so when it has its configuration, its ports and its shared memory. It reads pg_hba.conf after
// that, which it names if that fails, and its data last (PostmasterMain in postmaster.c).
func (i *Instance) endedAtOnce(status string, was before) error {
	said := i.logTail(was.log)
	opts, err := i.optsWritten()
	if err == nil && opts.Equal(was.opts) || strings.Contains(said, "pg_hba.conf") {
		return fmt.Errorf("the server ended at once, before it came to its data (%s): %s", status, said)
	}
	return fmt.Errorf("%w (%s): %s", ErrRead, status, said)
}

// launchByOther has the Launcher start the process. By the time that it is watched it may have ended, and have been
// reaped by its parent: then its log says why.
func (i *Instance) launchByOther(args []string, was before, armed bool) (*Server, error) {
	c := processes.Command{
		Path: i.bin("postgres"), Args: args, Env: i.environment(i.grandparent()...), Log: i.opt.LogFile, Server: i.Target(), MustBeArmed: armed,
	}
	if u := i.credential(); u != nil {
		c.User = &processes.User{UID: u.Uid, GID: u.Gid, Groups: u.Groups}
	}
	pid, err := i.launcher.Launch(c)
	if err != nil {
		return nil, err
	}
	server, err := newServer(pid, i.exitStatus(pid), false, time.Now())
	if err == nil {
		if err = ours(c.Server, server); err != nil {
			i.discard(server)
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return nil, i.endedAtOnce(i.exitStatus(pid)(), was)
	}
	if err != nil {
		return nil, err
	}
	i.setServer(server)
	return server, nil
}

// seenAs is how long a process that was started as the server may take to look like one.
const seenAs = 2 * time.Second

// ours waits until the process that was started is seen to be the server's. One that lives and is not seen as that yet is
// not taken for one that has ended; unix.ESRCH: it has.
func ours(target processes.Server, s *Server) error {
	for limit := time.Now().Add(seenAs); !target.Has(s.pid); time.Sleep(10 * time.Millisecond) {
		fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
			return unix.ESRCH
		}
		if time.Now().After(limit) {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid))
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.pid))
			return fmt.Errorf("process %d was started as the server of %s, and is not seen as that: it runs %q in %q", s.pid, target.DataDir, exe, cwd)
		}
	}
	return nil
}

// exitStatus tells how a process ended that is not our child.
func (i *Instance) exitStatus(pid int) func() string {
	return func() string {
		if i.launcher != nil {
			if status := i.launcher.ExitStatus(pid); status != "" {
				return status
			}
		}
		return "unknown (adopted)"
	}
}

// grandparent tells the server to disregard the pid in a stale lock file that has come to belong to somebody else
// (PG_GRANDPARENT_PID, miscinit.c): after a boot, small numbers are used again.
func (i *Instance) grandparent() []string {
	f, err := pidfile.Read(i.opt.DataDir)
	if err != nil || f.PID <= 1 || !exists(fmt.Sprintf("/proc/%d", f.PID)) || i.isPostmaster(f) {
		return nil
	}
	return []string{fmt.Sprintf("PG_GRANDPARENT_PID=%d", f.PID)}
}

func (i *Instance) openLog() (*os.File, error) {
	f, err := os.OpenFile(i.opt.LogFile, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	return f, i.chown(i.opt.LogFile)
}

func (i *Instance) setServer(s *Server) {
	i.mu.Lock()
	old := i.server
	i.server = s
	if s.adopted {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid)); err == nil {
			i.exe = strings.TrimSuffix(exe, " (deleted)")
		}
	}
	i.mu.Unlock()
	if old != nil {
		old.detach()
	}
	go s.watch()
}

// Server is the running server that was started or adopted last; nil when there is none.
func (i *Instance) Server() *Server {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.server != nil && i.server.alive() {
		return i.server
	}
	return nil
}

// awaitReady follows the status line of postmaster.pid; asking by connection would fill the server's log with errors.
func (i *Instance) awaitReady(ctx context.Context, s *Server, was before) error {
	ctx, cancel := context.WithTimeout(ctx, i.opt.CtlTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if f, err := pidfile.Read(i.opt.DataDir); err == nil && f.PID == s.pid && (f.Status == "ready" || f.Status == "standby") {
			return nil
		}
		select {
		case <-s.Exited():
			return fmt.Errorf("start: %w", i.endedAtOnce(s.ExitStatus(), was))
		case <-ctx.Done():
			return fmt.Errorf("start: %w; the end of its log: %s", ErrNotReady, i.logTail(was.log))
		case <-tick.C:
		}
	}
}

func (i *Instance) logTail(from int64) string {
	f, err := os.Open(i.opt.LogFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "it wrote no log"
	}
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		from = max(from, size-16<<10)
	}
	raw := make([]byte, 16<<10)
	n, _ := f.ReadAt(raw, from)
	return lastLines(string(raw[:n]), 15)
}

// Adopt begins to watch a server that runs already, from an earlier agent or from pg_ctl. It returns nil when none
// does, and the same Server again when it is being watched.
func (i *Instance) Adopt() (*Server, error) {
	f, err := pidfile.Read(i.opt.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	if s := i.Server(); s != nil && s.pid == f.PID {
		return s, nil
	}
	if !i.isPostmaster(f) {
		return nil, nil
	}
	s, err := newServer(f.PID, i.exitStatus(f.PID), true, f.Start)
	if err != nil {
		if !exists(fmt.Sprintf("/proc/%d", f.PID)) {
			return nil, nil
		}
		return nil, fmt.Errorf("adopt: %w", err)
	}
	if !i.isPostmaster(f) { // it ended, and its pid was used again, before the pidfd was there
		i.discard(s)
		return nil, nil
	}
	i.setServer(s)
	i.log.Info("server adopted", "pid", s.pid)
	return s, nil
}

func (i *Instance) discard(s *Server) {
	go s.watch()
	s.detach()
}
