// Package script runs the operator's own commands: callbacks, scripts around promotion and stop, methods of copying and
// bootstrapping. A command is words, quoted as in a shell, and no shell takes part (as Patroni does it, by shlex.split).
//
// It guarantees that a command which is to end ends with everything that it has started in its session, and that Run does
// not wait for output of what outlives the command. It leaves to the caller how long a command may take.
package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command is one call of a program of the operator's.
type Command struct {
	Line string   // as it was configured
	Args []string // after the words of Line
	Env  []string // the whole environment
	User *syscall.Credential
	// Grace is how long the command has from SIGTERM to SIGKILL when it is to end; 0: it gets SIGKILL at once.
	Grace time.Duration
	// Hold is a file that stays open in the command and what it starts; nil: none.
	Hold *os.File
	// Say takes each line that it writes; nil: they are dropped.
	Say func(line string)
}

// outlived is how long Run waits for output after the command itself has ended.
const outlived = 500 * time.Millisecond

// Run runs the command to its end, in a session of its own and the working directory of this process. When ctx ends, the
// command and all of its session are ended; the error then wraps ctx.Err(). Otherwise it holds the exit status.
func (c Command) Run(ctx context.Context) error {
	words, err := Split(c.Line)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return errors.New("the command is empty")
	}
	out := &lines{say: c.Say}
	defer out.flush()
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], c.Args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Env, out, out
	if path := lookPath(words[0], c.Env); path != "" {
		cmd.Path, cmd.Err = path, nil
	}
	if c.Hold != nil {
		cmd.ExtraFiles = []*os.File{c.Hold}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.User}
	cmd.Cancel = func() error { return c.end(cmd.Process.Pid) }
	cmd.WaitDelay = c.Grace + outlived
	err = cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of its session; none is no error
		}
		return fmt.Errorf("%s was ended: %w", words[0], ctx.Err())
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well, and something that it started holds its output
		return nil
	}
	return err
}

// end ends the command's process group, which is its session's first.
func (c Command) end(pid int) error {
	sig := syscall.SIGKILL
	if c.Grace > 0 {
		sig = syscall.SIGTERM
	}
	return syscall.Kill(-pid, sig)
}

// lines cuts output into lines.
type lines struct {
	mu   sync.Mutex
	say  func(string)
	part []byte
}

// longLine is where a line is cut that does not end.
const longLine = 8 << 10

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, b...)
	for {
		line, rest, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole && len(l.part) < longLine {
			return len(b), nil
		}
		l.part = rest
		l.put(line)
	}
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(l.part)
	l.part = nil
}

func (l *lines) put(line []byte) {
	if text := strings.TrimRight(string(line), "\r \t"); text != "" && l.say != nil {
		l.say(text)
	}
}
