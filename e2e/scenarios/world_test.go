package scenarios

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/freeze"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
)

// limit bounds every wait: what a busy machine may need, not what Haven does.
const limit = 90 * time.Second

// world is what one story plays in.
type world struct {
	t        *testing.T
	site     *site
	dir      string
	etcd     *store
	clusters map[string]*clusterOf // by name; "" is the first
	members  map[string]*member
	names    []string
	values   map[string]string // of $NAME
	fifos    map[string]*fifo
}

// clusterOf is one cluster of a story.
type clusterOf struct {
	scope string
	dcs   map[string]any
	store *etcd.Client
}

// member is one member, whether it runs or not.
type member struct {
	name     string
	cluster  *clusterOf
	sql, api string // addresses
	config   map[string]any
	cmd      *exec.Cmd
	ended    chan struct{}
	mark     int64 // of its log: what stands before is of the past
}

func newWorld(t *testing.T, s *site) *world {
	t.Helper()
	w := &world{t: t, site: s, dir: pgtest.Dir(t), etcd: s.etcd, clusters: map[string]*clusterOf{}, members: map[string]*member{}, fifos: map[string]*fifo{}}
	w.values = map[string]string{"DIR": w.dir, "BIN": pgtest.BinDirs()[0], "CERTS": s.dir, "SCHEME": s.scheme()}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, s.account, w.dir)
	t.Cleanup(w.end)
	return w
}

// end ends what the story has begun, looks through the logs, and shows them if it failed.
func (w *world) end() {
	for _, m := range w.members {
		w.signal(m, "all", syscall.SIGCONT)
		for m.cmd != nil {
			_ = m.cmd.Process.Kill()
			left := append(w.processes(m), w.guards(m)...)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if len(left) == 0 {
				<-m.ended
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	w.confessNothing()
	if w.t.Failed() {
		for _, n := range w.names {
			text, _ := os.ReadFile(w.logOf(w.members[n]))
			w.t.Logf("log of %s:\n%s", n, text[max(0, len(text)-9000):])
		}
	}
}

// bug is how Patroni's log ends a line of an error that it did not foresee; operators are told to look for it. No log may have it.
const bug = "please report it as a BUG"

// confessNothing fails the story if a member's log has such a line.
func (w *world) confessNothing() {
	for _, n := range w.names {
		text, err := os.ReadFile(w.logOf(w.members[n]))
		if err == nil && strings.Contains(strings.ToLower(string(text)), strings.ToLower(bug)) {
			w.t.Errorf("the log of %s asks its reader to report a bug", n)
		}
	}
}

// home is where a member's agent keeps its state: each has its own, as on hosts of their own.
func (w *world) home(m *member) string { return filepath.Join(w.dir, m.name+".home") }

func (w *world) logOf(m *member) string { return filepath.Join(w.dir, m.name+".log") }
func (w *world) data(m *member) string  { return filepath.Join(w.dir, m.name) }
func (w *world) file(m *member) string  { return filepath.Join(w.dir, m.name+".yml") }

// member returns the member of that name.
func (w *world) member(name string) *member {
	w.t.Helper()
	m := w.members[name]
	if m == nil {
		w.t.Fatalf("no member is called %q", name)
	}
	return m
}

// cluster returns the cluster of that name, which it makes if it is new.
func (w *world) cluster(name string) *clusterOf {
	w.t.Helper()
	if c := w.clusters[name]; c != nil {
		return c
	}
	c := &clusterOf{scope: "s" + strconv.FormatInt(time.Now().UnixNano()%1e9, 36) + name, dcs: map[string]any{}}
	var err error
	c.store, err = etcd.Open(etcd.Options{Endpoints: []string{w.site.scheme() + "://" + w.etcd.address}, Scope: c.scope, TLS: w.site.tls, RetryTimeout: 3 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.store.Close() })
	w.clusters[name] = c
	return c
}

func (w *world) add(name, inCluster string) {
	w.t.Helper()
	m := &member{name: name, cluster: w.cluster(inCluster), sql: dcstest.FreeAddress(w.t), api: dcstest.FreeAddress(w.t), config: map[string]any{}}
	w.members[name], w.names = m, append(w.names, name)
	if err := os.Mkdir(w.home(m), 0o755); err != nil {
		w.t.Fatal(err)
	}
	give(w.t, w.site.account, w.home(m))
	host, port, _ := net.SplitHostPort(m.sql)
	for k, v := range map[string]string{"sql": m.sql, "api": m.api, "host": host, "port": port, "data": w.data(m), "scope": m.cluster.scope} {
		w.values[name+"."+k] = v
	}
}

// run runs a member, with more variables of the environment.
func (w *world) run(m *member, env ...string) {
	w.t.Helper()
	w.configure(m)
	log, err := os.OpenFile(w.logOf(m), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd := w.command(os.Getenv("HAVEN_E2E_BINARY"), "run", w.file(m))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(cmd.Env, "HOME="+w.home(m)), env...)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.cmd, m.ended = cmd, ended
	go func() { _ = cmd.Wait(); close(ended) }()
}

// command is a program that runs as the nodes' user.
func (w *world) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a := w.site.account; a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
	}
	return cmd
}

// awaitEnd waits for the end of a member's agent.
func (w *world) awaitEnd(m *member) {
	w.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(limit):
		w.t.Fatalf("the agent of %s has not ended within %s", m.name, limit)
	}
}

