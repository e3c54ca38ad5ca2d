package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const guides = "../../testdata/guides/"

// environment reads a file of NAME=value lines and fills its ${…} in.
func environment(t *testing.T, name string, fill map[string]string) []string {
	t.Helper()
	content, err := os.ReadFile(guides + name)
	if err != nil {
		t.Fatal(err)
	}
	filled := os.Expand(string(content), func(k string) string { return fill[k] })
	return strings.Split(strings.TrimSpace(filled), "\n")
}

func summary(n *Node) string {
	p := n.Postgres
	return fmt.Sprintln(n.Scope, n.Name, p.Listen, p.ConnectAddress, p.DataDir, n.RESTAPI.Listen, n.RESTAPI.ConnectAddress, n.Etcd.Hosts, p.Superuser.Username, p.Replication.Username, string(n.Bootstrap.DCS))
}

func TestGuideMinusNow(t *testing.T) {
	const dcs = `{"loop_wait":10,"maximum_lag_on_failover":1048576,"postgresql":{"parameters":{"max_connections":200,"max_replication_slots":5,"max_wal_senders":5,"synchronous_commit":"on","wal_level":"replica"},"use_pg_rewind":true},"retry_timeout":10,"synchronous_mode":true,"ttl":30}`
	for file, want := range map[string]string{
		"minusnow/patroni.yml":         "minusnow-cluster pg-node1 0.0.0.0:5432 10.0.2.10:5432 /var/lib/postgresql/16/main 0.0.0.0:8008 10.0.2.10:8008 [10.0.2.10:2379 10.0.2.11:2379] postgres replicator " + dcs + "\n",
		"minusnow/patroni-replica.yml": "minusnow-cluster pg-node2 0.0.0.0:5432 10.0.2.11:5432 /var/lib/postgresql/16/main 0.0.0.0:8008 10.0.2.11:8008 [10.0.2.10:2379 10.0.2.11:2379] postgres replicator " + dcs + "\n",
	} {
		n, r := mustLoad(t, host(guides+file))
		if got := summary(n); got != want {
			t.Errorf("%s\ngot  %swant %s", file, got, want)
		}
		if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Text, "pg_hba") {
			t.Errorf("%s: %s", file, r)
		}
		d, warnings, err := ParseDynamic(DefaultDCS(n.Format, n.Bootstrap), true)
		if err != nil || len(warnings) > 0 || d.SynchronousMode != SyncOn {
			t.Fatalf("%+v %q %v", d, warnings, err)
		}
		controlled, params, hba, _, _, _ := n.ServerSettings(d, "primary")
		if controlled["max_connections"] != "200" || controlled["max_wal_senders"] != "5" || params["synchronous_commit"] != "on" || params["unix_socket_directories"] != "/var/run/postgresql" || hba != nil {
			t.Errorf("settings: %v %v %v", controlled, params, hba)
		}
		if !n.PostgresWith(d).UsePgRewind || n.Postgres.BinDir != "/usr/lib/postgresql/16/bin" || n.Postgres.Superuser.Password != "<postgres-password>" {
			t.Errorf("postgresql: %+v", n.Postgres)
		}
		if !strings.Contains(strings.Join(n.Bootstrap.HBA, "\n"), "host replication \"replicator\" "+hostOf(n.Postgres.ConnectAddress)+"/32") {
			t.Errorf("a new cluster would not let standbys in: %q", n.Bootstrap.HBA)
		}
	}
}

func TestGuideDatabaseArticle(t *testing.T) {
	for i := 1; i <= 2; i++ {
		env := environment(t, fmt.Sprintf("database-ha-article/patroni%d.env", i), nil)
		_, r := Load(host("", env...))
		if text := r.String(); r.OK() || !strings.Contains(text, "PATRONI_SUPERUSER_PASSWORD") || !strings.Contains(text, "PATRONI_REPLICATION_PASSWORD") {
			t.Errorf("the missing passwords are not named:\n%s", text)
		}
		n, r := mustLoad(t, host("", append(env, "PATRONI_SUPERUSER_PASSWORD=a", "PATRONI_REPLICATION_PASSWORD=b")...))
		want := fmt.Sprintf("ha_cluster pg%d 0.0.0.0:5432 patroni%d:5432 /home/postgres/pgdata *:8008 patroni%d:8008 [etcd1:2379 etcd2:2379 etcd3:2379] postgres replicator {}\n", i, i, i)
		if got := summary(n); got != want {
			t.Errorf("got  %swant %s%s", got, want, r)
		}
		golden(t, fmt.Sprintf("testdata/article%d.golden", i), r.String())
	}
}

