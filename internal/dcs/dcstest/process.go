package dcstest

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/freeport"
	"github.com/havenha/haven/internal/freeze"
)

// startTime is ample for an etcd on a busy machine.
const startTime = 20 * time.Second

// Etcd is an etcd process of its own.
type Etcd struct {
	// Endpoint is its client URL.
	Endpoint string
	cmd      *exec.Cmd
}

// StartEtcd runs a single etcd for the length of the test and returns its client URL. The test is skipped where no
// etcd is installed.
func StartEtcd(t testing.TB) string {
	t.Helper()
	return Start(t).Endpoint
}

// Start is StartEtcd with a hold on the process; args are added to etcd's command line.
func Start(t testing.TB, args ...string) *Etcd {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("no etcd is installed: install etcd-server to run this test")
	}
	client, peer := "http://"+FreeAddress(t), "http://"+FreeAddress(t)
	cmd := exec.Command(path, append([]string{
		"--name", "test", "--data-dir", t.TempDir(), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
	}, args...)...)
	// It must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Early releases of 3.4 do not know the option.
	if !knowsNoFsync(path) {
		cmd.Args = append(cmd.Args[:5:5], cmd.Args[6:]...)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	e := &Etcd{Endpoint: client, cmd: cmd}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	e.wait(t)
	return e
}

func knowsNoFsync(path string) bool {
	// An unknown flag ends etcd with status 2 before it looks at anything else.
	return exec.Command(path, "--unsafe-no-fsync", "--version").Run() == nil
}

func (e *Etcd) wait(t testing.TB) {
	t.Helper()
	for began := time.Now(); time.Since(began) < startTime; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Endpoint+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		cancel()
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatalf("etcd at %s did not become healthy within %s", e.Endpoint, startTime)
}

// Freeze stops the process where it stands (SIGSTOP): its connections remain, nothing answers.
func (e *Etcd) Freeze(t testing.TB) {
	t.Helper()
	freeze.Process(t, e.cmd.Process.Pid)
}

// Thaw lets a frozen process go on.
func (e *Etcd) Thaw(t testing.TB) {
	t.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatalf("thaw etcd: %v", err)
	}
}

// FreeAddress is a host:port on loopback that was free a moment ago.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
