package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/config/schema"
)

func TestParseDynamicTiming(t *testing.T) {
	tests := []struct {
		raw            string
		allHaven       bool
		ttl, loop, ret time.Duration
		warnings       int
	}{
		{`{}`, false, 30 * time.Second, 10 * time.Second, 10 * time.Second, 0},
		{``, true, 30 * time.Second, 10 * time.Second, 10 * time.Second, 0},
		{`{"ttl": 20, "loop_wait": 5, "retry_timeout": 5}`, false, 20 * time.Second, 5 * time.Second, 5 * time.Second, 0},
		{`{"ttl": 20}`, false, 20 * time.Second, time.Second, 9 * time.Second, 1},
		{`{"ttl": 25}`, false, 25 * time.Second, 5 * time.Second, 10 * time.Second, 1},
		{`{"ttl": 5}`, false, 20 * time.Second, time.Second, 9 * time.Second, 2},
		{`{"ttl": 5}`, true, 5 * time.Second, time.Second, 2 * time.Second, 0},
		{`{"ttl": 8}`, true, 8 * time.Second, time.Second, 3500 * time.Millisecond, 0},
		{`{"ttl": 3}`, true, 5 * time.Second, time.Second, 2 * time.Second, 1},
		{`{"ttl": "1min", "loop_wait": "500ms", "retry_timeout": 1}`, false, time.Minute, time.Second, 3 * time.Second, 2},
		{`{"ttl": "soon"}`, false, 30 * time.Second, 10 * time.Second, 10 * time.Second, 1},
		{`{"ttl": null}`, false, 30 * time.Second, 10 * time.Second, 10 * time.Second, 0},
	}
	for _, test := range tests {
		d, warnings, err := ParseDynamic(json.RawMessage(test.raw), test.allHaven)
		if err != nil || d.TTL != test.ttl || d.LoopWait != test.loop || d.RetryTimeout != test.ret || len(warnings) != test.warnings {
			t.Errorf("%s (all Haven: %v): %s %s %s %q %v", test.raw, test.allHaven, d.TTL, d.LoopWait, d.RetryTimeout, warnings, err)
		}
		if d.LoopWait+2*d.RetryTimeout > d.TTL {
			t.Errorf("%s: the timing rule is broken", test.raw)
		}
	}
}

