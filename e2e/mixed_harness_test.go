package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
)

// What runs a member of a mixed cluster.
const (
	withPatroni  = "patroni"
	withPatroni4 = "patroni 4"
	withHaven    = "haven"
)

// mixedCluster has members that Debian's Patroni or Haven runs, each by the same patroni.yml, on a genuine etcd 3.4.
type mixedCluster struct {
	*testCluster
	etcd     *dcstest.Etcd
	patroni4 string            // folder of its Python package; empty: Patroni is the installed one
	sql      map[string]string // address of each member's server
	programs map[string]string // that run the members
	ends     map[string]chan struct{}

	stretches []stretch
	changes   []string // since the last verdict
}

const mixedFile = `scope: mixed
name: %[1]s
restapi: {listen: %[2]q, connect_address: %[2]q}
etcd3: {hosts: %[3]q}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 4
    maximum_lag_on_failover: 1048576
    synchronous_mode: false
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {max_connections: 100, wal_level: replica, hot_standby: "on", max_wal_senders: 10, max_replication_slots: 10}
  initdb: [{encoding: UTF8}, data-checksums]
  pg_hba:
    - host replication replicator 127.0.0.1/32 md5
    - host all all 127.0.0.1/32 md5
postgresql:
  listen: %[4]q
  connect_address: %[4]q
  data_dir: %[5]q
  bin_dir: %[6]q
  pgpass: %[7]q
  authentication:
    superuser: {username: postgres, password: one-two-three}
    replication: {username: replicator, password: four-five-six}
  parameters: {unix_socket_directories: ""}
`

