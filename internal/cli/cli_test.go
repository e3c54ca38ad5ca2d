package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/ha"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the expected output into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"haven": func() {
		os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
	}})
}

// TestScripts runs the commands as a person does. Each script has a cluster of its own, named after it, in one etcd.
func TestScripts(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	peer := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(peer.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("REST", peer.URL)
			e.Setenv("PATRONI_RESTAPI_CONNECT_ADDRESS", strings.TrimPrefix(peer.URL, "http://"))
			e.Setenv("ETCD", endpoint)
			e.Setenv("STORE", strings.TrimPrefix(endpoint, "http://"))
			e.Setenv("HAVEN_CONFIG", filepath.Join(e.WorkDir, "haven.yml"))
			return os.WriteFile(filepath.Join(e.WorkDir, "haven.yml"), []byte(fmt.Sprintf(
				"haven: {format: 1}\nscope: %s\nname: client\netcd: {hosts: [%q]}\nrestapi: {listen: 127.0.0.1:1}\nproxy: {listeners: [{listen: \"127.0.0.1:2\", target: primary}], stats: {listen: \"127.0.0.1:3\"}}\n", scopeOf(e.WorkDir), endpoint)), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// code N ARGS... runs haven and wants that exit code.
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec("haven", args[1:]...)
				got := "0"
				if exit, ok := err.(interface{ ExitCode() int }); ok {
					got = fmt.Sprint(exit.ExitCode())
				}
				if got != args[0] {
					ts.Fatalf("haven %v: exit code %s, want %s", args[1:], got, args[0])
				}
			},
			"fill": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(fill(endpoint, scopeOf(ts.Getenv("WORK")), peer.URL, args))
			},
			"journal": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(writeJournal(ts.MkAbs(args[0]))) },
		},
	})
}

// answer is the REST API of a member that is well. Which of the paths are asked stands in the scripts.
func answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/failover":
		w.WriteHeader(http.StatusPreconditionFailed)
		fmt.Fprint(w, "failover is not possible: no good candidates have been found")
	case r.Method == http.MethodGet && r.URL.Path == "/haven/status":
		known := cluster.Leader{Name: "db1", ModRev: 1}
		_ = json.NewEncoder(w).Encode(api.Status{Name: "db1", Scope: "far", SeenAt: time.Now().Add(-2 * time.Second), Cluster: api.Keys{
			Leader: &known, Members: []api.MemberKey{{Name: "db1", Value: members("http://127.0.0.1:1", nil)[0]}}}})
	case r.URL.Path == "/restart" || r.URL.Path == "/reinitialize":
		orders(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/patroni":
		fmt.Fprint(w, `{"state":"running","role":"replica","replication_state":"streaming","postmaster_start_time":"then"}`)
	case r.Method == http.MethodPatch:
		patch, _ := io.ReadAll(r.Body)
		if strings.Contains(string(patch), "standby_cluster") { // somebody else was faster; the body comes back
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write(patch)
		}
	case r.Method == http.MethodPost && r.URL.Path == "/reload":
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `Successfully switched over to "db2"`)
	}
}

// orders answers as members do: a restart with conditions finds them not met, a schedule stands already, nothing is there to
// take back, and the leader keeps its data.
func orders(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body) // a DELETE has none
	code, text := http.StatusOK, "restarted successfully"
	switch {
	case r.Method == http.MethodDelete:
		code, text = http.StatusNotFound, "no restarts are scheduled"
	case r.URL.Path == "/reinitialize" && body["from_leader"] == true:
		code, text = http.StatusServiceUnavailable, "I am the leader, can not reinitialize"
	case body["postgres_version"] != nil:
		code, text = http.StatusServiceUnavailable, "restart conditions are not satisfied"
	case body["timeout"] != nil:
		code, text = http.StatusServiceUnavailable, "postgres is still starting"
	case body["role"] == "primary":
		code, text = http.StatusServiceUnavailable, "restart failed: it broke"
	case body["schedule"] == "2131-05-06T03:00:00+00:00":
		code, text = http.StatusAccepted, "Restart scheduled"
	case body["schedule"] != nil:
		code, text = http.StatusConflict, "Another restart is already scheduled"
	}
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

func scopeOf(dir string) string { return filepath.Base(dir) }

