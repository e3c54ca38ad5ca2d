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
	"github.com/jackc/pgx/v5"
)

// TestGenuineToolsWork lets the tools of others look at a Haven cluster: Debian's patronictl, etcdctl, psql and HAProxy
// with the configuration of a guide.
func TestGenuineToolsWork(t *testing.T) {
	c := startCluster(t, 3, "on")
	c.await("a synchronous standby", c.synchronous)
	t.Run("etcdctl lists three members", func(t *testing.T) { etcdctlLists(t, c) })
	t.Run("psql writes and reads", func(t *testing.T) { psqlWrites(t, c) })
	t.Run("patronictl lists the cluster", func(t *testing.T) { patronictlLists(t, c) })
	t.Run("HAProxy follows the primary", func(t *testing.T) {
		c.t = t
		haproxyFollows(t, c)
	})
	c.t = t
}

func etcdctlLists(t *testing.T, c *testCluster) {
	cmd := exec.Command(need(t, "etcdctl"), "--endpoints", strings.Join(c.plan.Etcd, ","), "member", "list")
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := strings.Count(string(out), "started"); n != 3 {
		t.Errorf("%d members have started, want 3:\n%s", n, out)
	}
}

func psqlWrites(t *testing.T, c *testCluster) {
	psql := need(t, "psql")
	out, err := exec.Command(psql, c.plan.DSN(c.plan.Write), "-c", "CREATE TABLE first (n int)", "-c", "INSERT INTO first VALUES (1)").CombinedOutput()
	if err != nil {
		t.Fatalf("through the read/write port: %v: %s", err, out)
	}
	out, err = exec.Command(psql, c.plan.DSN(c.plan.Read), "-Atc", "SELECT pg_is_in_recovery()").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "t" {
		t.Errorf("through the read-only port: %v: in recovery: %s", err, out)
	}
}

func patronictlLists(t *testing.T, c *testCluster) {
	patronictl := need(t, "patronictl")
	file := filepath.Join(t.TempDir(), "patronictl.yml")
	text := fmt.Sprintf("scope: demo\nname: x\netcd3:\n  hosts: %s\n", strings.Join(c.plan.Etcd, ","))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(patronictl, "-c", file, "list").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("\n%s", out)
	contains(t, string(out), "Cluster: demo", "Leader", "Sync Standby", "Replica", "running")
	for _, m := range c.plan.Members {
		contains(t, string(out), m)
	}
}

// haproxyFollows puts HAProxy, with the checks of a guide, in front of the cluster.
func haproxyFollows(t *testing.T, c *testCluster) {
	write, read := startHAProxy(t, c)
	s := c.await("healthy", c.synchronous)
	awaitServer(t, c, write, s.Leader.Name)
	awaitStandbys(t, c, read)

	to := s.Sync.Standbys[0]
	if out, err := c.haven("switchover", "--candidate", to, "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	awaitServer(t, c, write, to)
	s = c.await("a synchronous standby", c.synchronous)
	c.killPostmaster(to)
	s = c.await("another leader", func(s cluster.Snapshot) bool { return c.healthy(s) && s.Leader.Name != to })
	awaitServer(t, c, write, s.Leader.Name)
}

// awaitStandbys waits until the address leads to standbys only: HAProxy takes every server for up until its checks have
// failed three times, and goes round all of them.
func awaitStandbys(t *testing.T, c *testCluster, address string) {
	t.Helper()
	var got string
	for begun, inRow := time.Now(), 0; time.Since(begun) < awaitFor; time.Sleep(100 * time.Millisecond) {
		got = askThrough(c, address, "SELECT pg_is_in_recovery()::text")
		if inRow++; got != "true" {
			inRow = 0
		}
		if inRow == 2*len(c.plan.Members) {
			return
		}
	}
	t.Errorf("%s does not lead to standbys only: in recovery: %q", address, got)
}

// startHAProxy runs Debian's HAProxy with the guide's two listeners, their addresses exchanged for the test's.
func startHAProxy(t *testing.T, c *testCluster) (write, read string) {
	haproxy := need(t, "haproxy")
	guide, err := os.ReadFile("../testdata/guides/minusnow/haproxy-database.cfg")
	if err != nil {
		t.Fatal(err)
	}
	write, read = dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	var b strings.Builder
	b.WriteString("defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n")
	for _, line := range strings.Split(string(guide), "\n") {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 2 && fields[0] == "bind" && strings.HasSuffix(fields[1], ":6432"):
			line = "  bind " + write
		case len(fields) >= 2 && fields[0] == "bind":
			line = "  bind " + read
		case len(fields) > 1 && fields[0] == "server" && fields[1] == "pg-node2":
			continue
		case len(fields) > 1 && fields[0] == "server":
			line = haproxyServers(c)
		}
		b.WriteString(line + "\n")
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(haproxy, "-db", "-f", file)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy: %s\n%s", out.String(), b.String())
		}
	})
	return write, read
}

func haproxyServers(c *testCluster) string {
	var lines []string
	s := c.await("healthy", c.healthy)
	for _, m := range s.Members {
		_, port, _ := net.SplitHostPort(strings.TrimPrefix(m.APIBase(), "http://"))
		lines = append(lines, fmt.Sprintf("  server %s %s check port %s", m.Name, m.Address(), port))
	}
	return strings.Join(lines, "\n")
}

// askThrough runs a query through an address; any error is told as text.
func askThrough(c *testCluster, address, sql string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	host, port, _ := net.SplitHostPort(address)
	dsn := strings.Replace(c.plan.DSN(c.plan.Write), "passfile=", "password="+password(c)+" passfile=", 1)
	conn, err := pgx.Connect(ctx, fmt.Sprintf("%s host=%s port=%s", dsn, host, port))
	if err != nil {
		return err.Error()
	}
	defer conn.Close(ctx)
	var out string
	if err := conn.QueryRow(ctx, sql).Scan(&out); err != nil {
		return err.Error()
	}
	return out
}

func password(c *testCluster) string {
	b, err := os.ReadFile(filepath.Join(c.plan.Dir, "secrets", "demo"))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// awaitServer waits until the address leads to that member, writable.
func awaitServer(t *testing.T, c *testCluster, address, name string) {
	t.Helper()
	s := c.snapshot()
	if s == nil {
		t.Fatal("etcd cannot be read")
	}
	m, _ := s.Member(name)
	_, port, _ := net.SplitHostPort(m.Address())
	var got string
	for begun := time.Now(); time.Since(begun) < awaitFor; time.Sleep(100 * time.Millisecond) {
		got = askThrough(c, address, "SELECT pg_is_in_recovery()::text || ' ' || inet_server_port()")
		if got == "false "+port {
			t.Logf("%s leads to %s after %.1f s", address, name, time.Since(begun).Seconds())
			return
		}
	}
	t.Errorf("%s does not lead to %s: %s, want port %s", address, name, got, port)
}
