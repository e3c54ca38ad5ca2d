package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
)

func facts(name string) *Facts {
	return &Facts{Name: name, Haven: "0.1.0", Postgres: "15.18", Secrets: map[string]string{"restapi.authentication": "x", "postgresql.authentication.superuser": "y"},
		Settings: map[string]string{"fsync": "on"}}
}

// sound is a cluster with nothing wrong.
func sound() Evidence {
	e := Evidence{Leader: "db1", TTL: 30 * time.Second, ElectionTimeout: time.Second, Proxies: []Proxy{{Address: "10.0.0.9:7000", Servers: []string{"db1", "db2", "db3"}}}}
	for _, name := range []string{"db1", "db2", "db3"} {
		m := Member{Member: cluster.Member{Name: name, State: cluster.StateRunning, APIURL: "http://" + name + ":8008/patroni"}, Reached: true, Facts: facts(name)}
		m.Primary, m.Replica = name == "db1", name != "db1"
		m.Facts.Writable, m.Leads = m.Primary, m.Primary
		if m.Replica {
			m.ReplicationState = "streaming"
			e.Lags = append(e.Lags, lag(name, 0, 0, 0, 0))
		}
		e.Members = append(e.Members, m)
		e.Etcd = append(e.Etcd, etcd.EndpointHealth{Endpoint: "http://" + name + ":2379", Leader: 7, DBSize: 1 << 20, Syncs: 1000, SlowSync: 0.001})
	}
	return e
}

func lag(name string, sent, write, flush, replay uint64) Lag {
	const mb = 1 << 20
	for _, n := range []*uint64{&sent, &write, &flush, &replay} {
		*n *= mb
	}
	return Lag{Member: name, Sent: &sent, Write: &write, Flush: &flush, Replay: &replay}
}

