package drill

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
)

// standbyOf makes and starts a standby.
func standbyOf(t *testing.T, up postgres.Options, o postgres.Options) *postgres.Instance {
	t.Helper()
	ctx := pgtest.Context(t)
	i := pgtest.New(t, o)
	follow := pgtest.Upstream(up, "")
	pgtest.Must(t, i.Clone(ctx, follow, nil))
	_, err := i.Configure(pgtest.Settings(), &follow, true)
	pgtest.Must(t, err)
	_, err = i.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	return i
}

// TestTwoPrimariesAreFound promotes a standby while its primary goes on: every rule that this breaks is reported.
func TestTwoPrimariesAreFound(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	pgtest.Primary(t, ao)
	b := standbyOf(t, ao, bo)
	ctx := pgtest.Context(t)
	load, err := Begin(ctx, Load{
		Routes:     map[string]string{"direct:a": pgtest.ConnString(ao, "postgres"), "direct:b": pgtest.ConnString(bo, "postgres")},
		ReadRoutes: map[string]string{"read": pgtest.ConnString(bo, "postgres")},
		Members:    map[string]string{fmt.Sprintf("127.0.0.1:%d", bo.Port): "b"},
		Clients:    everything(), Pause: 2 * time.Millisecond,
	})
	pgtest.Must(t, err)
	acknowledges(t, load, 200)
	pgtest.Must(t, b.Promote(ctx))
	load.Mark(check.Fault{Name: "promote beside the primary", Target: "b"})
	acknowledges(t, load, 500)
	history := load.Stop()
	pgtest.Must(t, load.Final(ctx, pgtest.ConnString(bo, "postgres")))
	r := check.Judge(history)
	t.Log(r.Text())
	for _, name := range []string{check.CheckAcknowledged, check.CheckTerms, check.CheckRegisters, check.CheckLists, check.CheckSessions} {
		if c, _ := r.Check(name); c.Verdict != check.Fail {
			t.Errorf("%s: %s", name, c.Verdict)
		}
	}
	for _, name := range []string{check.CheckRefused, check.CheckTwice, check.CheckForeign, check.CheckSums} {
		if c, _ := r.Check(name); c.Verdict != check.Pass {
			t.Errorf("%s: %s", name, c.Verdict)
		}
	}
	if s, ok := r.Find(check.Sum, "read"); !ok || s.OK == 0 {
		t.Errorf("reads on the standby: %+v", s)
	}
}

