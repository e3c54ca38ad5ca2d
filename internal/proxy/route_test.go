package proxy

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

const mb = 1 << 20

func standby(name string, change func(*server)) server {
	s := server{name: name, state: cluster.StateRunning, streaming: true}
	if change != nil {
		change(&s)
	}
	return s
}

func lag(n int64) func(*server) { return func(s *server) { s.lag = n } }

func cast(servers ...server) view {
	p := picture{leader: &leadership{holder: "db1", term: 4}, ready: true}
	p.servers = append([]server{{name: "db1", leads: true, state: cluster.StateRunning}}, servers...)
	return view{seen: true, admitted: true, picture: p}
}

func TestRoute(t *testing.T) {
	rw := rule{}
	ro := rule{replica: true, maxLag: 16 * mb, fallback: true}
	strict := rule{replica: true, maxLag: 16 * mb}
	unled := cast(standby("db2", func(s *server) { s.streaming = false }))
	unled.admitted, unled.leader, unled.servers[0].leads = false, nil, false
	unled.servers[0].state = cluster.StateStopped
	checking := cast(standby("db2", nil))
	checking.admitted, checking.why = false, "its REST API answers 503 to /primary"
	checkingUnsure := cast(standby("db2", lag(-1)))
	checkingUnsure.admitted = false
	broke := cast(standby("db2", nil), standby("db3", nil))
	broke.broken = map[string]broken{"db2": {Unreachable, "connection refused"}}
	nameless := cast()
	nameless.servers = nil
	deposed := cast()
	deposed.admitted, deposed.leader, deposed.servers[0].leads = false, nil, false
	deposed.servers[0].refused = `its member key says "primary"`
	for _, c := range []struct {
		name  string
		v     view
		r     rule
		loads map[string]load
		want  choice
	}{
		{"nothing seen", view{}, rw, nil, choice{why: "the cluster was not seen yet"}},
		{"primary", cast(), rw, nil, choice{server: "db1", primary: true}},
		{"primary, checked", checking, rw, nil, choice{why: "db1: its REST API answers 503 to /primary"}},
		{"primary, nobody leads", unled, rw, nil, choice{why: "the cluster has no leader"}},
		{"primary, no member key", nameless, rw, nil, choice{why: "the leader db1 has no member key"}},
		{"replica before primary", cast(standby("db2", nil)), ro, nil, choice{server: "db2"}},
		{"fewest sessions", cast(standby("db2", nil), standby("db3", nil)), ro, map[string]load{"db2": {2, 2}, "db3": {1, 9}}, choice{server: "db3"}},
		{"as few, fewest so far", cast(standby("db2", nil), standby("db3", nil)), ro, map[string]load{"db2": {1, 9}, "db3": {1, 8}}, choice{server: "db3"}},
		{"the leader's own sessions do not matter", cast(standby("db2", nil)), ro, map[string]load{"db2": {50, 50}}, choice{server: "db2"}},
		{"at the limit", cast(standby("db2", lag(16*mb))), strict, nil, choice{server: "db2"}},
		{"over the limit", cast(standby("db2", lag(16*mb+1))), ro, nil, choice{server: "db1", primary: true}},
		{"over the limit, no fallback", cast(standby("db2", lag(16*mb+1))), strict, nil, choice{why: "no replica may be used"}},
		{"does not stream", cast(standby("db2", func(s *server) { s.streaming = false })), strict, nil, choice{why: "no replica may be used"}},
		{"nobody leads: nobody streams", unled, strict, nil, choice{server: "db2"}},
		{"noloadbalance", cast(standby("db2", func(s *server) { s.excluded = true })), ro, nil, choice{server: "db1", primary: true}},
		{"starting", cast(standby("db2", func(s *server) { s.state = cluster.StateStarting })), strict, nil, choice{why: "no replica may be used"}},
		{"unknown lag", cast(standby("db2", lag(-1))), ro, nil, choice{server: "db1", primary: true}},
		{"unknown lag, no fallback", cast(standby("db2", lag(-1))), strict, nil, choice{why: "no replica may be used"}},
		{"unknown lag is better than nothing", checkingUnsure, ro, nil, choice{server: "db2"}},
		{"a primary that lost the leader key is no replica", deposed, ro, nil, choice{why: "no replica may be used, and no primary is admitted"}},
		{"refused lately", broke, ro, map[string]load{"db3": {9, 9}}, choice{server: "db3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := route(c.v, c.r, c.loads); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestUnfit(t *testing.T) {
	ro := rule{replica: true, maxLag: 16 * mb, fallback: true}
	lags, excluded, fine := standby("db2", lag(20*mb)), standby("db3", func(s *server) { s.excluded = true }), standby("db4", nil)
	broke := cast(standby("db2", nil), standby("db3", nil))
	broke.broken = map[string]broken{"db2": {Unreachable, "connection refused"}}
	for _, c := range []struct {
		name string
		v    view
		r    rule
		want string
	}{
		{"one that cannot be connected to just now", broke, ro, "db1"},
		{"all are fit but the primary", cast(fine), ro, "db1"},
		{"one that lags, and one that is excluded", cast(lags, excluded, fine), ro, "db1 db2 db3"},
		{"the primary is better than one that lags", cast(lags), ro, "db2"},
		{"one that lags is better than none", cast(lags), rule{replica: true, maxLag: 16 * mb}, ""},
		{"nothing seen", view{}, ro, ""},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(unfit(c.v, c.r, func(string) bool { return true }))), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, unsettled := range []string{"db2", "db4"} { // the one that lags, or the one that serves
		got := unfit(cast(lags, excluded, fine), ro, func(server string) bool { return server != unsettled })
		if !got["db3"] || got["db2"] {
			t.Errorf("before %s has settled: %v", unsettled, got)
		}
	}
}

func TestJudge(t *testing.T) {
	ro, rw := rule{replica: true, maxLag: 16 * mb}, rule{}
	for want, c := range map[string]struct {
		r rule
		s server
	}{
		"lagging: lags 20 MB, more than 16 MB":                {ro, standby("db2", lag(20*mb))},
		"ready: lags 0 B":                                     {ro, standby("db2", nil)},
		"ready: lags 1.5 kB":                                  {ro, standby("db2", lag(1536))},
		"unsure: its lag is unknown":                          {ro, standby("db2", lag(-1))},
		"excluded: has the tag noloadbalance":                 {ro, standby("db2", func(s *server) { s.excluded = true })},
		`down: its server is "creating replica"`:              {ro, standby("db2", func(s *server) { s.state = cluster.StateCreatingReplica })},
		"detached: does not stream":                           {ro, standby("db2", func(s *server) { s.streaming = false })},
		"standby: does not lead":                              {rw, standby("db2", nil)},
		"refused: its REST API answers 503 to /replica":       {ro, standby("db2", func(s *server) { s.refused = "its REST API answers 503 to /replica" })},
		"admitted: says that it is writable":                  {rw, cast().servers[0]},
		"leading: is the primary":                             {ro, cast().servers[0]},
		"unreachable: dial tcp 10.0.0.4:5432: host is silent": {ro, standby("db4", nil)},
	} {
		v := cast(c.s)
		v.broken = map[string]broken{"db4": {Unreachable, "dial tcp 10.0.0.4:5432: host is silent"}}
		if j := judge(v, c.r, c.s); string(j.state)+": "+j.why != want {
			t.Errorf("%s: %s, want %s", j.state, j.why, want)
		}
	}
}

func TestDepict(t *testing.T) {
	s := cluster.Snapshot{
		Leader: &cluster.Leader{Name: "db1", CreateRev: 5, ModRev: 7},
		Status: &cluster.Status{Optime: 1000},
		Members: []cluster.Member{
			{Name: "db1", Role: "primary", ConnURL: "postgres://10.0.0.1:5433/postgres", APIURL: "https://10.0.0.1:8008/patroni", State: "running", XlogLocation: 1200},
			{Name: "db2", Role: "replica", ConnURL: "postgres://[fe80::1]/postgres", State: "running", XlogLocation: 400, ReplicationState: "streaming", Tags: map[string]any{"noloadbalance": true}},
			{Name: "db3", Role: "replica", State: "stopped"},
		},
	}
	p := depict(s)
	if *p.leader != (leadership{holder: "db1", created: 5}) || !p.ready {
		t.Errorf("a leader without a term: %+v, ready %v", p.leader, p.ready)
	}
	want := []server{
		{name: "db1", address: "10.0.0.1:5433", api: "https://10.0.0.1:8008", state: "running", leads: true, refused: `its member key says "primary"`},
		{name: "db2", address: "[fe80::1]:5432", state: "running", streaming: true, excluded: true, lag: 600},
		{name: "db3", state: "stopped", lag: -1},
	}
	for i, s := range p.servers {
		if s != want[i] {
			t.Errorf("%+v, want %+v", s, want[i])
		}
	}
	s.Term = &cluster.Term{Number: 3, Holder: "db1", State: cluster.TermPromoted, ModRev: 6}
	if p := depict(s); p.leader.term != 0 {
		t.Error("a term that is older than the leader key was taken for its term")
	}
	s.Term.ModRev = 8
	if p := depict(s); p.leader.term != 3 || p.leader.created != 0 || !p.ready {
		t.Errorf("a promoted term: %+v", p)
	}
	s.Term.State = cluster.TermVoid
	if p := depict(s); p.ready || p.unready != "term 3 is void, not yet promoted" {
		t.Errorf("a void term: %+v", p)
	}
}

func TestBucketHandsOutTurnsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := newBucket(200, began)
		for i := range 20 {
			if !b.take(began) {
				t.Fatalf("turn %d of the burst has not come", i)
			}
		}
		if b.take(began) {
			t.Error("the burst is larger than it should be")
		}
		var waiting sync.WaitGroup
		for range 200 {
			waiting.Go(func() { b.await(t.Context(), func() {}) })
		}
		synctest.Wait()
		if b.take(began.Add(storm / 2)) {
			t.Error("a turn is taken from those who wait")
		}
		waiting.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("200 after the burst, at 200 a second, take %s", took)
		}
		gone, leave := context.WithCancel(t.Context())
		b.await(gone, leave)
		b.await(gone, func() {})
		if b.await(t.Context(), func() {}); time.Since(began) != time.Second+5*time.Millisecond {
			t.Errorf("after those who left, a turn comes at %s", time.Since(began))
		}
		if !b.take(began.Add(storm + time.Second)) {
			t.Error("the storm is over, and yet there is no turn")
		}
		var none *bucket
		if !none.take(began) {
			t.Error("without a bucket there is no turn")
		}
		if slow := newBucket(1, began); !slow.take(began) || slow.burst != 10*time.Second {
			t.Errorf("the burst is at least 10, not %s", slow.burst)
		}
	})
}
