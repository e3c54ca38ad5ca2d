package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/slots"
	"github.com/havenha/haven/internal/postgres/wal"
	"github.com/jackc/pgx/v5"
)

// forEachServer runs a test on every PostgreSQL at hand.
func forEachServer(t *testing.T, f func(t *testing.T, bin string)) {
	for _, bin := range pgtest.BinDirs() {
		t.Run(strings.ReplaceAll(strings.Trim(bin, "/"), "/", "_"), func(t *testing.T) { f(t, bin) })
	}
}

// standby makes a copy of the primary that streams from it through the slot.
func standby(t *testing.T, o postgres.Options, up postgres.Upstream) *postgres.Instance {
	t.Helper()
	i := pgtest.New(t, o)
	ctx := pgtest.Context(t)
	var done, total int64
	pgtest.Must(t, i.Clone(ctx, up, func(d, n int64) { done, total = d, n }))
	if len(o.BaseBackupOptions) == 0 && (done == 0 || done != total) {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	_, err := i.Configure(pgtest.Settings(), &up, true)
	pgtest.Must(t, err)
	_, err = i.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	return i
}

// change gives a standby another value of one parameter.
func change(t *testing.T, standby *postgres.Instance, up postgres.Upstream, name, value string) {
	t.Helper()
	s := pgtest.Settings()
	s.Parameters[name] = value
	_, err := standby.Configure(s, &up, true)
	pgtest.Must(t, err)
	pgtest.Must(t, standby.Reload(pgtest.Context(t)))
}

func awaitNoReceiver(t *testing.T, standby *postgres.Instance) {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.Eventually(t, "nothing is received any more", func() error {
		p, err := standby.Probe(ctx)
		if err == nil && p.ReceiverPID != 0 {
			err = fmt.Errorf("the receiver is %s", p.ReceiverStatus)
		}
		return err
	})
}

func awaitStreaming(t *testing.T, primary, standby *postgres.Instance, name string) {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.Eventually(t, name+" streams and is in step", func() error {
		p, err := primary.Probe(ctx)
		if err != nil {
			return err
		}
		s, err := standby.Probe(ctx)
		if err != nil {
			return err
		}
		for _, w := range p.Standbys {
			if w.Name == name && w.State == "streaming" && s.ReceiverStatus == "streaming" && s.ReplayLSN >= p.WalLSN && s.Timeline == p.Timeline {
				return nil
			}
		}
		return fmt.Errorf("primary %+v, standby %+v", p, s)
	})
}

func TestLifeOfAPair(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
		ao.BinDir, bo.BinDir = bin, bin
		ctx := pgtest.Context(t)
		a := pgtest.Primary(t, ao)
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"a", "b"}}))
		sql(t, ao, "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)")
		b := standby(t, bo, pgtest.Upstream(ao, "b"))
		awaitStreaming(t, a, b, "b")

		p, err := b.Probe(ctx)
		pgtest.Must(t, err)
		if !p.InRecovery || p.ReceiverSlot != "b" || p.ReceiverConninfoHost != "127.0.0.1" || p.ReceiverConninfoPort != fmt.Sprint(ao.Port) {
			t.Errorf("the standby's probe tells %+v", p)
		}
		if got := sql(t, bo, "SELECT count(*) FROM t")[0][0]; got != "1000" {
			t.Errorf("the standby has %s rows", got)
		}

		// a crashes; b takes over; a wrote something that nobody has.
		pgtest.Must(t, b.Promote(ctx))
		sql(t, ao, "INSERT INTO t VALUES (-1); CREATE TABLE lost (n int)")
		pgtest.Must(t, a.Kill(ctx))
		sql(t, bo, "INSERT INTO t VALUES (-2)")
		pgtest.Must(t, b.KeepSlots(ctx, slots.Plan{Physical: []string{"a"}}))
		checkDiverged(t, a, b, bo)

		if !hasRewind(bin) {
			if err := a.Rewind(ctx, pgtest.Upstream(bo, "a")); !errors.Is(err, postgres.ErrNoRewind) {
				t.Errorf("rewind without pg_rewind: %v", err)
			}
			return
		}
		pgtest.Must(t, b.Checkpoint(ctx))
		pgtest.Must(t, a.Rewind(ctx, pgtest.Upstream(bo, "a")))
		up := pgtest.Upstream(bo, "a")
		_, err = a.Configure(pgtest.Settings(), &up, true)
		pgtest.Must(t, err)
		_, err = a.Start(ctx, pgtest.Settings())
		pgtest.Must(t, err)
		awaitStreaming(t, b, a, "a")
		if got := sql(t, ao, "SELECT count(*), min(n) FROM t")[0]; got[0] != "1001" || got[1] != "-2" {
			t.Errorf("after the rewind the old primary has %v", got)
		}
	})
}

