package e2e

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// outcomes are the SQLSTATEs of a transaction that is open when the primary's server is killed (docs/guide/pooling.md): the
// server's own last words, or, if it had none, the proxy's.
func outcomes() []string { return []string{"57P01", "08006"} }

// failoverPool is the size of the pool: enough for the open transactions of all clients, and fewer than all of their connections.
const failoverPool = 8

// arena is a real cluster behind a front with TLS and SCRAM, and the clients that have come to the middle of their work.
type arena struct {
	*front
	c *testCluster

	mu        sync.Mutex
	wanted    int
	there     int
	failedOut chan struct{} // closed when the failover is over
}

// TestClientsThroughAFailover kills the primary's postmaster while each client has one session that is idle, with something
// prepared, and one with an open transaction. The idle one sees no error, and goes on with what it has prepared; the
// transaction ends with a documented SQLSTATE, and nothing of it is there.
//
// It is one kill for all of them, since a cluster moves its leadership for a crash only every five minutes.
func TestClientsThroughAFailover(t *testing.T) {
	a := startArena(t)
	clients := map[string]func(*testing.T, *arena){"psql": psqlFailover, "pgbench": pgbenchFailover, "pgx": pgxFailover, "lib-pq": pqFailover}
	if node, missing := nodeCommand(t, a.front, "testdata/failover.js"); missing != "" {
		t.Log(missing)
	} else {
		clients["node"] = func(t *testing.T, a *arena) { nodeFailover(t, a, node) }
	}
	a.wanted = len(clients)
	var all sync.WaitGroup
	for name, run := range clients {
		all.Go(func() { t.Run(name, func(t *testing.T) { run(t, a) }) })
	}
	all.Wait()
}

func startArena(t *testing.T) *arena {
	t.Helper()
	a := &arena{front: &front{role: "demo", database: "demo"}, failedOut: make(chan struct{})}
	a.c = prepareCluster(t, 3, "quorum", func(dir, text string) string { return a.configure(t, dir, text) })
	_, port, _ := strings.Cut(a.c.plan.Pool, ":")
	var err error
	a.port, err = strconv.Atoi(port)
	pgtest.Must(t, err)
	a.password = password(a.c)
	for _, n := range a.c.plan.Nodes {
		a.c.start(n)
	}
	a.c.await("voters", a.ready)
	return a
}

// configure has the proxy to the primary lend server connections by transaction, over TLS, to the demo's own user.
func (a *arena) configure(t *testing.T, dir, text string) string {
	a.certificate(t, dir)
	return pooling(text, fmt.Sprintf("default_pool_size: %d", failoverPool), `      tls: {certfile: server.crt, keyfile: server.key}
      client_tls_sslmode: require
`)
}

func (a *arena) ready(s cluster.Snapshot) bool {
	return a.c.synchronous(s) && len(s.Sync.Standbys) == 2
}

// failover returns after the failover, which whoever comes last begins.
func (a *arena) failover(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	a.there++
	last := a.there == a.wanted
	a.mu.Unlock()
	if last {
		a.kill(t)
		close(a.failedOut)
		return
	}
	select {
	case <-a.failedOut:
	case <-time.After(3 * awaitFor):
		t.Fatal("there was no failover: another client did not get to the middle of its work")
	}
}

// kill kills the postmaster of the primary, and waits until another member leads and all follow it.
func (a *arena) kill(t *testing.T) {
	t.Helper()
	defer func(all *testing.T) { a.c.t = all }(a.c.t)
	a.c.t = t
	before := a.c.await("all follow", a.ready)
	a.c.killPostmaster(before.Leader.Name)
	a.c.await("all follow another", func(s cluster.Snapshot) bool {
		return s.Term != nil && s.Term.Number > before.Term.Number && a.ready(s)
	})
}

// ended judges what a client was told that had an open transaction.
func ended(t *testing.T, code, text string) {
	t.Helper()
	if !slices.Contains(outcomes(), code) {
		t.Errorf("an open transaction ended with SQLSTATE %q, want one of %v: %s", code, outcomes(), text)
	}
}

// console is a client program that is told what to do line by line.
type console struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func (a *arena) console(t *testing.T, command ...string) *console {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = a.environment()
	in, err := cmd.StdinPipe()
	pgtest.Must(t, err)
	out, err := cmd.StdoutPipe()
	pgtest.Must(t, err)
	cmd.Stderr = cmd.Stdout
	pgtest.Must(t, cmd.Start())
	return &console{t, in, bufio.NewReader(out), cmd}
}

