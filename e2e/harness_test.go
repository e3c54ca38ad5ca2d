// Package e2e runs Haven as its users do: the built program, one process per node, real PostgreSQL, etcd and peers.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/demo"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
)

// binary is the program under test; TestMain builds it.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HAVEN_E2E_BINARY")
	if path == "" {
		t.Fatal("TestMain did not build the program")
	}
	return path
}

func TestMain(m *testing.M) {
	os.Exit(build(m))
}

// build builds the program, unless HAVEN_E2E_BINARY names one.
func build(m *testing.M) int {
	if os.Getenv("HAVEN_E2E_BINARY") != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "haven-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path := filepath.Join(dir, "haven")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/haven").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv("HAVEN_E2E_BINARY", path)
	return m.Run()
}

// testCluster is a cluster of processes.
type testCluster struct {
	t       *testing.T
	plan    demo.Plan
	account *syscall.Credential
	nodes   map[string]*exec.Cmd
	store   *etcd.Client
	bin     string // of the servers; empty: as haven finds them
	program string // that nodes run; empty: the one under test
}

// eachServer runs a test on Debian's PostgreSQL and on every one that HAVEN_TEST_PG names.
func eachServer(t *testing.T, f func(t *testing.T, bin string)) {
	t.Helper()
	for _, bin := range pgtest.BinDirs() {
		t.Run(versionOf(t, bin), func(t *testing.T) { f(t, bin) })
	}
}

func versionOf(t *testing.T, bin string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return "PostgreSQL " + strings.Fields(string(out))[2]
}

// startCluster starts members and a proxy, and waits until all members stream.
func startCluster(t *testing.T, members int, sync string) *testCluster {
	t.Helper()
	return startClusterOn(t, "", members, sync)
}

// startClusterOn is startCluster with the server programs of that directory.
func startClusterOn(t *testing.T, bin string, members int, sync string) *testCluster {
	t.Helper()
	c := prepareCluster(t, members, sync)
	c.bin = bin
	for _, n := range c.plan.Nodes {
		c.start(n)
	}
	c.await("all members stream", c.healthy)
	return c
}

