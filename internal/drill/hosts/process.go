package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that was started on a host. Its descendants are found by the host's namespace.
type Process struct {
	Cmd *exec.Cmd
	// Gone is closed when the process has ended and was waited for.
	Gone chan struct{}
}

// PID is its process id.
func (p *Process) PID() int { return p.Cmd.Process.Pid }

// Signal signals the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.Cmd.Process.Signal(s) }

// Kill ends the process alone, and waits for its end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.Gone
	return nil
}

// Start starts a program on the host, in a session of its own.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := h.space.inside(cmd.Start); err != nil {
		return nil, fmt.Errorf("start on %s: %w", h.Name, err)
	}
	p := &Process{Cmd: cmd, Gone: make(chan struct{})}
	go func() {
		defer close(p.Gone)
		_ = cmd.Wait() // how it ended is for whoever reads its log
	}()
	h.mu.Lock()
	h.started = append(h.started, p)
	h.mu.Unlock()
	return p, nil
}

func (h *Host) processes() []*Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.started)
}

// PIDs are all processes on the host that live, whoever their parents are.
func (h *Host) PIDs() []int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is good
	var out []int
	for _, link := range links {
		if id, err := os.Readlink(link); err != nil || id != h.space.id {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if s := state(pid); s != 0 && s != 'Z' && s != 'X' && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out
}

// state is the process's state as in proc_pid_stat(5); 0: there is no such process.
func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}

// verifyFor bounds how long a fault may take to be complete.
const verifyFor = 10 * time.Second

// KillAll kills every process on the host until none is left.
func (h *Host) KillAll() error {
	return h.until("killed", func(pids []int) bool {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		return len(pids) == 0
	})
}

// Freeze stops every process on the host until none runs; Thaw lets them go on.
func (h *Host) Freeze() error {
	return h.until("frozen", func(pids []int) bool { return signalled(pids, syscall.SIGSTOP, true) })
}

// Thaw undoes Freeze.
func (h *Host) Thaw() error {
	return h.until("thawed", func(pids []int) bool { return signalled(pids, syscall.SIGCONT, false) })
}

// signalled sends s to those who are not yet as it makes them, and tells whether there were none.
func signalled(pids []int, s syscall.Signal, stopped bool) bool {
	whole := true
	for _, pid := range pids {
		if is := state(pid); is != 0 && (is == 'T') != stopped {
			whole = false
			_ = syscall.Kill(pid, s)
		}
	}
	return whole
}

func (h *Host) until(what string, done func(pids []int) bool) error {
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		pids := h.PIDs()
		if done(pids) {
			return nil
		}
		if time.Since(begun) > verifyFor {
			return fmt.Errorf("host %s is not %s after %s: processes %v", h.Name, what, verifyFor, pids)
		}
	}
}

// Usage is the memory of one process.
type Usage struct {
	PID      int    `json:"pid"`
	Command  string `json:"command"`
	Resident int64  `json:"resident"` // bytes, VmRSS
}

// Memory tells the resident memory of every process on the host.
func (h *Host) Memory() []Usage {
	var out []Usage
	for _, pid := range h.PIDs() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		u := Usage{PID: pid, Command: strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmRSS:" {
				kb, _ := strconv.ParseInt(f[1], 10, 64)
				u.Resident = kb << 10
			}
		}
		out = append(out, u)
	}
	return out
}
