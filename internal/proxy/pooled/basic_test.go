package pooled

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestAllModesAnswer(t *testing.T) {
	_, _, p := pg(t)
	for _, mode := range []string{Session, Transaction, Statement} {
		h := open(t, mode, p, nil)
		c := h.connect()
		if got := text(t, c, "SELECT 6*7"); got != "42" {
			t.Errorf("%s: %q", mode, got)
		}
		for n := range 3 {
			var got int
			if err := c.QueryRow(context.Background(), "SELECT $1::int * 2", n).Scan(&got); err != nil || got != 2*n {
				t.Errorf("%s: %d, %v", mode, got, err)
			}
		}
		if _, err := tryText(c, "SELECT 1/0"); code(err) != "22012" {
			t.Errorf("%s: %v", mode, err)
		}
		if got := text(t, c, "SELECT 1"); got != "1" {
			t.Errorf("%s: %q", mode, got)
		}
	}
}

func TestTransactionsShareServers(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	a, b := h.connect(), h.connect()
	pid := text(t, a, "SELECT pg_backend_pid()")
	if other := text(t, b, "SELECT pg_backend_pid()"); other != pid {
		t.Errorf("two servers for a pool of one: %s, %s", pid, other)
	}
	exec(t, a, "BEGIN")
	got := make(chan string)
	go func() { s, _ := tryText(b, "SELECT 'waited'"); got <- s }()
	pgtest.Eventually(t, "b waits", func() error {
		if s := h.door.Snapshot(); s[0].ClientsWaiting != 1 {
			return errUnasked
		}
		return nil
	})
	exec(t, a, "COMMIT")
	if s := <-got; s != "waited" {
		t.Errorf("b got %q", s)
	}
}

// TestStatementModeRefusesTransactions: BEGIN is refused, nothing of it stays open, and whoever asked is sent away.
func TestStatementModeRefusesTransactions(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Statement, p, size1)
	other := h.connect()
	exec(t, other, "CREATE TABLE t (i int)")
	for _, sql := range []string{"BEGIN", "BEGIN; INSERT INTO t VALUES (1)", "START TRANSACTION"} {
		c := h.raw()
		c.send(query(sql))
		if code, message := c.told(); code != "08P01" || message != "FATAL transaction blocks not allowed in statement pooling mode" {
			t.Errorf("%s: %s %s", sql, code, message)
		}
		if got := text(t, other, "SELECT count(*) FROM t"); got != "0" {
			t.Errorf("%s: %s rows", sql, got)
		}
	}
	exec(t, other, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)") // one transaction, and no block
	if got := text(t, other, "SELECT count(*) FROM t"); got != "2" {
		t.Errorf("%s rows", got)
	}
}

// TestReplicationIsNotPooled: those who want to replicate are sent to the server.
func TestReplicationIsNotPooled(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, nil)
	for _, kind := range []string{"true", "database"} {
		if _, err := pgx.Connect(context.Background(), h.url("replication="+kind)); code(err) != "0A000" {
			t.Errorf("replication=%s: %v", kind, err)
		}
	}
}
