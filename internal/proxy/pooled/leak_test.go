package pooled

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// onOneServer has a and b use the same server connection in turn: what a leaves there, b would find.
func onOneServer(t *testing.T, mode string, change func(*Options)) (a, b *pgx.Conn) {
	t.Helper()
	_, _, p := pg(t)
	h := open(t, mode, p, func(o *Options) {
		o.Pool.DefaultPoolSize = 1
		if change != nil {
			change(o)
		}
	})
	return h.connect(), h.connect()
}

func TestNoStateReachesAnotherClient(t *testing.T) {
	_, _, p := pg(t)
	setup := open(t, Session, p, nil).connect()
	exec(t, setup, "CREATE ROLE other")
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	always := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize, o.Pool.ServerResetQueryAlways = 1, true })
	session := open(t, Session, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	partly := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize, o.Pool.ServerResetQuery = 1, "DEALLOCATE ALL" })
	statement := open(t, Statement, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	for _, c := range []struct {
		name string
		do   string // by one client
		ask  string // by another
		want string // what a new session answers
		// unseen: no reply tells that it is done, so that only a reset after every transaction undoes it.
		unseen bool
	}{
		{"SET", "SET work_mem = '5MB'", "SHOW work_mem", "4MB", false},
		{"SET of a tracked parameter", "SET application_name = 'mine'", "SELECT current_setting('application_name') = 'mine'", "f", false},
		{"search_path", "SET search_path = pg_catalog", "SHOW search_path", `"$user", public`, false},
		{"SQL prepared statement", "PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'", "0", false},
		{"temporary table", "CREATE TEMP TABLE mine (i int)", "SELECT count(*) FROM pg_class WHERE relname = 'mine'", "0", false},
		{"temporary table by CREATE TABLE AS", "CREATE TEMP TABLE mine2 AS SELECT 1", "SELECT count(*) FROM pg_class WHERE relname = 'mine2'", "0", false},
		{"temporary table by SELECT INTO", "SELECT 1 INTO TEMP mine3", "SELECT count(*) FROM pg_class WHERE relname = 'mine3'", "0", false},
		{"temporary view", "CREATE TEMP VIEW mine4 AS SELECT 1", "SELECT count(*) FROM pg_class WHERE relname = 'mine4'", "0", false},
		{"LISTEN", "LISTEN mine", "SELECT count(*) FROM pg_listening_channels()", "0", false},
		{"role", "SET ROLE other", "SELECT current_user", "postgres", false},
		{"session authorization", "SET SESSION AUTHORIZATION other", "SELECT session_user", "postgres", false},
		{"cursor", "DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors", "0", false},
		{"DO", "DO $$BEGIN PERFORM set_config('work_mem', '7MB', false); END$$", "SHOW work_mem", "4MB", false},
		{"advisory lock", "SELECT pg_advisory_lock(1)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0", true},
		{"set_config", "SELECT set_config('work_mem', '6MB', false)", "SHOW work_mem", "4MB", true},
	} {
		for _, h := range []*house{h, always, session, partly, statement} {
			if c.unseen && h != always && h != session {
				continue
			}
			t.Run(c.name+"/"+h.name(), func(t *testing.T) {
				a := h.connect()
				exec(t, a, c.do)
				if h.door.opt.Mode == Session {
					a.Close(context.Background())
				}
				b := h.connect()
				if got := text(t, b, c.ask); got != c.want {
					t.Errorf("after %s another client gets %q, want %q", c.do, got, c.want)
				}
				b.Close(context.Background())
				a.Close(context.Background())
			})
		}
	}
}

func (h *house) name() string {
	switch p := h.door.terms.Load().Pool; {
	case p.ServerResetQueryAlways:
		return h.door.opt.Mode + ", reset always"
	case p.ServerResetQuery != defaults().ServerResetQuery:
		return h.door.opt.Mode + ", " + p.ServerResetQuery
	}
	return h.door.opt.Mode
}

