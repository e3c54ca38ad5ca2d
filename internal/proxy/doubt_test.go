package proxy

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// impatient is a proxy that gives a login little time, and has one server connection a pool, and its leader.
func impatient(t *testing.T) (*member, *world) {
	t.Helper()
	a := newReal(t, "db1")
	c := pooledSettings("transaction")
	c.Listeners[0].ConnectTimeout, c.Listeners[0].Pool.DefaultPoolSize = time.Second, 1
	w := start(t, c)
	w.show(a.leads(1, a))
	return a, w
}

// TestASlowLoginCostsNobodyElse: logins to a database that is locked end by connect_timeout, again and again. The admission holds, and
// with it the server connections of the other pools; once the lock is gone, whoever has waited is served.
func TestASlowLoginCostsNobodyElse(t *testing.T) {
	a, w := impatient(t)
	other := dialPooled(t, w.rw)
	pid := backend(t, other)
	admitted := w.proxy.Snapshot().Leader.Since

	direct, err := pgx.Connect(t.Context(), pgtest.ConnString(a.o, "postgres"))
	pgtest.Must(t, err)
	defer direct.Close(context.Background())
	for _, sql := range []string{"CREATE DATABASE locked", "BEGIN", "ALTER DATABASE locked RENAME TO other"} {
		_, err := direct.Exec(t.Context(), sql)
		pgtest.Must(t, err)
	}
	waits := knock(t, w.rw, "postgres", "locked")
	w.until("three logins have come to nothing", func(s Stats) bool { return s.Listeners[0].Servers[0].Errors >= 3 })
	if l := w.proxy.Snapshot().Leader; l.State != Admitted || !l.Since.Equal(admitted) {
		t.Errorf("the admission of %s has become %+v", admitted, l)
	}
	if now := backend(t, other); now != pid {
		t.Errorf("the other pool's server connection was %d, and is %d", pid, now)
	}
	_, err = direct.Exec(t.Context(), "ROLLBACK")
	pgtest.Must(t, err)
	if _, err := reply(waits); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

func backend(t *testing.T, c *pgx.Conn) (pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pgtest.Must(t, c.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid))
	return pid
}

// TestAFrozenServerIsLeft: the kernel still accepts connections for a server that is stopped, and nobody answers them.
func TestAFrozenServerIsLeft(t *testing.T) {
	a, w := impatient(t)
	w.until("an admitted primary", func(s Stats) bool { return s.Leader.State == Admitted })
	file, err := os.ReadFile(filepath.Join(a.o.DataDir, "postmaster.pid"))
	pgtest.Must(t, err)
	first, _, _ := strings.Cut(string(file), "\n")
	postmaster, err := strconv.Atoi(first)
	pgtest.Must(t, err)
	pgtest.Must(t, syscall.Kill(postmaster, syscall.SIGSTOP))
	thaw := func() { pgtest.Must(t, syscall.Kill(postmaster, syscall.SIGCONT)) }
	defer thaw()
	waits := knock(t, w.rw, "postgres", "postgres")
	w.until("the primary is left", func(s Stats) bool { return s.Leader.State == Checking })
	thaw()
	_, err = reply(waits)
	pgtest.Must(t, err)
}
