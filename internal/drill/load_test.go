package drill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/journal"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

var keep = flag.String("keep", "", "write the history of a short run of TestLoadOutlivesItsServer to this file")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everything is one client or two of each kind.
func everything() Mix { return Mix{Ledger: 4, Registers: 2, Lists: 2, Transfers: 1, Readers: 1} }

// begin starts a load on a real server, with a history file.
func begin(t *testing.T, o postgres.Options, file string) *Run {
	t.Helper()
	w, err := journal.CreateHistory(file)
	pgtest.Must(t, err)
	t.Cleanup(func() { pgtest.Must(t, w.Close()) })
	dsn := pgtest.ConnString(o, "postgres")
	load, err := Begin(t.Context(), Load{
		Routes:  map[string]string{"proxy": dsn, "direct:a": dsn},
		Members: map[string]string{fmt.Sprintf("127.0.0.1:%d", o.Port): "a"},
		Clients: everything(), Pause: 2 * time.Millisecond, Seed: 7, Note: "one server, killed and started again", History: w,
	})
	pgtest.Must(t, err)
	return load
}

func acknowledges(t *testing.T, load *Run, more int) {
	t.Helper()
	from := load.Acknowledged()
	pgtest.Eventually(t, "writes are acknowledged", func() error {
		if n := load.Acknowledged() - from; n < more {
			return fmt.Errorf("%d of %d", n, more)
		}
		return nil
	})
}

// TestLoadOutlivesItsServer kills the postmaster and every backend under load, starts the server again, and expects the
// checker to find nothing but the gap.
func TestLoadOutlivesItsServer(t *testing.T) {
	o := pgtest.Options(t, "a")
	i := pgtest.Primary(t, o)
	file := filepath.Join(t.TempDir(), "history.jsonl")
	load := begin(t, o, file)
	enough := 500
	if *keep != "" {
		enough = 60
	}
	acknowledges(t, load, enough)

	down := load.Now()
	pgtest.Must(t, i.Kill(pgtest.Context(t)))
	gone := load.Now()
	pgtest.Eventually(t, "clients see that the server is gone", func() error {
		load.mu.Lock()
		defer load.mu.Unlock()
		if last := load.history.Operations[len(load.history.Operations)-1]; last.Error != "connect: refused" {
			return errors.New(last.Error)
		}
		return nil
	})
	for load.Now() < 2*gone+time.Second { // long enough for no gap before it to be longer
		time.Sleep(10 * time.Millisecond)
	}
	starting := load.Now()
	_, err := i.Start(pgtest.Context(t), pgtest.Settings())
	pgtest.Must(t, err)
	up := load.Now()
	load.Mark(check.Fault{Name: "kill", Target: "a", Begin: down, End: up})
	acknowledges(t, load, enough)

	history := load.Stop()
	pgtest.Must(t, load.Final(pgtest.Context(t), pgtest.ConnString(o, "postgres")))
	r := check.Judge(history)
	t.Log(r.Text())
	if r.Verdict != check.Pass {
		t.Fatalf("verdict %s", r.Verdict)
	}
	rows, ok := r.Find(check.Ledger, "proxy")
	if !ok || rows.GapBegan >= starting || rows.GapBegan+rows.Gap <= starting || rows.Gap < (starting-gone)/2 {
		t.Errorf("gap of %s at %s: nothing answered from %s to %s", rows.Gap, rows.GapBegan, gone, starting)
	}
	for _, kind := range []check.Kind{check.RegisterWrite, check.RegisterRead, check.RegisterCAS, check.ListAppend, check.ListRead, check.Transfer, check.Sum, check.SessionRead} {
		if s, _ := r.Find(kind, "direct:a"); s.OK == 0 {
			t.Errorf("no %s was acknowledged by the direct route", kind)
		}
	}
	if len(r.Terms) != 1 || r.Terms[0].Member != "a" || r.Terms[0].Timeline != 1 {
		t.Errorf("who answered: %+v", r.Terms)
	}
	sameWhenReadAgain(t, file, r)
}

// sameWhenReadAgain judges the history file and compares.
func sameWhenReadAgain(t *testing.T, file string, want check.Report) {
	t.Helper()
	f, err := os.Open(file)
	pgtest.Must(t, err)
	defer f.Close()
	again, err := journal.ReadHistory(f)
	pgtest.Must(t, err)
	if got := check.Judge(again).Text(); got != want.Text() {
		t.Errorf("the history file is judged otherwise:\n%s", got)
	}
	if *keep != "" {
		raw, err := os.ReadFile(file)
		pgtest.Must(t, err)
		pgtest.Must(t, os.WriteFile(*keep, raw, 0o644))
	}
}

