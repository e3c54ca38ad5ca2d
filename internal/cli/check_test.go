package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// soundFacts are those of a cluster with nothing wrong.
func soundFacts(t *testing.T) checkFacts {
	t.Helper()
	p := pictureOf(t, `{"synchronous_mode": true}`, func(s *cluster.Snapshot) { s.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}} })
	setting := "db2"
	f := checkFacts{scope: "shop", status: assess(p, writes{State: "ok", Took: 0.002}, &votes{Members: 3, Answering: 3, Tolerance: 1}), known: true}
	f.health = api.Health{Sync: api.SyncHealth{Mode: "on", Setting: &setting, InStep: []string{"db2"}, Needed: 1}, Members: []api.MemberHealth{
		{Name: "db1"}, lagging("db2", 100), lagging("db3", 200)}}
	for range 3 {
		f.etcd = append(f.etcd, etcd.EndpointHealth{Endpoint: "e", Leader: 1, Took: 3 * time.Millisecond})
	}
	f.disks = []diskMetric{{member: "db1", path: "/d", ratio: 0.5}, {member: "db2", path: "/d", ratio: 0.4}}
	return f
}

func lagging(name string, bytes uint64) api.MemberHealth {
	return api.MemberHealth{Name: name, Lag: &api.Lag{Replay: api.LagPart{Bytes: &bytes}}}
}

func TestChecks(t *testing.T) {
	soon, since := time.Hour, time.Now().Add(-time.Minute)
	none := thresholds{-1, -1}
	tests := []struct {
		check  string
		name   string
		change func(*checkFacts)
		limits thresholds
		code   plugin
		text   string
		perf   string
	}{
		{"cluster", "well", nil, none, pluginOK, "db1 leads, writes ok", "members=3;;;0"},
		{"cluster", "degraded", func(f *checkFacts) { f.status.worse(degraded, "db9 is gone", "") }, none, pluginWarning, "db9 is gone", ""},
		{"cluster", "critical", func(f *checkFacts) { f.status.worse(critical, "no writes", "") }, none, pluginCritical, "no writes", ""},
		{"leader", "well", nil, none, pluginOK, "db1 leads in term 2 and accepts writes", "answer=0.002s"},
		{"leader", "none", func(f *checkFacts) { f.status.Leader = "" }, none, pluginCritical, "no member leads", ""},
		{"leader", "no writes", func(f *checkFacts) { f.status.Writes = writes{State: "no", Why: "503"} }, none, pluginCritical, "accepts no writes", ""},
		{"leader", "not known", func(f *checkFacts) { f.status.Writes = writes{State: "unknown"} }, none, pluginUnknown, "is not known", ""},
		{"replication", "well", nil, none, pluginOK, "2 standby(s) replicate, at most 200 B behind (db3)", "lag_db2=100B;10485760;104857600;0 lag_db3=200B"},
		{"replication", "behind", func(f *checkFacts) { f.health.Members[2] = lagging("db3", 11<<20) }, none, pluginWarning, "at most 11.0 MiB behind (db3)", ""},
		{"replication", "far behind", func(f *checkFacts) { f.health.Members[2] = lagging("db3", 101<<20) }, none, pluginCritical, "101.0 MiB", ""},
		{"replication", "within what was asked for", func(f *checkFacts) { f.health.Members[2] = lagging("db3", 101<<20) }, thresholds{200 << 20, 300 << 20}, pluginOK, "", "209715200"},
		{"replication", "one is silent", func(f *checkFacts) { f.status.Members[2].State = "starting" }, none, pluginWarning, "not replicating: db3", "standbys=1;;1:;0"},
		{"replication", "all are silent", func(f *checkFacts) {
			f.status.Members[1].State, f.status.Members[2].State = "stopped", "starting"
		}, none, pluginCritical, "no standby replicates", "standbys=0"},
		{"replication", "there is none", func(f *checkFacts) { f.status.Members = f.status.Members[:1] }, none, pluginCritical, "no standby replicates", ""},
		{"replication", "not known", func(f *checkFacts) { f.known, f.status.Members[2].ReplayLag = false, nil }, none, pluginUnknown, "lag not known: db3", ""},
		{"replication", "by the keys", func(f *checkFacts) { f.known = false }, none, pluginOK, "at most 0 B behind", ""},
		{"sync", "well", nil, none, pluginOK, "commits wait for 1 of db2", "in_step=1"},
		{"sync", "off", func(f *checkFacts) { f.status.Sync = "off" }, none, pluginOK, "synchronous mode is off", ""},
		{"sync", "commits hang", func(f *checkFacts) { f.health.Sync.InStep = nil }, none, pluginCritical, "only 0 stream", ""},
		{"sync", "unprotected", func(f *checkFacts) {
			f.health.Sync.Needed, f.health.Sync.InStep, f.health.Sync.UnprotectedSince = 0, nil, &since
		}, none, pluginWarning, "without a standby for 1m", ""},
		{"sync", "unprotected in the strict mode", func(f *checkFacts) { f.health.Sync.Needed, f.health.Sync.Strict = 0, true }, none, pluginCritical, "forbids", ""},
		{"sync", "not known", func(f *checkFacts) { f.known = false }, none, pluginUnknown, "", ""},
		{"disk", "well", nil, none, pluginOK, "at least 40.0 % left (db2 /d)", "db1:/d=50.0%;10:;5:;0;100"},
		{"disk", "little", func(f *checkFacts) { f.disks[0].ratio = 0.09 }, none, pluginWarning, "9.0 %", ""},
		{"disk", "nearly none", func(f *checkFacts) { f.disks[0].ratio = 0.04 }, none, pluginCritical, "4.0 %", ""},
		{"disk", "soon full", func(f *checkFacts) { f.disks[0].fullIn = &soon }, none, pluginWarning, "/d on db1 will be full in 1h", ""},
		{"disk", "hung", func(f *checkFacts) { f.disks[0].bad = true }, none, pluginWarning, "/d on db1 does not answer", ""},
		{"disk", "within what was asked for", func(f *checkFacts) { f.disks[0].ratio = 0.09 }, thresholds{5, 2}, pluginOK, "", ";5:;2:;"},
		{"disk", "not known", func(f *checkFacts) { f.disks = nil }, none, pluginUnknown, "", ""},
		{"disk", "not known of one", func(f *checkFacts) { f.unmeasured = []string{"db3"} }, none, pluginUnknown, "at least 40.0 % left (db2 /d); not known of db3", ""},
		{"etcd", "well", nil, none, pluginOK, "3 of 3 members of etcd answer", "etcd_members=3;3:;2:;0;3 etcd_answer=3.0ms"},
		{"etcd", "one is gone", func(f *checkFacts) { f.etcd[0].Error = "refused" }, none, pluginWarning, "2 of 3", ""},
		{"etcd", "no quorum", func(f *checkFacts) { f.etcd[0].Leader, f.etcd[1].Leader = 0, 0 }, none, pluginCritical, "1 of 3", ""},
		{"etcd", "slow", func(f *checkFacts) { f.etcd[0].Took = 600 * time.Millisecond }, none, pluginWarning, "600 ms", ""},
		{"etcd", "slower than asked for", func(f *checkFacts) {}, thresholds{1, 2}, pluginCritical, "3 ms", ""},
		{"etcd", "alarm", func(f *checkFacts) { f.etcd[0].Alarms = []string{"NOSPACE"} }, none, pluginCritical, "NOSPACE", ""},
		{"etcd", "not known", func(f *checkFacts) { f.etcd = nil }, none, pluginUnknown, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.check+" "+tt.name, func(t *testing.T) {
			f := soundFacts(t)
			if tt.change != nil {
				tt.change(&f)
			}
			for _, j := range judges() {
				if j.name != tt.check {
					continue
				}
				r := j.judge(f, tt.limits)
				if r.Code != tt.code || !strings.Contains(r.Text, tt.text) || !strings.Contains(strings.Join(r.Perf, " "), tt.perf) {
					t.Errorf("%v %q %q\nwant %v %q %q", r.Code, r.Text, r.Perf, tt.code, tt.text, tt.perf)
				}
			}
		})
	}
}

