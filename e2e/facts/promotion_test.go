package facts

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/havenha/haven/internal/postgres/wal"
	"github.com/jackc/pgx/v5/pgconn"
)

var errGoesOn = errors.New("not yet")

func promotionFacts() []fact {
	return []fact{
		{
			"promotion", "a standby without restore_command accepts writes soon after pg_promote(false), and has every commit that waited for it",
			"promotion asks without waiting, and looks itself (`internal/postgres/promote.go`)", promotion,
		},
		{
			"promotion-waits-for-readers", "a promotion waits for a reader that holds up replay, and goes on when that session is ended",
			"sessions that hold up replay are ended (`internal/postgres/promote.go`)", promotionWaitsForReaders,
		},
		{
			"same-timeline-twice", "two promotions that do not know of each other take the same timeline, pg_rewind sees no difference, and whole histories tell them apart",
			"histories are compared whole, numbers and switch points (`internal/postgres/wal/diverged.go`)", sameTimelineTwice,
		},
	}
}

// firstInsert tries an insert until it is acknowledged, and returns when.
func firstInsert(r *run, conn *pgconn.PgConn) time.Time {
	r.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := session.Query(pgtest.Context(r), conn, insert("after", 1)); err == nil {
			return time.Now()
		}
		time.Sleep(200 * time.Microsecond)
	}
	r.Fatal("the promoted server accepted no write within 30 s")
	return time.Time{}
}

func promotion(r *run) {
	a, b := r.pair()
	c := a.clients(asking, asking)
	writer := b.open(nil)
	began := time.Now()
	b.sqlOn(writer, "SELECT pg_promote(false)")
	r.figure("pg_promote to first insert", "ms", ms(firstInsert(r, writer).Sub(began)))
	pgtest.Must(r, a.Kill(pgtest.Context(r)))
	c.wait()
	c.mustBeIn(b)
}

func promotionWaitsForReaders(r *run) {
	a := r.primary("a")
	b := a.standby("b", func(s *postgres.Settings) { s.Parameters["max_standby_streaming_delay"] = "-1" })
	a.sql("INSERT INTO w SELECT 'old', n FROM generate_series(1, 1000) n")
	a.awaitStandby(b)
	watch := b.open(nil)
	pgtest.Eventually(r, "the rows are replayed", func() error {
		if b.sqlOn(watch, "SELECT count(*) FROM w") != "1000" {
			return errGoesOn
		}
		return nil
	})
	reader := b.open(nil)
	b.sqlOn(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	b.sqlOn(reader, "SELECT count(*) FROM w")
	for _, text := range []string{"DELETE FROM w", "VACUUM w", "CREATE TABLE later ()"} {
		a.sql(text)
	}
	pgtest.Eventually(r, "replay waits for the reader", func() error {
		if b.sqlOn(watch, "SELECT wait_event LIKE 'RecoveryConflict%' FROM pg_stat_activity WHERE backend_type = 'startup'") != "t" {
			return errGoesOn
		}
		return nil
	})
	b.sqlOn(watch, "SELECT pg_promote(false)")
	r.never("the promotion did not wait for the reader", time.Second, func() bool { return b.sqlOn(watch, "SELECT pg_is_in_recovery()") != "t" })
	began := time.Now()
	b.sqlOn(watch, fmt.Sprintf("SELECT pg_terminate_backend(%d)", reader.PID()))
	r.figure("first insert after the reader's end", "ms", ms(firstInsert(r, watch).Sub(began)))
}

func sameTimelineTwice(r *run) {
	ctx := pgtest.Context(r)
	a := r.primary("a")
	b, c := a.standby("b"), a.standby("c")
	pgtest.Must(r, c.Stop(ctx, postgres.StopFast, nil))
	a.sql("INSERT INTO w SELECT 'late', n FROM generate_series(1, 100) n")
	a.awaitStandby(b)
	pgtest.Must(r, b.Promote(ctx))
	pgtest.Must(r, a.Kill(ctx))
	b.sql(insert("only on b", 1))
	c.startBehind(nil)
	pgtest.Must(r, c.Promote(ctx))
	c.sql(insert("only on c", 1))
	if bt, ct := b.probe().Timeline, c.probe().Timeline; bt != 2 || ct != 2 {
		r.Errorf("the timelines are %d and %d: the numbers alone would tell", bt, ct)
	}
	pgtest.Must(r, b.Checkpoint(ctx))
	pgtest.Must(r, c.Stop(ctx, postgres.StopFast, nil))
	remote, err := c.TimelineHistory(ctx, pgtest.Upstream(b.opt, ""), 2)
	pgtest.Must(r, err)
	own, err := c.LocalHistory(2)
	pgtest.Must(r, err)
	tl, end, err := c.LocalEnd()
	pgtest.Must(r, err)
	if yes, why := wal.Diverged(own, tl, end, true, remote, 2); !yes || tl != 2 {
		r.Errorf("the comparison says that they have not parted: %s", why)
	}
	if said := rewindDry(r, c, b); said != "" && !strings.Contains(said, "no rewind required") {
		r.Errorf("pg_rewind says %q: it does see the difference now", said)
	}
}

// rewindDry is what pg_rewind says of bringing the stopped server behind the other; empty where there is no pg_rewind.
func rewindDry(r *run, s, to *server) string {
	r.Helper()
	program := filepath.Join(r.bin, "pg_rewind")
	if _, err := exec.LookPath(program); err != nil {
		return ""
	}
	cmd := exec.Command(program, "--dry-run", "--target-pgdata="+s.opt.DataDir, "--source-server="+pgtest.ConnString(to.opt, "postgres"))
	cmd.Dir, cmd.Env = s.opt.DataDir, []string{"LC_ALL=C"}
	if a := s.opt.RunAs; a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}}
	}
	said, err := cmd.CombinedOutput()
	if err != nil {
		r.Logf("pg_rewind: %v", err)
	}
	return string(said)
}
