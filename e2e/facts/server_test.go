package facts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/freeze"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// server is a PostgreSQL of a run, with what it was configured with.
type server struct {
	*postgres.Instance
	r    *run
	opt  postgres.Options
	set  postgres.Settings
	self string
}

// primary starts a new database with an empty table.
func (r *run) primary(name string) *server {
	r.Helper()
	o := pgtest.Options(r, name)
	o.BinDir = r.bin
	s := &server{pgtest.Primary(r, o), r, o, pgtest.Settings(), name}
	// Partitions: clients that wait for each other's locks would end with the postmaster, because they wait.
	s.sql("CREATE TABLE w (kind text, n bigint, at timestamptz DEFAULT clock_timestamp()) PARTITION BY LIST (kind)")
	s.sql("CREATE TABLE w_pipelining PARTITION OF w FOR VALUES IN ('pipelining')")
	s.sql("CREATE TABLE w_loop PARTITION OF w FOR VALUES IN ('loop')")
	s.sql("CREATE TABLE w_others PARTITION OF w DEFAULT")
	return s
}

// pair is a primary a and a standby b that its commits wait for. Edits change the settings of b.
func (r *run) pair(edits ...func(*postgres.Settings)) (a, b *server) {
	r.Helper()
	a = r.primary("a")
	b = a.standby("b", edits...)
	a.names("b")
	return a, b
}

// names sets synchronous_standby_names.
func (s *server) names(value string) {
	s.r.Helper()
	s.set.SyncNames = value
	pgtest.Must(s.r, s.SetSyncNames(pgtest.Context(s.r), value))
}

// standby makes a copy that streams. Edits change its settings.
func (s *server) standby(name string, edits ...func(*postgres.Settings)) *server {
	s.r.Helper()
	o := pgtest.Options(s.r, name)
	o.BinDir = s.r.bin
	b := &server{pgtest.New(s.r, o), s.r, o, pgtest.Settings(), name}
	for _, edit := range edits {
		edit(&b.set)
	}
	up := pgtest.Upstream(s.opt, "")
	ctx := pgtest.Context(s.r)
	pgtest.Must(s.r, b.Clone(ctx, up, nil))
	b.startBehind(&up)
	s.awaitStandby(b)
	return b
}

// startBehind starts the server as a standby of up; nil: of nobody.
func (s *server) startBehind(up *postgres.Upstream) {
	s.r.Helper()
	_, err := s.Configure(s.set, up, true)
	pgtest.Must(s.r, err)
	_, err = s.Start(pgtest.Context(s.r), s.set)
	pgtest.Must(s.r, err)
}

// startAgain starts the server as a primary after a crash.
func (s *server) startAgain() {
	s.r.Helper()
	_, err := s.Start(pgtest.Context(s.r), s.set)
	pgtest.Must(s.r, err)
}

func (s *server) probe() postgres.Probe {
	s.r.Helper()
	p, err := s.Probe(pgtest.Context(s.r))
	pgtest.Must(s.r, err)
	return p
}

// awaitStandby waits until b streams from s and has all that s has flushed.
func (s *server) awaitStandby(b *server) {
	s.r.Helper()
	want := s.probe().WalLSN
	pgtest.Eventually(s.r, b.self+" streams and is in step", func() error {
		if flushed := s.acknowledgedBy(b); flushed < want {
			return fmt.Errorf("it has flushed up to %s, not %s", flushed, want)
		}
		return nil
	})
}

// acknowledgedBy is the position up to which b has told s that it has flushed.
func (s *server) acknowledgedBy(b *server) cluster.LSN {
	s.r.Helper()
	for _, w := range s.probe().Standbys {
		if w.Name == b.self && w.State == "streaming" {
			return w.Flush
		}
	}
	return 0
}

// open opens a session; notices of the server go to notice, which may be nil.
func (s *server) open(notice func(*pgconn.Notice)) *pgconn.PgConn {
	s.r.Helper()
	config, err := pgconn.ParseConfig(pgtest.ConnString(s.opt, "postgres"))
	pgtest.Must(s.r, err)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if notice != nil {
			notice(n)
		}
	}
	conn, err := pgconn.ConnectConfig(pgtest.Context(s.r), config)
	pgtest.Must(s.r, err)
	s.r.Cleanup(func() { session.Close(conn) })
	return conn
}

// sql runs statements on a session of their own, and returns the first column of the first row.
func (s *server) sql(text string) string {
	s.r.Helper()
	conn := s.open(nil)
	defer session.Close(conn)
	return s.sqlOn(conn, text)
}

func (s *server) sqlOn(conn *pgconn.PgConn, text string) string {
	s.r.Helper()
	rows, err := session.Query(pgtest.Context(s.r), conn, text)
	if err != nil {
		s.r.Fatalf("%s on %s: %v", text, s.self, err)
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return ""
	}
	return rows[0][0]
}

// postmaster is the pid of the server's first process.
func (s *server) postmaster() int {
	s.r.Helper()
	running := s.Server()
	if running == nil {
		s.r.Fatalf("%s does not run", s.self)
	}
	return running.PID()
}

// freeze stops all processes of the server, without their knowing; the returned function lets them go on.
func (s *server) freeze() (thaw func()) {
	s.r.Helper()
	pids, err := s.Processes()
	pgtest.Must(s.r, err)
	freeze.Processes(s.r, pids)
	thaw = sync.OnceFunc(func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGCONT) // it may be gone
		}
	})
	s.r.Cleanup(thaw)
	return thaw
}

// awaitGone waits until a process is gone, and returns when that was seen.
func (r *run) awaitGone(pid int) time.Time {
	r.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			return time.Now()
		}
		time.Sleep(200 * time.Microsecond)
	}
	r.Fatalf("process %d is still there", pid)
	return time.Time{}
}

// never watches for a while that something does not happen: that it does not can only be seen by waiting.
func (r *run) never(what string, during time.Duration, happened func() bool) {
	r.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if happened() {
			r.Errorf("%s", what)
			return
		}
	}
}

// result is how a statement on a session of its own ended.
type result struct {
	tag string
	err error
	at  time.Time
}

// begin sends a statement on conn and does not wait for its end.
func begin(ctx context.Context, conn *pgconn.PgConn, text string) <-chan result {
	out := make(chan result, 1)
	go func() {
		results, err := conn.Exec(ctx, text).ReadAll()
		res := result{err: err, at: time.Now()}
		if n := len(results); n > 0 {
			res.tag = results[n-1].CommandTag.String()
		}
		out <- res
	}()
	return out
}

// awaitSyncRep waits until the session's commit waits for a standby.
func (s *server) awaitSyncRep(pid uint32) {
	s.r.Helper()
	watch := s.open(nil)
	pgtest.Eventually(s.r, "the commit waits for a standby", func() error {
		if got := s.sqlOn(watch, fmt.Sprintf("SELECT wait_event FROM pg_stat_activity WHERE pid = %d", pid)); got != "SyncRep" {
			return fmt.Errorf("it waits for %q", got)
		}
		return nil
	})
}

// ended takes the result of a statement that was begun.
func (r *run) ended(what string, c <-chan result) result {
	r.Helper()
	select {
	case res := <-c:
		return res
	case <-time.After(30 * time.Second):
		r.Fatalf("%s: no answer within 30 s", what)
	}
	return result{}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
