package agent_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/jackc/pgx/v5"
)

// TestSwitchoverWaitsForOpenTransactions: a transaction that is open when a switchover begins is let finish, and proxies are told to
// hold meanwhile; one that does not end is cut in the end.
func TestSwitchoverWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: on, haven: {switchover_wait: 10}}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	w.mustExec(s.Leader.Name, "CREATE TABLE t (n int)")
	open := func(name string) (*pgx.Conn, pgx.Tx) {
		t.Helper()
		c, err := w.connect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := c.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "INSERT INTO t VALUES (1)")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, tx
	}
	request := func(s cluster.Snapshot, to string) {
		t.Helper()
		if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: s.Leader.Name, Candidate: to}, -1); err != nil {
			t.Fatal(err)
		}
	}

	from, to := s.Leader.Name, other(s)
	c, tx := open(from)
	defer c.Close(t.Context())
	request(s, to)
	held := w.await("a hold", func(s cluster.Snapshot) bool { return s.Hold != nil })
	if held.Leader.Name != from || held.Hold.Term != s.Term.Number || held.Hold.Seconds < 3 {
		t.Errorf("%+v, while %s leads in term %d", held.Hold, held.Leader.Name, s.Term.Number)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("a transaction that was open when the switchover began: %v", err)
	}
	after := func(name string) func(cluster.Snapshot) bool {
		return func(now cluster.Snapshot) bool { return synced(2)(now) && now.Leader.Name == name && now.Hold == nil }
	}
	s = w.await("the other leads, and the hold has ended", after(to))

	c, tx = open(to)
	defer c.Close(t.Context())
	began := time.Now()
	request(s, from)
	w.await("the first leads again", after(from))
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("a transaction outlived its server")
	}
	if took := time.Since(began); took < 10*time.Second {
		t.Errorf("an open transaction was cut after %s, and switchover_wait is 10 s", took)
	}
	if n := w.count(from, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows, want the one that was committed", n)
	}
}

// TestACrashBeforeTheStopOfASwitchover: as long as a switchover has not come to stop the server, its end is a crash like any other, and the
// standby takes over.
func TestACrashBeforeTheStopOfASwitchover(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 30, loop_wait: 1, synchronous_mode: on, haven: {switchover_wait: 30}}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	from, to := s.Leader.Name, other(s)
	c, err := w.connect(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "BEGIN; CREATE TABLE t (n int)"); err != nil { // which the switchover waits for
		t.Fatal(err)
	}
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: from, Candidate: to}, -1); err != nil {
		t.Fatal(err)
	}
	w.await("a hold", func(s cluster.Snapshot) bool { return s.Hold != nil })
	if err := syscall.Kill(postmaster(t, w.members[from]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = w.await("the standby leads", func(now cluster.Snapshot) bool { return synced(2)(now) && now.Leader.Name == to })
	if s.Term.Cause == nil || s.Term.Cause.Code != ha.CauseCrash {
		t.Errorf("leadership moved for %+v", s.Term.Cause)
	}
}
