package pooled

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// waitEvent waits until some session of the test waits for that.
func waitEvent(t *testing.T, direct *pgx.Conn, event string) {
	t.Helper()
	pgtest.Eventually(t, "a session waits for "+event, func() error {
		if got := text(t, direct, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = '"+event+"'"); got == "0" {
			return errors.New("none")
		}
		return nil
	})
}

// untilItWaits commits, again and again, until that waits for a standby: the checkpointer, which lets backends wait, may not have read the
// names yet. What the last one ends with comes from the channel.
func untilItWaits(t *testing.T, direct *pgx.Conn, commit func() error) <-chan error {
	t.Helper()
	got := make(chan error, 1)
	begin := func() { got <- commit() }
	go begin()
	pgtest.Eventually(t, "a commit waits", func() error {
		select {
		case err := <-got:
			pgtest.Must(t, err)
			go begin()
		default:
		}
		if n := text(t, direct, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"); n == "0" {
			return errors.New("none does")
		}
		return nil
	})
	return got
}

// TestNoCancelReachesACommitThatWaitsForAStandby has a commit wait for a standby that is not there, with warnings hidden,
// and asks to cancel it: PostgreSQL would report success.
func TestNoCancelReachesACommitThatWaitsForAStandby(t *testing.T) {
	o, _, p := pg(t)
	direct := atServer(t, o)
	exec(t, direct, "CREATE TABLE t (i int)")
	exec(t, direct, "ALTER ROLE postgres SET client_min_messages = 'error'") // for sessions to come
	for _, c := range []struct{ name, sql string }{
		{"simple", "INSERT INTO t VALUES (1)"},
		{"explicit", "BEGIN; INSERT INTO t VALUES (1); COMMIT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, Transaction, p, func(o *Options) {
				o.Pool.IgnoreStartupParameters = append(o.Pool.IgnoreStartupParameters, "client_min_messages")
			})
			cl := h.connect()
			if level := text(t, cl, "SHOW client_min_messages"); level != "error" {
				t.Fatalf("messages from %s on are shown", level)
			}
			standbys(t, direct, "nobody")
			got := untilItWaits(t, direct, func() error {
				_, err := cl.PgConn().Exec(context.Background(), c.sql).ReadAll()
				return err
			})
			for range 3 {
				pgtest.Must(t, cl.PgConn().CancelRequest(context.Background()))
			}
			select {
			case err := <-got:
				t.Fatalf("a commit that no standby has was answered: %v", err)
			case <-time.After(3 * syncWait):
			}
			waitEvent(t, direct, "SyncRep")
			standbys(t, direct, "")
			if err := <-got; err != nil {
				t.Errorf("the commit ended with %v", err)
			}
			text(t, cl, "SELECT 1")
		})
	}
}

// TestWhatMakesSureWaitsInAnyCase: a session that does not wait for standbys may have had a transaction that did.
func TestWhatMakesSureWaitsInAnyCase(t *testing.T) {
	o, _, _ := pg(t)
	direct := atServer(t, o)
	for _, waits := range []string{"off", "local", "on", "remote_apply"} {
		t.Run(waits, func(t *testing.T) {
			c := atServer(t, o)
			exec(t, c, "SET synchronous_commit = "+waits)
			standbys(t, direct, "nobody")
			got := untilItWaits(t, direct, func() error { _, err := tryText(c, sure); return err })
			standbys(t, direct, "")
			pgtest.Must(t, <-got)
			if kept := text(t, c, "SHOW synchronous_commit"); kept != waits {
				t.Errorf("the session is left with synchronous_commit %s", kept)
			}
		})
	}
}

