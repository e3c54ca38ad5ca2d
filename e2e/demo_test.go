package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// running is a demo that is under way.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	tmp string
	out string
	end chan error
}

func startDemo(t *testing.T, args ...string) *running {
	t.Helper()
	tmp := openDir(t)
	r := &running{t: t, tmp: tmp, out: filepath.Join(tmp, "output"), end: make(chan error, 1)}
	out, err := os.Create(r.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.cmd = exec.Command(binary(t), append([]string{"demo"}, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.end <- r.cmd.Wait() }()
	return r
}

func (r *running) text() string {
	f, err := os.Open(r.out)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, _ := io.ReadAll(f)
	return string(b)
}

// says waits until the demo has said it.
func (r *running) says(text string) {
	r.t.Helper()
	for begun := time.Now(); time.Since(begun) < 2*awaitFor; time.Sleep(50 * time.Millisecond) {
		if strings.Contains(r.text(), text) {
			return
		}
	}
	r.t.Fatalf("%q was not said:\n%s", text, r.text())
}

// leavesNothing waits until no process and no file of the demo is left.
func (r *running) leavesNothing() {
	r.t.Helper()
	var left []string
	for begun := time.Now(); time.Since(begun) < awaitFor; time.Sleep(100 * time.Millisecond) {
		if left = r.left(); len(left) == 0 {
			return
		}
	}
	r.t.Errorf("left behind: %v\n%s", left, r.text())
}

// left lists the processes that stand in, or name, the demo's directory, and the directory itself.
func (r *running) left() []string {
	out, _ := filepath.Glob(filepath.Join(r.tmp, "haven-demo-*"))
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.HasPrefix(cwd, r.tmp) || strings.Contains(string(line), r.tmp) {
			out = append(out, p+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}

// TestDemoLeavesNothingBehind ends a demo in every way there is.
func TestDemoLeavesNothingBehind(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(r *running)
	}{
		{"Ctrl-C", func(r *running) { r.cmd.Process.Signal(os.Interrupt) }},
		{"two Ctrl-C", func(r *running) {
			r.cmd.Process.Signal(os.Interrupt)
			time.Sleep(100 * time.Millisecond)
			r.cmd.Process.Signal(os.Interrupt)
		}},
		{"kill -9", func(r *running) { r.cmd.Process.Kill() }},
		{"Ctrl-C while it starts", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startDemo(t)
			if c.end == nil {
				r.says("starting")
				r.cmd.Process.Signal(os.Interrupt)
			} else {
				r.says("healthy: 3 members")
				c.end(r)
			}
			<-r.end
			r.leavesNothing()
		})
	}
}

// TestDemoInAClosedDirectory: root's demo runs as postgres, who may not be let through to where root wants it.
func TestDemoInAClosedDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root starts nodes as another user")
	}
	dir := filepath.Join(t.TempDir(), "try") // of root alone: t.TempDir's parent
	r := startDemo(t, "--dir", dir)
	r.tmp = filepath.Dir(dir) // where its nodes would be
	err := <-r.end
	contains(t, r.text(), "db1 could not be started: the user postgres may not enter "+dir)
	if err == nil {
		t.Error("the demo ended as if all were well")
	}
	r.leavesNothing()
}

// TestDemoShowsAFailover runs the demo's own failover, in each mode of replication that has one.
func TestDemoShowsAFailover(t *testing.T) {
	for _, mode := range []string{"on", "quorum"} {
		t.Run(mode, func(t *testing.T) {
			r := startDemo(t, "--kill-primary", "--sync", mode)
			if err := <-r.end; err != nil {
				t.Errorf("%v:\n%s", err, r.text())
			}
			t.Log("\n" + r.text())
			contains(t, r.text(), "healthy: 3 members", "writes stopped for", "missing afterwards: 0; twice: 0", "the session on the pooled port that was idle meanwhile goes on: no error", "FAILOVER", "signal: killed")
			r.leavesNothing()
		})
	}
}
