package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// pooledSettings are those of a pooled listener to the primary, and one to replicas.
func pooledSettings(mode string) *config.Proxy {
	c := settings()
	c.Auth = config.ProxyAuth{Type: "trust", ClientMode: "disable", ServerMode: "disable"}
	c.Stats.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for i := range c.Listeners {
		c.Listeners[i].Mode = mode
		c.Listeners[i].Pool = config.Pool{MaxClientConn: 6000, DefaultPoolSize: 5, QueryWaitTimeout: patience, ServerResetQuery: "DISCARD ALL",
			MaxPreparedStatements: 100, ClientLoginTimeout: patience, IgnoreStartupParameters: []string{"extra_float_digits"}}
	}
	return c
}

// member is a real server with a REST API that says what the test says.
type member struct {
	name string
	o    postgres.Options
	api  *httptest.Server
	ok   atomic.Bool
}

func newReal(t *testing.T, name string) *member {
	t.Helper()
	r := &member{name: name, o: pgtest.Options(t, name)}
	r.o.InitDB = append(r.o.InitDB, "--auth=trust")
	i := pgtest.New(t, r.o)
	ctx := pgtest.Context(t)
	pgtest.Init(t, i, r.o)
	s := pgtest.Settings()
	s.HBA = append([]string{"host all all 127.0.0.1/32 trust"}, s.HBA...)
	_, err := i.Configure(s, nil, false)
	pgtest.Must(t, err)
	_, err = i.Start(ctx, s)
	pgtest.Must(t, err)
	r.ok.Store(true)
	r.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !r.ok.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, `{"patroni":{"scope":"demo","name":%q}}`, name)
	}))
	t.Cleanup(r.api.Close)
	return r
}

func (r *member) leads(term uint64, all ...*member) cluster.Snapshot {
	s := cluster.Snapshot{
		Leader: &cluster.Leader{Name: r.name, CreateRev: 10, ModRev: int64(10 * term)},
		Term:   &cluster.Term{Number: term, Holder: r.name, State: cluster.TermPromoted, ModRev: int64(10*term) + 1},
	}
	for _, m := range all {
		role := cluster.RoleReplica
		if m == r {
			role = cluster.RolePrimary
		}
		s.Members = append(s.Members, cluster.Member{Name: m.name, State: cluster.StateRunning, Role: role,
			ConnURL: fmt.Sprintf("postgres://127.0.0.1:%d/postgres", m.o.Port), APIURL: m.api.URL + "/patroni"})
	}
	return s
}

func dialPooled(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port))
	pgtest.Must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

func portOn(c *pgx.Conn) (port int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = c.QueryRow(ctx, "SELECT current_setting('port')::int").Scan(&port)
	return port, err
}

// TestIdlePooledClientsSeeNoChangeOfLeader moves the leadership back and forth; idle clients notice a pause at most.
func TestIdlePooledClientsSeeNoChangeOfLeader(t *testing.T) {
	a, b := newReal(t, "db1"), newReal(t, "db2")
	w := start(t, pooledSettings("transaction"))
	w.show(a.leads(1, a, b))
	var clients []*pgx.Conn
	for range 12 {
		clients = append(clients, dialPooled(t, w.rw))
	}
	for term := uint64(1); term <= 6; term++ {
		leader := a
		if term%2 == 0 {
			leader = b
		}
		claimed := leader.leads(term, a, b)
		claimed.Term.State = cluster.TermClaimed
		w.show(claimed)
		if term > 1 {
			w.until("nobody is admitted", func(s Stats) bool { return s.Leader.Term == term && s.Leader.State == Checking })
		}
		var asked sync.WaitGroup
		for _, c := range clients {
			asked.Go(func() {
				if port, err := portOn(c); err != nil || port != leader.o.Port {
					t.Errorf("term %d: served by port %d, %v, want %d", term, port, err, leader.o.Port)
				}
			})
		}
		w.until("all wait", func(s Stats) bool { return s.Listeners[0].Waiting == len(clients) })
		w.show(leader.leads(term, a, b))
		asked.Wait()
	}
	s := w.proxy.Snapshot()
	if p := s.Listeners[0].Pools; len(p) != 1 || p[0].ClientsActive != len(clients) || p[0].ServersActive+p[0].ServersIdle > 5 || p[0].Lendings < 6*12 {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct{ path, want string }{
		{"/metrics", `pgbouncer_pools_client_active_connections{`}, {"/metrics", "haven_proxy_pool_lending_seconds_bucket{"},
		{"/json", `"cl_active": 12`}, {"/", "Pools"},
	} {
		resp, err := http.Get("http://" + w.stats + c.path)
		pgtest.Must(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), c.want) {
			t.Errorf("%s lacks %s", c.path, c.want)
		}
	}
}

// TestAStormOfPooledClients has many clients wait at once; the server gets no more connections than the pool has.
func TestAStormOfPooledClients(t *testing.T) {
	a := newReal(t, "db1")
	w := start(t, pooledSettings("transaction"))
	w.show(a.leads(1, a))
	var clients []*pgx.Conn
	for range 300 {
		clients = append(clients, dialPooled(t, w.rw))
	}
	claimed := a.leads(2, a)
	claimed.Term.State = cluster.TermClaimed
	w.show(claimed)
	w.until("nobody is admitted", func(s Stats) bool { return s.Leader.Term == 2 && s.Leader.State == Checking })
	var asked sync.WaitGroup
	for _, c := range clients {
		asked.Go(func() {
			if _, err := portOn(c); err != nil {
				t.Error(err)
			}
		})
	}
	w.until("all wait", func(s Stats) bool { return s.Listeners[0].Waiting == len(clients) })
	before := w.proxy.Snapshot().Listeners[0].Total
	w.show(a.leads(2, a))
	asked.Wait()
	if opened := w.proxy.Snapshot().Listeners[0].Total - before; opened > 5 {
		t.Errorf("%d server connections were opened for a pool of 5", opened)
	}
}
