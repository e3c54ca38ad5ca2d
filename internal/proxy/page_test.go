package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/havenha/haven/internal/config"
)

// afternoon is a state with something of everything.
func afternoon() Stats {
	at := time.Date(2026, 11, 20, 15, 4, 5, 0, time.UTC)
	return Stats{
		Scope: "demo", At: at,
		Leader: LeaderStats{Name: "db2", Term: 7, State: Checking, Why: "its REST API answers 503 to /primary", Since: at.Add(-1300 * time.Millisecond)},
		Store:  StoreStats{Error: `etcd: watch on 10.0.0.1:2379: <silent>`, Since: at.Add(-75 * time.Second)},
		Listeners: []ListenerStats{
			{Listen: "*:5000", Target: "primary", Sessions: 0, Total: 41, In: 5 << 20, Out: 1536, Waiting: 8, OldestWait: 1.25, Held: 9, Timeouts: 1, Rejected: 2, Reset: 8,
				Why: "db2: its REST API answers 503 to /primary",
				Servers: []ServerStats{
					{Name: "db1", Address: "10.0.0.1:5432", State: Standby, Why: "does not lead", Since: at.Add(-2 * time.Second), Total: 41, In: 5 << 20, Out: 1536, Errors: 3},
					{Name: "db2", Address: "10.0.0.2:5432", State: Checking, Why: "its REST API answers 503 to /primary", Since: at.Add(-1300 * time.Millisecond)},
				}},
			{Listen: "*:5001", Target: "replica", Sessions: 2, Total: 2, Servers: []ServerStats{
				{Name: "db3", Address: "10.0.0.3:5432", State: Ready, Why: "lags 0 B", Since: at.Add(-5 * time.Hour), Sessions: 2, Total: 2},
				{Name: "db4", Address: "db4:5432", State: Lagging, Why: "lags 20 MB, more than 16 MB", Since: at.Add(-49 * time.Hour)},
			}},
			{Listen: "*:5002", Target: "replica", Why: "the cluster was not seen yet", Servers: []ServerStats{}},
			{Listen: "*:6432", Target: "primary", Mode: "transaction", Servers: []ServerStats{}, maxClients: 2000,
				Pools: []PoolStats{{
					Database: "shop", User: "app", ClientsActive: 31, ClientsWaiting: 2, ServersActive: 20, MaxWait: 0.25, Size: 20, Lendings: 1200, LendingTime: 9.5,
					Waits: 7, WaitTime: 1.5, Statements: 4100, In: 1 << 20, Out: 3 << 20, Transactions: 3, LongestTransaction: 812.5, LongestIdleTransaction: 800.25, maxServers: 30,
				}},
				Long: []LongTransaction{
					{Database: "shop", User: "app", Client: "10.0.1.9:40122", Application: "nightly <report>", Server: "db1", PID: 4711, Open: 812.5, Silent: 800.25},
				}},
		},
	}
}

func testPage(t *testing.T, c config.Stats) *httptest.Server {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	p := &Proxy{opt: Options{Log: slog.New(slog.DiscardHandler)}}
	if err := p.openPage(&c); err != nil {
		t.Fatal(err)
	}
	p.page.snapshot = afternoon
	s := httptest.NewServer(p.page.handler())
	t.Cleanup(func() { s.Close(); p.page.close() })
	return s
}

func fetch(t *testing.T, url, user string) (int, string) {
	t.Helper()
	req, _ := http.NewRequest(http.MethodGet, url, nil)
	if user != "" {
		name, password, _ := strings.Cut(user, ":")
		req.SetBasicAuth(name, password)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestStatisticsAreShown(t *testing.T) {
	s := testPage(t, config.Stats{Allow: loopback})
	for path, file := range map[string]string{"/": "page.html", "/json": "page.json", "/metrics": "page.metrics"} {
		t.Run(file, func(t *testing.T) {
			code, got := fetch(t, s.URL+path, "")
			if code != http.StatusOK {
				t.Fatalf("%d %s", code, got)
			}
			golden(t, file, got)
		})
	}
	if code, _ := fetch(t, s.URL+"/other", ""); code != http.StatusNotFound {
		t.Errorf("/other: %d", code)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	name := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-update rewrites it):\n%s", name, d)
	}
}

func TestStatisticsAreShownToThoseAllowed(t *testing.T) {
	for _, c := range []struct {
		name  string
		stats config.Stats
		user  string
		want  int
	}{
		{"allowed network", config.Stats{Allow: loopback}, "", 200},
		{"other network", config.Stats{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "", 403},
		{"no network", config.Stats{}, "", 403},
		{"no password given", config.Stats{Allow: loopback, Username: "ops", Password: "secret"}, "", 401},
		{"wrong password", config.Stats{Allow: loopback, Username: "ops", Password: "secret"}, "ops:secrets", 401},
		{"wrong name", config.Stats{Allow: loopback, Username: "ops", Password: "secret"}, "dev:secret", 401},
		{"right password", config.Stats{Allow: loopback, Username: "ops", Password: "secret"}, "ops:secret", 200},
		{"right password, other network", config.Stats{Username: "ops", Password: "secret"}, "ops:secret", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testPage(t, c.stats)
			for _, path := range []string{"/", "/json", "/metrics"} {
				if code, body := fetch(t, s.URL+path, c.user); code != c.want {
					t.Errorf("%s: %d, want %d: %s", path, code, c.want, body)
				}
			}
		})
	}
}

func TestThePageOfARunningProxy(t *testing.T) {
	c := settings()
	c.Stats.Allow = loopback
	w := start(t, c)
	b := newFake(t, "db2")
	leading(t, w, b)
	connect(t, w.rw).wantServer("db1")
	connect(t, w.ro).wantServer("db2")
	code, body := fetch(t, "http://"+w.stats+"/json", "")
	var s Stats
	if err := json.NewDecoder(bytes.NewReader([]byte(body))).Decode(&s); err != nil || code != 200 {
		t.Fatal(code, err, body)
	}
	if s.Leader.Name != "db1" || s.Leader.Term != 1 || len(s.Listeners) != 2 || s.Listeners[1].Servers[1].Sessions != 1 {
		t.Errorf("%s", body)
	}
	code, body = fetch(t, "http://"+w.stats+"/metrics", "")
	want := `haven_proxy_sessions{listener="127.0.0.1:0",scope="demo",server="db1",target="primary"} 1`
	if code != 200 || !strings.Contains(body, want) {
		t.Errorf("%d, without %s:\n%s", code, want, body)
	}
	if code, body := fetch(t, "http://"+w.stats+"/", ""); code != 200 || !strings.Contains(body, "<b>Leader:</b> db1, term 1") {
		t.Errorf("%d:\n%s", code, body)
	}
}
