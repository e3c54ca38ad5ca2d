package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server program that was started here, and is ended here.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// account is whom servers run as that refuse to run as root; nil: ourselves.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// start starts a program in a folder of its own, and waits until it listens on the port.
func start(dir, name string, as *syscall.Credential, port int, command ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: log.Name(), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // what it says of its end is in the log
		close(p.done)
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return p, conn.Close()
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("%s has ended: %s", name, p.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen: %s", name, p.lastWords()), p.stop(syscall.SIGKILL))
}

func (p *process) lastWords() string {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// stop ends the process, in the end by force, and waits for it.
func (p *process) stop(s syscall.Signal) error {
	_ = p.cmd.Process.Signal(s) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(15 * time.Second):
	}
	err := unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	<-p.done
	return err
}

// usage is what a process has used so far.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs Linux on.
const tick = 10 * time.Millisecond

// used reads a process's usage (proc_pid_stat(5)); nil: there is none in the middle.
func (p *process) used() (usage, error) {
	if p == nil {
		return usage{}, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return usage{}, err
	}
	return parseStat(text)
}

func parseStat(text []byte) (usage, error) {
	// The name stands in parentheses and may hold anything; behind it the third field comes first.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 22 {
		return usage{}, errors.New("/proc/PID/stat is too short")
	}
	var n [3]int64
	for i, at := range []int{14, 15, 24} { // utime, stime, rss in pages
		var err error
		if n[i], err = strconv.ParseInt(fields[at-3], 10, 64); err != nil {
			return usage{}, err
		}
	}
	return usage{cpu: time.Duration(n[0]+n[1]) * tick, rss: n[2] * int64(os.Getpagesize())}, nil
}
