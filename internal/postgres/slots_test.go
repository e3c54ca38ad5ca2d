package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/slots"
	"github.com/jackc/pgx/v5"
)

func all(slots.Slot) bool { return true }

func TestSlots(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		o := pgtest.Options(t, "a")
		o.BinDir = bin
		a := logicalPrimary(t, o)
		ctx := pgtest.Context(t)
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"b", "c"}, Logical: []slots.Logical{logical("l", "postgres")}, Drop: all}))
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"c", "d"}, Logical: []slots.Logical{logical("l", "postgres")}, Drop: all}))
		sql(t, o, "CREATE TABLE t AS SELECT generate_series(1, 1000)")
		p, err := a.Probe(ctx)
		pgtest.Must(t, err)
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Advance: map[string]cluster.LSN{"d": p.WalLSN, "gone": p.WalLSN, "l": p.WalLSN}}))
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Advance: map[string]cluster.LSN{"d": 1, "l": 1}})) // never back
		p2, err := a.Probe(ctx)
		pgtest.Must(t, err)
		got := map[string]bool{}
		for _, s := range p2.Slots {
			got[s.Name] = max(s.RestartLSN, s.ConfirmedFlushLSN) >= p.WalLSN
		}
		if d := cmp.Diff(map[string]bool{"c": false, "d": true, "l": true}, got); d != "" {
			t.Errorf("slots, and whether they were advanced (-want +got):\n%s", d)
		}
		// What cannot be made does not keep the others from being made.
		err = a.KeepSlots(ctx, slots.Plan{Physical: []string{"e"}, Logical: []slots.Logical{logical("x", "no_such"), logical("y", "postgres")}})
		if err == nil || !strings.Contains(err.Error(), "no_such") || len(sql(t, o, "SELECT 1 FROM pg_replication_slots WHERE slot_name IN ('e', 'y')")) != 2 {
			t.Errorf("a slot in a database that is not there: %v", err)
		}
	})
}

func logicalSettings() postgres.Settings {
	s := pgtest.Settings()
	s.Controlled["wal_level"] = "logical"
	s.Parameters["hot_standby_feedback"] = "on"
	s.Parameters["wal_receiver_status_interval"] = "1"
	return s
}

func logicalPrimary(t *testing.T, o postgres.Options) *postgres.Instance {
	t.Helper()
	return pgtest.PrimaryWith(t, o, logicalSettings())
}

// decoded reads on from a slot, and confirms what it has read.
func decoded(t *testing.T, o postgres.Options, slot string) []string {
	t.Helper()
	var out []string
	for _, r := range sql(t, o, "SELECT data FROM pg_logical_slot_get_changes('"+slot+"', NULL, NULL, 'skip-empty-xacts', '1', 'include-xids', '0')") {
		if n, ok := strings.CutPrefix(r[0], "table public.t: INSERT: n[integer]:"); ok {
			out = append(out, n)
		}
	}
	return out
}

// TestLogicalSlotOutlivesItsPrimary copies a logical slot to a standby and advances it there; after the promotion its reader
// goes on where it was, and misses nothing.
func TestLogicalSlotOutlivesItsPrimary(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
		ao.BinDir, bo.BinDir = bin, bin
		ctx := pgtest.Context(t)
		a := logicalPrimary(t, ao)
		pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"b"}, Logical: []slots.Logical{logical("cdc", "postgres")}}))
		up := pgtest.Upstream(ao, "b")
		b := pgtest.New(t, bo)
		pgtest.Must(t, b.Clone(ctx, up, nil))
		restart(ctx, t, b, up)
		inStep(t, a, b)
		sql(t, ao, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
		if got := fmt.Sprint(decoded(t, ao, "cdc")); got != "[1]" {
			t.Fatalf("the primary's slot reads %s", got)
		}
		copySlot(ctx, t, a, b, up)

		sql(t, ao, "INSERT INTO t VALUES (2)")
		if got := fmt.Sprint(decoded(t, ao, "cdc")); got != "[2]" {
			t.Fatalf("the primary's slot reads %s", got)
		}
		sql(t, ao, "ALTER TABLE t ADD COLUMN late text; INSERT INTO t VALUES (3)")
		inStep(t, a, b)
		confirmed := slotAt(ctx, t, a, "cdc").ConfirmedFlushLSN
		pgtest.Must(t, b.KeepSlots(ctx, slots.Plan{Advance: map[string]cluster.LSN{"cdc": confirmed}}))
		if got := slotAt(ctx, t, b, "cdc").ConfirmedFlushLSN; got != confirmed {
			t.Errorf("the copy stands at %s, the primary's slot at %s", got, confirmed)
		}
		// Not past what was replayed, whatever is asked for.
		pgtest.Must(t, a.Stop(ctx, postgres.StopFast, nil))
		pgtest.Must(t, b.Promote(ctx))
		sql(t, bo, "INSERT INTO t VALUES (4)")
		if got := fmt.Sprint(decoded(t, bo, "cdc")); !strings.HasPrefix(got, "[3") || !strings.HasSuffix(got, "4 late[text]:null]") {
			t.Errorf("after the promotion the slot reads %s", got)
		}
	})
}

