package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"golang.org/x/sys/unix"
)

// attempts at a guard: one may be ending just now, and another node's tools may have made one meanwhile.
const attempts = 5

// connect makes sure that there is a connection to a guard that answers. The caller holds mu.
func (l *Link) connect() error {
	if l.conn != nil {
		return nil
	}
	var errs []error
	for range attempts {
		conn, err := l.dial()
		if errors.Is(err, errNoGuard) {
			if err = l.spawn(); err == nil {
				conn, err = l.dial()
			}
		}
		if err != nil {
			errs = append(errs, err)
			if !errors.Is(err, errNoGuard) && !errors.As(err, &busyError{}) {
				break
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s, err := l.greet(conn)
		if err == nil {
			return l.modernise(s)
		}
		if l.over != nil {
			return err
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("no guard can be had: %w", errors.Join(errs...))
}

// greet takes the guard over. One that does not answer is replaced.
func (l *Link) greet(conn *connection) (State, error) {
	l.conn = conn
	reply, err := l.exchange(Request{Op: opHello})
	if err == nil {
		l.armed = reply.State.Deadline != 0
		err = l.replay(reply.State)
	}
	if err == nil {
		l.opt.Log.Info("connected to the guard", "pid", reply.State.PID, "memory", reply.State.Memory, "oom", reply.State.OOM)
		if k := reply.State.Killed; k != nil {
			l.opt.Log.Warn("the guard has ended the server", "at", k.At, "reason", k.Reason, "verified", k.Verified, "left", k.Left)
		}
		return reply.State, nil
	}
	l.drop()
	if errors.Is(err, errLost) {
		l.opt.Log.Error("the guard does not answer; it is replaced", "pid", conn.pid, "error", err)
		err = errors.Join(err, l.endHung(conn.pid))
	}
	return State{}, err
}

// modernise has a guard of another program than ours go on as ours, once: a newer Haven does not leave an older guard
// behind. One that does not know how, or will not now, stays as it is.
func (l *Link) modernise(s State) error {
	ours := programOf(os.Getpid())
	if s.Program == "" || ours == "" || s.Program == ours || l.asked == s.PID || s.Deadline != 0 && s.Deadline.Sub(bootclock.Now()) < becomeBefore {
		return nil
	}
	l.asked = s.PID
	if l.last == nil && s.Deadline != 0 && s.Target != nil { // a former agent's: should this go wrong, the next guard has to know it
		l.last, l.holder = &Request{Op: opArm, Deadline: s.Deadline, Server: s.Target}, s.PID
	}
	_, err := l.exchange(Request{Op: opBecome})
	if !errors.Is(err, errLost) {
		l.opt.Log.Warn("the guard goes on as the older program", "pid", s.PID, "error", err)
		return nil
	}
	l.drop()
	return l.connect()
}

// replay tells a guard that took the place of another what that one knew: the last deadline, or that it has passed. A
// guard that knows a deadline keeps it, and the one that was told already knows better than we do.
func (l *Link) replay(s State) error {
	last := l.last
	if last == nil || s.PID == l.holder || s.Deadline != 0 || s.Killing {
		return nil
	}
	request := *last
	if !bootclock.Now().Before(last.Deadline) {
		request = Request{Op: opKill, Reason: "the lease was not renewed in time, and its deadline passed while there was no guard", Server: last.Server}
	}
	r, err := l.exchange(request)
	if err != nil {
		return fmt.Errorf("tell the new guard of the deadline: %w", err) // if it has just passed, the next attempt says kill
	}
	l.armed, l.holder = true, r.State.PID
	l.opt.Log.Info("the guard was told what the one before knew", "request", request.Op, "deadline", last.Deadline)
	return nil
}

// endHung kills a guard that does not answer; the server does not notice. The number is held by a pidfd while the
// process is looked at.
func (l *Link) endHung(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replace the guard: %w", err)
	}
	defer unix.Close(fd)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), Command) {
		return nil // it has ended
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("replace the guard: %w", err)
	}
	awaitProcess(pid)
	l.reapChild()
	return nil
}

// awaitProcess waits until a guard has ended, for as long as one may take to answer. Should it go on, its lock says so.
func awaitProcess(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(answerWithin); time.Now().Before(end); {
		_, err := unix.Poll(fds, int(time.Until(end)/time.Millisecond)+1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// spawn starts a guard and returns when it listens. It is not tied to us in any way, but that we reap it if it ends first.
func (l *Link) spawn() error {
	l.reapChild()
	log, err := os.OpenFile(filepath.Join(l.opt.Dir, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	defer log.Close()
	program := l.opt.Program
	if program == "" {
		program = "/proc/self/exe" // not by name: the file may have been replaced by a newer one
	}
	cmd := &exec.Cmd{
		Path: program, Args: []string{"haven", Command, l.opt.Dir}, Dir: "/", Stderr: log,
		Env: []string{"LANG=C", "GOMAXPROCS=2"}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	defer out.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	if f, ok := out.(*os.File); ok {
		_ = f.SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) == readyLine {
		l.child = cmd.Process.Pid
		return cmd.Process.Release()
	}
	_ = cmd.Process.Kill()
	werr := cmd.Wait()
	if cmd.ProcessState.ExitCode() == exitBusy {
		return busyError{errors.New("another guard is just starting or ending")}
	}
	return fmt.Errorf("start the guard: it did not come up (%w; %v); its log is %s", err, werr, log.Name())
}

// reapChild collects a guard of our own making that has ended.
func (l *Link) reapChild() {
	if l.child == 0 {
		return
	}
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(l.child, &ws, syscall.WNOHANG, nil); pid == l.child || err != nil {
		l.child = 0
	}
}
