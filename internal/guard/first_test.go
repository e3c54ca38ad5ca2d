package guard_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// firstAgent is an agent that leaves an orphan, says who it is, and ends with 7 when it is told to.
func firstAgent() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if err := exec.Command("sh", "-c", "sleep 0.2 & exit").Run(); err != nil {
		return 1
	}
	fmt.Println("agent", os.Getpid())
	<-term
	return 7
}

// first runs a first process in a namespace of process ids of its own, where it is number 1.
func first(t *testing.T) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "test-first")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	pgtest.Must(t, err)
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespace of process ids can be had: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func agentOf(t *testing.T, out *bufio.Reader) string {
	t.Helper()
	line, err := out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "agent ") {
		t.Fatalf("no agent: %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// below are the processes of which that one is the parent, whichever of its threads made them.
func below(t *testing.T, parent int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	pgtest.Must(t, err)
	var out []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			pgtest.Must(t, err)
			out = append(out, pid)
		}
	}
	return out
}

// TestFirstProcess: it starts an agent that was killed again, collects orphans, passes signals on, and ends with the agent.
func TestFirstProcess(t *testing.T) {
	cmd, out := first(t)
	was := agentOf(t, out)
	pgtest.Eventually(t, "the orphan is collected", func() error {
		if all := below(t, cmd.Process.Pid); len(all) != 1 {
			return fmt.Errorf("there are %v", all)
		}
		return nil
	})
	for _, pid := range below(t, cmd.Process.Pid) {
		pgtest.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	if now := agentOf(t, out); now == was {
		t.Errorf("it is %s again", now)
	}
	pgtest.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { _, _ = io.Copy(io.Discard, out); ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end with its agent")
	}
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("it ended with %d, the agent with 7", code)
	}
}
