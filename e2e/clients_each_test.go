package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// psqlClient: a script with transactions, COPY in both directions, errors, and an interrupt.
func psqlClient(t *testing.T, f *front) {
	psql := []string{"psql", "-XAtq", "-v", "ON_ERROR_STOP=0", "-h", "localhost", "-p", strconv.Itoa(f.port), "-U", clientRole, "shop"}
	out := f.program(t, `create table psql_t (n int primary key, s text);
\copy psql_t from stdin with (format csv)
1,one
2,"two, too"
\.
begin;
insert into psql_t values (3, 'three');
savepoint a;
insert into psql_t values (1, 'twice');
rollback to a;
commit;
begin;
prepare twice (int) as select 'twice: ' || 2 * $1;
execute twice (21);
commit;
\copy (select * from psql_t order by n) to stdout
select 1/0;
select count(*) || '!' from psql_t;
select 1 \; select 2;
\conninfo
drop table psql_t;
`, psql...)
	for _, want := range []string{"duplicate key", "1\tone\n2\ttwo, too\n3\tthree\n", "twice: 42\n", "division by zero", "3!", "1\n2\n", "SSL connection"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	// timeout(1) interrupts it as Ctrl-C does, whereupon psql sends a cancel request.
	slow := exec.Command("timeout", append([]string{"--signal=INT", "5", psql[0], "-c", "select pg_sleep(60)"}, psql[1:]...)...)
	slow.Env = append(slow.Environ(), "PGPASSWORD="+clientPassword, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+f.root)
	begun := time.Now()
	text, _ := slow.CombinedOutput()
	if !strings.Contains(string(text), "canceling statement due to user request") || time.Since(begun) > 50*time.Second {
		t.Errorf("interrupted after %s: %s", time.Since(begun), text)
	}
}

// pgbenchClient: it fills its tables by COPY; then eight connections on two servers in each protocol; every transaction is there afterwards. Each has a
// thread: pgbench waits for the answer to a Parse with its whole thread, and for a server that another connection of the
// same thread holds it would wait forever.
func pgbenchClient(t *testing.T, f *front) {
	bin := pgtest.BinDirs()[0]
	at := []string{"-h", "localhost", "-p", strconv.Itoa(f.port), "-U", clientRole, "shop"}
	f.program(t, "", append([]string{filepath.Join(bin, "pgbench"), "-i", "-q", "-I", "dtgvp"}, at...)...)
	total := 0
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		f.program(t, "", append([]string{filepath.Join(bin, "pgbench"), "-n", "-M", protocol, "-c", "8", "-j", "8", "-t", "25"}, at...)...)
		total += 200
		out := f.program(t, "", append([]string{"psql", "-XAtc", "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history"}, at...)...)
		if strings.TrimSpace(out) != fmt.Sprintf("%d|t", total) {
			t.Errorf("after the %s protocol: %s, want %d transactions", protocol, out, total)
		}
	}
}

// pgxClient: it prepares every statement and keeps it.
func pgxClient(t *testing.T, f *front) {
	ctx := pgtest.Context(t)
	var conns []*pgx.Conn
	defer func() {
		for _, c := range conns {
			c.Close(ctx)
		}
	}()
	for range 6 {
		c, err := pgx.Connect(ctx, f.url(""))
		pgtest.Must(t, err)
		conns = append(conns, c)
	}
	_, err := conns[0].Exec(ctx, "create table pgx_t (n int, s text)")
	pgtest.Must(t, err)
	var running sync.WaitGroup
	for i, c := range conns {
		running.Go(func() { pgxStatements(ctx, t, c, i) })
	}
	running.Wait()
	c := conns[1]
	n, err := c.CopyFrom(ctx, pgx.Identifier{"pgx_t"}, []string{"n", "s"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) {
		return []any{i, strings.Repeat("x", 50)}, nil
	}))
	if n != 5000 || err != nil {
		t.Errorf("COPY: %d, %v", n, err)
	}
	var text strings.Builder
	if tag, err := c.PgConn().CopyTo(ctx, &text, "copy pgx_t to stdout"); err != nil || tag.RowsAffected() != 5000 || strings.Count(text.String(), "\n") != 5000 {
		t.Errorf("COPY back: %v, %v", tag, err)
	}
	pgxCancel(ctx, t, c)
	_, err = c.Exec(ctx, "drop table pgx_t")
	pgtest.Must(t, err)
	if _, err := pgx.Connect(ctx, strings.Replace(f.url(""), "%20password", "%20wrong", 1)); err == nil {
		t.Error("a wrong password is accepted")
	}
	bound, err := pgx.Connect(ctx, f.url("&channel_binding=require"))
	pgtest.Must(t, err)
	bound.Close(ctx)
}