func hasRewind(bin string) bool {
	_, err := os.Stat(filepath.Join(bin, "pg_rewind"))
	return err == nil
}

func checkDiverged(t *testing.T, a, b *postgres.Instance, bo postgres.Options) {
	t.Helper()
	ctx := pgtest.Context(t)
	up := pgtest.Upstream(bo, "")
	_, tl, _, err := a.Identify(ctx, up)
	pgtest.Must(t, err)
	remote, err := a.TimelineHistory(ctx, up, tl)
	pgtest.Must(t, err)
	own, err := b.LocalHistory(tl)
	pgtest.Must(t, err)
	if tl != 2 || len(remote) != 1 || len(own) != 1 || own[0].LSN != remote[0].LSN || own[0].Timestamp == "" {
		t.Errorf("timeline %d, history %+v, local history %+v", tl, remote, own)
	}
	disk, err := a.Inspect()
	pgtest.Must(t, err)
	localTL, end, err := a.LocalEnd()
	pgtest.Must(t, err)
	yes, why := wal.Diverged(nil, localTL, end, disk.Control.Primary(), remote, tl)
	if !yes || localTL != 1 || !strings.Contains(why, "local WAL goes on") {
		t.Errorf("diverged %v (%s)", yes, why)
	}
}

func TestCloneMakesAVerifiedCopy(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
		ao.BinDir, bo.BinDir = bin, bin
		ctx := pgtest.Context(t)
		pgtest.Primary(t, ao)
		b := pgtest.New(t, bo)
		pgtest.Must(t, os.Mkdir(bo.DataDir, 0o700))
		pgtest.Must(t, os.WriteFile(filepath.Join(bo.DataDir, "precious"), []byte("x"), 0o600))
		if err := b.Clone(ctx, pgtest.Upstream(ao, ""), nil); !errors.Is(err, postgres.ErrNotEmpty) {
			t.Fatalf("a copy into a foreign directory: %v", err)
		}
		if entries, _ := os.ReadDir(bo.DataDir); len(entries) != 1 {
			t.Fatalf("the foreign directory was changed: %v", entries)
		}
		// An interrupted copy of ours is cleared away.
		pgtest.Must(t, os.WriteFile(filepath.Join(bo.DataDir, "haven.unfinished"), []byte("{}"), 0o600))
		if d, err := b.Inspect(); err != nil || d.Kind != postgres.DiskUnfinished {
			t.Fatalf("an unfinished copy is seen as %v, %v", d.Kind, err)
		}
		pgtest.Must(t, b.Clone(ctx, pgtest.Upstream(ao, ""), nil))
		d, err := b.Inspect()
		pgtest.Must(t, err)
		if d.Kind != postgres.DiskData || d.Control.State != postgres.StateInProduction {
			t.Errorf("the copy is %+v", d)
		}
		if _, err := os.Stat(filepath.Join(bo.DataDir, "precious")); err == nil {
			t.Error("remains of the unfinished copy are still there")
		}
		pgtest.Must(t, postgres.CheckDataDir(bo.DataDir, bo.RunAs))
		verify := filepath.Join(bin, "pg_verifybackup")
		if _, err := os.Stat(verify); err == nil {
			if out, err := exec.Command(verify, "-n", bo.DataDir).CombinedOutput(); err != nil {
				t.Errorf("pg_verifybackup: %v: %s", err, out)
			}
		}
	})
}

