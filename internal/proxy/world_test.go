package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
)

// patience bounds what a test waits for; nothing is concluded from its length.
const patience = 20 * time.Second

// fake is a member: a server that answers an SSLRequest, and otherwise tells its name and echoes; and a REST API.
type fake struct {
	name     string
	listener *net.TCPListener
	api      *httptest.Server
	primary  atomic.Int32 // status code of GET /primary
	asked    atomic.Int32 // times that /primary was asked
	accepted atomic.Int32 // sessions, probes not counted

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	tasks sync.WaitGroup
}

func newFake(t testing.TB, name string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{name: name, listener: l.(*net.TCPListener), conns: map[net.Conn]struct{}{}}
	f.primary.Store(http.StatusServiceUnavailable)
	f.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/primary" {
			w.WriteHeader(http.StatusOK)
			return
		}
		f.asked.Add(1)
		w.WriteHeader(int(f.primary.Load()))
		fmt.Fprintf(w, `{"role":"primary","patroni":{"scope":"demo","name":%q}}`, name)
	}))
	f.tasks.Go(f.run)
	t.Cleanup(f.kill)
	return f
}

func (f *fake) run() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[conn] = struct{}{}
		f.mu.Unlock()
		f.tasks.Go(func() {
			defer conn.Close()
			f.serve(conn.(*net.TCPConn))
		})
	}
}

func (f *fake) serve(conn *net.TCPConn) {
	var first [8]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return
	}
	if string(first[:]) == sslRequest {
		conn.Write([]byte("N"))
		return
	}
	f.accepted.Add(1)
	fmt.Fprintln(conn, f.name)
	io.Copy(conn, conn)
	conn.CloseWrite()
}

// kill ends the member, server and API. It may be called again.
func (f *fake) kill() {
	f.listener.Close()
	f.mu.Lock()
	for c := range f.conns {
		reset(c.(*net.TCPConn))
	}
	f.mu.Unlock()
	f.tasks.Wait()
	f.api.Close()
}

// member is the fake's member key.
func (f *fake) member(role cluster.Role, lsn cluster.LSN) cluster.Member {
	m := cluster.Member{
		Name: f.name, ConnURL: "postgres://" + f.listener.Addr().String() + "/postgres", APIURL: f.api.URL + "/patroni",
		State: cluster.StateRunning, Role: role, XlogLocation: lsn,
	}
	if role == cluster.RoleReplica {
		m.ReplicationState = "streaming"
	}
	return m
}

// script is a Watcher that shows what the test says.
type script chan dcs.Update

func (s script) Watch(context.Context) <-chan dcs.Update { return s }

// scene is a snapshot: leader (nil: none), its term (0: foreign) in that state, and all members.
func scene(leader *fake, term uint64, state cluster.TermState, all ...*fake) cluster.Snapshot {
	s := cluster.Snapshot{Status: &cluster.Status{Optime: 1 << 30}}
	for _, f := range all {
		role := cluster.RoleReplica
		if f == leader {
			role = cluster.RolePrimary
		}
		s.Members = append(s.Members, f.member(role, 1<<30))
	}
	if leader != nil {
		s.Leader = &cluster.Leader{Name: leader.name, CreateRev: 10, ModRev: 10}
	}
	if leader != nil && term > 0 {
		s.Leader.ModRev = int64(10 * term)
		s.Term = &cluster.Term{Number: term, Holder: leader.name, State: state, ModRev: int64(10*term) + 1}
	}
	return s
}

// world is a running proxy.
type world struct {
	t     testing.TB
	proxy *Proxy
	watch script
	rw    string
	ro    string
	stats string
	end   func()
}

func settings() *config.Proxy {
	listener := config.Listener{
		Listen: "127.0.0.1:0", Target: "primary", Mode: "tcp", HoldTimeout: patience, MaxLag: 16 << 20, Fallback: "primary",
		Admit: 100000, ConnectTimeout: 5 * time.Second,
	}
	replica := listener
	replica.Target = "replica"
	return &config.Proxy{Discover: "etcd", Listeners: []config.Listener{listener, replica}, Stats: &config.Stats{Listen: "127.0.0.1:0"}}
}

// start runs a proxy with those settings until the test ends.
func start(t testing.TB, c *config.Proxy) *world {
	t.Helper()
	w := &world{t: t, watch: make(script, 100)}
	var log bytes.Buffer
	p, err := New(Options{Config: c, Watcher: w.watch, Scope: "demo", Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	w.proxy = p
	addrs := p.Addrs()
	w.rw, w.ro, w.stats = addrs[0].String(), addrs[1].String(), addrs[len(addrs)-1].String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Logf("log of the proxy:\n%s", log.String())
		}
	})
	return w
}

func (w *world) show(s cluster.Snapshot) { w.watch <- dcs.Update{Snapshot: s} }

// client is a client of the proxy.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

// dialed is a connection that is closed with the test, and that nobody waits for longer than patience allows.
func dialed(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// connect connects and says hello; whether a server answers is another question.
func connect(t testing.TB, address string) *client {
	t.Helper()
	conn := dialed(t, address)
	if _, err := io.WriteString(conn, "hello you"[:8]); err != nil {
		t.Fatal(err)
	}
	return &client{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

// server waits for the answer, and returns the name of the server that gave it.
func (c *client) server() (string, error) {
	name, err := c.r.ReadString('\n')
	return strings.TrimSpace(name), err
}

func (c *client) wantServer(want string) {
	c.t.Helper()
	if name, err := c.server(); name != want || err != nil {
		c.t.Fatalf("connected to %q, %v; want %q", name, err, want)
	}
}

// wantEcho shows that the session works.
func (c *client) wantEcho() {
	c.t.Helper()
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		c.t.Fatal(err)
	}
	if got, err := c.r.ReadString('\n'); got != "ping\n" || err != nil {
		c.t.Fatalf("echo: %q, %v", got, err)
	}
}

// wantReset waits until the connection is reset.
func (c *client) wantReset() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.r); !isReset(err) {
		c.t.Fatalf("the session ended with %v, want a reset", err)
	}
}

// eventually waits until is returns nil.
func eventually(t testing.TB, is func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// until waits until the statistics are as is says.
func (w *world) until(what string, is func(Stats) bool) Stats {
	w.t.Helper()
	var s Stats
	eventually(w.t, func() error {
		if s = w.proxy.Snapshot(); is(s) {
			return nil
		}
		return errors.New(what + " was waited for in vain: " + fmt.Sprintf("%+v", s))
	})
	return s
}
