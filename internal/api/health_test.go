package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
)

// The codes that load balancers see, for each kind of member and path.
func TestHealthChecks(t *testing.T) {
	syncOn := func(l *Local) {
		l.Dynamic = dynamic(t, `{"synchronous_mode": true}`)
		l.Snapshot.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}}
	}
	quorum := func(l *Local) {
		l.Dynamic = dynamic(t, `{"synchronous_mode": "quorum"}`)
		l.Snapshot.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}}
	}
	tests := []struct {
		name     string
		from     Local
		change   func(*Local)
		ok, fail string // paths
	}{
		{"leader", leader(t), nil,
			"/ /primary /master /read-write /leader /read-only /health /read-only-sync /primary?tag_zone=x",
			"/replica /standby-leader /sync /async /quorum /nothing /readonly"},
		{"leader whose server does not answer", leader(t), func(l *Local) { l.Probe = nil }, "", "/ /primary /leader /read-only /health /read-only-sync"},
		{"leader whose server is in recovery", leader(t), func(l *Local) { l.Probe.InRecovery = true }, "", "/ /primary /leader"},
		{"leader whose term is only claimed", leader(t), func(l *Local) { l.Snapshot.Term.State = cluster.TermClaimed }, "/health", "/ /primary /leader /read-only"},
		{"leader of a foreign term", leader(t), func(l *Local) { l.Snapshot.Leader.ModRev, l.Snapshot.Term.State = 9, cluster.TermClaimed }, "/primary /leader", ""},
		{"primary without proof", leader(t), func(l *Local) { l.Leads = false }, "/health", "/ /primary /leader /replica /read-only"},
		{"paused without a store", leader(t), func(l *Local) {
			l.Leads, l.Known, l.SeenAt, l.Dynamic = false, false, time.Time{}, dynamic(t, `{"pause": true}`)
		}, "/primary /leader", "/replica"},
		{"replica", standby(t), nil,
			"/replica /read-only /async /asynchronous /health /replica?lag=100 /replica?lag=16kB /replica?lag=junk /replica?tag_zone=a&tag_clonefrom=true /replica?replication_state=streaming",
			"/ /primary /leader /sync /quorum /replica?lag=99 /replica?tag_zone=b /replica?tag_none=1 /replica?replication_state=in+archive+recovery"},
		{"replica that heard of more WAL than it has", standby(t), func(l *Local) { l.Probe.ReceiverEnd = 2000 }, "/replica /replica?lag=1100", "/replica?lag=1099"},
		{"replica that reads from the archive", standby(t), func(l *Local) { l.Probe.ReceiverStatus, l.Probe.Restores = "", true },
			"/replica /replica?replication_state=in+archive+recovery", "/replica?replication_state=streaming"},
		{"standby cluster", standby(t), func(l *Local) {
			l.Name, l.Leads, l.Dynamic, l.Member.Role = "db1", true, dynamic(t, `{"standby_cluster": {"host": "far"}}`), cluster.RoleStandbyLeader
		}, "/standby-leader /standby_leader /leader /read-only /health", "/ /primary /replica /async"},
		{"leader with an empty section standby_cluster", leader(t), func(l *Local) { l.Dynamic = dynamic(t, `{"standby_cluster": {"host": null}}`) }, "/ /primary /leader /read-write", "/standby-leader /replica"},
		{"replica not for reading", standby(t), func(l *Local) { l.Member.Tags = map[string]any{"noloadbalance": true} }, "/health", "/replica /read-only /async"},
		{"starting replica", standby(t), func(l *Local) { l.Member.State = cluster.StateStarting }, "", "/replica /health"},
		{"synchronous replica", standby(t), syncOn, "/sync /synchronous /read-only-sync /replica", "/async /quorum /read-only-quorum"},
		{"quorum replica", standby(t), quorum, "/quorum /read-only-quorum /replica", "/sync /async"},
		{"replica that has not seen the store", standby(t), func(l *Local) { l.Known, l.SeenAt = false, time.Now().Add(-time.Hour) }, "/replica", "/async /sync"},
		{"node without database", Local{Name: "w1", Scope: "shop", Known: true}, nil, "/health", "/ /primary /replica /read-only /leader"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.from
			l.Snapshot.Leader, l.Snapshot.Term, l.Probe = clone(l.Snapshot.Leader), clone(l.Snapshot.Term), clone(l.Probe)
			if tt.change != nil {
				tt.change(&l)
			}
			b := newBench(t, l, nil, nil)
			for paths, want := range map[string]int{tt.ok: 200, tt.fail: 503} {
				for _, path := range strings.Fields(paths) {
					for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
						if got, body, _ := b.do(method, path, ""); got != want || (method == "GET") != (body != "") {
							t.Errorf("%s %s: %d with %d bytes, want %d", method, path, got, len(body), want)
						}
					}
				}
			}
		})
	}
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func TestStatusDocument(t *testing.T) {
	for name, l := range map[string]Local{"leader": leader(t), "standby": standby(t), "dead": func() Local { l := leader(t); l.Probe = nil; return l }(), "coordinator": {Name: "w1", Scope: "shop", Version: "0.1.0"}} {
		t.Run(name, func(t *testing.T) {
			l.SeenAt = started
			l.Known = !l.SeenAt.IsZero()
			b := newBench(t, l, nil, nil)
			code, body, h := b.do("GET", "/patroni", "")
			if code != 200 || h.Get("Content-Type") != "application/json" || h.Get("Server") != "Haven/0.1.0" {
				t.Errorf("%d %v", code, h)
			}
			var v any
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				t.Fatal(err)
			}
			pretty, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "document-"+name+".golden", string(pretty)+"\n")
		})
	}
}

