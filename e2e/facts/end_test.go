package facts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

func endFacts() []fact {
	return []fact{
		{
			"fast-shutdown", "when a fast shutdown has written \"shut down\" and its processes are gone, the standby has all of its WAL, the checkpoint record included",
			"a switchover hands over after that, and nothing is lost (`internal/agent/leadership.go`)", fastShutdown,
		},
		{
			"frozen-standby", "a frozen standby does not delay \"shut down\" in the control file, but keeps the postmaster alive",
			"a switchover waits for the control file, not for the postmaster's exit (`internal/postgres/stop.go`)", frozenStandby,
		},
		{
			"orphans-commit", "after SIGKILL of the postmaster alone its orphans go on committing: for a pipelining client, and in a loop within one statement",
			"nothing is started, handed over or released before every process is gone (`internal/ha/decide.go`, clearOrphans)", orphansCommit,
		},
		{
			"complete-kill", "after all processes were killed, again and again until none is found, nothing is committed or acknowledged any more, and what was acknowledged is there after recovery",
			"dead means all dead: Kill returns only then (`internal/postgres/stop.go`)", completeKill,
		},
		{
			"crash-is-told", "an idle session is told of another backend's crash by 57P02, and the server recovers by itself and is writable again",
			"a crash is seen by the session that is kept open (`internal/postgres/session/heartbeat.go`)", crashIsTold,
		},
	}
}

func fastShutdown(r *run) {
	a := r.primary("a")
	b := a.standby("b")
	c := a.clients(asking, asking, asking)
	pgtest.Must(r, a.Checkpoint(pgtest.Context(r)))
	began := time.Now()
	var down time.Time
	var at postgres.Control
	pgtest.Must(r, a.Stop(pgtest.Context(r), postgres.StopFast, func(k postgres.Control) { down, at = time.Now(), k }))
	r.figure("all processes gone after", "ms", ms(time.Since(began)))
	r.figure("\"shut down\" in the control file after", "ms", ms(down.Sub(began)))
	if at.State != postgres.StateShutDown {
		r.Errorf("the control file says %q", at.State)
	}
	c.wait()
	end, err := a.EndOfWAL()
	pgtest.Must(r, err)
	if got := b.probe().ReceiveLSN; got < end || end <= at.Checkpoint {
		r.Errorf("the standby has received up to %s, the WAL ends at %s, behind the checkpoint record at %s", got, end, at.Checkpoint)
	}
	pgtest.Must(r, b.Promote(pgtest.Context(r)))
	c.mustBeIn(b)
}

func frozenStandby(r *run) {
	a := r.primary("a")
	b := a.standby("b")
	thaw := b.freeze()
	a.sql(insert("while frozen", 1))
	pid := a.postmaster()
	began := time.Now()
	down, stopped := make(chan time.Time, 1), make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	go func() {
		stopped <- a.Stop(ctx, postgres.StopFast, func(postgres.Control) { down <- time.Now() })
	}()
	select {
	case at := <-down:
		r.figure("\"shut down\" in the control file after", "ms", ms(at.Sub(began)))
	case <-time.After(20 * time.Second):
		r.Error("a frozen standby holds up the shutdown checkpoint: no \"shut down\" within 20 s")
	}
	r.never("the postmaster ended, although the standby is frozen", time.Second, func() bool { return unix.Kill(pid, 0) != nil })
	thaw()
	pgtest.Must(r, <-stopped)
}

func orphansCommit(r *run) {
	a := r.primary("a")
	c := a.clients(asking, pipelining, looping)
	killed := time.Now()
	pgtest.Must(r, unix.Kill(a.postmaster(), unix.SIGKILL))
	// As long as is looked on here; the loop would go on for hours.
	time.Sleep(time.Second)
	pgtest.Must(r, a.Kill(pgtest.Context(r)))
	c.wait()
	a.startAgain()
	for _, kind := range []string{asking, pipelining, looping} {
		last := a.lastRow(kind).Sub(killed)
		r.figure("last commit, "+kind, "ms", ms(last))
		if kind == looping && last < 100*time.Millisecond {
			r.Errorf("the loop ended with the postmaster: its last row is of %s after the kill", last)
		}
	}
	after := a.sql(fmt.Sprintf("SELECT count(*) FROM w WHERE at > to_timestamp(%d / 1000000.0)", killed.UnixMicro()))
	if after == "0" {
		r.Error("nothing was committed after the kill")
	}
	c.mustBeIn(a)
}

func completeKill(r *run) {
	a := r.primary("a")
	c := a.clients(asking, pipelining, looping)
	began := time.Now()
	pgtest.Must(r, a.Kill(pgtest.Context(r)))
	gone := time.Now()
	r.figure("all processes gone after", "ms", ms(gone.Sub(began)))
	_, end, err := a.LocalEnd()
	pgtest.Must(r, err)
	c.wait()
	if _, later, err := a.LocalEnd(); err != nil || later != end {
		r.Errorf("the WAL ended at %s when all processes were gone, and at %s later (%v)", end, later, err)
	}
	a.startAgain()
	for _, kind := range []string{asking, pipelining, looping} {
		last := a.lastRow(kind)
		r.figure("last commit, "+kind, "ms", ms(last.Sub(began)))
		if last.After(gone) {
			r.Errorf("the %s client has a row of %s after the last process was gone", kind, last.Sub(gone))
		}
	}
	c.mustBeIn(a)
}

// crashIsTold tries it more than once: the last words come from the handler of a signal, and a backend that gets no processor before the
// postmaster's patience ends says nothing.
func crashIsTold(r *run) {
	a := r.primary("a")
	for try := 1; ; try++ {
		err := a.crash()
		if err == nil {
			return
		}
		if try == 3 {
			r.Fatal(err)
		}
		r.Logf("try %d: %v", try, err)
	}
}

// crash kills a backend, and waits until the server is writable again. The error is that of the session that is kept, if it was not told.
func (s *server) crash() (err error) {
	r := s.r
	s.probe() // opens the session that is kept
	victim := s.open(nil)
	// A backend that has not come back from sending its last answer yet has nothing to say of the crash: it drops the
	// message (PqCommBusy, pqcomm.c). On a busy machine that may last; so the session is idle only once it waits to be asked.
	pgtest.Eventually(r, "the session that is kept is idle", func() error {
		if s.sqlOn(victim, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'") == "0" {
			return errGoesOn
		}
		return nil
	})
	began := time.Now()
	pgtest.Must(r, unix.Kill(int(victim.PID()), unix.SIGKILL))
	select {
	case <-s.Lost():
		r.figure("an idle session is told after", "ms", ms(time.Since(began)))
	case <-time.After(20 * time.Second):
		r.Fatal("the idle session was not told within 20 s")
	}
	var told *pgconn.PgError
	if reason := s.LossReason(); !errors.As(reason, &told) || told.Code != "57P02" {
		err = fmt.Errorf("the session ended with %w, not 57P02", reason)
	}
	pgtest.Eventually(r, "the server is writable again", func() error {
		conn, err := pgconn.Connect(pgtest.Context(r), pgtest.ConnString(s.opt, "postgres"))
		if err != nil {
			if strings.Contains(err.Error(), "57P03") || errors.Is(err, unix.ECONNREFUSED) {
				return errGoesOn
			}
			return err
		}
		defer conn.Close(pgtest.Context(r))
		_, err = conn.Exec(pgtest.Context(r), insert("after", 1)).ReadAll()
		return err
	})
	r.figure("writable again after", "ms", ms(time.Since(began)))
	return err
}
