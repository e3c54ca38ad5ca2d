package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is the hidden command by which the program becomes a guard; its one argument is the state directory. The
// caller looks for it before anything else, so that the guard stays small.
const Command = "guard-process"

// Exit codes of the process.
const (
	exitFailed = 1
	exitBusy   = 3 // another guard has this directory
)

// Files in the state directory.
const (
	socketName = "guard.sock"
	lockName   = "guard.lock"
	logName    = "guard.log"
)

// Main is the guard process. It returns the exit code.
func Main(args []string) int {
	if len(args) != 1 {
		fmt.Fprintf(os.Stderr, "haven %s is started by haven run; its argument is the state directory\n", Command)
		return exitFailed
	}
	out := newLogWriter(os.Stderr)
	defer out.close()
	log := slog.New(slog.NewTextHandler(out, nil)).With("guard", os.Getpid())
	err := run(args[0], log)
	var busy busyError
	switch {
	case errors.As(err, &busy):
		return exitBusy
	case err != nil:
		log.Error("the guard ends", "error", err)
		return exitFailed
	}
	return 0
}

type busyError struct{ error }

func run(dir string, log *slog.Logger) error {
	// Notified rather than ignored: what is ignored stays so in the programs that are started.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	alarm, err := newAlarm()
	if err != nil {
		return err
	}
	defer alarm.close()
	c := newCore(log, alarm, children)
	c.state.Memory, c.state.OOM = lockMemory(), resistOOM()
	lock, listener, err := c.begin(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer listener.Close()
	go accept(listener, c)
	c.run()
	err = os.Remove(filepath.Join(dir, socketName)) // under the lock, so it is ours
	log.Info("guard ended: there is nothing to guard")
	return err
}

// begin takes lock and socket of the directory, or what the program before this one has left to us.
func (c *core) begin(dir string) (lock *os.File, listener *net.UnixListener, err error) {
	if left, ok, err := inherited(); ok || err != nil {
		if err == nil {
			lock, listener, err = c.inherit(left)
		}
		return lock, listener, err
	}
	if lock, err = takeLock(dir); err != nil {
		return nil, nil, err
	}
	if listener, err = listen(dir); err != nil {
		lock.Close()
		return nil, nil, err
	}
	c.become = becomer(lock, listener)
	ready()
	c.log.Info("guard started", "memory", c.state.Memory, "oom", c.state.OOM)
	return lock, listener, nil
}

// takeLock makes this the only guard of the directory.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, busyError{err}
	}
	return f, nil
}

// listen makes the socket; one that stands there already is of a guard that is dead, since we have the lock.
func listen(dir string) (*net.UnixListener, error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unix", socketAddress(d))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(dir, socketName), err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// socketAddress names the socket through a descriptor of its directory: a path of more than 107 bytes does not fit into
// an address (unix(7)).
func socketAddress(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)}
}

// readyLine is what the guard prints once it listens.
const readyLine = "ready"

// ready tells whoever made us that the socket is there, and lets go of its pipe.
func ready() {
	fmt.Println(readyLine) // who does not listen any more need not know
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer null.Close()
	_ = unix.Dup3(int(null.Fd()), 1, 0) // else the pipe stays open, which costs nothing but a descriptor
}

// logWriter writes beside the loop, and drops what a disk that does not answer would make it wait for.
type logWriter struct {
	lines chan []byte
	ended chan struct{}
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{lines: make(chan []byte, 64), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		for b := range l.lines {
			_, _ = w.Write(b) // there is no other place to say so
		}
	}()
	return l
}

// Write implements io.Writer.
func (l *logWriter) Write(b []byte) (int, error) {
	select {
	case l.lines <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}

func (l *logWriter) close() {
	close(l.lines)
	select {
	case <-l.ended:
	case <-time.After(time.Second):
	}
}