func pgxStatements(ctx context.Context, t *testing.T, c *pgx.Conn, i int) {
	for n := range 30 {
		var a, b int
		if err := c.QueryRow(ctx, fmt.Sprintf("select $1::int, $2::int + %d", n%5), i, n).Scan(&a, &b); err != nil || a != i || b != n+n%5 {
			t.Errorf("connection %d, statement %d: %d, %d, %v", i, n, a, b, err)
			return
		}
	}
	batch := &pgx.Batch{}
	for n := range 10 {
		batch.Queue("select $1::text", fmt.Sprint(n))
	}
	results := c.SendBatch(ctx, batch)
	for n := range 10 {
		var s string
		if err := results.QueryRow().Scan(&s); err != nil || s != fmt.Sprint(n) {
			t.Errorf("batch: %s, %v", s, err)
		}
	}
	if err := results.Close(); err != nil {
		t.Error(err)
	}
}

func pgxCancel(ctx context.Context, t *testing.T, c *pgx.Conn) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "select pg_sleep(60)")
		failed <- err
	}()
	for {
		if err := c.PgConn().CancelRequest(ctx); err != nil {
			t.Errorf("cancel: %v", err)
		}
		select {
		case err := <-failed:
			var said *pgconn.PgError
			if !errors.As(err, &said) || said.Code != "57014" {
				t.Errorf("cancelled: %v", err)
			}
			return
		case <-time.After(200 * time.Millisecond): // the request came before the statement
		}
	}
}

// pqClient: database/sql, where any statement may run on any connection.
func pqClient(t *testing.T, f *front) {
	ctx := pgtest.Context(t)
	db, err := sql.Open("postgres", f.url(""))
	pgtest.Must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(6)
	_, err = db.ExecContext(ctx, "create table pq_t (n int, s text)")
	pgtest.Must(t, err)
	stmt, err := db.PrepareContext(ctx, "select $1::int * 2")
	pgtest.Must(t, err)
	defer stmt.Close()
	var running sync.WaitGroup
	for i := range 6 {
		running.Go(func() {
			for n := range 30 {
				var got int
				if err := stmt.QueryRowContext(ctx, n).Scan(&got); err != nil || got != 2*n {
					t.Errorf("goroutine %d: %d, %v", i, got, err)
					return
				}
			}
		})
	}
	running.Wait()
	pqCopy(ctx, t, db)
	pqCancel(ctx, t, db)
	_, err = db.ExecContext(ctx, "drop table pq_t")
	pgtest.Must(t, err)
}

// pqConn is a *sql.DB or a *sql.Conn.
type pqConn interface {
	BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func pqCancel(ctx context.Context, t *testing.T, db pqConn) {
	t.Helper()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	var said *pq.Error
	if _, err := db.ExecContext(short, "select pg_sleep(60)"); !errors.As(err, &said) || said.Code != "57014" {
		t.Errorf("cancelled: %v", err)
	}
}

func pqCopy(ctx context.Context, t *testing.T, db pqConn) {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	pgtest.Must(t, err)
	defer tx.Rollback()
	in, err := tx.PrepareContext(ctx, "copy pq_t (n, s) from stdin")
	pgtest.Must(t, err)
	for n := range 1000 {
		_, err := in.ExecContext(ctx, n, "x")
		pgtest.Must(t, err)
	}
	_, err = in.ExecContext(ctx)
	pgtest.Must(t, err)
	pgtest.Must(t, in.Close())
	pgtest.Must(t, tx.Commit())
	var count int
	if err := db.QueryRowContext(ctx, "select count(*) from pq_t").Scan(&count); err != nil || count != 1000 {
		t.Errorf("COPY: %d, %v", count, err)
	}
}

// nodeClient: the package pg of npm, with named statements, and pg-copy-streams.
func nodeClient(t *testing.T, f *front) {
	command, missing := nodeCommand(t, f, "testdata/clients.js")
	if missing != "" {
		t.Skip(missing)
	}
	out := f.program(t, "", command...)
	if !strings.HasSuffix(strings.TrimSpace(out), "all is well") {
		t.Errorf("%s", out)
	}
}

// nodeCommand runs a script of ours with Node's client, which is installed first; missing says why that cannot be had.
func nodeCommand(t *testing.T, f *front, script string) (command []string, missing string) {
	t.Helper()
	for _, program := range []string{"npm", "node"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, program + " is not there: Node's client is not tried"
		}
	}
	dir := t.TempDir()
	install := exec.CommandContext(pgtest.Context(t), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "pg@8", "pg-copy-streams@6")
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Sprintf("npm cannot install pg: Node's client is not tried: %v\n%s", err, out)
	}
	path, err := filepath.Abs(script)
	pgtest.Must(t, err)
	return []string{"env", "NODE_PATH=" + filepath.Join(dir, "node_modules"), "node", path, strconv.Itoa(f.port), f.role, f.password, f.database}, ""
}
