package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestARealServer(t *testing.T) {
	o := pgtest.Options(t, "db1")
	pgtest.Primary(t, o)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	defer api.Close()
	picture := func(term uint64) cluster.Snapshot {
		return cluster.Snapshot{
			Leader: &cluster.Leader{Name: "db1"},
			Term:   &cluster.Term{Number: term, Holder: "db1", State: cluster.TermPromoted},
			Members: []cluster.Member{{Name: "db1", State: cluster.StateRunning, Role: cluster.RolePrimary,
				ConnURL: fmt.Sprintf("postgres://127.0.0.1:%d/postgres", o.Port), APIURL: api.URL + "/patroni"}},
		}
	}
	w := start(t, settings())
	w.show(picture(1))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	through := o
	if _, err := fmt.Sscanf(w.rw, "127.0.0.1:%d", &through.Port); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, pgtest.ConnString(through, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	var sum int
	err = conn.QueryRow(ctx, "select sum(n) from generate_series(1, 100000) n where length(repeat('x', 10)) = 10").Scan(&sum)
	if err != nil || sum != 5000050000 {
		t.Errorf("%d, %v", sum, err)
	}

	// A statement that waits is cut at the next term, not only when it ends.
	before := w.proxy.Snapshot().Listeners[0].In
	failed := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(ctx, "select pg_sleep(60)").ReadAll()
		failed <- err
	}()
	pgtest.Eventually(t, "a waiting statement", func() error {
		if s := w.proxy.Snapshot().Listeners[0]; s.In <= before {
			return fmt.Errorf("no more than %d bytes came from the client", s.In)
		}
		return nil
	})
	w.show(picture(2))
	// pgx tells of the reset, or that it has closed the connection because of it.
	if err := <-failed; err == nil || ctx.Err() != nil {
		t.Errorf("the statement ended with %v, want it cut", err)
	}
	log, err := os.ReadFile(o.LogFile)
	pgtest.Must(t, err)
	if strings.Contains(string(log), "startup packet") {
		t.Errorf("the proxy's checks leave lines in the server's log:\n%s", log)
	}
}
