package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/journal"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// world is a cluster in one process: real PostgreSQL servers, a real etcd, real agents. Members answer GET /patroni by
// a handler of the test's own.
type world struct {
	t       *testing.T
	dir     string
	etcd    string
	server  *etcd.Server
	options etcd.ServerOptions
	store   *etcd.Client
	members map[string]*testMember
	file    string
	alone   bool                      // members have no guard
	clocks  func() bootclock.Reading  // nil: those of this host
	through func(dcs.Store) dcs.Store // what stands between members and the store; nil: nothing
}

type testMember struct {
	name   string
	agent  *agent.Agent
	server *postgres.Instance
	guard  *guard.Link
	node   *config.Node
	stop   context.CancelCauseFunc
	end    func() // of everything but the server's processes
	done   chan error
	api    *httptest.Server
}

func newWorld(t *testing.T, dcs string, names ...string) *world {
	t.Helper()
	dir := openTempDir(t)
	w := &world{t: t, dir: dir, members: map[string]*testMember{}}
	client, peer := fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort(t))
	w.options = etcd.ServerOptions{
		Name: "e1", DataDir: filepath.Join(dir, "etcd"), Token: "t", Members: []etcd.ServerMember{{Name: "e1", Client: client, Peer: peer}},
	}
	w.startEtcd()
	t.Cleanup(func() { w.server.Stop() })
	w.etcd = client
	var err error
	if w.store, err = etcd.Open(etcd.Options{Endpoints: []string{client}, Scope: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.writeConfig(dcs, names)
	return w
}

// startCluster is a world with all its members started.
func startCluster(t *testing.T, dcs string, names ...string) *world {
	t.Helper()
	w := newWorld(t, dcs, names...)
	for _, n := range names {
		w.start(n)
	}
	return w
}

func (w *world) startEtcd() {
	w.t.Helper()
	var err error
	if w.server, err = etcd.StartServer(context.Background(), w.options); err != nil {
		w.t.Fatal(err)
	}
}

// openTempDir is a directory that the server's user may walk into.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := pgtest.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (w *world) writeConfig(dcs string, names []string) {
	var nodes strings.Builder
	for _, n := range names {
		fmt.Fprintf(&nodes, "  %s: {postgresql: {listen: \"127.0.0.1:%d\", data_dir: %q}, restapi: {listen: \"127.0.0.1:%d\"}}\n",
			n, pgtest.FreePort(w.t), filepath.Join(w.dir, n, "data"), pgtest.FreePort(w.t))
		if err := os.Mkdir(filepath.Join(w.dir, n), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if acct := pgtest.Account(w.t); acct != nil {
			if err := os.Chown(filepath.Join(w.dir, n), acct.UID, acct.GID); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	text := fmt.Sprintf(`haven: {format: 1, state_dir: %q, address: 127.0.0.1}
watchdog: {mode: "off"}
scope: test
etcd: {hosts: [%q]}
postgresql:
  authentication: {superuser: {password: one-two-three}, replication: {password: four-five-six}}
  parameters: {unix_socket_directories: ""}
bootstrap: {dcs: %s}
nodes:
%s`, filepath.Join(w.dir, "state"), w.etcd, dcs, nodes.String())
	w.file = filepath.Join(w.dir, "cluster.yml")
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// instance is a member's server, for whoever looks after it.
func (w *world) instance(node *config.Node) *postgres.Instance {
	w.t.Helper()
	p := node.Postgres
	server, err := postgres.New(postgres.Options{
		DataDir: p.DataDir, Name: node.Name, Scope: node.Scope, ListenAddresses: p.ListenAddresses, Port: p.Port, RunAs: pgtest.Account(w.t),
		Logins: postgres.Logins{
			Superuser:   postgres.Credentials{Username: p.Superuser.Username, Password: p.Superuser.Password},
			Replication: postgres.Credentials{Username: p.Replication.Username, Password: p.Replication.Password},
		},
		LogFile: filepath.Join(w.dir, node.Name+".pg.log"), CtlTimeout: time.Minute, InitDB: node.Bootstrap.InitDB,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return server
}

func (w *world) start(name string) *testMember {
	w.t.Helper()
	node, report := config.Load(config.Source{Path: w.file, Name: name, Hostname: "h", Root: os.Geteuid() == 0})
	if !report.OK() {
		w.t.Fatal(report.String())
	}
	server := w.instance(node)
	j, err := journal.Open(filepath.Join(w.dir, "journal", name), 8<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("%s.%d.log", name, time.Now().UnixNano())))
	if err != nil {
		w.t.Fatal(err)
	}
	m := &testMember{name: name, server: server, node: node, done: make(chan error, 1)}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m.guard = w.openGuard(node, server, logger)
	var store dcs.Store = w.store
	if w.through != nil {
		store = w.through(store)
	}
	m.agent = agent.New(agent.Options{
		Node: node, Store: store, Server: server, Journal: j, Guard: m.guard, Peers: http.DefaultClient, Version: "test",
		Log: logger, Clocks: w.clocks,
	})
	m.serve(w.t)
	ctx, stop := context.WithCancelCause(context.Background())
	m.stop = stop
	go func() { m.done <- m.agent.Run(ctx) }()
	m.end = sync.OnceFunc(func() {
		stop(nil)
		if err := <-m.done; err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
		m.api.Close()
		j.Close()
		server.Close()
		log.Close()
	})
	w.t.Cleanup(func() {
		m.end()
		if err := server.Kill(context.Background()); err != nil {
			w.t.Error(err)
		}
		m.closeGuard()
		if w.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			w.t.Logf("log of %s:\n%s", name, text)
		}
	})
	w.members[name] = m
	return m
}

// openGuard gives a member a guard process of its own: this test's program, started once more.
func (w *world) openGuard(node *config.Node, server *postgres.Instance, log *slog.Logger) *guard.Link {
	w.t.Helper()
	if w.alone {
		return nil
	}
	if err := os.MkdirAll(node.Dir(), 0o700); err != nil {
		w.t.Fatal(err)
	}
	link, _, err := guard.Open(guard.Options{Dir: node.Dir(), Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	server.LaunchBy(link)
	return link
}

func (m *testMember) closeGuard() {
	if m.guard != nil {
		m.guard.Close()
	}
}

// TestMain is also the guard process of the tests' members.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == guard.Command {
		os.Exit(guard.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// crash ends the agent as kill -9 would; the server goes on.
func (w *world) crash(name string) {
	m := w.members[name]
	pid := postmaster(w.t, m)
	m.stop(agent.ErrAbandon)
	m.end()
	m.closeGuard() // the guard itself goes on, since the server does
	// Without a guard the server is a child of this process, and nobody would reap it.
	go func() { _, _ = syscall.Wait4(pid, nil, 0, nil) }()
}

// serve answers what other members ask.
func (m *testMember) serve(t *testing.T) {
	l, err := net.Listen("tcp", m.node.RESTAPI.ConnectAddress)
	if err != nil {
		t.Fatal(err)
	}
	h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/failsafe" {
			m.pledge(rw, r)
			return
		}
		s := m.agent.Fresh(r.Context())
		out := map[string]any{"state": s.Member.State, "role": s.Member.Role, "timeline": s.Member.Timeline, "tags": s.Member.Tags}
		if p := s.Probe; p != nil && p.InRecovery {
			out["xlog"] = map[string]any{"received_location": p.ReceiveLSN, "replayed_location": p.ReplayLSN}
			out["role"] = "replica"
		} else if p != nil {
			out["xlog"] = map[string]any{"location": p.WalLSN}
		}
		json.NewEncoder(rw).Encode(out)
	})
	m.api = &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	m.api.Start()
}

func (m *testMember) pledge(rw http.ResponseWriter, r *http.Request) {
	var q struct {
		Name string
		TTL  float64
	}
	err := json.NewDecoder(r.Body).Decode(&q)
	if err == nil {
		_, err = m.agent.Pledge(q.Name, time.Duration(q.TTL*float64(time.Second)))
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(rw, "Accepted")
}

// await reads the store until the condition holds.
// awaitFor bounds every wait for a state of the store; nothing is concluded from its length.
const awaitFor = 2 * time.Minute

func (w *world) await(what string, cond func(cluster.Snapshot) bool) cluster.Snapshot {
	w.t.Helper()
	deadline := time.Now().Add(awaitFor)
	var s cluster.Snapshot
	for time.Now().Before(deadline) {
		var err error
		if s, err = w.store.Snapshot(context.Background()); err == nil && cond(s) {
			return s
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Fatalf("%s: not within %s; last state: %s", what, awaitFor, describe(s))
	return s
}

func describe(s cluster.Snapshot) string {
	text := fmt.Sprintf("leader %+v term %+v sync %+v", s.Leader, s.Term, s.Sync)
	for _, m := range s.Members {
		text += fmt.Sprintf("\n  %s %s %s %s tl %d", m.Name, m.Role, m.State, m.ReplicationState, m.Timeline)
	}
	return text
}

func whole(n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool {
		streaming := 0
		for _, m := range s.Members {
			if m.ReplicationState == "streaming" && m.State == cluster.StateRunning {
				streaming++
			}
		}
		return s.Leader != nil && s.Term.Binds(s.Leader) && s.Term.State == cluster.TermPromoted && streaming == n-1
	}
}

func (w *world) leader(s cluster.Snapshot) *testMember { return w.members[s.Leader.Name] }

// TestClusterSurvivesItsPrimary goes through the life of a cluster: bootstrap, crash of the primary with a handover to
// the synchronous standby, return of the old primary, switchover to a named member.
func TestClusterSurvivesItsPrimary(t *testing.T) {
	w := startCluster(t, "{ttl: 10, synchronous_mode: on}", "a", "b", "c")
	s := w.await("bootstrap", func(s cluster.Snapshot) bool { return whole(3)(s) && len(s.Sync.Standbys) == 1 })
	first := s.Leader.Name
	t.Logf("first leader %s, synchronous %v", first, s.Sync.Standbys)

	pid := postmaster(t, w.leader(s))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	standby := s.Sync.Standbys[0]
	s = w.await("handover after a crash", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == standby && whole(3)(s) })
	if s.Term.Fence != cluster.FenceStopped || s.Term.Cause == nil || s.Term.Cause.Code != "server_crashed" {
		t.Errorf("term says %+v, want a handover for a crash", s.Term)
	}
	if m, _ := s.Member(standby); m.Timeline != 2 {
		t.Errorf("timeline %d after one promotion", m.Timeline)
	}
	w.await("a synchronous standby again", func(s cluster.Snapshot) bool { return len(s.Sync.Standbys) == 1 })
	s = w.await("three members", whole(3))

	to := s.Sync.Standbys
	if len(to) == 0 {
		s = w.await("a synchronous standby", func(s cluster.Snapshot) bool { return len(s.Sync.Standbys) == 1 })
		to = s.Sync.Standbys
	}
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: s.Leader.Name, Candidate: to[0]}, -1); err != nil {
		t.Fatal(err)
	}
	s = w.await("switchover", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == to[0] && whole(3)(s) })
	if !s.Failover.Empty() {
		t.Errorf("the request still stands: %+v", s.Failover)
	}
	if len(s.Events) < 2 || s.Events[len(s.Events)-1].Kind != "switchover" {
		t.Errorf("events: %+v", s.Events)
	}
}

func postmaster(t *testing.T, m *testMember) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.node.Postgres.DataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(b), "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
