package guard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/postgres/pidfile"
	"github.com/havenha/haven/internal/postgres/processes"
	"golang.org/x/sys/unix"
)

// handle is a hold on a postmaster that a number used again cannot fool.
type handle struct {
	pid, fd int
}

func hold(pid int) (*handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: pidfd_open: %w", pid, err)
	}
	return &handle{pid: pid, fd: fd}, nil
}

func (h *handle) kill() error {
	err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// unknownStatus is that of a server which was not our child.
const unknownStatus = "unknown (adopted)"

// ended tells whether the process has ended; a child may still have to be reaped.
func (h *handle) ended() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// awaitEnd returns when the process of a pidfd has ended; false if that cannot be told.
func awaitEnd(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if fds[0].Revents != 0 {
			return true
		}
	}
}

// noticeEnd takes note of a postmaster that has ended. Of an adopted one the word may still be on its way.
func (c *core) noticeEnd() {
	if c.postmaster != nil && c.postmaster.ended() {
		c.reap()
		if c.postmaster != nil {
			c.exited(c.postmaster.pid, unknownStatus)
		}
	}
	c.reap()
}

// start starts a server as a child, in a session of its own. One that must be armed never runs without a deadline.
func (c *core) start(cmd processes.Command) error {
	c.noticeEnd()
	c.expire() // nobody may be faster than the alarm
	if c.killing != nil {
		return fmt.Errorf("the server is being ended: %s", c.killing.reason)
	}
	if cmd.MustBeArmed && c.state.Deadline == 0 {
		return errors.New("there is no deadline for a server that must have one: it has passed, or was taken back")
	}
	if c.postmaster != nil {
		return fmt.Errorf("a server runs already: process %d", c.postmaster.pid)
	}
	if left, err := cmd.Server.List(); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("processes of an earlier server are left: %v", left))
	}
	pid, err := spawn(cmd)
	if err != nil {
		return err
	}
	h, err := hold(pid) // it is our child and only this goroutine reaps: the number is its own
	if err != nil {
		return errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	c.state.Target, c.postmaster = &cmd.Server, h
	c.state.Server = &Running{PID: pid, Since: time.Now()}
	c.log.Info("server started", "pid", pid, "data_dir", cmd.Server.DataDir)
	return nil
}

func spawn(cmd processes.Command) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	log, err := os.OpenFile(cmd.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	attr := &syscall.ProcAttr{
		Dir: cmd.Server.DataDir, Env: withOOM(cmd.Env), Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if u := cmd.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	pid, err = syscall.ForkExec(cmd.Path, append([]string{cmd.Path}, cmd.Args...), attr)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return pid, nil
}

// withOOM has the server's children go back to the usual score, so that only the postmaster is spared with us (PostgreSQL
// manual, Linux Memory Overcommit). What the operator has set stays.
func withOOM(env []string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PG_OOM_ADJUST_") }) {
		return env
	}
	return append(slices.Clone(env), "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj", "PG_OOM_ADJUST_VALUE=0")
}

// adopt begins to watch the postmaster that the data directory names, if it is one of the server's processes and none
// is watched. That it is not found does not matter for its end: then it is found by executable and directory.
func (c *core) adopt() {
	if c.postmaster != nil {
		return
	}
	f, err := pidfile.Read(c.state.Target.DataDir)
	if err != nil || f.PID <= 1 {
		return
	}
	h, err := hold(f.PID)
	if err != nil {
		return
	}
	watched, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil || !c.state.Target.Has(f.PID) {
		unix.Close(h.fd)
		if err == nil {
			unix.Close(watched)
		}
		return
	}
	c.postmaster = h
	c.state.Server = &Running{PID: f.PID, Since: time.Now(), Adopted: true}
	c.log.Info("server adopted", "pid", f.PID, "data_dir", c.state.Target.DataDir)
	go func() { // ends with the process
		defer unix.Close(watched)
		if awaitEnd(watched) {
			c.gone <- h.pid
		}
	}()
}

// reap collects every child that has ended: the postmaster, and what was orphaned to us.
func (c *core) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c.exited(pid, statusText(ws))
	}
}

// statusText says how a process ended, as os.ProcessState does.
func statusText(ws syscall.WaitStatus) string {
	switch {
	case ws.Signaled() && ws.CoreDump():
		return fmt.Sprintf("signal: %s (core dumped)", ws.Signal())
	case ws.Signaled():
		return fmt.Sprintf("signal: %s", ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

func (c *core) exited(pid int, status string) {
	if c.postmaster == nil || c.postmaster.pid != pid {
		return
	}
	unix.Close(c.postmaster.fd)
	c.postmaster, c.state.Server = nil, nil
	c.state.Exit = &Exit{PID: pid, Status: status, At: time.Now()}
	c.log.Info("server ended", "pid", pid, "status", status)
}