// say sends lines, and returns what comes before the line that says done.
func (c *console) say(lines, done string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.in, lines+"\n"); err != nil {
		c.t.Error(err)
	}
	var got strings.Builder
	for {
		line, err := c.out.ReadString('\n')
		if err != nil || strings.TrimSpace(line) == done {
			return got.String()
		}
		got.WriteString(line)
	}
}

// end closes the input, and returns the rest of the output.
func (c *console) end() (string, error) {
	_ = c.in.Close() // it may have ended
	rest, _ := io.ReadAll(c.out)
	return string(rest), c.cmd.Wait()
}

// psqlFailover: psql that is not interactive ends when it loses its connection. So the one that goes on has not lost it.
func psqlFailover(t *testing.T, a *arena) {
	command := []string{"psql", "-XAtq", "-v", "VERBOSITY=verbose", "-h", "localhost", "-p", strconv.Itoa(a.port), "-U", a.role, a.database}
	idle, open := a.console(t, command...), a.console(t, command...)
	const done = "done"
	idle.say("create table psql_f (n int primary key, s text);\n\\copy psql_f from stdin with (format csv)\n1,one\n2,two\n\\.\n\\echo done", done)
	open.say("begin;\ninsert into psql_f values (3, 'lost');\n\\echo done", done)
	a.failover(t)
	if got := idle.say("select * from psql_f order by n;\n\\copy psql_f from stdin with (format csv)\n4,four\n\\.\nselect sum(n) from psql_f;\nbegin;\nprepare plus (int) as select n + $1 from psql_f where n = 4;\nexecute plus (1);\ncommit;\n\\conninfo\n\\echo done", done); !strings.HasPrefix(got, "1|one\n2|two\n7\n5\n") || !strings.Contains(got, "SSL connection") {
		t.Errorf("the idle session:\n%s", got)
	}
	if rest, err := idle.end(); err != nil {
		t.Errorf("the idle session: %v\n%s", err, rest)
	}
	got := open.say("insert into psql_f values (5, 'lost too');\n\\echo done", done)
	rest, _ := open.end() // status 2: it has lost its connection
	got += rest
	code := ""
	for _, c := range outcomes() {
		if strings.Contains(got, "FATAL:  "+c) {
			code = c
		}
	}
	ended(t, code, got)
	if got := a.program(t, "", append(command, "-c", "select string_agg(n::text, ',' order by n) from psql_f")...); strings.TrimSpace(got) != "1,2,4" {
		t.Errorf("rows: %s", got)
	}
}

// pgbenchFailover: a kill costs at most as many connections as there are servers in the pool, each with a documented error.
// The others go on, and what is there is consistent.
func pgbenchFailover(t *testing.T, a *arena) {
	at := []string{"-h", "localhost", "-p", strconv.Itoa(a.port), "-U", a.role, a.database}
	pgbench := filepath.Join(pgtest.BinDirs()[0], "pgbench")
	a.program(t, "", append([]string{pgbench, "-i", "-q", "-I", "dtgvp"}, at...)...)
	history := func() int {
		out := a.program(t, "", append([]string{"psql", "-XAtc", "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history"}, at...)...)
		count, same, _ := strings.Cut(strings.TrimSpace(out), "|")
		n, err := strconv.Atoi(count)
		if err != nil || n > 0 && same != "t" {
			t.Errorf("history: %s", out)
		}
		return n
	}
	runs := map[string]*console{}
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		runs[protocol] = a.console(t, append([]string{pgbench, "-n", "-M", protocol, "-c", "4", "-j", "4", "-T", "120"}, at...)...)
	}
	pgtest.Eventually(t, "they have begun", func() error {
		if history() < 12 {
			return errors.New("they have not")
		}
		return nil
	})
	a.failover(t)
	after, processed, aborted := history(), 0, 0
	for protocol, run := range runs {
		out, err := run.end()
		p, b := pgbenchSaid(t, protocol, out)
		if (err != nil) != (b > 0) {
			t.Errorf("%s: %d connections failed: %v\n%s", protocol, b, err, out)
		}
		processed, aborted = processed+p, aborted+b
	}
	if aborted > failoverPool {
		t.Errorf("%d connections failed, and the pool has %d servers", aborted, failoverPool)
	}
	if got := history(); got < processed || got > processed+aborted || got <= after {
		t.Errorf("%d transactions are there, %d were right after the failover; %d were acknowledged, and %d connections failed", got, after, processed, aborted)
	}
}