// Each finding, its severity, whom it is about, and what of its text and its remedy matters.
func TestExamine(t *testing.T) {
	tests := []struct {
		name string
		bad  func(*Evidence)
		want []string // "severity code member", then what has to be in text and remedy
	}{
		{"sound", func(*Evidence) {}, nil},
		{"two writable members", func(e *Evidence) {
			e.Members[1].Primary, e.Members[1].Leads, e.Members[1].Replica, e.Members[1].Facts.Writable = true, true, false, true
			e.Members[1].Facts.Position, e.Members[1].Facts.Timeline, e.Members[0].Facts.Position, e.Members[0].Facts.Timeline = 0x5000000, 2, 0x6000000, 1
		}, []string{"critical two_writable ", "db1 at 0/6000000 on timeline 1, db2 at 0/5000000 on timeline 2", "db1 holds the leader key"}},
		{"a primary that is hidden from balancers", func(e *Evidence) { e.Members[1].Facts.Writable = true }, []string{"critical two_writable "}},
		{"nobody is a primary", func(e *Evidence) {
			e.Members[0].Primary, e.Members[0].Leads, e.Members[0].Facts.Writable = false, false, false
		}, []string{"critical no_leader ", "warning not_routed db1"}},
		{"a standby cluster", func(e *Evidence) { e.Members[0].Primary, e.Members[0].Facts.Writable = false, false }, nil},
		{"not routed", func(e *Evidence) { e.Members[2].Replica = false }, []string{"warning not_routed db3", "curl -i http://db3:8008/replica"}},
		{"not for reading", func(e *Evidence) {
			e.Members[2].Replica, e.Members[2].Tags, e.Proxies = false, map[string]any{"noloadbalance": true}, nil
		}, nil},
		{"unknown to the proxy", func(e *Evidence) { e.Proxies[0].Servers = e.Proxies[0].Servers[:2] }, []string{"warning not_routed db3", "the proxy at 10.0.0.9:7000 does not know it"}},
		{"a proxy that does not answer", func(e *Evidence) { e.Proxies[0].Error = "refused" }, []string{"warning proxy_unreachable "}},
		{"no REST API", func(e *Evidence) {
			e.Members[2].Reached, e.Members[2].Replica, e.Members[2].Facts, e.Members[2].Error = false, false, nil, "refused"
		}, []string{"critical api_unreachable db3", "systemctl status haven"}},
		{"wrong password of the REST API", func(e *Evidence) { e.Members[2].Facts, e.Members[2].Refused = nil, "not authenticated" }, []string{"warning not_examined db3", "not authenticated"}},
		{"no password of the REST API", func(e *Evidence) { e.Members[2].Facts.Secrets = nil }, []string{"warning secrets_unknown db3"}},
		{"another password", func(e *Evidence) { e.Members[1].Facts.Secrets["postgresql.authentication.superuser"] = "z" },
			[]string{"critical secrets_differ ", "postgresql.authentication.superuser is not the same on all nodes: db1, db3 against db2", "systemctl reload haven"}},
		{"a password that only one has", func(e *Evidence) { e.Members[1].Facts.Secrets["postgresql.authentication.rewind"] = "z" }, []string{"critical secrets_differ ", "db1, db3 against db2"}},
		{"minor versions", func(e *Evidence) { e.Members[1].Facts.Postgres = "15.17" }, []string{"warning versions_differ ", "15.17 on db2; 15.18 on db1, db3"}},
		{"clocks", func(e *Evidence) { e.Members[1].Skew = -5 * time.Second }, []string{"warning clock_skew ", "ahead of that of db2", "timedatectl"}},
		{"clocks within what can be measured", func(e *Evidence) { e.Members[1].Skew, e.Members[1].Rounding = -5*time.Second, 4*time.Second }, nil},
		{"not streaming", func(e *Evidence) { e.Members[2].ReplicationState = "" }, []string{"critical not_replicating db3"}},
		{"lag in sending", func(e *Evidence) { e.Lags[0] = lag("db2", 20, 20, 20, 20) }, []string{"warning lag_sending db2", "20.0 MiB behind: db1 has not sent it yet"}},
		{"lag in the network", func(e *Evidence) { e.Lags[0] = lag("db2", 1, 200, 200, 200) }, []string{"critical lag_network db2", "199.0 MiB behind"}},
		{"lag in the sync of the disk", func(e *Evidence) { e.Lags[0] = lag("db2", 1, 2, 30, 30) }, []string{"warning lag_fsync db2", "iostat"}},
		{"lag in the replay", func(e *Evidence) { e.Lags[0] = lag("db2", 1, 2, 3, 40); e.Members[1].Facts.Conflicts = 3 }, []string{"warning lag_replay db2", "3 queries were cancelled", "pg_stat_activity"}},
		{"replay is paused", func(e *Evidence) {
			e.Lags[0] = lag("db2", 0, 0, 0, 40)
			e.Members[1].Facts.ReplayPaused = true
		}, []string{"warning lag_replay db2", "replay is paused", "pg_wal_replay_resume"}},
		{"replay is delayed on purpose", func(e *Evidence) {
			e.Lags[0] = lag("db2", 0, 0, 0, 40)
			e.Members[1].Facts.Settings["recovery_min_apply_delay"] = "3600000"
		}, []string{"warning lag_replay db2", "recovery_min_apply_delay is 3600000 ms"}},
		{"a lag that is not known is none", func(e *Evidence) { e.Lags[0] = Lag{Member: "db2"} }, nil},
		{"one member of etcd is gone", func(e *Evidence) { e.Etcd[2] = etcd.EndpointHealth{Endpoint: "http://db3:2379", Error: "refused"} },
			[]string{"warning etcd_unreachable ", "warning etcd_quorum ", "2 of 3 members of etcd answer: the loss of one more"}},
		{"the DNS does not tell of etcd", func(e *Evidence) { e.Etcd = []etcd.EndpointHealth{{Error: "no such host"}} }, []string{"critical etcd_unreachable ", "no such host", "etcd.srv"}},
		{"no quorum", func(e *Evidence) { e.Etcd[0].Leader, e.Etcd[1].Leader, e.Etcd[2].Leader = 0, 0, 0 }, []string{"critical etcd_quorum "}},
		{"two members of etcd", func(e *Evidence) { e.Etcd = e.Etcd[:2] }, []string{"warning etcd_even ", "warning etcd_quorum "}},
		{"etcd's room", func(e *Evidence) { e.Etcd[0].DBSize, e.Etcd[0].DBQuota = 90, 100 }, []string{"warning etcd_room ", "defrag"}},
		{"etcd's alarm", func(e *Evidence) { e.Etcd[0].Alarms = []string{"NOSPACE"} }, []string{"critical etcd_alarm ", "alarm disarm"}},
		{"etcd answers late", func(e *Evidence) { e.Etcd[0].Took = time.Second }, []string{"warning etcd_slow ", "1000 ms"}},
		{"etcd's disk is slow", func(e *Evidence) { e.Etcd[0].SlowSync = 0.05 }, []string{"warning etcd_slow ", "5.0 % of the syncs"}},
		{"too few syncs to tell", func(e *Evidence) { e.Etcd[0].SlowSync, e.Etcd[0].Syncs = 0.5, 10 }, nil},
		{"elections against the lease", func(e *Evidence) { e.ElectionTimeout, e.TTL = 3*time.Second, 10*time.Second }, []string{"warning etcd_timing ", "raise ttl to at least 12s"}},
		{"what a node finds itself", func(e *Evidence) {
			e.Members[1].Facts.Findings = []Finding{{Code: "kill_mode", Severity: Warning, Text: "KillMode", Mend: "edit"}}
		}, []string{"warning kill_mode db2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := sound()
			tt.bad(&e)
			held(t, Examine(e), tt.want)
		})
	}
}