func TestLivenessAndReadiness(t *testing.T) {
	long := time.Now().Add(-45 * time.Second) // with ttl 30 s and loop_wait 10 s: too late for a primary, not for a standby
	tests := []struct {
		name, path string
		from       Local
		change     func(*Local)
		want       int
	}{
		{"loop turns", "/liveness", leader(t), nil, 200},
		{"loop stands on a primary", "/liveness", leader(t), func(l *Local) { l.LastTurn = long }, 503},
		{"loop stands on a standby", "/liveness", standby(t), func(l *Local) { l.LastTurn = long }, 200},
		{"paused", "/liveness", leader(t), func(l *Local) { l.LastTurn, l.Dynamic = long, dynamic(t, `{"pause": true}`) }, 200},
		{"leader", "/readiness", leader(t), nil, 200},
		{"standby", "/readiness", standby(t), nil, 200},
		{"standby within", "/readiness?lag=100", standby(t), nil, 200},
		{"standby behind", "/readiness?lag=99", standby(t), nil, 503},
		{"standby behind in replay, not in receipt", "/readiness?lag=0&mode=write", standby(t), nil, 200},
		{"not streaming", "/readiness", standby(t), func(l *Local) { l.Probe = clone(l.Probe); l.Probe.ReceiverStatus = "" }, 503},
		{"no store, nothing heard", "/readiness", standby(t), func(l *Local) { l.Known, l.SeenAt = false, time.Time{} }, 503},
		{"no store, but the primary is heard", "/readiness", standby(t), func(l *Local) {
			l.Known, l.SeenAt, l.Probe = false, time.Time{}, clone(l.Probe)
			l.Probe.ReceiverEnd = 1000
		}, 200},
		{"dead", "/readiness", leader(t), func(l *Local) { l.Probe = nil }, 503},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.from
			if tt.change != nil {
				tt.change(&l)
			}
			if got, body, _ := newBench(t, l, nil, nil).do("GET", tt.path, ""); got != tt.want || body != "" {
				t.Errorf("%d %q, want %d", got, body, tt.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	b := newBench(t, standby(t), nil, nil)
	b.source.set(func(l *Local) { l.SeenAt = started })
	code, body, h := b.do(http.MethodGet, "/metrics", "")
	if code != 200 || h.Get("Content-Type") != "text/plain" {
		t.Errorf("%d %v", code, h)
	}
	golden(t, "metrics.golden", body)

	l := synced(t)
	l.SeenAt, l.WatchdogFailed = started, true
	if _, body, _ := newBench(t, l, nil, nil).do(http.MethodGet, "/patroni", ""); !strings.Contains(body, `"watchdog_failed":true`) {
		t.Errorf("peers are not told that the watchdog failed: %s", body)
	}
	l.Probe.Slots = []postgres.Slot{{Name: "db9", RestartLSN: 4000}}
	l.Samples = []Sample{{Name: "haven_disk_free_bytes", Labels: []Label{{"path", `/a"b`}, {"use", "data"}}, Value: 5}}
	_, body, _ = newBench(t, l, nil, nil).do(http.MethodGet, "/metrics", "")
	_, own, _ := strings.Cut(body, "patroni_failover_priority{")
	golden(t, "metrics-leader.golden", own)
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]uint64{"10": 10, "16kB": 16384, "64 MB": 64 << 20, "1.5GB": 3 << 29, "0": 0} {
		if got, valid := ParseBytes(in); got != want || !valid {
			t.Errorf("%q: %d %v, want %d", in, got, valid, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "5 apples", "1e30", "NaN"} {
		if got, valid := ParseBytes(in); valid {
			t.Errorf("%q was read as %d", in, got)
		}
	}
}
