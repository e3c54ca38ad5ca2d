package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// elsewhere are options with the configuration beside the data directory, under a name of its own.
func elsewhere(t *testing.T, name string) postgres.Options {
	t.Helper()
	o := pgtest.Options(t, name)
	o.ConfigDir, o.ConfigName = filepath.Join(filepath.Dir(o.DataDir), "etc", "main"), "server"
	return o
}

func readIn(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	pgtest.Must(t, err)
	return string(raw)
}

func TestConfigurationOutsideOfTheDataDirectory(t *testing.T) {
	ao, bo := elsewhere(t, "a"), elsewhere(t, "b")
	a := pgtest.Primary(t, ao)
	ctx := pgtest.Context(t)
	for setting, want := range map[string]string{"config_file": "server.conf", "hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"} {
		if got := sql(t, ao, "SHOW "+setting)[0][0]; got != filepath.Join(ao.ConfigDir, want) {
			t.Errorf("%s is %s", setting, got)
		}
	}
	if base := readIn(t, ao.ConfigDir, "server.base.conf"); base != readIn(t, ao.DataDir, "postgresql.conf") {
		t.Errorf("what is included is not initdb's file:\n%s", base)
	}
	pgtest.Must(t, a.SetSyncNames(ctx, `1 (c)`))
	if got := sql(t, ao, "SHOW synchronous_standby_names")[0][0]; got != "1 (c)" {
		t.Errorf("synchronous_standby_names is %q", got)
	}
	pgtest.Must(t, a.SetSyncNames(ctx, ""))

	b := pgtest.New(t, bo)
	up := pgtest.Upstream(ao, "")
	pgtest.Must(t, b.Clone(ctx, up, nil))
	_, err := b.Configure(pgtest.Settings(), &up, true)
	pgtest.Must(t, err)
	_, err = b.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	if got := sql(t, bo, "SELECT current_setting('config_file'), pg_is_in_recovery()")[0]; got[0] != filepath.Join(bo.ConfigDir, "server.conf") || got[1] != "t" {
		t.Errorf("the copy has %v", got)
	}
}

func TestConfigurationDirectoryKeepsWhatItHas(t *testing.T) {
	o := elsewhere(t, "a")
	pgtest.Must(t, os.MkdirAll(o.ConfigDir, 0o755))
	const own, rules = "work_mem = 7MB\n", "local all all peer\n"
	pgtest.Must(t, os.WriteFile(filepath.Join(o.ConfigDir, "server.conf"), []byte(own), 0o600))
	pgtest.Must(t, os.WriteFile(filepath.Join(o.ConfigDir, "pg_hba.conf"), []byte(rules), 0o600))
	i := pgtest.New(t, o)
	pgtest.Init(t, i, o)
	initdb := readIn(t, o.DataDir, "pg_hba.conf")
	lines, err := i.ReadHBA()
	pgtest.Must(t, err)
	if strings.Join(lines, "\n") != "local all all peer" {
		t.Errorf("the rules are %q", lines)
	}
	s := pgtest.Settings()
	s.HBA = nil
	changed, err := i.Configure(s, nil, false)
	if err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if changed, err = i.Configure(s, nil, false); err != nil || changed {
		t.Errorf("once more: changed %v, %v", changed, err)
	}
	for _, want := range []struct{ dir, name, text string }{
		{o.ConfigDir, "server.base.conf", own}, {o.ConfigDir, "pg_hba.conf", rules}, {o.DataDir, "pg_hba.conf", initdb},
		{o.ConfigDir, "pg_ident.conf", readIn(t, o.DataDir, "pg_ident.conf")},
	} {
		if got := readIn(t, want.dir, want.name); got != want.text {
			t.Errorf("%s/%s is now %q", want.dir, want.name, got)
		}
	}
}