// held compares findings with what is wanted; every finding has to be wanted, and has to have a remedy and a known code.
func held(t *testing.T, found []Finding, want []string) {
	t.Helper()
	var all []string
	for _, f := range found {
		all = append(all, string(f.Severity)+" "+f.Code+" "+f.Member)
		if f.Mend == "" || f.Text == "" || !slices.ContainsFunc(Checks(), func(c Check) bool { return c.Code == f.Code }) {
			t.Errorf("not a whole finding: %+v", f)
		}
		all = append(all, f.Text, f.Mend)
	}
	text, findings := strings.Join(all, "\n"), 0
	for _, w := range want {
		if strings.HasPrefix(w, "warning ") || strings.HasPrefix(w, "critical ") {
			findings++
		}
		if !strings.Contains(text+"\n", w) {
			t.Errorf("not found: %s", w)
		}
	}
	if findings != len(found) {
		t.Errorf("%d findings, want %d", len(found), findings)
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestServerSettings(t *testing.T) {
	f := Facts{Name: "db1", Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "synchronous_commit": "local", "wal_log_hints": "off", "data_checksums": "off"}}
	held(t, JudgeServer(f, true, []string{"old"}), []string{"critical unsafe_setting db1", "critical unsafe_setting db1", "warning unsafe_setting db1", "warning no_rewind db1", "warning idle_slot db1",
		"fsync is off", "synchronous_commit is local", "pg_drop_replication_slot('old')"})
	f.Settings = map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "remote_write", "wal_log_hints": "off", "data_checksums": "on"}
	held(t, JudgeServer(f, true, nil), nil)
	held(t, JudgeServer(Facts{}, true, []string{"old"}), nil)
}

