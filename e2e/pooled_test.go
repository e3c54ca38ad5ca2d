package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill"
	"github.com/jackc/pgx/v5"
)

// pooledRounds names the variable that says how many switchovers and how many kills there are (2 of each).
const pooledRounds = "HAVEN_POOLED_ROUNDS"

// Clients of TestPooledClients: those that write and read, and those that do nothing between two events.
const (
	busyClients = 200
	idleClients = 20
)

// pooledServers is how many server connections they share.
const pooledServers = 20

// transactionMode has the pooled listener of a demo lend few server connections to many clients.
func transactionMode(_, text string) string {
	return pooling(text, fmt.Sprintf("default_pool_size: %d, max_client_conn: %d", pooledServers, 2*(busyClients+idleClients)), "")
}

// pooling gives the pooled listener of a demo those keys of the pool, and the section proxy those lines.
func pooling(text, pool, lines string) string {
	text = strings.Replace(text, "mode: transaction}", "mode: transaction, pool: {"+pool+"}}", 1)
	return strings.Replace(text, "      address: 127.0.0.1\n", "      address: 127.0.0.1\n"+lines, 1)
}

const postmasterKilled = "postmaster killed"

// TestPooledClients runs 200 clients through the transaction mode while leadership is handed over and the primary's server is killed,
// again and again. Clients that are idle see no error, nobody is told that a server is read-only, and nothing is lost or there twice. A
// switchover costs no error, for no transaction is open for longer than one waits, and a kill at most one for each server connection: who has
// none at that moment only waits.
func TestPooledClients(t *testing.T) {
	rounds := 2
	if text := os.Getenv(pooledRounds); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s is no number of rounds", pooledRounds, text)
		}
		rounds = n
	}
	c := prepareCluster(t, 3, "quorum", transactionMode)
	for _, n := range c.plan.Nodes {
		c.start(n)
	}
	ready := func(s cluster.Snapshot) bool {
		return c.synchronous(s) && len(s.Sync.Standbys) == 2 && c.streaming(s) == 2
	}
	c.await("voters", ready)
	idle := c.idleClients(idleClients)
	load, err := drill.Begin(context.Background(), drill.Load{
		Routes: map[string]string{"proxy": c.plan.DSN(c.plan.Pool)}, Schema: "pooled", Timeout: 30 * time.Second, Pause: 50 * time.Millisecond,
		Clients: drill.Mix{Ledger: busyClients - 20, Transfers: 10, Readers: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	event := func(name, target string, do func()) {
		t.Helper()
		if err := load.AwaitWrites(t.Context(), 1000, awaitFor); err != nil {
			t.Fatal(err)
		}
		f := check.Fault{Name: name, Target: target, Begin: load.Now()}
		do()
		idle.ask(name)
		c.await("all follow", ready)
		f.End = load.Now()
		load.Mark(f)
	}
	for range rounds {
		s := c.await("all follow", ready)
		event("switchover", s.Leader.Name, func() {
			if out, err := c.haven("switchover", "--yes"); err != nil {
				t.Fatalf("switchover: %v\n%s", err, out)
			}
		})
		s = c.await("all follow", ready)
		event(postmasterKilled, s.Leader.Name, func() {
			c.killPostmaster(s.Leader.Name)
		})
	}
	// Every kind of operation is to have its turn after the last event.
	if err := load.AwaitWrites(t.Context(), 5000, awaitFor); err != nil {
		t.Fatal(err)
	}
	r := c.judge(load)
	judgePooled(t, r)
	writes, wrote := r.Find(check.AnyWrite, "proxy")
	sums, summed := r.Find(check.Sum, "proxy")
	reads, read := r.Find(check.SessionRead, "proxy")
	if !wrote || !summed || !read || sums.OK == 0 {
		t.Errorf("nothing was written, or nothing read: %+v", r.Series)
	}
	t.Logf("%.0f transactions a second, pauses included", writes.Rate+sums.Rate+reads.Rate)
	if idle.errors > 0 {
		t.Errorf("%d of %d statements of idle clients failed", idle.errors, idle.asked)
	}
	t.Logf("%d statements of idle clients, %d errors", idle.asked, idle.errors)
}

// judgePooled tells whether errors came only where a kill may cost some, and only those that are documented.
func judgePooled(t *testing.T, r check.Report) {
	t.Helper()
	outside := failures(r.Series)
	for _, f := range r.Faults {
		most := 0
		if f.Fault.Name == postmasterKilled {
			most = pooledServers
		}
		if !slices.ContainsFunc(f.Series, func(s check.Series) bool { return s.Kind == check.AnyWrite }) {
			t.Errorf("nothing was written after %s of %s", f.Fault.Name, f.Fault.Target)
		}
		n := failures(f.Series)
		if outside -= n; n > most {
			t.Errorf("%s of %s cost %d errors: %+v", f.Fault.Name, f.Fault.Target, n, f.Series)
		}
	}
	if outside > 0 {
		t.Errorf("%d errors before anything was done", outside)
	}
	told := slices.Concat(outcomes(), []string{"08007"})
	for _, s := range r.Series {
		for code, n := range s.Errors {
			if !slices.Contains(told, code) {
				t.Errorf("%d operations of kind %s ended with %s, which is none of %v", n, s.Kind, code, told)
			}
		}
	}
}

// failures counts the operations that came to nothing or have an unknown outcome, reads among them.
func failures(all []check.Series) (n int) {
	for _, s := range all {
		if s.Kind != check.AnyWrite { // which has what the kinds that write have
			n += s.Failed + s.Unknown
		}
	}
	return n
}

// idlers are clients that ask for something after each event, on the connection that they have had all the time.
type idlers struct {
	t             *testing.T
	conns         []*pgx.Conn
	asked, errors int
}

func (c *testCluster) idleClients(n int) *idlers {
	c.t.Helper()
	i := &idlers{t: c.t}
	for range n {
		conn, err := pgx.Connect(context.Background(), c.plan.DSN(c.plan.Pool))
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close(context.Background()) })
		i.conns = append(i.conns, conn)
	}
	i.ask("the start")
	return i
}

func (i *idlers) ask(after string) {
	i.t.Helper()
	for n, conn := range i.conns {
		ctx, cancel := context.WithTimeout(context.Background(), awaitFor)
		var got int
		err := conn.QueryRow(ctx, "SELECT $1::int", n).Scan(&got)
		cancel()
		if i.asked++; err != nil || got != n {
			i.errors++
			i.t.Errorf("an idle client after %s: %d, %v", after, got, err)
		}
	}
}
