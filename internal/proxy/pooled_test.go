package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire/frame"
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
		c.Listeners[i].Pool = config.Pool{MaxClientConn: 6000, ServerLifetime: time.Hour, DefaultPoolSize: 5, QueryWaitTimeout: patience, ServerResetQuery: "DISCARD ALL",
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
	return newRealWith(t, name, func(s *postgres.Settings, _ string) {
		s.HBA = append([]string{"host all all 127.0.0.1/32 trust"}, s.HBA...)
	})
}

// newRealWith is one with other settings; dir is a folder of its own.
func newRealWith(t *testing.T, name string, change func(s *postgres.Settings, dir string)) *member {
	t.Helper()
	r := &member{name: name, o: pgtest.Options(t, name)}
	r.o.InitDB = append(r.o.InitDB, "--auth=trust")
	i := pgtest.New(t, r.o)
	ctx := pgtest.Context(t)
	pgtest.Init(t, i, r.o)
	s := pgtest.Settings()
	change(&s, filepath.Dir(r.o.DataDir))
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
	c, err := at(t, address, "postgres", "postgres", "")
	pgtest.Must(t, err)
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
		{"/metrics", "pgbouncer_stats_totals_sql_transactions_pooled_total{"}, {"/metrics", "pgbouncer_config_max_client_connections{"},
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

// waitingClients is how many clients TestAStormOfPooledClients has; each takes two file descriptors of this process.
const waitingClients = 5000

// TestAStormOfPooledClients has many clients wait at once. The server gets no more connections than the pool has, and no
// faster than admit allows; all clients are served, in whatever order.
func TestAStormOfPooledClients(t *testing.T) {
	const size, admit, burst = 25, 10, 10
	n := waitingClients
	var files unix.Rlimit
	pgtest.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	if room := (int(min(files.Cur, 1<<20)) - 500) / 2; room < n {
		t.Logf("%d file descriptors: %d clients rather than %d", files.Cur, room, n)
		n = room
	}
	a := newReal(t, "db1")
	c := pooledSettings("transaction")
	c.Listeners[0].Admit, c.Listeners[0].HoldTimeout = admit, 10*time.Minute
	c.Listeners[0].Pool.DefaultPoolSize, c.Listeners[0].Pool.QueryWaitTimeout, c.Listeners[0].Pool.ClientLoginTimeout = size, 10*time.Minute, 10*time.Minute
	w := start(t, c)
	w.show(a.leads(1, a))
	clients := make([]net.Conn, n)
	for i := range clients {
		clients[i] = logIn(t, w.rw)
	}
	claimed := a.leads(2, a)
	claimed.Term.State = cluster.TermClaimed
	w.show(claimed)
	w.until("nobody is admitted", func(s Stats) bool { return s.Leader.Term == 2 && s.Leader.State == Checking })
	for i, conn := range clients {
		_, err := conn.Write(frame.Append(nil, 'Q', fmt.Sprintf("SELECT %d", i), "\x00"))
		pgtest.Must(t, err)
	}
	w.until("all wait", func(s Stats) bool { return s.Listeners[0].Waiting == n })
	before := w.proxy.Snapshot().Listeners[0].Total
	begun := time.Now()
	w.show(a.leads(2, a))
	opened := func() int {
		n := int(w.proxy.Snapshot().Listeners[0].Total - before)
		if most := min(size, burst+1+int(time.Since(begun)*admit/time.Second)); n > most {
			t.Errorf("%d server connections after %s, want %d at most", n, time.Since(begun), most)
		}
		return n
	}
	for i, conn := range clients {
		if i%50 == 0 {
			opened()
		}
		if got, err := reply(conn); got != strconv.Itoa(i) {
			t.Fatalf("client %d gets %q, %v", i, got, err)
		}
	}
	w.until("the pool is whole", func(Stats) bool { return opened() == size })
}

// logIn connects a client that speaks the protocol by hand, and takes no goroutine.
func logIn(t *testing.T, address string) net.Conn {
	t.Helper()
	conn := knock(t, address, "postgres", "postgres")
	pgtest.Must(t, conn.SetDeadline(time.Now().Add(10*time.Minute)))
	_, err := reply(conn)
	pgtest.Must(t, err)
	return conn
}

// reply reads up to ReadyForQuery, and returns the first column of the last row.
func reply(conn net.Conn) (column string, err error) {
	for {
		var head [frame.Head]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "", err
		}
		kind, size := frame.Next(head[:])
		body := make([]byte, size-frame.Head)
		if _, err := io.ReadFull(conn, body); err != nil {
			return "", err
		}
		switch kind {
		case 'E':
			return "", fmt.Errorf("%q", body)
		case 'D':
			column = string(body[6:])
		case 'Z':
			return column, nil
		}
	}
}

// TestPooledRefusalsAreCounted: whoever is turned away leaves a trace in the numbers and in the log.
func TestPooledRefusalsAreCounted(t *testing.T) {
	c := pooledSettings("transaction")
	c.Listeners[0].HoldTimeout, c.Listeners[0].Pool.MaxClientConn = 5*time.Second, 1
	w := start(t, c)
	w.show(cluster.Snapshot{})
	waits := knock(t, w.rw, "postgres", "postgres")
	w.until("one waits", func(s Stats) bool { return s.Listeners[0].Waiting == 1 })
	if _, err := reply(knock(t, w.rw, "postgres", "postgres")); err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("one more than max_client_conn: %v", err)
	}
	if _, err := reply(waits); err == nil || !strings.Contains(err.Error(), "57P03") {
		t.Errorf("without a server: %v", err)
	}
	w.until("both are counted, and one wait", func(s Stats) bool {
		l := s.Listeners[0]
		return l.Rejected == 1 && l.Timeouts == 1 && l.Held == 1
	})
}

// TestTheEndOfAPooledListenerIsTold: the proxy resets its sessions and closes its doors, and the client of an open transaction gets its word.
func TestTheEndOfAPooledListenerIsTold(t *testing.T) {
	a := newReal(t, "db1")
	w := start(t, pooledSettings("transaction"))
	w.show(a.leads(1, a))
	var open []net.Conn
	for range 5 {
		conn := logIn(t, w.rw)
		_, err := conn.Write(frame.Append(nil, 'Q', "BEGIN", "\x00"))
		pgtest.Must(t, err)
		_, err = reply(conn)
		pgtest.Must(t, err)
		open = append(open, conn)
	}
	w.end()
	for _, conn := range open {
		if _, err := reply(conn); err == nil || !strings.Contains(err.Error(), "08006") {
			t.Errorf("a transaction that was open: %v", err)
		}
	}
}