func TestGuideFirebackup(t *testing.T) {
	for i := 1; i <= 3; i++ {
		env := environment(t, fmt.Sprintf("firebackup/patroni%d.env", i), map[string]string{"REPLICATION_PASSWORD": "b", "POSTGRES_PASSWORD": "a"})
		n, r := mustLoad(t, host("", env...))
		want := fmt.Sprintf("main patroni%d *:5432 patroni%d:5432 /data/postgres *:8008 patroni%d:8008 [etcd1:2379 etcd2:2379 etcd3:2379] postgres replicator {}\n", i, i, i)
		if got := summary(n); got != want || n.Postgres.Superuser.Password != "a" || n.Postgres.Replication.Password != "b" {
			t.Errorf("got  %swant %s%s", got, want, r)
		}
	}
}

func TestGuideTwoServers(t *testing.T) {
	vars := map[string]string{}
	for _, line := range environment(t, "postgres-ha-two-servers/postgres-ha.env", nil) {
		k, v, _ := strings.Cut(line, "=")
		vars[k] = v
	}
	env := []string{"PATRONI_NAME=postgres1", "PATRONI_SCOPE=minesweeper", "PATRONI_POSTGRESQL_DATA_DIR=/data", "PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + vars["DB_SERVER1_IP"] + ":5432",
		"PATRONI_ETCD3_HOSTS='" + vars["DB_SERVER1_IP"] + ":2379','" + vars["DB_SERVER2_IP"] + ":2379','" + vars["COORDINATOR_IP"] + ":2379'", "PATRONI_SUPERUSER_USERNAME=" + vars["POSTGRES_SUPERUSER"],
		"PATRONI_SUPERUSER_PASSWORD=" + vars["POSTGRES_SUPERUSER_PASSWORD"], "PATRONI_REPLICATION_PASSWORD=" + vars["REPLICATION_PASSWORD"], "PATRONI_ADMIN_PASSWORD=" + vars["PATRONI_ADMIN_PASSWORD"]}
	n, r := mustLoad(t, host(guides+"postgres-ha-two-servers/patroni-synchronous.yml", env...))
	want := `minesweeper postgres1 *:5432 10.0.1.10:5432 /data *:8008 10.0.1.10:8008 [10.0.1.10:2379 10.0.1.11:2379 10.0.1.12:2379] postgres replicator {"postgresql":{"parameters":{"synchronous_commit":true,"synchronous_standby_names":"*"}}}` + "\n"
	if got := summary(n); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	text := r.String()
	for _, warning := range []string{"`synchronous_standby_names` is set while `synchronous_mode` is off", "PATRONI_ADMIN_PASSWORD: warning"} {
		if !strings.Contains(text, warning) {
			t.Errorf("no warning of %s:\n%s", warning, text)
		}
	}
	if strings.Contains(text, "patroni-admin-password") {
		t.Error("a password stands in a fault")
	}
	d, _, err := ParseDynamic(n.Bootstrap.DCS, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, params, _, _, _, _ := n.ServerSettings(d, "primary"); params["synchronous_commit"] != "on" {
		t.Errorf("synchronous_commit is %q", params["synchronous_commit"])
	}
}

func TestUsualPatroniFileIsToldWhatHasNoEffect(t *testing.T) {
	n, r := mustLoad(t, host("testdata/patroni.yml"))
	wantReport := "testdata/patroni.yml:4:80: warning: `log.loggers.urllib3` has no effect: no part of haven is called so; its parts are agent, etcd, guard, postgresql, proxy, restapi\n0 errors, 1 warning\n"
	if got := r.String(); got != wantReport {
		t.Errorf("faults of a file that Patroni takes:\n%s", got)
	}
	d, warnings, err := ParseDynamic(n.Bootstrap.DCS, false)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%q %v", warnings, err)
	}
	_, params, hba, _, recovery, warnings := n.ServerSettings(d, "replica")
	got := fmt.Sprint(n.Namespace, n.Postgres.BaseBackup, n.Bootstrap.InitDB, n.Bootstrap.PostBootstrap, params["wal_keep_size"], recovery, len(hba), warnings)
	want := "service[--verbose --max-rate=100M][--encoding=UTF8 --data-checksums]/usr/local/bin/setup_cluster.sh128MBmap[recovery_target_timeline:latest restore_command:cp ../wal_archive/%f %p]2[]"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