// prepareMixed writes the members' files; none runs.
func prepareMixed(t *testing.T, members ...string) *mixedCluster {
	t.Helper()
	need(t, withPatroni)
	need(t, "patronictl")
	dir := openDir(t)
	c := &testCluster{t: t, nodes: map[string]*exec.Cmd{}}
	c.plan.Dir, c.plan.Members, c.plan.Nodes = dir, members, members
	m := &mixedCluster{testCluster: c, etcd: dcstest.Start(t), sql: map[string]string{}, programs: map[string]string{}, ends: map[string]chan struct{}{}}
	for _, name := range members {
		m.sql[name] = dcstest.FreeAddress(t)
		text := fmt.Sprintf(mixedFile, name, dcstest.FreeAddress(t), strings.TrimPrefix(m.etcd.Endpoint, "http://"), m.sql[name],
			filepath.Join(dir, name), pgtest.BinDirs()[0], filepath.Join(dir, name+".pgpass"))
		if err := os.WriteFile(m.file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.giveAway(dir)
	var err error
	if c.store, err = etcd.Open(etcd.Options{Endpoints: []string{m.etcd.Endpoint}, Scope: "mixed", RetryTimeout: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.store.Close() })
	t.Cleanup(c.end)
	return m
}

func (m *mixedCluster) file(name string) string { return filepath.Join(m.plan.Dir, name+".yml") }

// run starts a member with Patroni or Haven.
func (m *mixedCluster) run(name, program string) {
	m.t.Helper()
	log, err := os.OpenFile(m.logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := m.command(program, name)
	m.programs[name] = program
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.plan.Dir, log, log
	cmd.Env = append(cmd.Environ(), "HOME="+m.plan.Dir, "PYTHONUNBUFFERED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: m.account}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	end := make(chan struct{})
	m.nodes[name], m.ends[name] = cmd, end
	go func() { _ = cmd.Wait(); close(end) }()
}

// command is how a member is run.
func (m *mixedCluster) command(program, name string) *exec.Cmd {
	switch program {
	case withHaven:
		return exec.Command(binary(m.t), "run", m.file(name))
	case withPatroni4:
		return m.python("-m", "patroni", m.file(name))
	}
	return exec.Command(withPatroni, m.file(name))
}

// python runs something of Patroni 4.
func (m *mixedCluster) python(args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/python3", args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+m.patroni4)
	return cmd
}

// ctl is the patronictl of the cluster's Patroni.
func (m *mixedCluster) ctl(args ...string) *exec.Cmd {
	if m.patroni4 == "" {
		return exec.Command("patronictl", args...)
	}
	return m.python(append([]string{"-c", "from patroni.ctl import ctl; ctl()"}, args...)...)
}

// stop ends a member in an orderly way and waits for its end.
func (m *mixedCluster) stop(name string) {
	m.t.Helper()
	_ = m.nodes[name].Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ends[name]:
	case <-time.After(awaitFor):
		m.t.Fatalf("%s has not ended within %s of SIGTERM", name, awaitFor)
	}
}

// dsn leads to whoever accepts writes.
func (m *mixedCluster) dsn() string {
	var hosts, ports []string
	for _, name := range m.plan.Members {
		host, port, _ := net.SplitHostPort(m.sql[name])
		hosts, ports = append(hosts, host), append(ports, port)
	}
	return fmt.Sprintf("host=%s port=%s user=postgres password=one-two-three dbname=postgres sslmode=disable target_session_attrs=read-write",
		strings.Join(hosts, ","), strings.Join(ports, ","))
}

// ask runs a query of one value on a member.
func (m *mixedCluster) ask(name, sql string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	host, port, _ := net.SplitHostPort(m.sql[name])
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres password=one-two-three dbname=postgres sslmode=disable", host, port))
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

// led tells whether that member leads, and as many others as wanted stream from it.
func (m *mixedCluster) led(name string, streaming int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool {
		if s.Leader == nil || s.Leader.Name != name {
			return false
		}
		l, _ := s.Member(name)
		if !l.Is(cluster.RolePrimary) || l.State != cluster.StateRunning || !s.Failover.Empty() {
			return false
		}
		for _, o := range s.Members {
			if o.State != cluster.StateRunning && streaming == len(m.plan.Members)-1 {
				return false
			}
		}
		return m.ask(name, "SELECT pg_is_in_recovery()::text || ' ' || count(*) FROM pg_stat_replication WHERE state = 'streaming'") == fmt.Sprintf("false %d", streaming)
	}
}

// settled is led, whoever it is.
func (m *mixedCluster) settled(s cluster.Snapshot) bool {
	return s.Leader != nil && m.led(s.Leader.Name, len(m.plan.Members)-1)(s)
}

// synchronousTo tells whether there is a synchronous standby, in /sync and in the server.
func (m *mixedCluster) synchronousTo(s cluster.Snapshot) bool {
	return m.settled(s) && s.Sync.Active() && s.Sync.Leader == s.Leader.Name && len(s.Sync.Standbys) > 0 &&
		m.ask(s.Leader.Name, "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
}

// patronictl runs the genuine one, with the file of that member.
func (m *mixedCluster) patronictl(member string, args ...string) string {
	m.t.Helper()
	cmd := m.ctl(append([]string{"-c", m.file(member)}, args...)...)
	defer time.AfterFunc(2*awaitFor, func() { _ = cmd.Process.Kill() }).Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("patronictl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// writers begins four clients that insert rows, and others that read and write the rest.
func (m *mixedCluster) writers(schema string) *drill.Run {
	m.t.Helper()
	names := map[string]string{}
	for name, address := range m.sql {
		names[address] = name
	}
	load, err := drill.Begin(context.Background(), drill.Load{
		Routes: map[string]string{"primary": m.dsn()}, Members: names, Schema: schema, Timeout: 5 * time.Second, Pause: 5 * time.Millisecond,
		Clients: drill.Mix{Ledger: 4, Registers: 1, Lists: 1, Transfers: 1},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return load
}

// verdict ends the clients and compares what they were told with what the primary holds; nothing may be lost or twice.
func (m *mixedCluster) verdict(what string, load *drill.Run) {
	m.t.Helper()
	history := load.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), awaitFor)
	defer cancel()
	if err := load.Final(ctx, m.dsn()); err != nil {
		m.t.Fatal(err)
	}
	r := check.Judge(history)
	m.t.Log("\n" + r.Text())
	m.stretches, m.changes = append(m.stretches, stretch{what, m.changes, r}), nil
	if rows, _ := r.Find(check.Ledger, "primary"); rows.OK < 1000 {
		m.t.Errorf("only %d rows were acknowledged: too few to judge by", rows.OK)
	}
	for _, name := range []string{check.CheckAcknowledged, check.CheckTwice, check.CheckForeign, check.CheckRegisters, check.CheckLists, check.CheckSums} {
		if c, judged := r.Check(name); !judged || c.Verdict != check.Pass {
			m.t.Errorf("%s: verdict %q: %d of %d: %v", name, c.Verdict, c.Count, c.Judged, c.Violations)
		}
	}
}
