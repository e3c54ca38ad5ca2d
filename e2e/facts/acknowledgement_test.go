package facts

import (
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5/pgconn"
)

func acknowledgementFacts() []fact {
	return []fact{
		{
			"names-changed", "commits that wait go on waiting when synchronous_standby_names is changed to another standby that is absent",
			"a server promotes closed, with a name that nobody bears (`internal/ha/sync.go`, Placeholder)", namesChanged,
		},
		{
			"names-emptied", "emptying synchronous_standby_names acknowledges the commits that wait, at once and without a warning",
			"`/sync` is emptied before the names, and the names only by the leader of the term (`internal/ha/sync.go`)", namesEmptied,
		},
		{
			"cancelled-wait", "a commit whose wait is cancelled is acknowledged, with a warning that client_min_messages = error hides",
			"such a commit is not promised to survive; no warning can be relied on to tell it (`docs/invariants.md`)", cancelledWait,
		},
		{
			"ended-wait", "a commit whose session is ended while it waits is not acknowledged: the connection ends without an answer",
			"a stop may end sessions whose commits wait (`internal/postgres/stop.go`)", endedWait,
		},
	}
}

// waiting is a session whose commit waits for a standby that is not there.
func waiting(r *run, a *server, prepare string, notice func(*pgconn.Notice)) (*pgconn.PgConn, <-chan result) {
	r.Helper()
	conn := a.open(notice)
	if prepare != "" {
		a.sqlOn(conn, prepare)
	}
	answer := begin(pgtest.Context(r), conn, insert("waiting", 1))
	a.awaitSyncRep(conn.PID())
	return conn, answer
}

// closed is a primary on which every commit waits for a standby that is not there.
func closed(r *run) *server {
	r.Helper()
	a := r.primary("a")
	a.names("nobody")
	return a
}

func namesChanged(r *run) {
	a := closed(r)
	_, answer := waiting(r, a, "", nil)
	a.names("nobody_else")
	r.never("the waiting commit was acknowledged", time.Second, func() bool { return len(answer) > 0 })
}

func namesEmptied(r *run) {
	a := closed(r)
	var notices []pgconn.Notice
	_, answer := waiting(r, a, "", func(n *pgconn.Notice) { notices = append(notices, *n) })
	began := time.Now()
	a.names("")
	got := r.ended("the waiting commit", answer)
	r.figure("acknowledged after", "ms", ms(got.at.Sub(began)))
	if got.err != nil || got.tag != "INSERT 0 1" || len(notices) > 0 {
		r.Errorf("the waiting commit ended with %q, %v, notices %v", got.tag, got.err, notices)
	}
}

func cancelledWait(r *run) {
	a := closed(r)
	for _, level := range []string{"notice", "error"} {
		var notices []pgconn.Notice
		conn, answer := waiting(r, a, "SET client_min_messages = "+level, func(n *pgconn.Notice) { notices = append(notices, *n) })
		began := time.Now()
		a.sql(fmt.Sprintf("SELECT pg_cancel_backend(%d)", conn.PID()))
		got := r.ended("the cancelled commit", answer)
		r.figure("acknowledged after", "ms", ms(got.at.Sub(began)))
		if got.err != nil || got.tag != "INSERT 0 1" {
			r.Errorf("the cancelled commit ended with %q, %v", got.tag, got.err)
		}
		switch {
		case level == "error" && len(notices) > 0:
			r.Errorf("client_min_messages = error lets %v through", notices)
		case level == "notice" && (len(notices) != 1 || notices[0].Code != "01000" || notices[0].SeverityUnlocalized != "WARNING"):
			r.Errorf("the warning is %v", notices)
		}
	}
}

func endedWait(r *run) {
	a := closed(r)
	conn, answer := waiting(r, a, "", nil)
	began := time.Now()
	a.sql(fmt.Sprintf("SELECT pg_terminate_backend(%d)", conn.PID()))
	got := r.ended("the commit of the ended session", answer)
	r.figure("the connection ended after", "ms", ms(got.at.Sub(began)))
	if got.err == nil || strings.HasPrefix(got.tag, "INSERT") {
		r.Errorf("the commit of an ended session was acknowledged: %q, %v", got.tag, got.err)
	}
}
