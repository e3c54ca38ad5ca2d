package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
)

// fill makes a cluster of db1 (leader) and db2, whose REST API is that of a healthy standby; the fake agent below acts
// on it.
func fill(t *testing.T, store dcs.Store, dynamic string, sync *cluster.Sync) (dcs.Holder, int64) {
	t.Helper()
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"state":"running","role":"replica","xlog":{"received_location":900,"replayed_location":900},"timeline":3}`)
	}))
	t.Cleanup(peer.Close)
	ctx := t.Context()
	leases := map[string]int64{}
	for _, name := range []string{"db1", "db2", "db3"} {
		lease, err := store.Grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		leases[name] = lease.ID
		m := cluster.Member{Name: name, ConnURL: "postgres://10.0.0.1" + name[2:] + ":5432/postgres", APIURL: peer.URL + "/patroni",
			State: cluster.StateRunning, Role: cluster.RoleReplica, Version: "4.1.4", ReceiveLSN: 1000, ReplayLSN: 900, Timeline: 3, ReplicationState: "streaming"}
		switch name {
		case "db1":
			m.Role, m.ReceiveLSN, m.ReplayLSN, m.ReplicationState, m.XlogLocation = cluster.RolePrimary, 0, 0, "", 1000
		case "db3":
			m.APIURL, m.ReceiveLSN, m.ReplayLSN, m.ReplicationState = "http://127.0.0.1:1/patroni", 0, 0, ""
			m.Tags = map[string]any{"nofailover": true}
		}
		if err := store.PutMember(ctx, lease.ID, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.BeginInitialize(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := store.Found(ctx, dcs.Founding{SystemID: "7300000000000000001", Config: json.RawMessage(dynamic), Sync: sync, Claim: dcs.Claim{
		Name: "db1", Lease: leases["db1"], Term: cluster.Term{Number: 1, Holder: "db1", State: cluster.TermPromoted, Fence: cluster.FenceBootstrap, Nonce: "one", Since: started}}})
	if err != nil {
		t.Fatal(err)
	}
	h, _, err = store.Write(ctx, h, dcs.Changes{Status: &cluster.Status{Optime: 1000},
		History: []cluster.HistoryLine{{Timeline: 1, LSN: 500, Reason: "no recovery target specified", Timestamp: "2031-05-06T03:00:00+00:00", NewLeader: "db1"}, {Timeline: 2, LSN: 700, Reason: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	return h, leases["db2"]
}

func TestClusterDocuments(t *testing.T) {
	store := openStore(t)
	fill(t, store, `{"synchronous_mode": true, "loop_wait": 10}`, &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}})
	b := newBench(t, leader(t), store, nil)
	code, body, _ := b.do("GET", "/cluster", "")
	var c Cluster
	if err := json.Unmarshal([]byte(body), &c); err != nil || code != 200 || len(c.Members) != 3 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	db1, db2, db3 := c.Members[0], c.Members[1], c.Members[2]
	if db1.Role != "leader" || db1.State != "running" || db1.Lag != nil || db1.Host != "10.0.0.11" || db1.Port != 5432 {
		t.Errorf("leader: %+v", db1)
	}
	if db2.Role != "sync_standby" || db2.State != "streaming" || db2.ReplayLag != 100.0 || db2.ReceiveLag != 0.0 || db2.ReplayLSN != "0/384" {
		t.Errorf("synchronous standby: %+v", db2)
	}
	if db3.Role != "replica" || db3.Lag != UnknownText || db3.ReceiveLSN != UnknownText {
		t.Errorf("what is not known is shown as known: %+v", db3)
	}
	if code, body, _ := b.do("GET", "/history", ""); code != 200 || body != `[[1,500,"no recovery target specified","2031-05-06T03:00:00+00:00","db1"],[2,700,"none"]]` {
		t.Errorf("history: %d %s", code, body)
	}
	if code, _, _ := b.do("GET", "/failsafe", ""); code != 502 {
		t.Errorf("failsafe: %d", code)
	}
	client, err := NewClient(config.CTL{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Status(t.Context(), "http://"+b.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	snap := st.Cluster.Snapshot()
	if m, found := snap.Member("db2"); !found || m.ReplayLSN != 900 || !snap.Term.Binds(snap.Leader) || !st.Known || snap.Sync == nil {
		t.Errorf("the snapshot did not survive the way: %+v", st)
	}
}

func TestConfigChanges(t *testing.T) {
	store := openStore(t)
	b := newBench(t, leader(t), store, nil)
	if code, _, _ := b.do("GET", "/config", ""); code != 502 {
		t.Errorf("no configuration: %d", code)
	}
	if code, _, _ := b.do("PATCH", "/config", `{"ttl": 20}`); code != 503 {
		t.Errorf("patch of no configuration: %d", code)
	}
	fill(t, store, `{"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB", "max_connections": 100}}}`, nil)
	for _, c := range []struct {
		method, body, want string
		code               int
	}{
		{"PATCH", `{"ttl": 20, "postgresql": {"parameters": {"work_mem": null}}}`, `{"postgresql":{"parameters":{"max_connections":100}},"ttl":20}`, 200},
		{"PATCH", `{"ttl": "20"}`, `{"postgresql":{"parameters":{"max_connections":100}},"ttl":20}`, 200},
		{"PUT", `{"ttl": 40}`, `{"ttl":40}`, 200},
	} {
		code, body, _ := b.do(c.method, "/config", c.body)
		if _, stored, _ := b.do("GET", "/config", ""); code != c.code || body != c.want || stored != c.want {
			t.Errorf("%s %s: %d %s, stored %s", c.method, c.body, code, body, stored)
		}
	}
	for match, want := range map[string]int{"3": 409, `"never"`: 400} {
		req, _ := http.NewRequest("PUT", "http://"+b.server.Addr().String()+"/config", strings.NewReader(`{"ttl": 50}`))
		req.Header.Set("If-Match", match)
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if _, stored, _ := b.do("GET", "/config", ""); resp.StatusCode != want || stored != `{"ttl":40}` {
			t.Errorf("If-Match %s: %d, stored %s", match, resp.StatusCode, stored)
		}
	}
	if n := len(b.wakes); n != 2 {
		t.Errorf("the agent was woken %d times by two changes", n)
	}
}

// TestMistakenConfigIsNotStored: whoever mistypes a key is told so, all at once, and the cluster keeps what it had.
func TestMistakenConfigIsNotStored(t *testing.T) {
	store := openStore(t)
	b := newBench(t, leader(t), store, nil)
	const stored = `{"ttl":30,"tll":20}` // Patroni has let that pass
	fill(t, store, stored, nil)
	const faults = "the configuration was not changed:\n" +
		"`loop_wait` is `often`, which is not a valid duration: write 250ms, 5s, 2min, 12h or 7d; a bare number is in seconds\n" +
		"unknown key `synchronus_mode`; did you mean `synchronous_mode`?\n"
	for _, c := range []struct{ method, body, answer string }{
		{"PATCH", `{"loop_wait": "often", "synchronus_mode": true, "pause": true}`, faults},
		{"PUT", `{"loop_wait": "often", "synchronus_mode": true}`, faults},
		{"PUT", stored, "the configuration was not changed:\nunknown key `tll`; did you mean `ttl`?\n"},
		{"PATCH", `{"postgresql": {"authentication": {"superuser": {"password": ["s3cret"]}}}}`, "the configuration was not changed:\n`postgresql.authentication.superuser.password` is a list: write one secret\n"},
	} {
		code, body, h := b.do(c.method, "/config", c.body)
		if code != 400 || body != c.answer || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
			t.Errorf("%s %s: %d %s %s", c.method, c.body, code, h.Get("Content-Type"), body)
		}
		if _, now, _ := b.do("GET", "/config", ""); now != stored {
			t.Errorf("%s %s: stored %s", c.method, c.body, now)
		}
	}
	if n := len(b.wakes); n != 0 {
		t.Errorf("the agent was woken %d times by no change", n)
	}
	const accepted = `{"pause": true, "failsafe_mode": true, "slots": {"a": {"type": "physical"}}, "ignore_slots": [{"name": "b"}], "member_slots_ttl": "1h", "max_timelines_history": 3, "primary_race_backoff": 1,
		"postgresql": {"callbacks": {"on_start": "/x"}, "recovery_conf": {"restore_command": "cp x"}, "wal_g": {"command": "x"}}}`
	if code, body, _ := b.do("PATCH", "/config", accepted); code != 200 {
		t.Errorf("keys of Patroni's, beside a mistake that was there before: %d %s", code, body)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	store := openStore(t)
	fill(t, store, `{}`, nil)
	b := newBench(t, leader(t), store, nil)
	later := time.Now().Add(time.Hour).UTC()
	for _, c := range []struct {
		path, body string
		code       int
		text       string
	}{
		{"/failover", `{"leader": "db1"}`, 400, "Failover could be performed only to a specific candidate"},
		{"/switchover", `{"candidate": "db2"}`, 400, "Switchover could be performed only from a specific leader"},
		{"/failover", `{"candidate": "db2", "scheduled_at": "2031-01-01T00:00:00Z"}`, 400, "Failover can't be scheduled"},
		{"/switchover", `{"leader": "db1", "scheduled_at": "2031-01-01T00:00"}`, 400, "Timezone information is mandatory for the scheduled switchover"},
		{"/switchover", `{"leader": "db1", "scheduled_at": "2001-01-01T00:00+00"}`, 422, "Cannot schedule switchover in the past"},
		{"/switchover", `{"leader": "db1", "scheduled_at": "soon"}`, 422, "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"},
		{"/switchover", `{"leader": "db1", "candidate": "db1"}`, 400, "Switchover target and source are the same"},
		{"/switchover", `{"leader": "db2"}`, 412, "leader name does not match"},
		{"/switchover", `{"leader": "db1", "candidate": "db9"}`, 412, "candidate does not exists"},
		{"/switchover", `{"leader": "db1", "member": "db3"}`, 412, "switchover is not possible: no good candidates have been found"},
		{"/switchover", `{"leader": "db1", "scheduled_at": "` + later.Format(time.RFC3339) + `"}`, 202, "Switchover scheduled"},
	} {
		if code, body, _ := b.do("POST", c.path, c.body); code != c.code || body != c.text {
			t.Errorf("POST %s %s: %d %q, want %d %q", c.path, c.body, code, body, c.code, c.text)
		}
	}
	var cl Cluster
	_, body, _ := b.do("GET", "/cluster", "")
	if err := json.Unmarshal([]byte(body), &cl); err != nil || cl.Scheduled == nil || cl.Scheduled.From != "db1" {
		t.Errorf("the scheduled switchover does not show: %s", body)
	}
	for _, c := range []struct {
		code int
		text string
	}{{200, "scheduled switchover deleted"}, {404, "no switchover is scheduled"}} {
		if code, body, _ := b.do("DELETE", "/switchover", ""); code != c.code || body != c.text {
			t.Errorf("DELETE /switchover: %d %q", code, body)
		}
	}
}

func TestRequestsInPauseAndSynchronousMode(t *testing.T) {
	for _, c := range []struct {
		name, dynamic, path, body string
		sync                      *cluster.Sync
		code                      int
		text                      string
	}{
		{"paused without candidate", `{"pause": true}`, "/switchover", `{"leader": "db1"}`, nil, 400, "Switchover is possible only to a specific candidate in a paused state"},
		{"paused and scheduled", `{"pause": true}`, "/switchover", `{"leader": "db1", "scheduled_at": "2031-01-01T00:00Z"}`, nil, 400, "Can't schedule switchover in the paused state"},
		{"candidate not synchronous", `{"synchronous_mode": true}`, "/switchover", `{"leader": "db1", "candidate": "db2"}`, &cluster.Sync{Leader: "db1", Standbys: []string{"db3"}}, 412, "candidate name does not match with sync_standby"},
		{"nobody synchronous", `{"synchronous_mode": true}`, "/switchover", `{"leader": "db1"}`, &cluster.Sync{Leader: "db1"}, 412, "switchover is not possible: can not find sync_standby"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := openStore(t)
			fill(t, store, c.dynamic, c.sync)
			if code, body, _ := newBench(t, leader(t), store, nil).do("POST", c.path, c.body); code != c.code || body != c.text {
				t.Errorf("%d %q, want %d %q", code, body, c.code, c.text)
			}
		})
	}
}

// The answer comes when the new leader's term is promoted, or when the request was dropped.
func TestSwitchoverIsAwaited(t *testing.T) {
	store := openStore(t)
	h, lease2 := fill(t, store, `{}`, nil)
	b := newBench(t, leader(t), store, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answer := func() <-chan string {
		out := make(chan string, 1)
		go func() {
			code, body, _ := b.do("POST", "/switchover", `{"leader": "db1", "candidate": "db2"}`)
			out <- fmt.Sprint(code, " ", body)
		}()
		select {
		case <-b.wakes: // the request is written now
		case got := <-out:
			t.Fatalf("the request was answered by %q and not written", got)
		}
		return out
	}

	dropped := answer()
	if err := store.PutFailover(ctx, cluster.Failover{}, -1); err != nil {
		t.Fatal(err)
	}
	if got := <-dropped; got != "503 Switchover failed" {
		t.Errorf("a request that was dropped: %s", got)
	}

	done := answer()
	term := cluster.Term{Number: 2, Holder: "db2", State: cluster.TermClaimed, Fence: cluster.FenceStopped, OldLeader: "db1", Nonce: "two", Since: started}
	snap, err := store.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.HandOver(ctx, h, dcs.Handover{Candidate: "db2", Lease: lease2, Term: term, FailoverRev: snap.Failover.ModRev}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-done:
		t.Errorf("it answered %q before the new leader was promoted", got)
	case <-time.After(200 * time.Millisecond):
	}
	if snap, err = store.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	term.State = cluster.TermPromoted
	_, _, err = store.Write(ctx, dcs.Holder{Name: "db2", Lease: lease2, LeaderRev: snap.Leader.ModRev, TermRev: snap.Term.ModRev}, dcs.Changes{Term: &term})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != `200 Successfully switched over to "db2"` {
		t.Errorf("a switchover that was done: %s", got)
	}
}