func TestCloneByPgBasebackup(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	if _, err := os.Stat(filepath.Join(ao.BinDir, "pg_basebackup")); err != nil {
		t.Skip("there is no pg_basebackup here")
	}
	a := pgtest.Primary(t, ao)
	bo.BaseBackupOptions = []string{"--checkpoint=fast"}
	b := standby(t, bo, pgtest.Upstream(ao, ""))
	awaitStreaming(t, a, b, "b")
}

func TestFailedCloneLeavesNothing(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	pgtest.Primary(t, ao)
	space := pgtest.Dir(t)
	sql(t, ao, "CREATE TABLESPACE s LOCATION '"+space+"'")
	sql(t, ao, "CREATE TABLE far (n int) TABLESPACE s")
	b := pgtest.New(t, bo)
	// On one host the tablespace's place is taken: the copy must fail, and touch neither it nor leave anything.
	if err := b.Clone(ctx, pgtest.Upstream(ao, ""), nil); !errors.Is(err, postgres.ErrNotEmpty) {
		t.Fatalf("copy with a tablespace whose directory is taken: %v", err)
	}
	if d, err := b.Inspect(); err != nil || d.Kind != postgres.DiskAbsent {
		t.Errorf("after the failure the data directory is %v, %v", d.Kind, err)
	}
	if got := sql(t, ao, "SELECT count(*) FROM far")[0][0]; got != "0" {
		t.Errorf("the primary's tablespace was touched: %s", got)
	}
}

func TestCleanSwitchover(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	a := pgtest.Primary(t, ao)
	b := standby(t, bo, pgtest.Upstream(ao, ""))
	awaitStreaming(t, a, b, "b")
	var calls int
	var at postgres.Control
	pgtest.Must(t, a.Stop(ctx, postgres.StopFast, func(c postgres.Control) { calls++; at = c }))
	if calls != 1 || at.State != postgres.StateShutDown {
		t.Fatalf("told of the shutdown %d times: %+v", calls, at)
	}
	end, err := a.EndOfWAL()
	pgtest.Must(t, err)
	if end <= at.Checkpoint || end > at.Checkpoint+200 {
		t.Errorf("the WAL ends at %s, the shutdown checkpoint began at %s", end, at.Checkpoint)
	}
	pgtest.Eventually(t, "the standby has the shutdown checkpoint", func() error {
		p, err := b.Probe(ctx)
		if err == nil && p.ReplayLSN != end {
			err = fmt.Errorf("replayed %s of %s", p.ReplayLSN, end)
		}
		return err
	})
	pgtest.Must(t, b.Promote(ctx))
	_, tl, _, err := a.Identify(ctx, pgtest.Upstream(bo, ""))
	pgtest.Must(t, err)
	remote, err := a.TimelineHistory(ctx, pgtest.Upstream(bo, ""), tl)
	pgtest.Must(t, err)
	if yes, why := wal.Diverged(nil, 1, end, true, remote, tl); yes {
		t.Errorf("after a clean switchover the old primary counts as diverged: %s", why)
	}
	// The old primary follows without a rewind, and a stopped standby's WAL is read to its end on the new timeline.
	up := pgtest.Upstream(bo, "")
	_, err = a.Configure(pgtest.Settings(), &up, true)
	pgtest.Must(t, err)
	_, err = a.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	awaitStreaming(t, b, a, "a")
	sql(t, bo, "CREATE TABLE big AS SELECT g, repeat('x', 500) FROM generate_series(1, 40000) g; SELECT pg_switch_wal(); INSERT INTO big VALUES (0, 'last')")
	awaitStreaming(t, b, a, "a")
	p, err := a.Probe(ctx)
	pgtest.Must(t, err)
	pgtest.Must(t, a.Stop(ctx, postgres.StopImmediate, nil))
	gotTL, gotEnd, err := a.LocalEnd()
	pgtest.Must(t, err)
	if gotTL != cluster.Timeline(2) || gotEnd < p.ReplayLSN || gotEnd > p.ReceiveLSN+8192 {
		t.Errorf("local WAL ends at %s on timeline %d, the standby had received %s and replayed %s", gotEnd, gotTL, p.ReceiveLSN, p.ReplayLSN)
	}
}

