package api

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/postgres"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a source that a test sets.
type fixed struct {
	mu    sync.Mutex
	local Local
}

func (f *fixed) Status() Local {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local
}

func (f *fixed) Fresh(context.Context) Local { return f.Status() }

func (f *fixed) set(change func(*Local)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.local)
}

// bench is a server under test.
type bench struct {
	*testing.T
	source *fixed
	server *Server
	wakes  chan struct{}
	scheme string
	http   *http.Client
	store  dcs.Store
}

func newBench(t *testing.T, l Local, store dcs.Store, change func(*config.RESTAPI)) *bench {
	t.Helper()
	node := &config.RESTAPI{Listen: "127.0.0.1:0", VerifyClient: "none", ServerTokens: "original"}
	if change != nil {
		change(node)
	}
	b := &bench{T: t, source: &fixed{local: l}, wakes: make(chan struct{}, 100), scheme: "http", store: store,
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	s, err := New(Options{Node: node, Source: b.source, Store: store, Wake: func() { b.wakes <- struct{}{} },
		Reload: func() error { b.wakes <- struct{}{}; return nil }, Peers: b.http, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	b.server = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return b
}

func (b *bench) do(method, path, body string) (int, string, http.Header) {
	b.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, b.scheme+"://"+b.server.Addr().String()+path, content)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func dynamic(t testing.TB, raw string) config.Dynamic {
	t.Helper()
	d, _, err := config.ParseDynamic(json.RawMessage(raw), true)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var started = time.Date(2031, 5, 6, 3, 0, 0, 250e6, time.UTC)

func leader(t testing.TB) Local {
	l := cluster.Leader{Name: "db1", ModRev: 5}
	return Local{
		Name: "db1", Scope: "shop", Version: "0.1.0", HasServer: true, Known: true, SeenAt: time.Now(), Leads: true,
		Dynamic: dynamic(t, "{}"), SystemID: "7300000000000000001", LastTurn: time.Now(), ServerVersion: 150018,
		Member: cluster.Member{Name: "db1", Role: cluster.RolePrimary, State: cluster.StateRunning, Version: "4.1.4"},
		Snapshot: cluster.Snapshot{Leader: &l, Status: &cluster.Status{Optime: 1000},
			Term: &cluster.Term{Number: 3, Holder: "db1", State: cluster.TermPromoted, ModRev: 6}},
		Probe: &postgres.Probe{WalLSN: 1000, Timeline: 3, StartTime: started, SystemID: "7300000000000000001",
			Standbys: []postgres.Walsender{{Name: "db2", User: "replicator", Addr: "10.0.0.12", State: "streaming", SyncState: "sync", SyncPriority: 1}}},
	}
}

func standby(t testing.TB) Local {
	l := leader(t)
	l.Name, l.Leads = "db2", false
	l.Member = cluster.Member{Name: "db2", Role: cluster.RoleReplica, State: cluster.StateRunning, Version: "4.1.4"}
	l.Tags = map[string]any{"zone": "a", "clonefrom": true}
	l.Member.Tags = l.Tags
	l.Probe = &postgres.Probe{InRecovery: true, ReceiveLSN: 1000, ReplayLSN: 900, Timeline: 3, StartTime: started, ReceiverStatus: "streaming"}
	return l
}

func openStore(t *testing.T) dcs.Store {
	t.Helper()
	c, err := etcd.Open(etcd.Options{Endpoints: []string{dcstest.StartEtcd(t)}, Scope: "shop", RetryTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it", err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", name, got, want)
	}
}
