package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// TestOperatorSeesWhatIsWrong breaks a cluster in several ways, one after the other, and asks as an operator does.
func TestOperatorSeesWhatIsWrong(t *testing.T) {
	c := startCluster(t, 3, "on")
	s := c.await("a synchronous standby", c.synchronous)
	c.everyNodeTellsTheHealth()
	c.checks(0, "leader", "replication", "sync", "etcd")
	c.eventually("a sound cluster", func() error { // a member that is slow to answer counts as one that does not
		code, d := c.doctor()
		if d.Critical > 0 || len(d.Examined) != 3 {
			return fmt.Errorf("exit code %d, %+v", code, d)
		}
		return nil
	})

	slow := ""
	for _, m := range s.Members {
		if m.Name != s.Leader.Name && !s.Sync.Has(m.Name) {
			slow = m.Name
		}
	}
	c.sql(slow, "SELECT pg_wal_replay_pause()")
	c.sql(s.Leader.Name, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 20)")
	c.found("replay that is paused", "lag_replay", slow+": ", "replay is paused", "pg_wal_replay_resume")
	c.checks(1, "replication")
	c.sql(slow, "SELECT pg_wal_replay_resume()")

	c.sql(s.Leader.Name, "SELECT pg_create_physical_replication_slot('forgotten', true)")
	c.found("a slot that nobody uses", "idle_slot", "pg_drop_replication_slot('forgotten')")
	c.sql(s.Leader.Name, "SELECT pg_drop_replication_slot('forgotten')")

	secret := filepath.Join(c.plan.Dir, "secrets", "replication")
	kept, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	c.write(secret, "another-password-of-one-node")
	c.reload(slow)
	c.write(secret, string(kept))
	text := c.found("a password that differs", "secrets_differ", "postgresql.authentication.replication is not the same on all nodes")
	for _, told := range []string{strings.TrimSpace(string(kept)), "another-password-of-one-node"} {
		if strings.Contains(text, told) {
			t.Errorf("the doctor tells a secret:\n%s", text)
		}
	}
	c.reload(slow)

	if err := os.Chmod(filepath.Join(c.plan.Dir, "nodes", "demo", slow), 0o755); err != nil {
		t.Fatal(err)
	}
	c.found("a state directory that others may read", "permissions", "chmod 700 "+filepath.Join(c.plan.Dir, "nodes", "demo", slow))

	c.killMember(slow)
	c.found("a member that is gone", "api_unreachable", slow+": ")
	c.await("its key is gone", func(s cluster.Snapshot) bool { _, there := s.Member(slow); return !there })
	c.checks(1, "etcd")
	taken, err := net.Listen("tcp", serverAddress(s, slow))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// Nobody but its own host can tell why it does not start.
	out, err := c.haven("doctor", "--name", slow)
	if exitCode(err) != 2 || !strings.Contains(out, "[port_conflict]") || !strings.Contains(out, serverAddress(s, slow)+" is in use by") {
		t.Errorf("the doctor of the host: %v: %s", err, out)
	}
}

func serverAddress(s cluster.Snapshot, name string) string {
	m, _ := s.Member(name)
	return m.Address()
}

// everyNodeTellsTheHealth asks members and the node without a database, and reads the metrics of our own.
func (c *testCluster) everyNodeTellsTheHealth() {
	c.t.Helper()
	text, err := os.ReadFile(c.plan.File)
	if err != nil {
		c.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "bootstrap: null\n    restapi: {listen: \"")
	coordinator, _, _ := strings.Cut(rest, `"`)
	for _, address := range append(c.plan.API, coordinator) {
		c.tellsTheHealth(address)
	}
	_, metrics := get(c.t, "http://"+c.plan.API[0]+"/metrics")
	for _, want := range []string{"haven_disk_free_bytes{", `use="data,wal,state"`, "haven_decisions_total{", "haven_renewals_total{", "haven_guard_armed{", `haven_actions_total{scope="demo"`} {
		if !strings.Contains(string(metrics), want) {
			c.t.Errorf("not among the metrics: %s\n%s", want, metrics)
		}
	}
}

// tellsTheHealth waits for the health of all members, as one node tells it. A standby that has just connected tells its
// primary how far it is within wal_receiver_status_interval (10 s); till then three parts of its lag are not known.
func (c *testCluster) tellsTheHealth(address string) {
	c.t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		code, body := get(c.t, "http://"+address+"/haven/health")
		wrong := wrongHealth(code, body)
		if wrong == "" {
			return
		}
		if time.Now().After(limit) {
			c.t.Errorf("%s: %s: %s", address, wrong, body)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// wrongHealth says what an answer of a sound cluster lacks; empty: nothing.
func wrongHealth(code int, body []byte) string {
	var h struct {
		Verdict string
		From    string
		Members []struct {
			Name string
			Lag  map[string]struct{ Bytes *uint64 }
		}
	}
	if err := json.Unmarshal(body, &h); err != nil || code != 200 || len(h.Members) != 3 || h.From == "store" || h.From == "" {
		return fmt.Sprintf("status %d, %v", code, err)
	}
	for _, m := range h.Members {
		for part, lag := range m.Lag {
			if lag.Bytes == nil || *lag.Bytes > 1<<20 {
				return fmt.Sprintf("%s of %s is not known, or great", part, m.Name)
			}
		}
		if m.Name != h.From && len(m.Lag) != 4 {
			return fmt.Sprintf("the lag of %s has %d parts", m.Name, len(m.Lag))
		}
	}
	return ""
}

type diagnosis struct {
	Examined []string
	Critical int
	Findings []struct{ Code, Severity, Member, Text, Mend string }
}

func (c *testCluster) doctor() (int, diagnosis) {
	c.t.Helper()
	out, err := c.haven("doctor", "-o", "json")
	var d diagnosis
	if json.Unmarshal([]byte(out), &d) != nil {
		c.t.Fatalf("doctor: %v: %s", err, out)
	}
	return exitCode(err), d
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// found waits until the doctor finds it, and returns what it says.
func (c *testCluster) found(what, code string, texts ...string) string {
	c.t.Helper()
	said := ""
	c.eventually(what, func() error {
		said, _ = c.haven("doctor")
		for _, text := range append(texts, "["+code+"]") {
			if !strings.Contains(said, text) {
				return fmt.Errorf("the doctor does not find %s with %q:\n%s", code, texts, said)
			}
		}
		return nil
	})
	return said
}

// checks runs haven check with each of the names, and wants that exit code.
func (c *testCluster) checks(code int, names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.eventually("check "+name, func() error { // slowness is a finding, too
			out, err := c.haven("check", name)
			if got := exitCode(err); got != code || strings.Count(out, "\n") != 1 || !strings.Contains(out, " | ") {
				return fmt.Errorf("exit code %d, want %d: %s", got, code, out)
			}
			return nil
		})
	}
}

func (c *testCluster) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reload sends SIGHUP and waits until the log says that it was heeded.
func (c *testCluster) reload(name string) {
	c.t.Helper()
	count := func() int { return strings.Count(tail(c.logPath(name), 1<<30), "configuration reloaded") }
	before := count()
	if err := c.nodes[name].Process.Signal(syscall.SIGHUP); err != nil {
		c.t.Fatal(err)
	}
	for begun := time.Now(); count() == before; time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > awaitFor {
			c.t.Fatalf("%s was not reloaded", name)
		}
	}
}
