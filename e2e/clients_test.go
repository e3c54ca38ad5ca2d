package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// The role that clients of the transaction mode log in as. The pool is smaller than the number of connections that each
// client opens, so that sessions do change servers.
const (
	clientRole     = "shop"
	clientPassword = "shop' password"
	clientPool     = 2
)

// front is a proxy in transaction mode, with TLS and SCRAM, in front of a real server.
type front struct {
	port   int
	root   string // file of the authority that vouches for its certificate
	server postgres.Options
	dir    string // of its configuration, and of its Unix socket
	proxy  *os.Process

	role, password, database string
}

// TestClients runs real clients through the transaction mode: prepared statements, COPY, cancel requests, TLS and SCRAM;
// then over its Unix socket, and through a reload.
func TestClients(t *testing.T) {
	f := startFront(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *front)
	}{
		{"psql", psqlClient}, {"pgbench", pgbenchClient}, {"pgx", pgxClient}, {"lib-pq", pqClient}, {"node", nodeClient},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, f) })
	}
	t.Run("Unix socket", func(t *testing.T) { unixSocket(t, f) })
	t.Run("reload", func(t *testing.T) { reloaded(t, f) })
	t.Run("nothing is left", func(t *testing.T) { f.nothingIsLeft(t) })
}

func startFront(t *testing.T) *front {
	t.Helper()
	o := pgtest.Options(t, "db1")
	pgtest.Primary(t, o)
	f := &front{server: o, port: pgtest.FreePort(t), role: clientRole, password: clientPassword, database: clientRole}
	secret := f.fill(t)
	dir := t.TempDir()
	f.dir = dir
	f.certificate(t, dir)
	f.file(t, dir, "users.txt", fmt.Sprintf("%q %q\n", clientRole, secret))
	api := httptest.NewServer(http.HandlerFunc(f.api))
	t.Cleanup(api.Close)
	f.file(t, dir, "haven.yml", fmt.Sprintf(`haven: {format: 1, state_dir: state, address: 127.0.0.1}
scope: clients
name: proxy
restapi: {listen: "127.0.0.1:%d"}
proxy:
  discover: rest
  members: ["%s"]
  stats: null
  auth_type: scram-sha-256
  auth_file: users.txt
  tls: {certfile: server.crt, keyfile: server.key}
  client_tls_sslmode: require
  listeners:
    - {listen: "127.0.0.1,%s:%d", target: primary, mode: transaction, pool: {default_pool_size: %d}}
`, pgtest.FreePort(t), api.URL, dir, f.port, clientPool))
	f.run(t, dir)
	return f
}

func (f *front) file(t *testing.T, dir, name, text string) {
	t.Helper()
	pgtest.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

// api answers as the REST API of the only member would.
func (f *front) api(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/cluster" {
		fmt.Fprint(w, `{"role":"primary","patroni":{"scope":"clients","name":"db1"}}`)
		return
	}
	fmt.Fprintf(w, `{"scope":"clients","members":[{"name":"db1","role":"leader","state":"running","api_url":"http://%s/patroni","host":"127.0.0.1","port":%d,"timeline":1}]}`,
		r.Host, f.server.Port)
}