// TestGivenUpCommitIsNotCancelled: a client that gets no answer for a commit that waits for its standby leaves it
// waiting. A cancel would make it visible without being replicated.
func TestGivenUpCommitIsNotCancelled(t *testing.T) {
	o := pgtest.Options(t, "a")
	pgtest.Primary(t, o)
	dsn := pgtest.ConnString(o, "postgres")
	ctx := pgtest.Context(t)
	c, err := pgx.Connect(ctx, dsn)
	pgtest.Must(t, err)
	defer c.Close(context.WithoutCancel(ctx))
	run := func(sql string) {
		t.Helper()
		_, err := c.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	count := func(sql string) (n int) {
		t.Helper()
		pgtest.Must(t, c.QueryRow(ctx, sql).Scan(&n))
		return n
	}
	load, err := Begin(ctx, Load{Routes: map[string]string{"proxy": dsn}, Clients: Mix{Ledger: 2}, Timeout: 300 * time.Millisecond})
	pgtest.Must(t, err)
	acknowledges(t, load, 20)
	run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	run("SELECT pg_reload_conf()")
	const waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	pgtest.Eventually(t, "commits that were given up wait on", func() error {
		if n := count(waiting); n < 6 {
			return fmt.Errorf("%d commits wait", n)
		}
		return nil
	})
	load.cancel()
	load.clients.Wait()
	if n := count(waiting); n < 6 {
		t.Errorf("only %d commits still wait", n)
	}
	run("ALTER SYSTEM RESET synchronous_standby_names")
	run("SELECT pg_reload_conf()")
	pgtest.Eventually(t, "all commits are over", func() error {
		if count(waiting) > 0 {
			return errors.New("some still wait")
		}
		return nil
	})
	history := load.Stop()
	pgtest.Must(t, load.Final(ctx, dsn))
	r := check.Judge(history)
	s, _ := r.Find(check.Ledger, "proxy")
	if r.Verdict != check.Pass || s.Unknown < 6 || s.Errors["no answer in time"] != s.Unknown || len(history.Final.Ledger) < s.OK+6 {
		t.Errorf("%d rows at the end:\n%s", len(history.Final.Ledger), r.Text())
	}
}

// TestWarnedSuccessIsUnknown: somebody else cancels the wait; the server says success, and warns.
func TestWarnedSuccessIsUnknown(t *testing.T) {
	o := pgtest.Options(t, "a")
	pgtest.Primary(t, o)
	dsn := pgtest.ConnString(o, "postgres")
	ctx := pgtest.Context(t)
	c, err := pgx.Connect(ctx, dsn)
	pgtest.Must(t, err)
	defer c.Close(context.WithoutCancel(ctx))
	load, err := Begin(ctx, Load{Routes: map[string]string{"proxy": dsn}, Clients: Mix{Ledger: 1, Transfers: 1}, Timeout: 20 * time.Second})
	pgtest.Must(t, err)
	acknowledges(t, load, 10)
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"} {
		_, err := c.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	pgtest.Eventually(t, "waits are cancelled", func() error {
		var n int
		pgtest.Must(t, c.QueryRow(ctx, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n))
		load.mu.Lock()
		defer load.mu.Unlock()
		warned := map[check.Kind]bool{}
		for _, o := range load.history.Operations {
			if o.Error == errUnconfirmed.Error() && o.Outcome == check.Unknown {
				warned[o.Kind] = true
			}
		}
		if len(warned) < 2 {
			return fmt.Errorf("warned: %v", warned)
		}
		return nil
	})
	for _, sql := range []string{"ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
		_, err := c.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	history := load.Stop()
	pgtest.Must(t, load.Final(ctx, dsn))
	if r := check.Judge(history); r.Verdict != check.Pass {
		t.Errorf("judged:\n%s", r.Text())
	}
}

// TestCommitEndedByShutdownIsUnknown: a commit that waits for its standby when the server is stopped is on disk, and
// its client gets a warning and no answer.
func TestCommitEndedByShutdownIsUnknown(t *testing.T) {
	o := pgtest.Options(t, "a")
	i := pgtest.Primary(t, o)
	dsn := pgtest.ConnString(o, "postgres")
	ctx := pgtest.Context(t)
	load, err := Begin(ctx, Load{Routes: map[string]string{"direct:a": dsn}, Clients: Mix{Ledger: 4, Registers: 2, Lists: 2, Transfers: 4}, Timeout: 20 * time.Second})
	pgtest.Must(t, err)
	acknowledges(t, load, 100)
	c, err := pgx.Connect(ctx, dsn)
	pgtest.Must(t, err)
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"} {
		_, err := c.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	pgtest.Eventually(t, "commits wait", func() error {
		var n int
		pgtest.Must(t, c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n))
		if n < 6 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	_, err = c.Exec(ctx, "ALTER SYSTEM RESET synchronous_standby_names")
	pgtest.Must(t, err)
	pgtest.Must(t, c.Close(ctx))
	pgtest.Must(t, i.Stop(ctx, postgres.StopFast, nil))
	_, err = i.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	acknowledges(t, load, 100)
	history := load.Stop()
	pgtest.Must(t, load.Final(ctx, dsn))
	r := check.Judge(history)
	unknown := 0
	for _, s := range r.Series {
		if s.Kind != check.AnyWrite {
			unknown += s.Unknown
		}
	}
	if r.Verdict != check.Pass || unknown < 6 {
		t.Errorf("%d unknown outcomes:\n%s", unknown, r.Text())
	}
}

// TestBeginSaysWhyNot: without a reachable route there is no load, and the error names the route.
func TestBeginSaysWhyNot(t *testing.T) {
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=nobody sslmode=disable", pgtest.FreePort(t))
	for name, l := range map[string]Load{"none": {}, "closed": {Routes: map[string]string{"proxy": dsn}}} {
		if _, err := Begin(pgtest.Context(t), l); err == nil {
			t.Errorf("%s: a load without a cluster", name)
		}
	}
}