// signal signals a member's agent, its postmaster, all of its server, its guard, or all of the member.
func (w *world) signal(m *member, what string, s syscall.Signal) {
	if m.cmd != nil && (what == "agent" || what == "all") {
		_ = m.cmd.Process.Signal(s)
	}
	if pid := w.postmaster(m); pid != 0 && (what == "postmaster" || what == "server" || what == "all") {
		_ = syscall.Kill(pid, s)
	}
	if what == "server" || what == "all" {
		for _, pid := range w.processes(m) {
			_ = syscall.Kill(pid, s)
		}
	}
	if what == "guard" || what == "all" {
		for _, pid := range w.guards(m) {
			_ = syscall.Kill(pid, s)
		}
	}
}

// processes are those of a member's server: those whose working directory is its data directory.
func (w *world) processes(m *member) []int {
	var out []int
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != w.data(m) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		out = append(out, pid)
	}
	return out
}

// pidOf is what the file of a member's postmaster says; 0: there is none.
func (w *world) pidOf(m *member) int {
	text, err := os.ReadFile(filepath.Join(w.data(m), "postmaster.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(text), "\n", 2)[0]))
	return pid
}

// postmaster is the process that runs a member's server; 0: none.
func (w *world) postmaster(m *member) int {
	pid := w.pidOf(m)
	if !slices.Contains(w.processes(m), pid) {
		return 0
	}
	return pid
}

// guards are the processes that end a member's server with its lease.
func (w *world) guards(m *member) []int {
	var out []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		text, err := os.ReadFile(line)
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if err != nil || len(args) != 3 || args[1] != guard.Command || !strings.HasPrefix(args[2], w.home(m)+"/") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(line, "/")[2])
		out = append(out, pid)
	}
	return out
}

// snapshot reads a cluster's keys; nil: they could not be read.
func (c *clusterOf) snapshot() *cluster.Snapshot {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := c.store.Snapshot(ctx)
	if err != nil {
		return nil
	}
	return &s
}

// sql runs statements on a member's server and returns the first row of the last, its columns parted by |.
func (w *world) sql(m *member, text string) (string, error) {
	return w.sqlWithin(context.Background(), m, text)
}

func (w *world) sqlWithin(ctx context.Context, m *member, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, text, err := w.connect(ctx, m, text)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	var columns []string
	for _, c := range last.Rows[0] {
		columns = append(columns, string(c))
	}
	return strings.Join(columns, "|"), nil
}

// connect opens a session in the database that "NAME: " before the text names.
func (w *world) connect(ctx context.Context, m *member, text string) (*pgx.Conn, string, error) {
	database := "postgres"
	if name, rest, found := strings.Cut(text, ": "); found && !strings.Contains(name, " ") {
		database, text = name, rest
	}
	host, port, _ := net.SplitHostPort(m.sql)
	dsn := fmt.Sprintf("host=%s port=%s user=postgres password=one-two-three dbname=%s connect_timeout=5 ", host, port, database)
	if w.site.tls == nil {
		dsn += "sslmode=disable"
	} else {
		dsn += fmt.Sprintf("sslmode=verify-ca sslrootcert=%s sslcert=%s sslkey=%s", w.site.file("ca.crt"), w.site.file("postgres.crt"), w.site.file("postgres.key"))
	}
	conn, err := pgx.Connect(ctx, dsn)
	return conn, text, err
}

// hold makes a member's server unable to stop in an orderly way: one of its processes stands still.
func (w *world) hold(m *member) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, _, err := w.connect(ctx, m, "")
	if err != nil {
		return err
	}
	freeze.Process(w.t, int(conn.PgConn().PID()))
	return nil
}

// freezeNext freezes the next postmaster of a member as soon as it is seen: a start that never ends.
func (w *world) freezeNext(m *member) {
	ctx, cancel := context.WithCancel(context.Background())
	before, done := w.pidOf(m), make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			if pid := w.pidOf(m); pid != 0 && pid != before {
				_ = syscall.Kill(pid, syscall.SIGSTOP)
				return
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

// writer runs a statement again and again, until the story ends; its failures are nobody's business.
func (w *world) writer(m *member, text string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = w.sqlWithin(ctx, m, text)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (s *site) requestWithin(ctx context.Context, method, url, body string) (code int, answer string, err error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if s.tls != nil {
		transport.TLSClientConfig = s.tls.Clone()
		transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// account is as whom the nodes run; nil: as whoever runs the test.
func (w *world) account() *postgres.Account { return w.site.account }
