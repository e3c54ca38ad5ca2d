package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// legacyVariable names the descriptor in which a guard leaves what it knows to the program that it becomes.
const legacyVariable = "HAVEN_GUARD_LEGACY"

// legacyFormat is the version of legacy. A program that is left another one does not go on: the agent then starts a guard
// anew, which adopts the server and is told the deadline.
const legacyFormat = 1

// legacy is what a guard knows, and the descriptors that it keeps open.
type legacy struct {
	Format     int       `json:"format"`
	Lock       int       `json:"lock"`
	Listener   int       `json:"listener"`
	Watchdog   *int      `json:"watchdog,omitempty"`
	Dog        *Watchdog `json:"dog,omitempty"`
	State      State     `json:"state"`
	Generation int64     `json:"generation"`
}

// becomeBefore is how far the deadline must be away: a program needs a moment to start, and nobody watches meanwhile.
const becomeBefore = 3 * time.Second

// programOf names the file that a process runs; empty: that cannot be told.
func programOf(pid int) string {
	var st unix.Stat_t
	if unix.Stat(exeOf(pid), &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// exeOf leads to the file also where another one has its name by now (proc_pid_exe(5)).
func exeOf(pid int) string { return fmt.Sprintf("/proc/%d/exe", pid) }

// renew goes on as the program of the process pid; it returns only when that cannot be done. The children stay children,
// since the process is the same one (execve(2)).
func (c *core) renew(pid int) error {
	c.noticeEnd()
	c.expire() // nobody may be faster than the alarm
	switch left := c.untilDeadline(); {
	case c.killing != nil:
		return fmt.Errorf("the server is being ended: %s", c.killing.reason)
	case c.state.Deadline != 0 && left < becomeBefore:
		return fmt.Errorf("the deadline is %s away, and a program needs a moment to start", left)
	}
	l := legacy{Format: legacyFormat, State: c.state, Generation: c.generation}
	if c.dog != nil {
		fd, err := descriptor(c.dog.file)
		if err != nil {
			return err
		}
		l.Watchdog, l.Dog = &fd, &c.dog.is
	}
	c.log.Info("going on as the program of the agent", "program", programOf(pid), "was", c.state.Program, "deadline_in", c.untilDeadline())
	return c.become(exeOf(pid), l)
}

// descriptor is a file's, without the change to blocking calls that Fd makes.
func descriptor(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	return fd, raw.Control(func(n uintptr) { fd = int(n) })
}

// becomer returns what replaces the program, with lock and listener left to the next one.
func becomer(lock *os.File, listener *net.UnixListener) func(program string, l legacy) error {
	return func(program string, l legacy) error {
		socket, err := listener.File()
		if err != nil {
			return err
		}
		defer socket.Close()
		l.Lock, l.Listener = int(lock.Fd()), int(socket.Fd())
		kept := []int{l.Lock, l.Listener}
		if l.Watchdog != nil {
			kept = append(kept, *l.Watchdog)
		}
		will, err := l.write()
		if err != nil {
			return err
		}
		defer will.Close()
		kept = append(kept, int(will.Fd()))
		keepOpen(kept, true)
		defer keepOpen(kept, false)
		env := append(os.Environ(), fmt.Sprintf("%s=%d", legacyVariable, will.Fd()))
		return fmt.Errorf("run %s: %w", program, syscall.Exec(program, os.Args, env))
	}
}

// keepOpen says whether descriptors outlive this program.
func keepOpen(fds []int, keep bool) {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag) // of an open descriptor it cannot fail
	}
}

// write puts it into memory that has no name.
func (l legacy) write() (*os.File, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("haven-guard", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "legacy")
	if _, err := f.WriteAt(text, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// inherited reads what the program before this one has left; false: there was none.
func inherited() (l legacy, ok bool, err error) {
	text := os.Getenv(legacyVariable)
	if text == "" {
		return l, false, nil
	}
	if err := os.Unsetenv(legacyVariable); err != nil {
		return l, true, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return l, true, fmt.Errorf("%s: %w", legacyVariable, err)
	}
	f := os.NewFile(uintptr(fd), "legacy")
	defer f.Close()
	if err := json.NewDecoder(f).Decode(&l); err != nil {
		return l, true, fmt.Errorf("read what the guard before this one knew: %w", err)
	}
	if l.Format != legacyFormat {
		return l, true, fmt.Errorf("the guard before this one left what it knew in format %d, and this one reads %d", l.Format, legacyFormat)
	}
	return l, true, nil
}

// inherit goes on where the program before this one stood. Should the deadline have passed meanwhile, the alarm rings at once.
func (c *core) inherit(l legacy) (*os.File, *net.UnixListener, error) {
	keepOpen([]int{l.Lock, l.Listener}, false)
	lock, socket := os.NewFile(uintptr(l.Lock), lockName), os.NewFile(uintptr(l.Listener), socketName)
	made, err := net.FileListener(socket)
	socket.Close()
	listener, ok := made.(*net.UnixListener)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("the socket that was left is none: %w", err), lock.Close())
	}
	listener.SetUnlinkOnClose(false)
	c.become = becomer(lock, listener)
	was := c.state
	c.state, c.generation = l.State, l.Generation
	c.state.PID, c.state.Program, c.state.Memory, c.state.OOM = was.PID, was.Program, was.Memory, was.OOM
	if l.Watchdog != nil {
		keepOpen([]int{*l.Watchdog}, false)
		c.dog = &dog{file: os.NewFile(uintptr(*l.Watchdog), l.Dog.Device), is: *l.Dog}
	}
	if err := c.alarm.set(c.state.Deadline); err != nil {
		return nil, nil, err
	}
	c.holdAgain()
	c.log.Info("guard goes on", "program", c.state.Program, "server", c.state.Server, "deadline_in", c.untilDeadline())
	return lock, listener, nil
}

// holdAgain takes hold of the postmaster. The number of a child is its own until it is reaped, which only we do; one that
// was adopted is looked for as ever.
func (c *core) holdAgain() {
	s := c.state.Server
	if s == nil {
		return
	}
	if s.Adopted {
		c.state.Server = nil
		c.adopt()
		if c.postmaster == nil {
			c.state.Exit = &Exit{PID: s.PID, Status: unknownStatus, At: time.Now()}
		}
		return
	}
	h, err := hold(s.PID)
	if err != nil { // it cannot be watched, and is found by executable and directory when the time comes
		c.log.Error("the server cannot be watched", "error", err)
		return
	}
	c.postmaster = h
}