// node is a node whose directories exist.
func node(t *testing.T) *config.Node {
	t.Helper()
	dir := t.TempDir()
	n := &config.Node{Name: "db1", Scope: "shop", File: filepath.Join(dir, "haven.yml"), RESTAPI: &config.RESTAPI{}, Postgres: &config.Postgres{DataDir: filepath.Join(dir, "data")},
		Origins: map[string]string{}}
	n.Haven.StateDir = dir
	for _, d := range []string{n.Postgres.DataDir, n.Dir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(n.File, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPermissions(t *testing.T) {
	n := node(t)
	quiet := Host{Owner: os.Geteuid(), Run: func(context.Context, string, ...string) (string, error) { return "", errors.New("not there") }}
	held(t, Local(t.Context(), quiet, n), nil)
	n.Postgres.Superuser.Password, n.Origins["postgresql.authentication.superuser.password"] = "s3cret", n.File+":3"
	n.RESTAPI.KeyFile = n.File
	for _, d := range []string{n.Postgres.DataDir, n.Dir()} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	quiet.Owner++
	held(t, Local(t.Context(), quiet, n), []string{"warning permissions db1", "warning permissions db1", "warning permissions db1", "warning permissions db1", "critical permissions db1",
		"chmod 700 " + n.Postgres.DataDir, "chmod 700 " + n.Dir(), "chmod 640 " + n.File, "the configuration with passwords in it", "chmod 600 " + n.File})
}

func TestServersOfTheDistribution(t *testing.T) {
	n := node(t)
	other := t.TempDir()
	h := Host{Root: t.TempDir(), Owner: -1, Unit: "haven.service", Run: func(_ context.Context, name string, args ...string) (string, error) {
		switch {
		case name == "pg_lsclusters":
			return "15 main 5432 online postgres " + other + " /var/log/x.log\n15 ours 5433 down postgres " + n.Postgres.DataDir + " /var/log/y.log\n", nil
		case name == "systemctl" && slices.Contains(args, "KillMode"):
			return "control-group\n", nil
		}
		return "", errors.New("not there")
	}}
	conf := filepath.Join(h.Root, "etc/postgresql/15/ours")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(mode string) {
		if err := os.WriteFile(filepath.Join(conf, "start.conf"), []byte("# how it starts\n\n"+mode+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("auto")
	beside := []string{"warning foreign_server db1", "systemctl disable --now postgresql@15-main", "warning kill_mode db1", "KillMode of haven.service is control-group"}
	held(t, Local(t.Context(), h, n), append(beside, "critical foreign_server db1", "echo manual > /etc/postgresql/15/ours/start.conf"))
	write("manual")
	held(t, Local(t.Context(), h, n), beside)
}

func TestUnitOfThisProcess(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/haven.service\n": "haven.service", "0::/user.slice/user-0.slice/user@0.service\n": "", "0::/\n": "",
		"12:pids:/system.slice/haven@db1.service\n": "haven@db1.service",
	} {
		root := t.TempDir()
		if err := os.MkdirAll(root+"/proc/self", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+"/proc/self/cgroup", []byte(cgroup), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := unitOf(root); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}

// Hashes are equal for equal secrets under one salt, and for nothing else; no secret stands in them.
func TestHashes(t *testing.T) {
	const salt = "000102030405060708090a0b0c0d0e0f"
	one := node(t)
	one.Postgres.Superuser = config.Auth{Username: "postgres", Password: "s3cret"}
	one.RESTAPI.Username, one.RESTAPI.Password = "haven", "s3cret"
	two := node(t)
	two.Postgres.Superuser = config.Auth{Username: "postgres", Password: "s3cret"}
	two.RESTAPI.Username, two.RESTAPI.Password = "other", "s3cret"
	get := func(n *config.Node, salt string) map[string]string {
		t.Helper()
		h, err := Hashes(n, salt)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a, b, c := get(one, salt), get(two, salt), get(one, "ff"+salt)
	const super, rest = "postgresql.authentication.superuser", "restapi.authentication"
	if len(a) != 2 || a[super] != b[super] || a[rest] == b[rest] || a[super] == c[super] || a[super] == a[rest] {
		t.Errorf("%v\n%v\n%v", a, b, c)
	}
	for _, salt := range []string{"", "00", "not hexadecimal, not hexadecimal"} {
		if h, err := Hashes(one, salt); err == nil {
			t.Errorf("salt %q: %v", salt, h)
		}
	}
}