// Two servers that were promoted without knowing of each other are on the same timeline, and pg_rewind does nothing.
func TestRewindRefusesWhatItCannotDo(t *testing.T) {
	ao, bo, co := pgtest.Options(t, "a"), pgtest.Options(t, "b"), pgtest.Options(t, "c")
	if !hasRewind(ao.BinDir) {
		t.Skip("there is no pg_rewind here")
	}
	ctx := pgtest.Context(t)
	a := pgtest.Primary(t, ao)
	b, c := standby(t, bo, pgtest.Upstream(ao, "")), standby(t, co, pgtest.Upstream(ao, ""))
	awaitStreaming(t, a, b, "b")
	awaitStreaming(t, a, c, "c")
	pgtest.Must(t, a.Kill(ctx))
	pgtest.Must(t, b.Promote(ctx))
	pgtest.Must(t, c.Promote(ctx))
	sql(t, bo, "CREATE TABLE only_b (n int)")
	if err := b.Rewind(ctx, pgtest.Upstream(co, "")); err == nil || !strings.Contains(err.Error(), "still run") {
		t.Errorf("rewind of a running server: %v", err)
	}
	pgtest.Must(t, b.Kill(ctx))
	if err := b.Rewind(ctx, pgtest.Upstream(co, "")); !errors.Is(err, postgres.ErrSameTimeline) {
		t.Errorf("rewind to another branch of the same number: %v", err)
	}
	// A rewind that does not come to its end leaves data that may not be started, and can be moved aside.
	pgtest.Must(t, c.Checkpoint(ctx))
	broken := ao
	broken.Log = nil
	broken.RewindOptions = []string{"--no-such-option"}
	a2, err := postgres.New(broken)
	pgtest.Must(t, err)
	if err := a2.Rewind(ctx, pgtest.Upstream(co, "")); err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Fatalf("rewind with a wrong option: %v", err)
	}
	if d, err := a.Inspect(); err != nil || !d.Torn {
		t.Errorf("after a failed rewind: %+v, %v", d, err)
	}
	if _, err := a.Start(ctx, pgtest.Settings()); !errors.Is(err, postgres.ErrTorn) {
		t.Errorf("start of torn data: %v", err)
	}
	marker := filepath.Join(filepath.Dir(ao.DataDir), "."+filepath.Base(ao.DataDir)+".haven.rewinding")
	on, err := os.ReadFile(marker)
	pgtest.Must(t, err)
	pgtest.Must(t, os.RemoveAll(ao.DataDir)) // as a person does it
	pgtest.Must(t, os.WriteFile(marker, []byte("1"+string(on)), 0o600))
	if err := a.Clone(ctx, pgtest.Upstream(co, ""), nil); err == nil || !strings.Contains(err.Error(), "another file system") {
		t.Errorf("a copy in the place of data that may only not be mounted: %v", err)
	}
	pgtest.Must(t, os.WriteFile(marker, on, 0o600))
	pgtest.Must(t, a.Clone(ctx, pgtest.Upstream(co, ""), nil))
	if d, err := a.Inspect(); err != nil || d.Torn || d.Kind != postgres.DiskData {
		t.Errorf("after the new copy: %+v, %v", d, err)
	}
}

// A standby whose settings are lower than its primary's would refuse to start; it is started with the primary's.
func TestStandbyIsStartedWithThePrimarysLimits(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	high := pgtest.Settings()
	high.Controlled["max_connections"] = "43"
	a := pgtest.PrimaryWith(t, ao, high)
	bo.UseUnixSocket = true
	b := standby(t, bo, pgtest.Upstream(ao, ""))
	awaitStreaming(t, a, b, "b") // b is probed through its socket
	if got := sql(t, bo, "SHOW max_connections")[0][0]; got != "43" {
		t.Errorf("the standby runs with max_connections = %s", got)
	}
	p, err := a.Probe(ctx)
	pgtest.Must(t, err)
	pgtest.Must(t, a.TerminateWalsender(ctx, p.Standbys[0].PID))
	pgtest.Eventually(t, "the walsender is another one", func() error {
		now, err := a.Probe(ctx)
		if err == nil && (len(now.Standbys) == 0 || now.Standbys[0].PID == p.Standbys[0].PID) {
			err = errors.New("not yet")
		}
		return err
	})
	// Fenced: after a reload without upstream the receiver is gone, and stays away.
	changed, err := b.Configure(pgtest.Settings(), nil, true)
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	pgtest.Must(t, b.Reload(ctx))
	awaitNoReceiver(t, b)
}