// standbys has commits wait for them from now on.
func standbys(t *testing.T, direct *pgx.Conn, names string) {
	t.Helper()
	exec(t, direct, "SET synchronous_commit = local")
	exec(t, direct, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	exec(t, direct, "SELECT pg_reload_conf()")
	pgtest.Eventually(t, "the names hold", func() error {
		if got := text(t, direct, "SHOW synchronous_standby_names"); got != names {
			return errors.New(got)
		}
		return nil
	})
}

// catching is a statement that sleeps until it is cancelled, and then does something all the same. One request is two signals
// (signal_child in postmaster.c), of which the second may come while the first is dealt with.
func catching(then string) string {
	return "DO $$BEGIN BEGIN BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.3); END;" +
		" EXCEPTION WHEN query_canceled THEN NULL; END; " + then + "; END$$"
}

// TestASuccessAfterACancelWaitsForOneMoreCommit cancels a statement that catches that and commits all the same, without a wait of its own:
// what waits for the standby is the commit that makes sure.
func TestASuccessAfterACancelWaitsForOneMoreCommit(t *testing.T) {
	o, _, p := pg(t)
	direct := atServer(t, o)
	exec(t, direct, "CREATE TABLE t (i int)")
	standbys(t, direct, "nobody")
	first := atServer(t, o)
	ended := untilItWaits(t, direct, func() error { _, err := tryText(first, sure); return err })
	text(t, direct, fmt.Sprintf("SELECT pg_terminate_backend(%d)", first.PgConn().PID()))
	<-ended
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	c := h.connect()
	pid := text(t, c, "SELECT pg_backend_pid()")
	got := make(chan error, 1)
	go func() {
		_, err := c.PgConn().Exec(context.Background(), catching("PERFORM set_config('synchronous_commit', 'off', true); INSERT INTO t VALUES (1)")).ReadAll()
		got <- err
	}()
	waitEvent(t, direct, "PgSleep")
	pgtest.Must(t, c.PgConn().CancelRequest(context.Background()))
	waitEvent(t, direct, "SyncRep")
	if n := text(t, direct, "SELECT count(*) FROM t"); n != "1" {
		t.Errorf("%s rows", n)
	}
	select {
	case err := <-got:
		t.Fatalf("success is told before the standby has one more commit: %v", err)
	case <-time.After(3 * syncWait):
	}
	standbys(t, direct, "")
	if err := <-got; err != nil {
		t.Errorf("the statement ended with %v", err)
	}
	// A connection that was cancelled is not lent again: the request may have been late.
	if other := text(t, c, "SELECT pg_backend_pid()"); other == pid {
		t.Error("the connection was lent again")
	}
}

// TestACancelledStatementFails, and what was undone before it in the same message is no commit in doubt.
func TestACancelledStatementFails(t *testing.T) {
	o, _, p := pg(t)
	direct := atServer(t, o)
	h := open(t, Transaction, p, nil)
	for name, tt := range map[string]struct{ before, sql, after string }{
		"by itself": {"", "SELECT pg_sleep(60)", ""}, "behind a rollback": {"BEGIN; SAVEPOINT s", "ROLLBACK TO s; SELECT pg_sleep(60)", "ROLLBACK"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.connect()
			exec(t, c, tt.before)
			got := make(chan error, 1)
			go func() { _, err := tryText(c, tt.sql); got <- err }()
			waitEvent(t, direct, "PgSleep")
			pgtest.Must(t, c.PgConn().CancelRequest(context.Background()))
			if err := <-got; code(err) != "57014" {
				t.Errorf("%v", err)
			}
			exec(t, c, tt.after)
			if got := text(t, c, "SELECT 5"); got != "5" {
				t.Errorf("afterwards: %q", got)
			}
		})
	}
}

// TestASuccessAfterACancelInRecovery: a standby commits nothing, and can be asked for no commit either.
func TestASuccessAfterACancelInRecovery(t *testing.T) {
	o, i, p := pg(t)
	ctx := pgtest.Context(t)
	pgtest.Must(t, i.Stop(ctx, postgres.StopFast, nil))
	_, err := i.Configure(pgtest.Settings(), nil, true) // it streams from nobody
	pgtest.Must(t, err)
	_, err = i.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	p.replica = true
	direct := atServer(t, o)
	h := open(t, Transaction, p, nil)
	r := h.raw()
	r.send(query(catching("NULL")))
	waitEvent(t, direct, "PgSleep")
	h.door.cancel(&h.only().key)
	if got := r.reply(1, patience); !strings.Contains(got, "DO") || !strings.Contains(got, "Z(\"I") {
		t.Error(got)
	}
}