func TestParseDynamicValues(t *testing.T) {
	d, warnings, err := ParseDynamic(json.RawMessage(`{"synchronous_mode": "quorum", "synchronous_mode_strict": "on", "maximum_lag_on_failover": "16MB",
		"master_start_timeout": 7, "primary_stop_timeout": 3, "master_stop_timeout": 9, "member_slots_ttl": "1h", "pause": true,
		"permanent_slots": {"a": {"type": "physical"}}, "postgresql": {"use_slots": false}, "haven": {"takeover": "off", "suspect_after": "300ms", "clone_limit": "1 per 1d", "hung_after": "4s"}, "other": 1}`), true)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(d.SynchronousMode, d.SynchronousModeStrict, d.MaximumLagOnFailover, d.PrimaryStartTimeout, d.PrimaryStopTimeout, d.MemberSlotsTTL, d.Pause, d.Slots, d.UseSlots,
		d.Haven.Takeover, d.Haven.SuspectAfter, d.Haven.Heartbeat, d.Haven.CloneLimit, d.Haven.CloneWindow, d.Haven.HungAfter)
	want := `quorum true 16777216 7s 3s 1h0m0s true [{a physical }] false false 300ms 100ms 1 24h0m0s 4s`
	if strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("got  %s\nwant %s\n%q", got, want, warnings)
	}
	if d, _, err = ParseDynamic(json.RawMessage(`{"synchronous_mode": true}`), false); err != nil || d.SynchronousMode != SyncOn || !d.Haven.Takeover || d.Haven.HungAfter >= 0 || d.MaximumLagOnSyncNode != -1 {
		t.Errorf("true: %+v %v", d, err)
	}
	for _, bad := range []string{`[]`, `{`, `"x"`, `{} {}`} {
		if _, _, err := ParseDynamic(json.RawMessage(bad), false); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestParseDynamicWarnsOfKeysWithoutEffect(t *testing.T) {
	_, warnings, err := ParseDynamic(json.RawMessage(`{"failsafe_mode": true, "primary_start_timeout": "5min", "member_slots_ttl": 1800, "ignore_slots": [],
		"primary_stop_timeout": 10, "permanent_slots": {"A": {"type": "physical"}}, "haven": {"takeover": "off", "suspect_after": "1000ms", "crash_wait": "5s"},
		"standby_cluster": {"host": "10.0.0.1"}, "pause": true, "unknown": 1, "postgresql": {"callbacks": {"on_start": "/x"}, "use_slots": false,
		"create_replica_methods": ["wal_g", "basebackup"], "wal_g": {"command": "x"}, "remove_data_directory_on_rewind_failure": "off"}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/dynamic-without-effect.golden", strings.Join(warnings, "\n")+"\n")
}

func TestCheckDynamicFindsTypos(t *testing.T) {
	for _, good := range []string{`{}`, `{"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}, "use_slots": true, "use_pg_rewind": true}}`,
		`{"standby_cluster": null, "haven": {"clone_limit": "1 per 1d"}, "postgresql": {"wal_g": {"command": "x", "keep_data": 1}}}`} {
		if r := CheckDynamic(json.RawMessage(good)); len(r.Faults) > 0 {
			t.Errorf("%s:\n%s", good, r)
		}
	}
	got := CheckDynamic(json.RawMessage(`{"tttl": 30, "loop_wait": "often", "failsafe_mode": true, "standby_cluster": {"host": "a"}, "haven": {"clone_limit": "twice"},
		"postgresql": {"parametres": {}, "create_replica_methods": ["wal_g"]}}`)).String()
	golden(t, "testdata/dynamic-check.golden", got)
	if got := CheckDynamic(json.RawMessage(`[]`)).String(); !strings.Contains(got, "error: this is not a JSON object") {
		t.Errorf("a list: %s", got)
	}
}

func TestServerSettings(t *testing.T) {
	n, _ := mustLoad(t, host(write(t, strings.Replace(databaseNode, "proxy: {}", "", 1)+`
nodes:
  db1:
    postgresql:
      parameters: {max_connections: 999, work_mem: 8MB, shared_buffers: 1GB, restore_command: "cp x", log_file_mode: 0600, wal_keep_size: 1GB, jit: off, Timezone: UTC}
      parameters_replica: {work_mem: 2MB, max_wal_senders: 99}
      recovery_conf: {primary_conninfo: x, recovery_target_time: y}
`)))
	d, _, err := ParseDynamic(json.RawMessage(`{"postgresql": {"data_dir": "/evil", "use_pg_rewind": false, "pg_ctl_timeout": 5, "parameters":
		{"max_connections": 200, "max_wal_senders": 1, "wal_level": "hot_standby", "wal_keep_segments": 10, "shared_buffers": "2GB", "random_page_cost": 1.1, "port": 1}}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	p := n.PostgresWith(d)
	if p.DataDir != "/var/lib/haven/shop" || p.UsePgRewind || p.PgCtlTimeout != 5*time.Second || p.Superuser.Password != "s3cret-superuser" {
		t.Errorf("dynamic under local: %s %v %s", p.DataDir, p.UsePgRewind, p.PgCtlTimeout)
	}
	var b strings.Builder
	for _, role := range []string{"primary", "replica"} {
		controlled, params, hba, ident, recovery, warnings := n.ServerSettings(d, role, "10.0.1.13", "db9.example.com")
		fmt.Fprintf(&b, "# %s\n", role)
		for _, name := range ControlledOrder() {
			fmt.Fprintf(&b, "--%s=%s\n", name, controlled[name])
		}
		for _, part := range []map[string]string{params, recovery} {
			for _, name := range sortedKeys(part) {
				fmt.Fprintf(&b, "%s = '%s'\n", name, part[name])
			}
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "%s\nident %v\n%s\n", strings.Join(hba, "\n"), ident, strings.Join(warnings, "\n"))
	}
	golden(t, "testdata/settings.golden", b.String())
}

func TestDefaultHBALetsOnlyAWorkablePeerIn(t *testing.T) {
	path := write(t, databaseNode)
	src := host(path)
	n, _ := mustLoad(t, src)
	if strings.Contains(strings.Join(n.DefaultHBA(), "\n"), "peer") {
		t.Error("peer is offered although the server runs as some user of whom nothing is known")
	}
	src.Root = true
	n, _ = mustLoad(t, src)
	if n.DefaultHBA()[0] != `local all "postgres" peer` {
		t.Errorf("started by root, the server's own account has no way in: %q", n.DefaultHBA()[0])
	}
	for _, name := range []string{"ca.crt", "db1.crt", "db1.key"} {
		save(t, filepath.Join(filepath.Dir(path), name), "x", 0o600)
	}
	save(t, path, strings.Replace(databaseNode, "{format: 1}", "{format: 1, tls: {cafile: ca.crt, certfile: db1.crt, keyfile: db1.key}}", 1), 0o644)
	n, _ = mustLoad(t, src)
	last := n.DefaultHBA()[len(n.DefaultHBA())-1]
	ca := strings.TrimSuffix(path, "haven.yml") + "ca.crt"
	if last != "hostssl all all samenet scram-sha-256" || n.Postgres.Parameters["ssl"] != "on" || n.Postgres.Replication.SSLMode != "verify-ca" || n.Postgres.Replication.SSLRootCert != ca || n.Etcd.Scheme != "https" || n.Etcd.PeerTLS.CAFile != ca || n.RESTAPI.CAFile != ca {
		t.Errorf("tls everywhere: %s %v %+v %+v", last, n.Postgres.Parameters, n.Postgres.Replication.SSLMode, n.Etcd)
	}
	save(t, path, strings.NewReplacer("{format: 1}", "{format: 1, tls: {cafile: ca.crt, certfile: db1.crt, keyfile: db1.key}}", "restapi:", "restapi:\n  certfile: null").Replace(databaseNode), 0o644)
	if n, _ = mustLoad(t, src); n.RESTAPI.CertFile != "" || n.Etcd.Cert == "" {
		t.Errorf("certfile: null did not keep the section plain: %q", n.RESTAPI.CertFile)
	}
	// Where etcd is a part of the program, its key has to be readable without a password.
	withPassword := strings.Replace(databaseNode, "{format: 1}", "{format: 1, tls: {cafile: ca.crt, certfile: db1.crt, keyfile: db1.key, keyfile_password: secret}}", 1)
	save(t, path, withPassword, 0o644)
	if _, r := Load(src); r.OK() || !strings.Contains(r.String(), "embedded etcd cannot use") {
		t.Errorf("a key with a password: %s", r)
	}
	save(t, filepath.Join(filepath.Dir(path), "plain.key"), "x", 0o600)
	save(t, path, strings.Replace(withPassword, "\netcd:\n", "\netcd:\n  cert: db1.crt\n  key: plain.key\n  cacert: ca.crt\n", 1), 0o644)
	if _, r := Load(src); !r.OK() {
		t.Errorf("the same certificate, with the key without a password: %s", r)
	}
}

// TestNoSecretHasADefault: a password that everybody knows is none.
func TestNoSecretHasADefault(t *testing.T) {
	secrets := 0
	for _, k := range Reference() {
		if k.Kind != string(schema.Secret) {
			continue
		}
		secrets++
		for _, shown := range []string{k.Default, k.PatroniDefault} {
			if shown != "" && shown != "required" && shown != "restapi's" {
				t.Errorf("%s has the default %q", k.Path, shown)
			}
		}
	}
	if secrets < 5 {
		t.Errorf("only %d secrets are known", secrets)
	}
}