// A promotion right after the primary's death falls into the moment in which the standby retries its stream; left alone,
// PostgreSQL 15 then sleeps out wal_retrieve_retry_interval (in 9 of 24 tries).
func TestPromotionDoesNotSleepOutTheStreamsRetry(t *testing.T) {
	for round := range 3 {
		ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
		ctx := pgtest.Context(t)
		a := pgtest.Primary(t, ao)
		up := pgtest.Upstream(ao, "")
		b := standby(t, bo, up)
		change(t, b, up, "wal_retrieve_retry_interval", "1h")
		awaitStreaming(t, a, b, "b")
		pgtest.Must(t, a.Kill(ctx))
		time.Sleep(time.Duration(round) * time.Millisecond) // different moments of the retry, none of them relied on
		pgtest.Must(t, b.Promote(ctx))
		pgtest.Must(t, b.Kill(ctx))
	}
}

func TestStreamIsTriedAgainAtOnce(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	a := pgtest.Primary(t, ao)
	up := pgtest.Upstream(ao, "")
	b := standby(t, bo, up)
	change(t, b, up, "wal_retrieve_retry_interval", "1h")
	awaitStreaming(t, a, b, "b")
	pgtest.Must(t, a.Stop(ctx, postgres.StopFast, nil))
	awaitNoReceiver(t, b)
	_, err := a.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	pgtest.Eventually(t, "it streams again", func() error {
		p, err := b.Probe(ctx)
		if err == nil && p.ReceiverPID == 0 {
			err = errors.Join(errors.New("there is no receiver"), b.RetryStream(ctx))
		}
		return err
	})
	awaitStreaming(t, a, b, "b")
	pgtest.Must(t, b.Promote(ctx))
	pgtest.Must(t, b.RetryStream(ctx)) // there is no recovery any more
}

// A reader whose snapshot conflicts with replay would hold a promotion up for as long as max_standby_streaming_delay.
func TestPromotionEndsTheReadersThatHoldItUp(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	a := pgtest.Primary(t, ao)
	up := pgtest.Upstream(ao, "")
	b := standby(t, bo, up)
	change(t, b, up, "max_standby_streaming_delay", "-1")
	sql(t, ao, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
	awaitStreaming(t, a, b, "b")

	reader, err := pgx.Connect(ctx, pgtest.ConnString(bo, "postgres"))
	pgtest.Must(t, err)
	defer reader.Close(ctx)
	tx, err := reader.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	pgtest.Must(t, err)
	var n int
	pgtest.Must(t, tx.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n))
	bystander, err := pgx.Connect(ctx, pgtest.ConnString(bo, "postgres"))
	pgtest.Must(t, err)
	defer bystander.Close(ctx)
	for _, q := range []string{"DELETE FROM t", "VACUUM t", "CREATE TABLE later ()"} {
		sql(t, ao, q)
	}
	pgtest.Eventually(t, "replay waits for the reader", func() error {
		var waits bool
		err := bystander.QueryRow(ctx, "SELECT wait_event LIKE 'RecoveryConflict%' FROM pg_stat_activity WHERE backend_type = 'startup'").Scan(&waits)
		if err == nil && !waits {
			err = errors.New("it does not")
		}
		return err
	})
	pgtest.Must(t, a.Kill(ctx))
	pgtest.Must(t, b.Promote(ctx))
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err == nil {
		t.Error("the reader was not ended, and yet the server is promoted: the test shows nothing")
	}
	if err := bystander.Ping(ctx); err != nil {
		t.Errorf("a session that held up nothing was ended: %v", err)
	}
}
