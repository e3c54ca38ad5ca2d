package agent_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5/pgconn"
)

// rewrite replaces a part of the world's configuration.
func (w *world) rewrite(from, to string) {
	w.t.Helper()
	text := readFile(w.t, w.file)
	if !strings.Contains(text, from) {
		w.t.Fatalf("the configuration does not hold %q", from)
	}
	if err := os.WriteFile(w.file, []byte(strings.Replace(text, from, to, 1)), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// archived is a backup of another cluster with its archive: the table t holds kept, the restore point "here", then lost.
func archived(t *testing.T) (backup, archive string) {
	t.Helper()
	o := pgtest.Options(t, "source")
	dir := filepath.Dir(o.DataDir)
	backup, archive = filepath.Join(dir, "backup"), filepath.Join(dir, "archive")
	for _, d := range []string{backup, archive} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if a := pgtest.Account(t); a != nil {
			if err := os.Chown(d, a.UID, a.GID); err != nil {
				t.Fatal(err)
			}
		}
	}
	i := pgtest.New(t, o)
	pgtest.Init(t, i, o)
	s := pgtest.Settings()
	s.Parameters = map[string]string{"archive_mode": "on", "archive_command": "cp %p " + archive + "/%f"}
	s.Controlled = map[string]string{"wal_level": "replica", "max_connections": "200"}
	ctx := pgtest.Context(t)
	_, err := i.Configure(s, nil, false)
	pgtest.Must(t, err)
	_, err = i.Start(ctx, s)
	pgtest.Must(t, err)
	pgtest.Must(t, i.PostBootstrap(ctx, postgres.Bootstrap{}))
	copied := o
	copied.DataDir, copied.Port = filepath.Join(backup, "d"), pgtest.FreePort(t)
	pgtest.Must(t, pgtest.New(t, copied).Clone(ctx, pgtest.Upstream(o, ""), nil))
	for _, q := range []string{"CREATE TABLE t AS SELECT 'kept' AS v", "SELECT pg_create_restore_point('here')", "INSERT INTO t VALUES ('lost')", "SELECT pg_switch_wal()"} {
		query(t, o, q)
	}
	pgtest.Must(t, i.Stop(ctx, postgres.StopFast, nil)) // which archives all that is left
	return backup + "/d", archive
}

// TestCustomBootstrap makes a cluster from a backup, up to a restore point, by commands of the operator's.
func TestCustomBootstrap(t *testing.T) {
	backup, archive := archived(t)
	w := newWorld(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a", "b")
	asked := filepath.Join(w.dir, "asked")
	if err := os.Mkdir(asked, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(asked, 0o777); err != nil {
		t.Fatal(err)
	}
	restore := w.openScript("restore.sh", `echo "$@" > `+asked+`/restore; cp -a `+backup+`/. ${2#--datadir=}/; rm -f ${2#--datadir=}/pg_wal/0*`)
	post := w.openScript("post.sh", `echo "$1 $PGOPTIONS" > `+asked+`/post; [ -r "$PGPASSFILE" ]`)
	w.rewrite("bootstrap: {", fmt.Sprintf(`bootstrap: {method: pitr, post_init: %s, pitr: {command: %s, level: 2,
  recovery_conf: {restore_command: "cp %s/%%f %%p", recovery_target_name: here}}, `, post, restore, archive))
	a := w.start("a")
	w.await("the cluster is made, on the timeline that the recovery began", func(s cluster.Snapshot) bool {
		m, _ := s.Member("a")
		return led("a", 1)(s) && m.Timeline == 2 && len(s.History) == 1
	})
	if got, want := strings.TrimSpace(readFile(t, asked+"/restore")), "--scope=test --datadir="+a.node.Postgres.DataDir+" --level=2"; got != want {
		t.Errorf("the command got %q, want %q", got, want)
	}
	if got := readFile(t, asked+"/post"); !strings.HasPrefix(got, "postgresql://postgres@127.0.0.1:") || !strings.Contains(got, " -c synchronous_commit=local -c statement_timeout=0") {
		t.Errorf("post_init got %q", got)
	}
	o := postgres.Options{ListenAddresses: "127.0.0.1", Port: a.node.Postgres.Port, Logins: postgres.Logins{Superuser: postgres.Credentials{Username: "postgres", Password: "one-two-three"}}}
	if rows := query(t, o, "SELECT v FROM t"); len(rows) != 1 || rows[0][0] != "kept" {
		t.Errorf("the table holds %v, want what was there at the restore point", rows)
	}
	hba, conf := readFile(t, a.node.Postgres.DataDir+"/pg_hba.conf"), readFile(t, a.node.Postgres.DataDir+"/postgresql.conf")
	if strings.Contains(hba, "trust") || strings.Contains(conf, "recovery_target_name") {
		t.Errorf("what only the recovery needed is left:\n%s\n%s", hba, conf)
	}
	w.start("b")
	w.await("b follows", led("a", 2))
}

// TestFailedBootstrapLeavesNothingInTheWay lets the operator's command fail half way: the key is freed, and what it made
// is moved aside.
func TestFailedBootstrapLeavesNothingInTheWay(t *testing.T) {
	w := newWorld(t, "{ttl: 10, loop_wait: 1}", "a")
	broken := w.openScript("broken.sh", `touch ${2#--datadir=}/half; exit 3`)
	w.rewrite("bootstrap: {", fmt.Sprintf(`bootstrap: {method: broken, broken: {command: %s}, `, broken))
	m := w.start("a")
	err := <-m.done
	var fatal *agent.FatalError
	if !errors.As(err, &fatal) || !strings.HasPrefix(err.Error(), "Failed to bootstrap cluster: ") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the agent ended with %v", err)
	}
	m.done <- nil
	w.await("initialize is free", func(s cluster.Snapshot) bool { return s.Initialize == nil })
	if kept, _ := filepath.Glob(m.node.Postgres.DataDir + ".*.aside/half"); len(kept) != 1 {
		t.Errorf("what the command had made was kept %d times", len(kept))
	}
	if d, err := m.server.Inspect(); err != nil || d.Kind != postgres.DiskEmpty {
		t.Errorf("the data directory is %v (%v)", d.Kind, err)
	}
}

// query runs one statement as the superuser of those options.
func query(t *testing.T, o postgres.Options, text string) [][]string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres", o.Port, o.Superuser.Username))
	pgtest.Must(t, err)
	cfg.Password = o.Superuser.Password
	conn, err := pgconn.ConnectConfig(pgtest.Context(t), cfg)
	pgtest.Must(t, err)
	defer conn.Close(pgtest.Context(t))
	results, err := conn.Exec(pgtest.Context(t), text).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var cells []string
			for _, v := range row {
				cells = append(cells, string(v))
			}
			rows = append(rows, cells)
		}
	}
	return rows
}
