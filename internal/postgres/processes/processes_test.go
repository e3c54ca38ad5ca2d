package processes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func start(t *testing.T, dir, path string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(path, args...)
	c.Dir = dir
	if _, err := c.StdinPipe(); err != nil { // which keeps who reads it waiting
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

// TestOnlyTheServersProcesses: neither the directory nor the program alone makes a process the server's.
func TestOnlyTheServersProcesses(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err == nil {
		sleep, err = filepath.EvalSymlinks(sleep)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ours := start(t, dir, sleep, "600")
	elsewhere := start(t, t.TempDir(), sleep, "600")
	other := start(t, dir, "/bin/sh", "-c", "read x; true")
	s := Server{DataDir: dir, Executables: []string{sleep}}
	if got, err := s.List(); err != nil || !slices.Equal(got, []int{ours.Process.Pid}) {
		t.Errorf("got %v, %v; want %d", got, err, ours.Process.Pid)
	}
	for _, c := range []*exec.Cmd{elsewhere, other} {
		if err := s.Signal(c.Process.Pid, unix.SIGKILL); err != nil || s.Has(c.Process.Pid) {
			t.Errorf("process %d: %v", c.Process.Pid, err)
		}
	}
	if err := s.Signal(ours.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ours.Wait()
	if err := s.Signal(ours.Process.Pid, unix.SIGKILL); err != nil {
		t.Errorf("one that has ended: %v", err)
	}
	if elsewhere.Process.Signal(unix.Signal(0)) != nil {
		t.Error("a process in another directory was ended")
	}
	if got, err := (Server{DataDir: filepath.Join(dir, "absent")}).List(); err != nil || len(got) != 0 {
		t.Errorf("an absent directory has processes: %v, %v", got, err)
	}
}

func TestDescendants(t *testing.T) {
	shell := start(t, t.TempDir(), "/bin/sh", "-c", "sleep 600 & wait")
	stranger := start(t, t.TempDir(), "sleep", "600")
	var below []int
	for end := time.Now().Add(10 * time.Second); len(below) == 0 && time.Now().Before(end); {
		below, _ = Descendants(shell.Process.Pid)
	}
	if len(below) != 1 {
		t.Fatalf("below the shell: %v", below)
	}
	all, err := Descendants(os.Getpid())
	if err != nil || !slices.Contains(all, below[0]) || !slices.Contains(all, shell.Process.Pid) {
		t.Errorf("below this test: %v, %v", all, err)
	}
	if err := KillDescendant(stranger.Process.Pid, shell.Process.Pid); err != nil {
		t.Error(err)
	}
	if stranger.Process.Signal(unix.Signal(0)) != nil {
		t.Error("a process was ended that is not below the other")
	}
	if err := KillDescendant(below[0], shell.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := shell.Wait(); err != nil {
		t.Errorf("the shell did not see its child end: %v", err)
	}
	if got, err := Descendants(shell.Process.Pid); err != nil || len(got) != 0 {
		t.Errorf("below a process that has ended: %v, %v", got, err)
	}
}

// TestRemovedDirectory: a server whose data directory was removed under it still is one.
func TestRemovedDirectory(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err == nil {
		sleep, err = filepath.EvalSymlinks(sleep)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := start(t, dir, sleep, "600")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s := Server{DataDir: dir, Executables: []string{sleep}}
	if got, err := s.List(); err != nil || !slices.Equal(got, []int{c.Process.Pid}) {
		t.Errorf("got %v, %v; want %d", got, err, c.Process.Pid)
	}
}

// TestAProcessThatMayNotBeLookedAt: without the right to see what a process runs that may be the server's by its user and its name, nothing is
// known. Others of that user, such as a session by SSH, are no matter.
func TestAProcessThatMayNotBeLookedAt(t *testing.T) {
	if dir := os.Getenv("HAVEN_TEST_LIST"); dir != "" { // as the child
		_, err := Server{DataDir: dir, Executables: []string{"/usr/bin/none"}}.List()
		fmt.Println("of another name:", err)
		_, err = Server{DataDir: dir, Executables: []string{"/usr/lib/sleep"}}.List()
		fmt.Println(err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else without capabilities")
	}
	const alice, bob = 54321, 54322
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, alice, alice); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, c *exec.Cmd) *exec.Cmd {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return c
	}
	server := as(alice, exec.Command("sleep", "600"))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "list.test")
	if err := errors.Join(os.WriteFile(program, self, 0o755), os.Chmod(program, 0o755)); err != nil {
		t.Fatal(err)
	}
	child := as(bob, exec.Command(program, "-test.run", "^TestAProcessThatMayNotBeLookedAt$", "-test.v"))
	child.Env, child.Dir = append(os.Environ(), "HAVEN_TEST_LIST="+dir), "/"
	out, err := child.CombinedOutput()
	if want := fmt.Sprintf("of another name: <nil>\nlist the server's processes: process %d cannot be looked at, and may be one of the server in %s", server.Process.Pid, dir); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s, want %q", err, out, want)
	}
}
