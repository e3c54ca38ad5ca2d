package guard_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// older is a site whose guard runs another program than the agents of the test do, with a server and a deadline.
func older(t *testing.T, w *guard.Watchdog) (*site, guard.State) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	pgtest.Must(t, err)
	program := filepath.Join(t.TempDir(), "older")
	pgtest.Must(t, os.WriteFile(program, text, 0o755))
	s := &site{t: t, dir: t.TempDir()}
	// The guard is started by hand, so that the link that arms it is not asked to bring it up to date.
	cmd := &syscall.ProcAttr{Env: []string{"LANG=C"}, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	pid, err := syscall.ForkExec(program, []string{"haven", guard.Command, s.dir}, cmd)
	pgtest.Must(t, err)
	t.Cleanup(func() {
		if link, _, err := guard.Open(s.options()); err == nil {
			link.Close()
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	})
	pgtest.Eventually(t, "the guard listens", func() error {
		conn, err := s.tryDial()
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	before := s.observe()
	s.link = s.open()
	s.startServer()
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	now := s.state()
	if before.PID != pid || before.Program == "" || now.PID != pid {
		t.Fatalf("the guard is process %d; before: %+v, now: %+v", pid, before, now)
	}
	if now.Program == before.Program {
		t.Fatalf("the guard did not become the program of its agent: %+v", now)
	}
	return s, now
}

// TestGuardBecomesTheAgentsProgram: an agent of another program finds a guard; the guard goes on as that program, as the
// same process, and nothing is lost: neither the server, whose parent it stays, nor the deadline, nor the watchdog.
func TestGuardBecomesTheAgentsProgram(t *testing.T) {
	d := newDevice(t)
	s, now := older(t, &guard.Watchdog{Device: d.path, Testing: true, Timeout: time.Hour})
	d.await(t, "Ctimeout=3600\n1")
	if now.Server == nil || now.Server.Adopted || now.Server.PID != s.server.Server().PID() || now.Deadline == 0 {
		t.Errorf("the guard knows %+v", now)
	}
	pgtest.Must(t, syscall.Kill(now.Server.PID, syscall.SIGKILL))
	pgtest.Eventually(t, "the guard tells how its child ended", func() error {
		if e := s.state().Exit; e == nil || e.Status != "signal: killed" {
			return errStill(s.state())
		}
		return nil
	})
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
	d.await(t, "V")
	if strings.Contains(d.text, "Ctimeout") {
		t.Errorf("the watchdog was opened anew: %q", d.text)
	}
}

// TestBecomingWithAServer: a guard with a running server and a deadline is taken over by the agent of another program.
func TestBecomingWithAServer(t *testing.T) {
	for name, dies := range map[string]bool{"it goes on": false, "the other program dies at once": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.startServer()
			s.arm(time.Minute)
			before := s.state()
			if dies {
				pgtest.Must(t, os.WriteFile(filepath.Join(s.dir, diesOnBecoming), nil, 0o600))
			}
			other := agentOfAnotherProgram(t, s)
			now := s.observe()
			if now.Program == before.Program {
				t.Errorf("the guard runs the program that it ran: %+v", now)
			}
			if now.Server == nil || now.Server.PID != before.Server.PID || now.Deadline != before.Deadline {
				t.Errorf("the guard knew %+v, and knows %+v", before, now)
			}
			if same := now.PID == before.PID; same == dies || now.Server != nil && now.Server.Adopted != dies {
				t.Errorf("the guard was process %d, and is %d; the server: %+v", before.PID, now.PID, now.Server)
			}
			pgtest.Must(t, other.Kill())
			_ = os.Remove(filepath.Join(s.dir, diesOnBecoming))
		})
	}
}

func errStill(s guard.State) error { return fmt.Errorf("it knows %+v", s) }

// agentOfAnotherProgram says hello to the guard and does nothing else. When it returns, that was answered.
func agentOfAnotherProgram(t *testing.T, s *site) *os.Process {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	pgtest.Must(t, err)
	program := filepath.Join(t.TempDir(), "newer")
	pgtest.Must(t, os.WriteFile(program, text, 0o755))
	cmd := exec.Command(program, "test-hello", s.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	pgtest.Must(t, err)
	pgtest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the agent of another program has no guard: %q, %v", line, err)
	}
	return cmd.Process
}

// testHello connects to the guard of a directory, and waits to be ended.
func testHello(dir string) int {
	if _, _, err := guard.Open(guard.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)}); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 2
	}
	fmt.Println("connected")
	select {}
}