// run runs the proxy until the end of the test.
func (f *front) run(t *testing.T, dir string) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command(binary(t), "run", "haven.yml")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	cmd.Env = append(os.Environ(), "HOME="+dir)
	pgtest.Must(t, cmd.Start())
	f.proxy = cmd.Process
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("haven run: %v\n%s", err, said.String())
		}
	})
	pgtest.Eventually(t, "the proxy listens", func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// fill makes the role, and returns its SCRAM secret.
func (f *front) fill(t *testing.T) string {
	t.Helper()
	ctx := pgtest.Context(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(f.server, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	for _, sql := range []string{
		"create role shop login password '" + strings.ReplaceAll(clientPassword, "'", "''") + "'", "create database shop owner shop",
	} {
		_, err = conn.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	var secret string
	pgtest.Must(t, conn.QueryRow(ctx, "select rolpassword from pg_authid where rolname = 'shop'").Scan(&secret))
	return secret
}

// certificate makes the proxy's, for localhost.
func (f *front) certificate(t *testing.T, dir string) {
	t.Helper()
	ca := pgtest.NewAuthority(t)
	f.root = ca.Root(dir)
	ca.Write(dir, "server", ca.Issue("pooler", "localhost"))
}

// unixSocket: psql finds it by its directory and the port, and has no TLS there, though ports require it.
func unixSocket(t *testing.T, f *front) {
	cmd := exec.CommandContext(pgtest.Context(t), "psql", "-XAtqw", "-h", f.dir, "-p", fmt.Sprint(f.port), "-U", f.role, "-d", f.database, "-c", "select 'here'", "-c", "\\conninfo")
	cmd.Env = append(os.Environ(), "PGPASSWORD="+f.password)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "here\n") || !strings.Contains(string(out), "via socket in \""+f.dir) || strings.Contains(string(out), "SSL") {
		t.Errorf("%v\n%s", err, out)
	}
}

// reloaded: a signal has the proxy take other settings of its pools into use, under the clients that there are.
func reloaded(t *testing.T, f *front) {
	ctx := pgtest.Context(t)
	stays, err := pgx.Connect(ctx, f.url(""))
	pgtest.Must(t, err)
	defer stays.Close(ctx)
	file := filepath.Join(f.dir, "haven.yml")
	text, err := os.ReadFile(file)
	pgtest.Must(t, err)
	second := func() string {
		c, err := pgx.Connect(ctx, f.url(""))
		if err == nil {
			c.Close(ctx)
			return ""
		}
		var said *pgconn.PgError
		if errors.As(err, &said) {
			return said.Code
		}
		return err.Error()
	}
	for _, step := range []struct{ pool, want string }{
		{fmt.Sprintf("max_client_conn: 1, default_pool_size: %d", clientPool), "53300"}, {fmt.Sprintf("default_pool_size: %d", clientPool), ""},
	} {
		changed := strings.Replace(string(text), fmt.Sprintf("default_pool_size: %d", clientPool), step.pool, 1)
		f.file(t, f.dir, "haven.yml", changed)
		pgtest.Must(t, f.proxy.Signal(syscall.SIGHUP))
		pgtest.Eventually(t, "a second client gets "+step.want, func() error {
			if got := second(); got != step.want {
				return errors.New(got)
			}
			return nil
		})
		var n int
		if err := stays.QueryRow(ctx, "select $1::int", 7).Scan(&n); err != nil || n != 7 {
			t.Errorf("the client that was there: %d, %v", n, err)
		}
	}
}

// nothingIsLeft looks at the server: no more sessions than the pool may have, and none in a transaction.
func (f *front) nothingIsLeft(t *testing.T) {
	ctx := pgtest.Context(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(f.server, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	pgtest.Eventually(t, "idle sessions only", func() error {
		var all, busy int
		err := conn.QueryRow(ctx, "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity where usename = 'shop'").Scan(&all, &busy)
		if err == nil && (all > clientPool || busy > 0) {
			err = fmt.Errorf("%d sessions, %d of them not idle", all, busy)
		}
		return err
	})
}

// url is how clients that take connection URIs reach the pooler.
func (f *front) url(more string) string {
	return fmt.Sprintf("postgres://%s@localhost:%d/%s?sslmode=verify-full&sslrootcert=%s%s", url.UserPassword(f.role, f.password), f.port, f.database, f.root, more)
}

// environment is that of client programs.
func (f *front) environment() []string {
	return append(os.Environ(), "PGPASSWORD="+f.password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+f.root, "HAVEN_ROOT="+f.root)
}

// program runs a client program to its end.
func (f *front) program(t *testing.T, input string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = f.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}
