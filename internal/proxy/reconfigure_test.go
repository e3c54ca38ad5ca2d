package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// at connects to a pooled listener as that user, to that database: without TLS, unless more says how.
func at(t *testing.T, address, database, user, password string, more ...string) (*pgx.Conn, error) {
	t.Helper()
	if len(more) == 0 {
		more = []string{"sslmode=disable"}
	}
	host, port, _ := strings.Cut(address, ":")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s dbname=%s user=%s password='%s' %s", host, port, database, user, password, strings.Join(more, " ")))
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			c.Close(ctx)
		})
	}
	return c, err
}

// run runs a statement, and expects no error.
func run(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// wantTogether expects that so many of the clients have a server connection at once while the others wait, never more, and
// that all are served.
func wantTogether(t *testing.T, w *world, clients []*pgx.Conn, most int) {
	t.Helper()
	var asked sync.WaitGroup
	for _, c := range clients {
		asked.Go(func() { run(t, c, "SELECT pg_sleep(3)") })
	}
	seen := 0
	w.until(fmt.Sprintf("%d servers at work", most), func(s Stats) bool {
		n, waiting := 0, 0
		for _, p := range s.Listeners[0].Pools {
			n, waiting = n+p.ServersActive, waiting+p.ClientsWaiting
		}
		seen = max(seen, n)
		return n >= most && n+waiting == len(clients)
	})
	asked.Wait()
	if seen > most {
		t.Errorf("%d servers at work, want %d at most", seen, most)
	}
}

// TestPoolsOfSingleDatabasesAndUsers: the size of a pool, and limits across pools.
func TestPoolsOfSingleDatabasesAndUsers(t *testing.T) {
	a := newReal(t, "db1")
	c := pooledSettings("transaction")
	c.Overrides = config.Overrides{
		Databases: map[string]config.Override{
			"small": {Given: []string{"default_pool_size"}, Pool: config.Pool{DefaultPoolSize: 1}},
			"tight": {Given: []string{"max_db_connections"}, Pool: config.Pool{MaxDBConnections: 2}},
		},
		Users: map[string]config.Override{
			"wide":   {Given: []string{"default_pool_size"}, Pool: config.Pool{DefaultPoolSize: 3}},
			"frugal": {Given: []string{"max_user_connections"}, Pool: config.Pool{MaxUserConnections: 2}},
		},
	}
	w := start(t, c)
	w.show(a.leads(1, a))
	setup := dialPooled(t, w.rw)
	for _, sql := range []string{"CREATE ROLE plain LOGIN", "CREATE ROLE wide LOGIN", "CREATE ROLE frugal LOGIN", "CREATE DATABASE small", "CREATE DATABASE tight"} {
		run(t, setup, sql)
	}
	for _, one := range []struct {
		name string
		who  []string // database and user of each client
		most int
	}{
		{"a database's size", []string{"small plain", "small plain", "small plain"}, 1},
		{"a user's size goes before it", []string{"small wide", "small wide", "small wide", "small wide"}, 3},
		{"a database's limit", []string{"tight plain", "tight plain", "tight wide", "tight wide"}, 2},
		{"a user's limit", []string{"tight frugal", "small frugal", "postgres frugal", "postgres frugal"}, 2},
	} {
		t.Run(one.name, func(t *testing.T) {
			var clients []*pgx.Conn
			for _, who := range one.who {
				database, user, _ := strings.Cut(who, " ")
				conn, err := at(t, w.rw, database, user, "")
				pgtest.Must(t, err)
				clients = append(clients, conn)
			}
			wantTogether(t, w, clients, one.most)
		})
	}
	next := *c
	next.Overrides = config.Overrides{Users: map[string]config.Override{"plain": {Given: []string{"default_pool_size"}, Pool: config.Pool{DefaultPoolSize: 2}}}}
	pgtest.Must(t, w.proxy.Reload(&next))
	sizes := map[string]int{}
	for _, p := range w.proxy.Snapshot().Listeners[0].Pools {
		sizes[p.Database+" "+p.User] = p.Size
	}
	if sizes["small plain"] != 2 || sizes["small wide"] != 5 || sizes["tight frugal"] != 5 {
		t.Errorf("after a reload: %v", sizes)
	}
}

// TestReloadKeepsPooledClients: other sizes of pools, users and rules hold for them from then on, and a reload that fails
// changes nothing.
func TestReloadKeepsPooledClients(t *testing.T) {
	a := newReal(t, "db1")
	users := filepath.Join(t.TempDir(), "users.txt")
	save := func(text string) { pgtest.Must(t, os.WriteFile(users, []byte(text), 0o600)) }
	save("\"postgres\" \"first\"\n")
	c := pooledSettings("transaction")
	c.Auth.Type, c.Auth.File = "scram-sha-256", users
	c.Listeners[0].Pool.DefaultPoolSize = 3
	w := start(t, c)
	w.show(a.leads(1, a))
	var clients []*pgx.Conn
	for range 4 {
		conn, err := at(t, w.rw, "postgres", "postgres", "first")
		pgtest.Must(t, err)
		clients = append(clients, conn)
	}
	wantTogether(t, w, clients, 3)
	open, err := clients[3].Begin(context.Background())
	pgtest.Must(t, err)

	save("\"postgres\" \"second\"\n\"other\" \"third\"\n")
	next := *c
	next.Listeners = append([]config.Listener(nil), c.Listeners...)
	next.Listeners[0].Pool.DefaultPoolSize, next.Listeners[0].Pool.MaxClientConn = 1, 5
	pgtest.Must(t, w.proxy.Reload(&next))
	pgtest.Must(t, open.Commit(context.Background()))
	w.until("a pool of one", func(s Stats) bool {
		p := s.Listeners[0].Pools[0]
		return p.Size == 1 && p.ServersActive+p.ServersIdle == 1
	})
	wantTogether(t, w, clients, 1)
	if _, err := at(t, w.rw, "postgres", "postgres", "first"); sqlState(err) != "28P01" {
		t.Errorf("with the password of before: %v", err)
	}
	var fifth *pgx.Conn
	pgtest.Eventually(t, "whoever was refused has left", func() (err error) {
		fifth, err = at(t, w.rw, "postgres", "postgres", "second")
		return err
	})
	if _, err := at(t, w.rw, "postgres", "postgres", "second"); sqlState(err) != "53300" {
		t.Errorf("one more than max_client_conn: %v", err)
	}

	save("no quotes")
	broken := next
	broken.Listeners = append([]config.Listener(nil), next.Listeners...)
	broken.Listeners[0].Pool.DefaultPoolSize = 4
	if err := w.proxy.Reload(&broken); err == nil || !strings.Contains(err.Error(), users+":1") {
		t.Errorf("a file of users that is broken: %v", err)
	}
	wantTogether(t, w, append(clients, fifth), 1)

	save("\"postgres\" \"second\"\n")
	moved := next
	moved.Listeners = append([]config.Listener(nil), next.Listeners...)
	moved.Listeners[0].Mode = "session"
	pgtest.Must(t, w.proxy.Reload(&moved))
	if _, err := clients[0].Exec(context.Background(), "SELECT 1"); err == nil {
		t.Error("a client goes on in another mode")
	}
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
