package postgres_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		pgtest.Must(t, os.MkdirAll("testdata", 0o755))
		pgtest.Must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	pgtest.Must(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func TestConfigure(t *testing.T) {
	o := pgtest.Options(t, "node 'one'")
	o.Port = 5432
	o.SocketDir = "/run/pg"
	i := pgtest.New(t, o)
	pgtest.Init(t, i, o)
	write := func(name, text string) {
		pgtest.Must(t, os.WriteFile(filepath.Join(o.DataDir, name), []byte(text), 0o600))
	}
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(o.DataDir, name))
		pgtest.Must(t, err)
		return strings.ReplaceAll(string(raw), filepath.Dir(o.DataDir), "DIR")
	}
	write("postgresql.conf", "# the operator's own\nwork_mem = 7MB\n")
	write("postgresql.auto.conf", "# by ALTER SYSTEM\nprimary_conninfo = 'host=elsewhere'\nwork_mem = '8MB'\n")
	s := pgtest.Settings()
	s.Parameters["restore_command"] = `cp '/archive/%f' "%p" \`
	s.SyncNames = `1 ("b")`
	s.Recovery = map[string]string{"recovery_min_apply_delay": "5min"}
	up := &postgres.Upstream{Name: "b", Host: "10.1.2.3", Port: "5433", Slot: "node_one"}

	for _, step := range []struct {
		name    string
		up      *postgres.Upstream
		standby bool
	}{{"standby", up, true}, {"fenced", nil, true}, {"primary", nil, false}} {
		changed, err := i.Configure(s, step.up, step.standby)
		if err != nil || !changed {
			t.Fatalf("%s: changed %v, %v", step.name, changed, err)
		}
		if changed, err = i.Configure(s, step.up, step.standby); err != nil || changed {
			t.Errorf("%s, once more: changed %v, %v", step.name, changed, err)
		}
		golden(t, step.name+".conf", read("postgresql.conf"))
		_, err = os.Stat(filepath.Join(o.DataDir, "standby.signal"))
		if (err == nil) != step.standby {
			t.Errorf("%s: standby.signal: %v", step.name, err)
		}
		if step.up != nil {
			golden(t, "pgpass", strings.ReplaceAll(read("../pgpass"), strconv.Itoa(o.Port), "PORT"))
		}
	}
	if got := read("postgresql.base.conf"); got != "# the operator's own\nwork_mem = 7MB\n" {
		t.Errorf("the operator's file was kept as %q", got)
	}
	if got := read("postgresql.auto.conf"); got != "# by ALTER SYSTEM\nwork_mem = '8MB'\n" {
		t.Errorf("postgresql.auto.conf is now %q", got)
	}
}

func TestSetSyncNames(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	pgtest.Must(t, a.SetSyncNames(ctx, `ANY 1 ("b-1",c)`))
	p, err := a.Probe(ctx)
	pgtest.Must(t, err)
	if p.SyncNames != `ANY 1 ("b-1",c)` {
		t.Errorf("the names in force are %q", p.SyncNames)
	}
	// Our own work must not wait for a standby that is not there.
	pgtest.Must(t, a.PostBootstrap(ctx, postgres.Bootstrap{}))
	pgtest.Must(t, a.SetSyncNames(ctx, ""))
	sql(t, o, "ALTER SYSTEM SET synchronous_standby_names = 'x'")
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := a.SetSyncNames(short, "y"); err == nil || !strings.Contains(err.Error(), "ALTER SYSTEM RESET") {
		t.Errorf("a setting that ALTER SYSTEM overrides: %v", err)
	}
}

func TestPostBootstrap(t *testing.T) {
	o := pgtest.Options(t, "a")
	o.Rewind = postgres.Credentials{Username: "re wind", Password: "rew'ind"}
	a := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	sql(t, o, "ALTER SYSTEM SET log_statement = 'all'")
	sql(t, o, "ALTER SYSTEM SET log_min_duration_statement = 0")
	pgtest.Must(t, a.Reload(ctx))
	pgtest.Eventually(t, "statements are logged", func() error {
		sql(t, o, "SELECT 'marker'")
		raw, err := os.ReadFile(o.LogFile)
		if err == nil && !strings.Contains(string(raw), "marker") {
			err = os.ErrNotExist
		}
		return err
	})
	out := filepath.Join(filepath.Dir(o.DataDir), "post")
	b := postgres.Bootstrap{
		Databases:   []postgres.Database{{Name: "shop", Owner: "shop owner", Password: `s\e'cret`}},
		PostCommand: `sh -c 'printf "%s %s" "$PGPASSFILE" "$0" >` + out + `'`,
	}
	for range 2 {
		pgtest.Must(t, a.PostBootstrap(ctx, b))
	}
	rows := sql(t, o, `SELECT r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = 'shop'
		UNION ALL SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%' ORDER BY 1`)
	if d := cmp.Diff([][]string{{"postgres"}, {"re wind"}, {"replicator"}, {"shop owner"}, {"shop owner"}}, rows); d != "" {
		t.Errorf("owner and SCRAM roles (-want +got):\n%s", d)
	}
	raw, err := os.ReadFile(o.LogFile)
	pgtest.Must(t, err)
	for _, secret := range []string{"rew'ind", "rew''ind", "cret", "repl:pass"} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("the server's log holds the password %q", secret)
		}
	}
	got, err := os.ReadFile(out)
	pgtest.Must(t, err)
	if want := o.PgPass + " postgresql://postgres@127.0.0.1:" + strconv.Itoa(o.Port) + "/postgres"; string(got) != want {
		t.Errorf("the command got %q, want %q", got, want)
	}
}