func at(seconds float64) time.Time {
	return time.Date(2031, 5, 6, 3, 12, 2, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// fill makes the cluster of a script. Its words: empty (no history), sync, pause, noleader, stopped (db2), deaf (no REST
// API answers), pending (a restart of db1 and db2), copying (db3).
func fill(endpoint, scope, rest string, words []string) error {
	has := map[string]bool{}
	for _, w := range words {
		has[w] = true
	}
	store, err := etcd.Open(etcd.Options{Endpoints: []string{endpoint}, Scope: scope})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	lease, err := store.Grant(ctx, 10*time.Minute)
	if err != nil {
		return err
	}
	for _, m := range members(rest, has) {
		if err := store.PutMember(ctx, lease.ID, m); err != nil {
			return err
		}
	}
	return lead(ctx, store, lease.ID, has)
}

func members(rest string, has map[string]bool) []cluster.Member {
	out := []cluster.Member{
		{Name: "db1", Role: cluster.RolePrimary, XlogLocation: 0x5000148},
		{Name: "db2", Role: cluster.RoleReplica, ReceiveLSN: 0x5000148, ReplayLSN: 0x5000148, ReplicationState: "streaming"},
		{Name: "db3", Role: cluster.RoleReplica, ReceiveLSN: 0x3000000, ReplayLSN: 0x2000000, ReplicationState: "streaming",
			Tags: map[string]any{"replicatefrom": "db2", "nofailover": true}},
	}
	for i := range out {
		m := &out[i]
		m.ConnURL, m.APIURL = fmt.Sprintf("postgres://10.0.0.1%d:5432/postgres", i+1), rest+"/patroni"
		m.State, m.Version, m.Timeline = cluster.StateRunning, "4.1.4", 3
	}
	if has["pending"] {
		out[0].PendingRestart, out[1].PendingRestart = true, true
		out[0].PendingRestartReason = map[string]cluster.PendingChange{"max_connections": {Old: "100", New: "77"}}
	}
	if has["copying"] {
		out[2].State, out[2].ReplicationState = cluster.StateCreatingReplica, ""
		out[2].Haven = &cluster.HavenField{Version: "0.1.0", Fence: 1, Progress: "45 % of 1200 MB"}
	}
	if has["deaf"] {
		for i := range out {
			out[i].APIURL = "http://127.0.0.1:1/patroni"
		}
	}
	if has["stopped"] {
		out[1].State, out[1].ReplicationState, out[1].ReceiveLSN, out[1].ReplayLSN = cluster.StateStopped, "", 0, 0
	}
	return out
}

func lead(ctx context.Context, store dcs.Store, lease int64, has map[string]bool) error {
	dynamic := map[string]any{"ttl": 30, "loop_wait": 10, "postgresql": map[string]any{"parameters": map[string]any{"max_connections": 100, "ssl_passphrase_command": "echo s3cret"}}}
	var set *cluster.Sync
	if has["sync"] {
		dynamic["synchronous_mode"] = true
		set = &cluster.Sync{Leader: "db1", Standbys: []string{"db2"}}
	}
	if has["pause"] {
		dynamic["pause"] = true
	}
	raw, err := json.Marshal(dynamic)
	if err != nil {
		return err
	}
	if err := store.BeginInitialize(ctx); err != nil {
		return err
	}
	term := cluster.Term{Number: 12, Holder: "db1", State: cluster.TermPromoted, Fence: cluster.FenceLease, Nonce: "n", Timeline: 3, Since: at(2.2)}
	h, err := store.Found(ctx, dcs.Founding{SystemID: "7434343434343434343", Config: raw, Sync: set, Claim: dcs.Claim{Name: "db1", Lease: lease, Term: term}})
	if err != nil {
		return err
	}
	change := dcs.Changes{Status: &cluster.Status{Optime: 0x5000148}}
	if !has["empty"] {
		e := event()
		change.Event = &e
		change.History = []cluster.HistoryLine{
			{Timeline: 1, LSN: 0x2000000, Reason: "no recovery target specified", Timestamp: "2031-05-01T00:00:00+00:00", NewLeader: "db2"},
			{Timeline: 2, LSN: 0x5000000, Reason: "no recovery target specified", Timestamp: "2031-05-06T03:12:04+00:00", NewLeader: "db1"}}
	}
	if h, _, err = store.Write(ctx, h, change); err != nil {
		return err
	}
	if has["noleader"] {
		return store.Release(ctx, h, nil)
	}
	return nil
}

func event() cluster.Event {
	return cluster.Event{
		Term: 12, Kind: "failover", OldLeader: "db2", NewLeader: "db1", Fence: cluster.FenceLease, Timeline: 3, LSN: 0x5000000,
		Cause: cluster.Cause{Code: "lease_expired", Certainty: cluster.Inferred, Text: "db2 stopped renewing its lease, and its host did not answer", At: at(2),
			Evidence: []cluster.Evidence{{At: at(2.1), Member: "db1", Text: "db2's REST API does not answer"}}},
		Chosen: "db1: WAL up to 0/5000000, a synchronous standby in /sync", Rejected: []string{"db3: tagged nofailover", "db4: WAL up to 0/4000000"},
		Loss: "none: db1 has every commit that waited for the synchronous set",
		Phases: []cluster.Phase{{Name: "detection", From: at(0), Took: 2 * time.Second}, {Name: "election", From: at(2), Took: 200 * time.Millisecond},
			{Name: "promotion", From: at(2.2), Took: 480 * time.Millisecond}, {Name: "opening", From: at(2.68), Took: 200 * time.Millisecond}},
		Log: []cluster.Evidence{{At: at(2), Member: "db1", Text: "the leader key of db2 is gone"}, {At: at(2.2), Member: "db1", Text: "promoting"},
			{At: at(2.68), Member: "db1", Text: "the server accepts writes"}},
	}
}

// writeJournal writes two decisions and an outcome: the second decision only if the name says so is not what Decide says.
func writeJournal(path string) error {
	v := ha.View{Wall: at(0), Me: ha.Self{Name: "db1", MayLead: true}, Policy: ha.Policy{TTL: 30 * time.Second, LoopWait: 10 * time.Second},
		Store: ha.Store{Known: true, Leader: &cluster.Leader{Name: "db2"}}, Server: ha.Server{Disk: ha.DiskData, Process: ha.ProcessUp, Probed: true, InRecovery: true, Streaming: true}}
	m := ha.Memory{}
	d, _ := ha.Decide(v, m)
	other := d
	if filepath.Base(path) == "changed.jsonl" {
		other.Reason = ha.Reason{Code: ha.ReasonAcquire, Text: "taking the leader key"}
		other.Action.Kind = ha.Acquire
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	enc := json.NewEncoder(f)
	for _, e := range []agent.Entry{
		{At: at(0), Member: "db1", View: &v, Memory: &m, Decision: &d}, {At: at(1), Member: "db1", Outcome: &ha.Outcome{Kind: ha.Follow}},
		{At: at(2), Member: "db1", View: &v, Memory: &m, Decision: &other},
	} {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func TestProcessors(t *testing.T) {
	for _, c := range []struct {
		what      string
		node      config.Node
		available int
		chosen    bool
		want      int
	}{
		{"no proxy", config.Node{}, 8, false, 0},
		{"half of them", config.Node{Proxy: &config.Proxy{}}, 8, false, 4},
		{"one at least", config.Node{Proxy: &config.Proxy{}}, 1, false, 1},
		{"two with an agent", config.Node{Proxy: &config.Proxy{}, Postgres: &config.Postgres{}}, 2, false, 2},
		{"two are not there", config.Node{Proxy: &config.Proxy{}, Postgres: &config.Postgres{}}, 1, false, 1},
		{"the environment has decided", config.Node{Proxy: &config.Proxy{}}, 8, true, 0},
		{"the configuration has", config.Node{Proxy: &config.Proxy{Threads: 6}}, 8, true, 6},
	} {
		if got := processors(&c.node, c.available, c.chosen); got != c.want {
			t.Errorf("%s: got %d, want %d", c.what, got, c.want)
		}
	}
	for variable, want := range map[string]bool{"GOMAXPROCS=3": true, "GOMAXPROCS=": false, "GOMAXPROCS=x": false, "OTHER=3": false} {
		if decidesProcessors(variable) != want {
			t.Errorf("%s: want %v", variable, want)
		}
	}
}