// TestPlantedDamageIsFound changes the database behind the clients' backs.
func TestPlantedDamageIsFound(t *testing.T) {
	o := pgtest.Options(t, "a")
	pgtest.Primary(t, o)
	dsn := pgtest.ConnString(o, "postgres")
	load := begin(t, o, filepath.Join(t.TempDir(), "history.jsonl"))
	acknowledges(t, load, 300)
	history := load.Stop()
	healthy := *history
	for _, c := range []struct{ name, damage, found string }{
		{"nothing", "SELECT 1", ""},
		{"row lost", "DELETE FROM haven_drill.ledger WHERE id = (SELECT min(id) FROM haven_drill.ledger)", check.CheckAcknowledged},
		{"row doubled", "INSERT INTO haven_drill.ledger SELECT * FROM haven_drill.ledger ORDER BY id LIMIT 1", check.CheckTwice},
		{"row out of nowhere", "INSERT INTO haven_drill.ledger VALUES (999999999, 1)", check.CheckForeign},
		{"register set back", "UPDATE haven_drill.register SET value = 0 WHERE key = 'r0'", check.CheckRegisters},
		{"list cut short", "UPDATE haven_drill.list SET value = value[1:cardinality(value) - 1]", check.CheckLists},
		{"money made", "UPDATE haven_drill.account SET balance = balance + 1 WHERE id = 0", check.CheckSums},
		{"transfer lost", "DELETE FROM haven_drill.transfer WHERE id = (SELECT min(id) FROM haven_drill.transfer)", check.CheckSums},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := judgeDamaged(t, load, healthy, dsn, c.damage)
			verdict, ok := r.Check(c.found)
			switch {
			case c.found == "" && r.Verdict != check.Pass:
				t.Errorf("a healthy database is judged:\n%s", r.Text())
			case c.found != "" && (!ok || verdict.Verdict != check.Fail || r.Verdict != check.Fail):
				t.Errorf("%s does not fail:\n%s", c.found, r.Text())
			}
		})
	}
}

// judgeDamaged reads the database back in the state that damage leaves, and undoes it.
func judgeDamaged(t *testing.T, load *Run, history check.History, dsn, damage string) check.Report {
	t.Helper()
	ctx := pgtest.Context(t)
	c, err := pgx.Connect(ctx, dsn)
	pgtest.Must(t, err)
	defer c.Close(context.WithoutCancel(ctx))
	tx, err := c.Begin(ctx)
	pgtest.Must(t, err)
	defer func() { pgtest.Must(t, tx.Rollback(ctx)) }()
	_, err = tx.Exec(ctx, damage)
	pgtest.Must(t, err)
	parts, err := load.readBack(ctx, tx)
	pgtest.Must(t, err)
	for _, p := range parts {
		history.Add(check.Line{Final: &p})
	}
	return check.Judge(&history)
}

// TestFinalReadsOnlyAPrimary: a standby may not show yet what is there. By the way, its answers name it.
func TestFinalReadsOnlyAPrimary(t *testing.T) {
	o := pgtest.Options(t, "a")
	i := pgtest.Primary(t, o)
	load := begin(t, o, filepath.Join(t.TempDir(), "history.jsonl"))
	acknowledges(t, load, 10)
	ctx := pgtest.Context(t)
	pgtest.BackInRecovery(t, i)
	var refused, read check.Operation
	pgtest.Eventually(t, "the clients meet the standby", func() error {
		load.mu.Lock()
		defer load.mu.Unlock()
		for _, o := range load.history.Operations {
			if o.SQLSTATE == "25006" {
				refused = o
			}
			if o.Kind == check.Sum && o.Standby {
				read = o
			}
		}
		if refused.ID == 0 || read.ID == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if refused.Outcome != check.Failed {
		t.Errorf("a write that a standby refuses: %+v", refused)
	}
	if read.Member != "a" || read.Timeline != 0 {
		t.Errorf("a read that a standby answers: %+v", read)
	}
	load.Stop()
	if err := load.Final(ctx, pgtest.ConnString(o, "postgres")); !errors.Is(err, errStandby) {
		t.Errorf("a standby is read back: %v", err)
	}
}