func TestControlFile(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		o := pgtest.Options(t, "a")
		o.BinDir = bin
		a := pgtest.New(t, o)
		pgtest.Must(t, a.InitDB(pgtest.Context(t)))
		d, err := a.Inspect()
		pgtest.Must(t, err)
		compareControl(t, d.Control, filepath.Join(bin, "pg_controldata"), o.DataDir)
		if d.Kind != postgres.DiskData || !d.Control.Checksums || d.Control.Version != a.Version()/10000 || d.Control.State != "shut down" ||
			d.Control.Timeline != 1 || d.Control.MaxConnections == 0 || d.Control.MaxLocksPerXact != 64 || d.Control.SegmentSize != 16<<20 {
			t.Errorf("a new database is %+v", d)
		}
		path := filepath.Join(o.DataDir, "global", "pg_control")
		raw, err := os.ReadFile(path)
		pgtest.Must(t, err)
		raw[60] ^= 0xff
		pgtest.Must(t, os.WriteFile(path, raw, 0o600))
		if _, err := a.Inspect(); err == nil || !strings.Contains(err.Error(), "is damaged: its checksum") {
			t.Errorf("a garbled control file: %v", err)
		}
		pgtest.Must(t, os.WriteFile(path, raw[:100], 0o600))
		if _, err := a.Inspect(); err == nil || !strings.Contains(err.Error(), "only 100 bytes") {
			t.Errorf("a control file cut short: %v", err)
		}
	})
}

func compareControl(t *testing.T, c postgres.Control, tool, dir string) {
	t.Helper()
	if _, err := os.Stat(tool); err != nil {
		return
	}
	cmd := exec.Command(tool, dir)
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	pgtest.Must(t, err)
	theirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(line, ":")
		theirs[k] = strings.TrimSpace(v)
	}
	onOff := map[bool]string{true: "on", false: "off"}
	for k, ours := range map[string]string{
		"Database system identifier": c.SystemID, "Database cluster state": c.State,
		"Latest checkpoint location": c.Checkpoint.String(), "Latest checkpoint's REDO location": c.Redo.String(),
		"Latest checkpoint's TimeLineID":     strconv.Itoa(int(c.Timeline)),
		"Minimum recovery ending location":   c.MinRecoveryEnd.String(),
		"Min recovery ending loc's timeline": strconv.Itoa(int(c.MinRecoveryTimeline)),
		"wal_log_hints setting":              onOff[c.WalLogHints],
		"max_connections setting":            strconv.Itoa(c.MaxConnections),
		"max_worker_processes setting":       strconv.Itoa(c.MaxWorkerProcesses),
		"max_wal_senders setting":            strconv.Itoa(c.MaxWalSenders),
		"max_prepared_xacts setting":         strconv.Itoa(c.MaxPreparedXacts),
		"max_locks_per_xact setting":         strconv.Itoa(c.MaxLocksPerXact),
		"Bytes per WAL segment":              strconv.Itoa(int(c.SegmentSize)),
	} {
		if theirs[k] != ours {
			t.Errorf("%s: pg_controldata says %q, we say %q", k, theirs[k], ours)
		}
	}
}