// pgbenchSaid reads how many transactions were acknowledged, and how many connections failed, each with a documented error.
func pgbenchSaid(t *testing.T, protocol, out string) (processed, aborted int) {
	t.Helper()
	known := 0
	for _, words := range []string{"terminating connection", "the connection to the server was lost"} {
		known += strings.Count(out, words)
	}
	if aborted = strings.Count(out, "aborted in command"); known != aborted || strings.Contains(out, "read-only") {
		t.Errorf("%s: %d connections failed, %d of them with documented errors:\n%s", protocol, aborted, known, out)
	}
	_, rest, _ := strings.Cut(out, "number of transactions actually processed: ")
	processed, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Errorf("%s: %v\n%s", protocol, err, out)
	}
	return processed, aborted
}

// pgxFailover: it keeps its prepared statements.
func pgxFailover(t *testing.T, a *arena) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it waits for the other clients, and for the cluster
	defer cancel()
	connect := func() *pgx.Conn {
		c, err := pgx.Connect(ctx, a.url("&channel_binding=require"))
		pgtest.Must(t, err)
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	idle, open := connect(), connect()
	_, err := idle.Exec(ctx, "create table pgx_f (n int primary key)")
	pgtest.Must(t, err)
	_, err = idle.Prepare(ctx, "insert", "insert into pgx_f values ($1) returning n * 2")
	pgtest.Must(t, err)
	insert := func(n int) {
		t.Helper()
		var twice int
		if err := idle.QueryRow(ctx, "insert", n).Scan(&twice); err != nil || twice != 2*n {
			t.Errorf("the idle session: %d, %v", twice, err)
		}
	}
	insert(1)
	tx, err := open.Begin(ctx)
	pgtest.Must(t, err)
	_, err = tx.Exec(ctx, "insert into pgx_f values (100)")
	pgtest.Must(t, err)
	a.failover(t)
	insert(2)
	if n, err := idle.CopyFrom(ctx, pgx.Identifier{"pgx_f"}, []string{"n"}, pgx.CopyFromRows([][]any{{3}, {4}})); n != 2 || err != nil {
		t.Errorf("COPY: %d, %v", n, err)
	}
	pgxCancel(ctx, t, idle)
	_, err = tx.Exec(ctx, "insert into pgx_f values (101)")
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		t.Fatalf("an open transaction: %v", err)
	}
	ended(t, said.Code, said.Message)
	var sum int
	if err := idle.QueryRow(ctx, "select sum(n) from pgx_f").Scan(&sum); err != nil || sum != 1+2+3+4 {
		t.Errorf("rows: %d, %v", sum, err)
	}
}

// pqFailover: on one connection of database/sql, with a statement that it has prepared. This client makes driver.ErrBadConn of
// every FATAL error, and keeps its SQLSTATE to itself.
func pqFailover(t *testing.T, a *arena) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it waits for the other clients, and for the cluster
	defer cancel()
	db, err := sql.Open("postgres", a.url(""))
	pgtest.Must(t, err)
	defer db.Close()
	idle, err := db.Conn(ctx)
	pgtest.Must(t, err)
	defer idle.Close()
	_, err = idle.ExecContext(ctx, "create table pq_t (n int primary key, s text)")
	pgtest.Must(t, err)
	count, err := idle.PrepareContext(ctx, "select count(*) from pq_t where n <> $1")
	pgtest.Must(t, err)
	defer count.Close()
	expect := func(want int) {
		t.Helper()
		var got int
		if err := count.QueryRowContext(ctx, 100000).Scan(&got); err != nil || got != want {
			t.Errorf("the idle session: %d rows, %v, want %d", got, err, want)
		}
	}
	expect(0)
	tx, err := db.BeginTx(ctx, nil)
	pgtest.Must(t, err)
	_, err = tx.ExecContext(ctx, "insert into pq_t values (5000)")
	pgtest.Must(t, err)
	a.failover(t)
	expect(0)
	_, err = tx.ExecContext(ctx, "insert into pq_t values (5001)")
	if !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("an open transaction: %v", err)
	}
	_ = tx.Rollback() // the connection is gone
	pqCopy(ctx, t, idle)
	expect(1000)
	pqCancel(ctx, t, idle)
}

// nodeFailover: the script says ready when its sessions are as they should be, and goes on when it is told to.
func nodeFailover(t *testing.T, a *arena, command []string) {
	c := a.console(t, command...)
	c.say("", "ready")
	a.failover(t)
	out := c.say("go", "all is well")
	rest, err := c.end()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, rest)
	}
	ended(t, strings.TrimSpace(out), out)
}