func TestAnOpenTransactionEndsWithItsClient(t *testing.T) {
	for _, mode := range []string{Session, Transaction} {
		t.Run(mode, func(t *testing.T) { openTransactionEnds(t, mode) })
	}
}

func openTransactionEnds(t *testing.T, mode string) {
	_, _, p := pg(t)
	h := open(t, mode, p, func(o *Options) { o.Pool.DefaultPoolSize = 2 })
	a, b := h.connect(), h.connect()
	exec(t, b, "CREATE TABLE t (i int)")
	exec(t, a, "BEGIN; INSERT INTO t VALUES (1)")
	a.PgConn().Conn().Close()
	pgtest.Eventually(t, "no lock of it is left", func() error {
		if got := text(t, b, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock'"); got != "0" {
			return errors.New(got)
		}
		return nil
	})
	if got := text(t, b, "SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows of a transaction that was not committed", got)
	}
}

func TestTrackedParametersFollowTheClient(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	a := h.connect("application_name=a client_encoding=LATIN1 options='-c DateStyle=German'")
	b := h.connect("application_name=b")
	for range 3 {
		for c, want := range map[*pgx.Conn]string{a: "a LATIN1 German, DMY", b: "b UTF8 ISO, MDY"} {
			if got := text(t, c, "SELECT current_setting('application_name') || ' ' || current_setting('client_encoding') || ' ' || current_setting('DateStyle')"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
	exec(t, a, "SET TimeZone = 'Asia/Tokyo'")
	exec(t, b, `SET application_name = 'it''s \ b'`)
	for range 2 {
		if got := text(t, a, "SHOW TimeZone"); got != "Asia/Tokyo" {
			t.Errorf("a: %q", got)
		}
		if got := text(t, b, "SHOW application_name"); got != `it's \ b` {
			t.Errorf("b: %q", got)
		}
	}
	if got := a.PgConn().ParameterStatus("client_encoding"); got != "LATIN1" {
		t.Errorf("a was told of the encoding %q", got)
	}
	for _, c := range []struct{ params, want string }{{"search_path=x", "08P01"}, {"options='-c work_mem=1MB'", "08P01"}, {"client_encoding=nonsense", "22023"}, {"options='-d 5'", "08P01"}} {
		if _, err := pgx.Connect(context.Background(), h.url(c.params)); code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.params, err, c.want)
		}
	}
	if c, err := pgx.Connect(context.Background(), h.url("extra_float_digits=3")); err != nil {
		t.Errorf("an ignored parameter: %v", err)
	} else {
		c.Close(context.Background())
	}
}

func TestNamesOfStatementsAreTheClientsOwn(t *testing.T) {
	a, b := onOneServer(t, Transaction, func(o *Options) { o.Pool.MaxPreparedStatements = 3 })
	ctx := context.Background()
	for i := range 8 {
		for c, who := range map[*pgx.Conn]string{a: "a", b: "b"} {
			if _, err := c.Prepare(ctx, fmt.Sprintf("s%d", i), fmt.Sprintf("SELECT '%s%d' || $1::text", who, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		for i := range 8 {
			for c, who := range map[*pgx.Conn]string{a: "a", b: "b"} {
				var got string
				if err := c.QueryRow(ctx, fmt.Sprintf("s%d", i), "!").Scan(&got); err != nil || got != fmt.Sprintf("%s%d!", who, i) {
					t.Errorf("%s, s%d: %q, %v", who, i, got, err)
				}
			}
		}
	}
	if got := text(t, a, "SELECT count(*) <= 3 FROM pg_prepared_statements"); got != "t" {
		t.Error("more statements are at the server than max_prepared_statements")
	}
	if err := a.Deallocate(ctx, "s1"); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := b.QueryRow(ctx, "s1", "!").Scan(&got); err != nil || got != "b1!" {
		t.Errorf("after a has closed its own: %q, %v", got, err)
	}
}