func TestPluginLine(t *testing.T) {
	got := pluginLine("shop", pluginCritical, []checkResult{
		{Code: pluginOK, Text: "fine", Perf: []string{"a=1"}}, {Code: pluginWarning, Text: "a|b\nc", Perf: []string{"b=2"}}, {Code: pluginCritical, Text: "bad"}})
	if want := "CRITICAL - cluster shop: a/b c; bad | a=1 b=2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := worst(worst(pluginWarning, pluginUnknown), pluginCritical); got != pluginCritical {
		t.Errorf("worst is %v", got)
	}
}

func TestReadDisks(t *testing.T) {
	got := readDisks("db1", `# HELP haven_disk_free_bytes x
haven_disk_free_bytes{scope="s",name="db1",path="/d",use="data,wal"} 50
haven_disk_free_bytes{scope="s",name="db1",path="/s",use="state"} 1
haven_disk_size_bytes{scope="s",name="db1",path="/d",use="data,wal"} 200
haven_disk_full_in_seconds{scope="s",name="db1",path="/d",use="data,wal"} 60
haven_disk_problem{scope="s",name="db1",path="/s",use="state"} 1
`)
	if len(got) != 2 || got[0].ratio != 0.25 || *got[0].fullIn != time.Minute || got[0].bad || got[1].ratio != 1 || !got[1].bad || got[1].path != "/s" {
		t.Errorf("%+v", got)
	}
}
