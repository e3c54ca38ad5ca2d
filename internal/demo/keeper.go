package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/postgres/shmem"
)

// KeeperCommand is the hidden command of the process that is the parent of all nodes.
const KeeperCommand = "demo-keeper"

// stopGrace is how long the nodes may take to end in an orderly way.
const stopGrace = 15 * time.Second

// Keep is the keeper process: it reads the plan from its input, runs all nodes, and when its input ends (the demo is
// gone, in whatever way) ends them and removes what is to be removed. A line "now" on its input makes it hurry. It
// writes a line for every node that ends by itself.
func Keep(in io.Reader, out io.Writer) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	var p Plan
	if err := json.Unmarshal(first, &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	k := &keeper{plan: p, out: out, nodes: map[string]*exec.Cmd{}}
	hurry := make(chan struct{})
	for _, name := range p.Nodes {
		if err := k.run(name); err != nil {
			close(hurry)
			k.end(hurry)
			return errors.Join(fmt.Errorf("%s could not be started: %w", name, err), k.clean())
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			line, err := lines.ReadString('\n')
			if strings.TrimSpace(line) == "now" {
				close(hurry)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	<-ended
	k.end(hurry)
	return k.clean()
}

type keeper struct {
	plan Plan
	out  io.Writer

	mu     sync.Mutex
	nodes  map[string]*exec.Cmd
	ending bool
	waits  sync.WaitGroup
}

// run starts one node as a process of its own, in its own session, as the plan's account.
func (k *keeper) run(name string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	log, err := os.OpenFile(filepath.Join(k.plan.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	// The program is run through its descriptor: the account may not be allowed to walk to where it stands.
	c := &exec.Cmd{
		Path: "/proc/self/fd/3", Args: []string{"haven", "run", k.plan.File, "--name", name},
		Dir: k.plan.Dir, Env: nodeEnv(k.plan.Dir), Stdout: log, Stderr: log, ExtraFiles: []*os.File{self},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if a := k.plan.Account; a != nil {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
	}
	if err := c.Start(); err != nil {
		if k.plan.Account != nil && errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("the user postgres may not enter %s, or not run haven: let it through all directories on the way (chmod o+x), or choose another with --dir (%w)", k.plan.Dir, err)
		}
		return err
	}
	k.mu.Lock()
	k.nodes[name] = c
	k.mu.Unlock()
	k.waits.Go(func() { k.wait(name, c) })
	return nil
}

func nodeEnv(dir string) []string {
	env := []string{"HOME=" + dir, "LANG=C.UTF-8"}
	if path := os.Getenv("PATH"); path != "" {
		env = append(env, "PATH="+path)
	}
	return env
}

func (k *keeper) wait(name string, c *exec.Cmd) {
	err := c.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ending {
		fmt.Fprintf(k.out, "%s ended by itself (%v); its log is %s\n", name, err, filepath.Join(k.plan.Dir, name+".log"))
	}
}

// end stops all nodes in an orderly way, and whatever is left of them by force. Where the data goes too, there is
// nothing to be orderly for.
func (k *keeper) end(hurry <-chan struct{}) {
	gone := make(chan struct{})
	go func() { k.waits.Wait(); close(gone) }()
	if !k.plan.Remove {
		k.signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-hurry:
		case <-time.After(stopGrace):
		}
	}
	k.signal(syscall.SIGKILL)
	<-gone
	endDescendants()
}

func (k *keeper) signal(s syscall.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending = true
	for _, c := range k.nodes {
		_ = c.Process.Signal(s) // one that has ended already is what we want
	}
}

// endDescendants kills every process below this one, until none is left: as subreaper, the keeper is the parent of
// servers whose agents are gone. A server gets the signal by which it leaves no shared memory behind first.
func endDescendants() {
	for round := 0; ; round++ {
		left := descendants(os.Getpid())
		if len(left) == 0 {
			return
		}
		signal := syscall.SIGKILL
		if round == 0 {
			signal = syscall.SIGQUIT
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, signal) // it may have ended meanwhile
		}
		if round == 0 {
			time.Sleep(500 * time.Millisecond)
		}
		reap()
		time.Sleep(20 * time.Millisecond)
	}
}

// reap collects orphans that have ended; those of exec.Cmd are collected by their own Wait.
func reap() {
	for _, pid := range descendants(os.Getpid()) {
		if state(pid) == "Z" {
			var st syscall.WaitStatus
			_, _ = syscall.Wait4(pid, &st, syscall.WNOHANG, nil)
		}
	}
}

// descendants lists all processes below pid, by the kernel's list of each process's parent.
func descendants(pid int) []int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent := parentOf(child); parent > 0 {
			parents[child] = parent
		}
	}
	var out []int
	for child := range parents {
		for up := parents[child]; up > 1; up = parents[up] {
			if up == pid {
				out = append(out, child)
				break
			}
		}
	}
	return out
}

func parentOf(pid int) int {
	fields := stat(pid)
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

func state(pid int) string {
	if fields := stat(pid); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// stat is /proc/<pid>/stat after the command name: state, parent, … (proc(5)).
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	text := string(b)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

func (k *keeper) clean() error {
	if !k.plan.Remove {
		return nil
	}
	if err := shmem.RemoveAll(k.plan.Dir); err != nil {
		return fmt.Errorf("remove the demo's directory: %w", err)
	}
	return nil
}
