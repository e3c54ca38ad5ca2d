package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
)

// synced is a leader with one synchronous and one asynchronous standby that lags.
func synced(t testing.TB) Local {
	l := leader(t)
	l.Dynamic = dynamic(t, `{"synchronous_mode": true}`)
	l.Snapshot.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}}
	took := 1500 * time.Millisecond
	l.Probe.WalLSN, l.Probe.SyncNames = 5000, "db2"
	l.Probe.Standbys = []postgres.Walsender{
		{Name: "db2", State: "streaming", SyncState: "sync", Sent: 5000, Write: 5000, Flush: 5000, Replay: 4000, ReplayLag: &took},
		{Name: "db3", State: "streaming", SyncState: "async", Sent: 4500, Write: 4400, Flush: 4300, Replay: 4200},
	}
	for _, name := range []string{"db1", "db2", "db3", "db4"} {
		m := cluster.Member{Name: name, State: cluster.StateRunning, ConnURL: "postgres://10.0.0.1:5432/postgres", ReplicationState: "streaming", APIURL: "http://127.0.0.1:1/patroni"}
		if name == "db4" {
			m.ReceiveLSN, m.ReplayLSN = 900, 800 // it cascades: the leader does not see it
		}
		l.Snapshot.Members = append(l.Snapshot.Members, m)
	}
	return l
}

func health(t *testing.T, b *bench, path string) (int, Health) {
	t.Helper()
	code, body, _ := b.do("GET", path, "")
	var h Health
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return code, h
}

func TestHealthDocument(t *testing.T) {
	code, h := health(t, newBench(t, synced(t), nil, nil), "/haven/health")
	if code != 200 || h.Verdict != Healthy || !*h.Writes || h.From != "db1" || h.Term != 3 || h.Sync.Needed != 1 || strings.Join(h.Sync.InStep, "") != "db2" {
		t.Errorf("%d %+v", code, h)
	}
	lags, err := json.Marshal([]*Lag{h.Members[0].Lag, h.Members[1].Lag, h.Members[2].Lag, h.Members[3].Lag})
	if err != nil {
		t.Fatal(err)
	}
	want := `[null,` +
		`{"sent":{"bytes":0},"write":{"bytes":0},"flush":{"bytes":0},"replay":{"bytes":1000,"seconds":1.5}},` +
		`{"sent":{"bytes":500},"write":{"bytes":600},"flush":{"bytes":700},"replay":{"bytes":800}},` +
		`{"sent":{"bytes":null},"write":{"bytes":100},"flush":{"bytes":null},"replay":{"bytes":200}}]`
	if string(lags) != want {
		t.Errorf("%s\nwant %s", lags, want)
	}
}

// The code says whether writes are possible as the cluster is configured.
func TestHealthVerdicts(t *testing.T) {
	since := started
	tests := []struct {
		name    string
		change  func(*Local)
		code    int
		verdict string
		why     string
	}{
		{"a server that does not answer", func(l *Local) { l.Probe = nil }, 503, Critical, "its server does not answer"},
		{"leadership that is not proven", func(l *Local) { l.Leads = false }, 503, Critical, "not proven at this moment"},
		{"a claimed term", func(l *Local) { l.Snapshot.Term.State = cluster.TermClaimed }, 503, Critical, "its term is not promoted yet"},
		{"the synchronous standby is gone, commits wait", func(l *Local) { l.Probe.Standbys = l.Probe.Standbys[1:] }, 503, Critical, "commits wait for 1 standby(s), and 0 of those that count stream"},
		{"it is connected and catches up", func(l *Local) { l.Probe.Standbys[0].State = "catchup" }, 503, Critical, "commits wait for 1"},
		{"no standby is waited for", func(l *Local) { l.Probe.SyncNames, l.UnprotectedSince = "", &since }, 200, Degraded, "without a standby, at least since 2031-05-06 03:00:00 UTC"},
		{"nor in the strict mode", func(l *Local) {
			l.Probe.SyncNames, l.Dynamic = "", dynamic(t, `{"synchronous_mode": true, "synchronous_mode_strict": true}`)
		}, 503, Critical, "synchronous_mode_strict is on"},
		{"asynchronous", func(l *Local) { l.Probe.SyncNames, l.Dynamic = "", dynamic(t, `{}`) }, 200, Healthy, ""},
		{"a standby cluster, which ignores synchronous mode", func(l *Local) {
			l.Probe.SyncNames, l.Probe.InRecovery, l.Dynamic = "", true, dynamic(t, `{"synchronous_mode": true, "standby_cluster": {"host": "far"}}`)
			l.Member.Role, l.Snapshot.Term.State = cluster.RoleStandbyLeader, cluster.TermClaimed
		}, 200, Healthy, ""},
		{"maintenance", func(l *Local) { l.Dynamic = dynamic(t, `{"synchronous_mode": true, "pause": true}`) }, 200, Degraded, "maintenance mode is on"},
		{"a member that does not replicate", func(l *Local) { l.Snapshot.Members[2].ReplicationState = "" }, 200, Degraded, "db3 does not replicate: running"},
		{"a problem of its own", func(l *Local) { l.Problems = []string{"the disk is nearly full"} }, 200, Degraded, "db1: the disk is nearly full"},
		{"no leader", func(l *Local) { l.Snapshot.Leader, l.Leads = nil, false }, 503, Critical, "no member leads"},
		{"etcd was never read", func(l *Local) { l.Known, l.SeenAt, l.Snapshot = false, time.Time{}, cluster.Snapshot{} }, 503, Unknown, "cannot read etcd"},
		{"a node without a database whose leader does not answer", func(l *Local) { l.HasServer, l.Probe, l.Name, l.Leads = false, nil, "w1", false }, 503, Unknown, "the leader db1 does not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := synced(t)
			tt.change(&l)
			code, h := health(t, newBench(t, l, nil, nil), "/haven/health")
			if code != tt.code || h.Verdict != tt.verdict || !strings.Contains(strings.Join(h.Why, "\n"), tt.why) {
				t.Errorf("%d %s %q, want %d %s because %q", code, h.Verdict, h.Why, tt.code, tt.verdict, tt.why)
			}
		})
	}
}

// A standby and a node without a database tell what the leader knows.
func TestHealthIsToldByTheLeader(t *testing.T) {
	l := synced(t)
	l.Problems = []string{"of the leader"}
	first := newBench(t, l, nil, nil)
	for _, other := range []Local{standby(t), {Name: "w1", Scope: "shop", Known: true, SeenAt: time.Now()}} {
		other.Snapshot, other.Problems = l.Snapshot, []string{"of " + other.Name}
		other.Snapshot.Members = append([]cluster.Member(nil), l.Snapshot.Members...)
		other.Snapshot.Members[0].APIURL = "http://" + first.server.Addr().String() + "/patroni"
		b := newBench(t, other, nil, nil)
		code, h := health(t, b, "/haven/health")
		if code != 200 || h.Name != other.Name || h.From != "db1" || *h.Members[2].Lag.Sent.Bytes != 500 || strings.Join(h.Problems, "; ") != "db1: of the leader; "+other.Name+": of "+other.Name {
			t.Errorf("%d %+v", code, h)
		}
		if code, h := health(t, b, "/haven/health?own=true"); code != 503 || h.From != "store" || h.Members[2].Lag.Sent.Bytes != nil {
			t.Errorf("its own view claims to know: %d %+v", code, h)
		}
	}
}