// openDir is a temporary directory that nodes of any user may walk into.
func openDir(t *testing.T) string {
	t.Helper()
	dir := pgtest.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// prepareCluster makes the files of a cluster; each edit may change its configuration.
func prepareCluster(t *testing.T, members int, sync string, edits ...func(dir, text string) string) *testCluster {
	t.Helper()
	dir := openDir(t)
	c := &testCluster{t: t, nodes: map[string]*exec.Cmd{}}
	var err error
	if c.plan, err = demo.Make(dir, demo.Shape{Members: members, Sync: sync, AnyPorts: true}); err != nil {
		t.Fatal(err)
	}
	c.edit(edits)
	c.giveAway(dir)
	if c.store, err = etcd.Open(etcd.Options{Endpoints: c.plan.Etcd, Scope: "demo", RetryTimeout: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.store.Close() })
	t.Cleanup(c.end)
	return c
}

func (c *testCluster) edit(edits []func(dir, text string) string) {
	for _, edit := range edits {
		text, err := os.ReadFile(c.plan.File)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(c.plan.File, []byte(edit(c.plan.Dir, string(text))), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// giveAway hands the directory to an unprivileged user, as whom all nodes run when the test is run by root.
func (c *testCluster) giveAway(dir string) {
	a := pgtest.Account(c.t)
	if a == nil {
		return
	}
	c.account = credential(a)
	chown(c.t, dir, a)
}

func credential(a *postgres.Account) *syscall.Credential {
	return &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
}

// chown gives a path and what is below it to a user.
func chown(t *testing.T, path string, a *postgres.Account) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, a.UID, a.GID))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *testCluster) logPath(name string) string { return filepath.Join(c.plan.Dir, name+".log") }

func (c *testCluster) start(name string) {
	c.t.Helper()
	log, err := os.OpenFile(c.logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	program := c.program
	if program == "" {
		program = binary(c.t)
	}
	cmd := exec.Command(program, "run", c.plan.File, "--name", name)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.plan.Dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+c.plan.Dir)
	if c.bin != "" && slices.Contains(c.plan.Members, name) {
		cmd.Env = append(cmd.Env, "PATRONI_POSTGRESQL_BIN_DIR="+c.bin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.account}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.nodes[name] = cmd
	go cmd.Wait()
}

// end ends every process that the cluster has made, and shows the logs of a test that failed.
func (c *testCluster) end() {
	for name := range c.nodes {
		c.signalMember(name, syscall.SIGCONT)
	}
	for name := range c.nodes {
		c.killMember(name)
	}
	if c.t.Failed() {
		for _, n := range c.plan.Nodes {
			c.t.Logf("log of %s:\n%s", n, tail(c.logPath(n), 12_000))
		}
	}
}

func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}

// postmaster is the process id of a member's postmaster; 0: none.
func (c *testCluster) postmaster(name string) int {
	b, err := os.ReadFile(filepath.Join(c.plan.Dir, name, "postmaster.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(b), "\n", 2)[0]))
	return pid
}

// killPostmaster kills a member's postmaster, unless it has ended by itself.
func (c *testCluster) killPostmaster(name string) {
	c.t.Helper()
	pid := c.postmaster(name)
	if pid <= 0 {
		c.t.Fatalf("%s has no postmaster", name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.t.Fatal(err)
	}
}

// serverProcesses are all processes of a member's server: those whose working directory is its data directory.
func (c *testCluster) serverProcesses(name string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range dirs {
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != filepath.Join(c.plan.Dir, name) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		out = append(out, pid)
	}
	return out
}

// signalMember signals the agent, its guard and every process of its server.
func (c *testCluster) signalMember(name string, s syscall.Signal) {
	if cmd := c.nodes[name]; cmd != nil {
		_ = cmd.Process.Signal(s)
	}
	if pid := c.guardProcess(name); pid != 0 {
		_ = syscall.Kill(pid, s)
	}
	for _, pid := range c.serverProcesses(name) {
		_ = syscall.Kill(pid, s)
	}
}

// killMember kills agent, guard and server, until none of their processes is left.
func (c *testCluster) killMember(name string) {
	cmd := c.nodes[name]
	for {
		if cmd != nil {
			_ = cmd.Process.Kill()
		}
		left := c.serverProcesses(name)
		if pid := c.guardProcess(name); pid != 0 {
			left = append(left, pid)
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// snapshot reads the store; nil: it could not be read.
func (c *testCluster) snapshot() *cluster.Snapshot {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := c.store.Snapshot(ctx)
	if err != nil {
		return nil
	}
	return &s
}

func (c *testCluster) healthy(s cluster.Snapshot) bool { return c.whole(s, len(c.plan.Members)) }

// whole tells whether n members run: a promoted leader and the rest streaming from it.
func (c *testCluster) whole(s cluster.Snapshot, n int) bool {
	if s.Leader == nil || !s.Term.Binds(s.Leader) || s.Term.State != cluster.TermPromoted {
		return false
	}
	streaming := 0
	leader, ok := s.Member(s.Leader.Name)
	for _, m := range s.Members {
		if m.ReplicationState == "streaming" && m.State == cluster.StateRunning && m.Timeline == leader.Timeline {
			streaming++
		}
	}
	return ok && leader.Is(cluster.RolePrimary) && streaming == n-1
}

// synchronous tells whether as many standbys as wanted are recorded in /sync.
func (c *testCluster) synchronous(s cluster.Snapshot) bool {
	return c.healthy(s) && s.Sync.Active() && len(s.Sync.Standbys) > 0
}

// awaitFor bounds every wait for a state of the cluster; health has to return within a minute by itself.
const awaitFor = 60 * time.Second

func (c *testCluster) await(what string, cond func(cluster.Snapshot) bool) cluster.Snapshot {
	c.t.Helper()
	begun := time.Now()
	var last *cluster.Snapshot
	for time.Since(begun) < awaitFor {
		if s := c.snapshot(); s != nil {
			last = s
			if cond(*s) {
				c.t.Logf("%s: after %.1f s", what, time.Since(begun).Seconds())
				return *s
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("%s: not within %s; last state:\n%s", what, awaitFor, describe(last))
	return cluster.Snapshot{}
}

// eventually asks, now and then, until there is no error.
func (c *testCluster) eventually(what string, is func() error) {
	c.t.Helper()
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		err := is()
		if err == nil {
			return
		}
		if time.Since(begun) > awaitFor {
			c.t.Fatalf("%s: %v", what, err)
		}
	}
}

// sql runs a statement on one member, as its superuser.
func (c *testCluster) sql(member, statement string) {
	c.t.Helper()
	snap, err := c.store.Snapshot(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	m, _ := snap.Member(member)
	if err := c.superuser(m, "", func(ctx context.Context, conn *pgx.Conn) error { _, err := conn.Exec(ctx, statement); return err }); err != nil {
		c.t.Fatalf("%s: %v", statement, err)
	}
}

// superuser does something on one member as its superuser. settings are further ones of the connection.
func (c *testCluster) superuser(m cluster.Member, settings string, do func(context.Context, *pgx.Conn) error) error {
	c.t.Helper()
	password, err := os.ReadFile(filepath.Join(c.plan.Dir, "secrets", "superuser"))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	host, port, _ := strings.Cut(m.Address(), ":")
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres password=%s dbname=postgres %s", host, port, strings.TrimSpace(string(password)), settings))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(ctx, conn)
}

// streaming is how many standbys the leader itself says that it streams to. Keys tell it a while after a server has ended.
func (c *testCluster) streaming(s cluster.Snapshot) (n int) {
	c.t.Helper()
	m, _ := s.Member(s.Leader.Name)
	err := c.superuser(m, "", func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").Scan(&n)
	})
	if err != nil {
		return 0 // it may be starting
	}
	return n
}

func describe(s *cluster.Snapshot) string {
	if s == nil {
		return "etcd cannot be read"
	}
	text := fmt.Sprintf("leader %+v\nterm %+v\nsync %+v", s.Leader, s.Term, s.Sync)
	for _, m := range s.Members {
		text += fmt.Sprintf("\n%s %s %s %s timeline %d", m.Name, m.Role, m.State, m.ReplicationState, m.Timeline)
	}
	return text
}

// haven runs a command of the program and returns its output, standard error included.
func (c *testCluster) haven(args ...string) (string, error) {
	return c.havenOf(c.plan.File, args...)
}

// havenOf is haven with another file.
func (c *testCluster) havenOf(file string, args ...string) (string, error) {
	cmd := exec.Command(binary(c.t), append([]string{"-c", file}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.plan.Dir, "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account}
	cmd.Dir = c.plan.Dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// traffic starts the clients that every scenario is judged by.
func (c *testCluster) traffic(schema string) *drill.Run {
	c.t.Helper()
	load, err := drill.Begin(context.Background(), drill.Load{
		Routes: map[string]string{"proxy": c.plan.DSN(c.plan.Write)}, Schema: schema, Timeout: 20 * time.Second,
		Clients: drill.Mix{Ledger: 6, Registers: 2, Lists: 1, Transfers: 1, Readers: 1},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return load
}

// judge ends the clients and compares what they were told with what the new primary holds.
func (c *testCluster) judge(load *drill.Run) check.Report {
	c.t.Helper()
	history := load.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := load.Final(ctx, c.plan.DSN(c.plan.Write)); err != nil {
		c.t.Fatal(err)
	}
	r := check.Judge(history)
	c.t.Log(r.Text())
	if r.Verdict != check.Pass {
		c.t.Errorf("verdict %s", r.Verdict)
	}
	if rows, _ := r.Find(check.Ledger, "proxy"); rows.OK < 300 {
		c.t.Errorf("only %d acknowledged rows: too few to judge by", rows.OK)
	}
	return r
}

// get asks an HTTP address.
func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, b
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: make test installs it", program)
	}
	return path
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not stand in:\n%s", p, text)
		}
	}
}

func other(names []string, not string) string {
	i := slices.IndexFunc(names, func(n string) bool { return n != not })
	return names[i]
}

// guardProcess is the process id of a member's guard; 0: none.
func (c *testCluster) guardProcess(name string) int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		text, err := os.ReadFile(line)
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if err != nil || len(args) != 3 || args[1] != guard.Command {
			continue
		}
		if strings.HasPrefix(args[2], c.plan.Dir+"/") && filepath.Base(args[2]) == name {
			pid, _ := strconv.Atoi(strings.Split(line, "/")[2])
			return pid
		}
	}
	return 0
}
