package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// TestPatronictlCommands has Debian's patronictl do to a Haven cluster what its operators do to theirs: reload, pause,
// edit-config, restart at once and at a time, flush, reinit, switchover, failover, and all that only looks.
func TestPatronictlCommands(t *testing.T) {
	c := startCluster(t, 3, "on")
	s := c.await("a synchronous standby", c.synchronous)
	ctl := newPatronictl(t, c)
	standby := other(c.plan.Members, s.Leader.Name)

	contains(t, ctl("reload", "demo", standby, "--force"), "Reload request received for member "+standby)
	contains(t, ctl("pause", "demo", "--wait"), "cluster management is paused")
	contains(t, ctl("resume", "demo", "--wait"), "cluster management is resumed")
	contains(t, ctl("edit-config", "demo", "-p", "max_connections=140", "--force"), "Configuration changed")
	c.await("all members wait for a restart", func(s cluster.Snapshot) bool { return pending(s) == 3 })
	contains(t, ctl("list", "demo"), "Pending restart")
	contains(t, ctl("restart", "demo", standby, "--pending", "--force"), "Success: restart on member "+standby)
	c.await("two members wait for a restart", func(s cluster.Snapshot) bool { return c.synchronous(s) && pending(s) == 2 })

	at := time.Now().Add(time.Hour).Format("2006-01-02T15:04:05-07:00")
	contains(t, ctl("restart", "demo", standby, "--scheduled", at, "--force"), "Success: restart scheduled on member "+standby)
	c.await("the schedule is in the member key", func(s cluster.Snapshot) bool {
		m, _ := s.Member(standby)
		return len(m.ScheduledRestart) > 0
	})
	contains(t, ctl("list", "demo"), "Scheduled restart")
	contains(t, ctl("flush", "demo", standby, "restart", "--force"), "Success: flush scheduled restart for member "+standby)

	pid := c.postmaster(standby)
	contains(t, ctl("reinit", "demo", standby, "--force"), "Success: reinitialize for member "+standby)
	c.await("the new copy streams", func(s cluster.Snapshot) bool {
		now := c.postmaster(standby)
		return now != 0 && now != pid && c.synchronous(s) && c.streaming(s) == 2
	})
	patronictlReads(t, c, ctl)
	patronictlChanges(t, c, ctl)
	patronictlRemoves(t, c)
}

// patronictlReads: what only looks.
func patronictlReads(t *testing.T, c *testCluster, ctl func(args ...string) string) {
	t.Helper()
	s := c.await("a synchronous standby", c.synchronous)
	leader, _ := s.Member(s.Leader.Name)
	host, port, _ := net.SplitHostPort(leader.Address())
	t.Setenv("PGUSER", "demo")
	t.Setenv("PGPASSWORD", password(c))
	contains(t, ctl("topology", "demo"), "| "+leader.Name, "| + "+s.Sync.Standbys[0], "Sync Standby")
	contains(t, ctl("dsn", "demo"), fmt.Sprintf("host=%s port=%s\n", host, port))
	contains(t, ctl("query", "demo", "-d", "demo", "-c", "SELECT pg_is_in_recovery()"), "False")
	contains(t, ctl("query", "demo", "-d", "demo", "-r", "replica", "-c", "SELECT pg_is_in_recovery()"), "True")
	contains(t, ctl("show-config", "demo"), "max_connections: 140", "synchronous_mode: true")
	contains(t, ctl("version", "demo"), leader.Name+": Patroni 4.1.4 PostgreSQL 15.")
	contains(t, ctl("list", "demo", "-f", "json"), `"Cluster": "demo"`, `"Member": "`+leader.Name+`"`)
}

// patronictlChanges moves leadership by a switchover at once, one at a time that is taken back, and a failover.
func patronictlChanges(t *testing.T, c *testCluster, ctl func(args ...string) string) {
	t.Helper()
	s := c.await("a synchronous standby", c.synchronous)
	old, to := s.Leader.Name, s.Sync.Standbys[0]
	at := time.Now().Add(time.Hour).Format("2006-01-02T15:04:05-07:00")
	contains(t, ctl("switchover", "demo", "--leader", old, "--candidate", to, "--scheduled", at, "--force"), "Switchover scheduled")
	contains(t, ctl("list", "demo"), "Switchover scheduled at:", "from: "+old, "to: "+to)
	contains(t, ctl("flush", "demo", "switchover"), "Success: scheduled switchover deleted")
	contains(t, ctl("switchover", "demo", "--leader", old, "--candidate", to, "--force"), fmt.Sprintf("Successfully switched over to %q", to))
	s = c.await(to+" leads", func(s cluster.Snapshot) bool { return c.synchronous(s) && s.Leader.Name == to })
	contains(t, ctl("history", "demo"), "no recovery target specified", to)
	next := s.Sync.Standbys[0]
	contains(t, ctl("failover", "demo", "--candidate", next, "--force"), fmt.Sprintf(" over to %q", next)) // 3.0 names the leader: a switchover
	c.await(next+" leads", func(s cluster.Snapshot) bool { return c.synchronous(s) && s.Leader.Name == next })
}

// patronictlRemoves removes a cluster whose members are gone, in an etcd of its own.
func patronictlRemoves(t *testing.T, c *testCluster) {
	t.Helper()
	endpoint := dcstest.StartEtcd(t)
	store, err := etcd.Open(etcd.Options{Endpoints: []string{endpoint}, Scope: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(context.Background(), awaitFor)
	defer cancel()
	s := c.await("healthy", c.healthy)
	if err := store.PutConfig(ctx, s.Config.Raw, 0); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "patronictl.yml")
	if err := os.WriteFile(file, []byte("etcd3: {hosts: "+strings.TrimPrefix(endpoint, "http://")+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "patronictl", "-c", file, "remove", "gone")
	cmd.Stdin = strings.NewReader("gone\nYes I am aware\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("patronictl remove: %v: %s", err, out)
	}
	left, err := store.Snapshot(ctx)
	if err != nil || left.Config != nil {
		t.Errorf("after patronictl remove there is still %+v (%v)", left.Config, err)
	}
}

// newPatronictl runs patronictl on the cluster; a failure ends the test.
func newPatronictl(t *testing.T, c *testCluster) func(args ...string) string {
	t.Helper()
	program := need(t, "patronictl")
	file := patronictlFile(t, c)
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"-c", file}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("patronictl %v: %v: %s", args, err, out)
		}
		return string(out)
	}
}

// patronictlFile is a configuration for patronictl, with the login of the REST API.
func patronictlFile(t *testing.T, c *testCluster) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "patronictl.yml")
	secret, err := os.ReadFile(filepath.Join(c.plan.Dir, "secrets", "restapi"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("scope: demo\nname: x\netcd3:\n  hosts: %s\nrestapi:\n  authentication: {username: haven, password: %s}\n",
		strings.Join(c.plan.Etcd, ","), strings.TrimSpace(string(secret)))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
