package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/dcstest"
)

// TestProxyWithoutEtcd: a proxy that asks REST APIs runs where no etcd is, leads to the primary, and follows a switchover.
func TestProxyWithoutEtcd(t *testing.T) {
	c := startCluster(t, 3, "on")
	write, api := dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	file := c.startOutside(write, api)
	s := c.await("a standby is recorded", c.synchronous)
	awaitServer(t, c, write, s.Leader.Name)

	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/readiness": {200, ""}, "/liveness": {200, ""}, "/patroni": {200, `"role":"coordinator"`}, "/metrics": {200, "patroni_postgres_running"},
		"/cluster": {503, "this node has no etcd"}, "/primary": {503, ""}, "/haven/status": {200, `"store_known":false`},
	} {
		if code, body := get(t, "http://"+api+path); code != want.code || !strings.Contains(strings.ReplaceAll(string(body), `": `, `":`), want.text) {
			t.Errorf("GET %s: %d %s, want %d with %s", path, code, body, want.code, want.text)
		}
	}
	next := s.Sync.Standbys[0]
	if out, err := c.havenOf(file, "status"); err != nil || !strings.Contains(out, s.Leader.Name) || !strings.Contains(out, next) {
		t.Errorf("haven status by the file of the proxy: %v\n%s", err, out)
	}
	if out, err := c.haven("switchover", "--leader", s.Leader.Name, "--candidate", next, "--yes"); err != nil {
		t.Fatalf("switchover: %v\n%s", err, out)
	}
	c.await("the candidate leads", func(s cluster.Snapshot) bool { return c.healthy(s) && s.Leader.Name == next })
	awaitServer(t, c, write, next)
}

// startOutside runs a proxy whose configuration names no etcd, only REST APIs, and returns its file.
func (c *testCluster) startOutside(write, api string) string {
	c.t.Helper()
	file := filepath.Join(c.plan.Dir, "outside.yml")
	text := fmt.Sprintf(`haven: {format: 1, state_dir: outside.state, address: 127.0.0.1}
scope: demo
name: outside
restapi: {listen: %q}
proxy:
  discover: rest
  members: [%s]
  stats: null
  listeners: [{listen: %q, target: primary}]
`, api, strings.Join(c.plan.API, ", "), write)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	log, err := os.Create(c.logPath("outside"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary(c.t), "run", file)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.plan.Dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+c.plan.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.account}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil || c.t.Failed() {
			c.t.Errorf("the proxy: %v\n%s", err, tail(c.logPath("outside"), 12_000))
		}
	})
	return file
}
