package api

import (
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// TestNodeWithoutDatabaseServesWhatItCan: the coordinator of two servers answers what the store knows.
func TestNodeWithoutDatabaseServesWhatItCan(t *testing.T) {
	store := openStore(t)
	fill(t, store, `{"ttl": 30}`, nil)
	b := newBench(t, Local{Name: "w1", Scope: "shop", Version: "0.1.0", Known: true, SeenAt: time.Now(), LastTurn: time.Now(), Dynamic: dynamic(t, `{}`)}, store, nil)
	for path, want := range map[string]string{
		"/cluster": `"name":"db1","role":"leader"`, "/history": `"no recovery target specified"`, "/config": `{"ttl":30}`, "/patroni": `"role":"coordinator"`,
		"/metrics": `patroni_postgres_running{scope="shop",name="w1"} 0`, "/liveness": "", "/readiness": "", "/haven/status": `"has_server":false`,
	} {
		if code, body, _ := b.do("GET", path, ""); code != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %s, want 200 with %s", path, code, body, want)
		}
	}
	if _, body, _ := b.do("GET", "/metrics", ""); !strings.Contains(body, "patroni_failover_priority{scope=\"shop\",name=\"w1\"} 0\n") {
		t.Errorf("a node without a database has a failover priority:\n%s", body)
	}
	for _, path := range []string{"/", "/primary", "/replica", "/read-only", "/sync", "/async", "/quorum", "/leader"} {
		if code, _, _ := b.do("GET", path, ""); code != 503 {
			t.Errorf("GET %s: %d on a node without a database", path, code)
		}
	}
	if code, body, _ := b.do("PATCH", "/config", `{"ttl": 40}`); code != 200 || body != `{"ttl":40}` {
		t.Errorf("PATCH /config: %d %s", code, body)
	}
	store.Close()
	b.source.set(func(l *Local) {
		l.Snapshot.Config = &cluster.Config{Raw: []byte(`{"ttl":40}`)}
		l.Snapshot.Failsafe = map[string]string{"db1": "http://db1:8008/patroni"}
	})
	for path, want := range map[string]int{"/config": 200, "/history": 200, "/failsafe": 200, "/cluster": 503} { // Patroni reads only the last one freshly
		if code, body, _ := b.do("GET", path, ""); code != want {
			t.Errorf("GET %s without etcd: %d %s", path, code, body)
		}
	}
	b.source.set(func(l *Local) { l.Known, l.SeenAt = false, time.Time{} })
	if code, _, _ := b.do("GET", "/readiness", ""); code != 503 {
		t.Errorf("it is ready without etcd: %d", code)
	}
}