func restart(ctx context.Context, t *testing.T, b *postgres.Instance, up postgres.Upstream) {
	t.Helper()
	_, err := b.Configure(logicalSettings(), &up, true)
	pgtest.Must(t, err)
	_, err = b.Start(ctx, logicalSettings())
	pgtest.Must(t, err)
}

func slotAt(ctx context.Context, t *testing.T, i *postgres.Instance, name string) postgres.Slot {
	t.Helper()
	p, err := i.Probe(ctx)
	pgtest.Must(t, err)
	for _, s := range p.Slots {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no slot %s", name)
	return postgres.Slot{}
}

func copySlot(ctx context.Context, t *testing.T, a, b *postgres.Instance, up postgres.Upstream) {
	t.Helper()
	got, err := b.FetchSlots(ctx, up, []string{"cdc", "b", "absent"})
	pgtest.Must(t, err)
	want := slotAt(ctx, t, a, "cdc")
	if len(got) != 1 || got[0].Name != "cdc" || got[0].Confirmed > want.ConfirmedFlushLSN || got[0].Confirmed == 0 || got[0].Restart > want.RestartLSN {
		t.Fatalf("the state files say %+v, the primary %+v", got, want)
	}
	if has, err := b.HoldsWAL(got[0]); !has || err != nil {
		t.Errorf("the standby does not hold the slot's WAL (%v)", err)
	}
	if err := b.InstallSlots(got); err == nil {
		t.Error("slots are put under a running server")
	}
	pgtest.Must(t, b.Stop(ctx, postgres.StopFast, nil))
	pgtest.Must(t, b.InstallSlots(got))
	if err := b.InstallSlots(got); err == nil {
		t.Error("a slot is replaced")
	}
	restart(ctx, t, b, up)
	inStep(t, a, b)
	list, err := b.UpstreamSlots(ctx, up)
	if err != nil || len(list) != 2 || list[1].CatalogXmin == 0 || list[1].Lost || list[1].Native {
		t.Errorf("the primary's slots are %+v, %v", list, err)
	}
	pgtest.Eventually(t, "the primary keeps the catalog rows that the copy needs", func() error {
		if slotAt(ctx, t, a, "b").CatalogXmin == "" {
			return fmt.Errorf("slot b holds no catalog_xmin")
		}
		return nil
	})
}

// A copy is never moved past what its server has replayed: after a promotion the rest would be skipped.
func TestCopiesStayBehindReplay(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	a := pgtest.Primary(t, ao)
	pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"b"}}))
	b := standby(t, bo, pgtest.Upstream(ao, "b"))
	inStep(t, a, b)
	pgtest.Must(t, b.KeepSlots(ctx, slots.Plan{Physical: []string{"kept"}}))
	sql(t, bo, "SELECT pg_wal_replay_pause()")
	pgtest.Eventually(t, "replay is paused", func() error {
		if p, err := b.Probe(ctx); err != nil || !p.ReplayPaused {
			return fmt.Errorf("not yet (%v)", err)
		}
		return nil
	})
	sql(t, ao, "CREATE TABLE t AS SELECT generate_series(1, 1000)")
	p, err := a.Probe(ctx)
	pgtest.Must(t, err)
	pgtest.Must(t, b.KeepSlots(ctx, slots.Plan{Advance: map[string]cluster.LSN{"kept": p.WalLSN}}))
	now, err := b.Probe(ctx)
	pgtest.Must(t, err)
	if at := slotAt(ctx, t, b, "kept").RestartLSN; at > now.ReplayLSN || at == 0 || now.ReplayLSN >= p.WalLSN {
		t.Errorf("the copy stands at %s, replayed is %s, the primary's at %s", at, now.ReplayLSN, p.WalLSN)
	}
	sql(t, bo, "SELECT pg_wal_replay_resume()")
}

// A physical slot that a former primary still holds an xmin by is made anew: it would hold back vacuum everywhere.
func TestCopyLosesTheXminOfItsTimeAsPrimary(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	ctx := pgtest.Context(t)
	a := logicalPrimary(t, ao)
	pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"kept"}}))
	b := pgtest.New(t, bo)
	up := pgtest.Upstream(ao, "kept")
	pgtest.Must(t, b.Clone(ctx, up, nil))
	restart(ctx, t, b, up)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(bo, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	pgtest.Eventually(t, "feedback arrives", func() error {
		if slotAt(ctx, t, a, "kept").Xmin == "" {
			return fmt.Errorf("no xmin yet")
		}
		return nil
	})
	pgtest.Must(t, b.Kill(ctx))
	pgtest.Eventually(t, "the slot is free", func() error {
		if slotAt(ctx, t, a, "kept").Active {
			return fmt.Errorf("active")
		}
		return nil
	})
	pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"kept"}, Advance: map[string]cluster.LSN{"kept": 1}}))
	if s := slotAt(ctx, t, a, "kept"); s.Xmin != "" || s.RestartLSN == 0 {
		t.Errorf("the slot is %+v", s)
	}
}

func TestStateFilesAreChecked(t *testing.T) {
	dir := t.TempDir()
	pgtest.Must(t, os.MkdirAll(filepath.Join(dir, "pg_wal"), 0o700))
	pgtest.Must(t, os.WriteFile(filepath.Join(dir, "pg_wal", "000000020000000100000003"), nil, 0o600))
	for at, want := range map[cluster.LSN]bool{1<<32 + 3<<24: true, 1<<32 + 4<<24 - 1: true, 1<<32 + 4<<24: false, 3 << 24: false} {
		if got, err := slots.HasWAL(dir, 16<<20, at); got != want || err != nil {
			t.Errorf("WAL of %s is there: %v, %v", at, got, err)
		}
	}
}

func logical(name, database string) slots.Logical {
	return slots.Logical{Name: name, Database: database, Plugin: "test_decoding"}
}

// inStep waits until the standby has replayed what the primary has written.
func inStep(t *testing.T, a, b *postgres.Instance) {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.Eventually(t, "the standby is in step", func() error {
		p, err := a.Probe(ctx)
		if err != nil {
			return err
		}
		s, err := b.Probe(ctx)
		if err == nil && (s.ReceiverStatus != "streaming" || s.ReplayLSN < p.WalLSN) {
			err = fmt.Errorf("replayed %s of %s, %s", s.ReplayLSN, p.WalLSN, s.ReceiverStatus)
		}
		return err
	})
}

// A rewound server has none of its slots any more: they might be ahead of the history that it has come to, and be skipped by.
func TestRewindLeavesNoSlots(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	if !hasRewind(ao.BinDir) {
		t.Skip("there is no pg_rewind here")
	}
	ctx := pgtest.Context(t)
	a := logicalPrimary(t, ao)
	pgtest.Must(t, a.KeepSlots(ctx, slots.Plan{Physical: []string{"b"}, Logical: []slots.Logical{logical("cdc", "postgres")}}))
	up := pgtest.Upstream(ao, "b")
	b := pgtest.New(t, bo)
	pgtest.Must(t, b.Clone(ctx, up, nil))
	restart(ctx, t, b, up)
	inStep(t, a, b)
	pgtest.Must(t, b.Promote(ctx))
	sql(t, ao, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	if got := fmt.Sprint(decoded(t, ao, "cdc")); got != "[1]" {
		t.Fatalf("read before the end: %s", got)
	}
	pgtest.Must(t, a.Kill(ctx))
	pgtest.Must(t, b.Checkpoint(ctx))
	pgtest.Must(t, a.Rewind(ctx, pgtest.Upstream(bo, "")))
	left, err := os.ReadDir(filepath.Join(ao.DataDir, "pg_replslot"))
	if err != nil || len(left) > 0 {
		t.Errorf("after the rewind there are slots: %v, %v", left, err)
	}
}
