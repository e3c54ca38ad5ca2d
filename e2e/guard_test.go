package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/jackc/pgx/v5"
)

// ttl is that of the tests' clusters.
const ttl = 10 * time.Second

// TestAgentDiesAlone kills the leader's agent and nothing else. The guard ends every process of the old server by the end of
// its lease, before anybody else is promoted; in quorum mode, nothing that was acknowledged is lost.
func TestAgentDiesAlone(t *testing.T) {
	for _, mode := range []string{"off", "quorum"} {
		t.Run("synchronous mode "+mode, func(t *testing.T) {
			c := startCluster(t, 3, mode)
			s := c.await("healthy", c.healthy)
			if mode == "quorum" {
				s = c.await("voters", func(s cluster.Snapshot) bool { return c.synchronous(s) && len(s.Sync.Standbys) == 2 })
			}
			leader := s.Leader.Name
			tr := c.traffic("ledger")
			time.Sleep(before)
			if err := c.nodes[leader].Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed := time.Now()
			var gone time.Duration
			for {
				now := c.snapshot() // before the processes, which end before the next term begins
				left := c.serverProcesses(leader)
				if gone = time.Since(killed); len(left) == 0 {
					break
				}
				if gone > ttl+2*time.Second {
					t.Fatalf("%s after its agent the server still has processes: %v", gone, left)
				}
				if now != nil && now.Term.Number > s.Term.Number {
					t.Fatalf("%s leads in term %d, and processes of the old server are left: %v", now.Term.Holder, now.Term.Number, left)
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("the server was gone %.1f s after its agent", gone.Seconds())
			if gone > ttl {
				t.Errorf("the server outlived its lease of %s: it was gone after %s", ttl, gone)
			}
			c.await("another leader", func(s cluster.Snapshot) bool { return c.whole(s, 2) && s.Leader.Name != leader })
			time.Sleep(after)
			if mode == "quorum" {
				c.judge(tr)
			} else {
				tr.Stop() // what was on its way may be lost, as in any asynchronous replication
			}
			c.start(leader)
			c.await("three streaming members", c.healthy)
		})
	}
}

// directClient writes on one connection to one server, as fast as that answers, until it is told to stop.
type directClient struct {
	stop    chan struct{}
	ended   chan struct{}
	err     error
	longest time.Duration // between two acknowledgements
	rows    int
}

func (c *testCluster) directClient(name string) *directClient {
	c.t.Helper()
	conn, err := pgx.Connect(context.Background(), c.plan.DSN(c.address(name))+" password="+c.password())
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), "CREATE TABLE direct (n int)"); err != nil {
		c.t.Fatal(err)
	}
	d := &directClient{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(d.ended)
		defer conn.Close(context.Background())
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-d.stop:
				return
			default:
			}
			if _, d.err = conn.Exec(context.Background(), "INSERT INTO direct VALUES (1)"); d.err != nil {
				return
			}
			d.longest = max(d.longest, time.Since(last))
			d.rows++
		}
	}()
	return d
}

// password is that of the application's user; the file that holds it names only the proxy.
func (c *testCluster) password() string {
	c.t.Helper()
	text, err := os.ReadFile(c.plan.PgPass)
	if err != nil {
		c.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line[strings.LastIndexByte(line, ':')+1:]
}

// address is where a member's server listens, as its key says.
func (c *testCluster) address(name string) string {
	c.t.Helper()
	s := c.await(name+" has an address", func(s cluster.Snapshot) bool { m, ok := s.Member(name); return ok && m.Address() != "" })
	m, _ := s.Member(name)
	return m.Address()
}

// finish ends the client and holds that it noticed nothing.
func (d *directClient) finish(t *testing.T) {
	t.Helper()
	close(d.stop)
	<-d.ended
	t.Logf("%d rows, the longest wait for one %s", d.rows, d.longest.Round(time.Millisecond))
	if d.err != nil {
		t.Errorf("a client of the server saw: %v", d.err)
	}
	if d.rows < 100 || d.longest > 10*time.Second {
		t.Errorf("%d rows, and %s without one", d.rows, d.longest)
	}
}

// TestAgentIsRestarted kills the leader's agent, and its guard, and starts the former again: clients of the server notice
// nothing, and leadership stays what it was.
func TestAgentIsRestarted(t *testing.T) {
	c := startCluster(t, 3, "quorum")
	s := c.await("voters", func(s cluster.Snapshot) bool { return c.synchronous(s) && len(s.Sync.Standbys) == 2 })
	leader := s.Leader.Name
	client := c.directClient(leader)
	server, guardian := c.postmaster(leader), c.guardProcess(leader)
	if guardian == 0 {
		t.Fatal("the leader has no guard")
	}
	guardIsSmall(t, guardian)

	if err := c.nodes[leader].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	c.start(leader)
	time.Sleep(ttl + 2*time.Second) // the old deadline passes
	c.await("three streaming members", c.healthy)
	if got := c.guardProcess(leader); got != guardian {
		t.Errorf("the guard was process %d, is %d", guardian, got)
	}

	if err := syscall.Kill(guardian, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ttl + 2*time.Second)
	next := c.guardProcess(leader)
	if next == 0 || next == guardian {
		t.Fatalf("no other guard took over: %d, was %d", next, guardian)
	}
	now := c.await("three streaming members", c.healthy)
	if now.Leader.Name != leader || now.Term.Number != s.Term.Number || c.postmaster(leader) != server {
		t.Errorf("%s leads in term %d on process %d; it was %s, %d, %d", now.Leader.Name, now.Term.Number, c.postmaster(leader), leader, s.Term.Number, server)
	}
	client.finish(t)

	// What the next guard has adopted it ends too, and an orderly stop ends the guard with the server.
	if err := c.nodes[leader].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.await("another leader", func(s cluster.Snapshot) bool { return c.whole(s, 2) && s.Leader.Name != leader })
	if left := c.serverProcesses(leader); len(left) > 0 {
		t.Errorf("%v are left of the server that the second guard had adopted", left)
	}
	c.start(leader)
	c.await("three streaming members", c.healthy)
	if err := c.nodes[leader].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for c.guardProcess(leader) != 0 || len(c.serverProcesses(leader)) > 0 {
		if time.Since(begun) > awaitFor {
			t.Fatal("the guard or the server outlived an orderly stop")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// guardIsSmall holds the guard's own memory against a bound; the rest are pages of the program's file, which it shares with
// the agent.
func guardIsSmall(t *testing.T, pid int) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	own, shared := 0, 0
	for line := range strings.Lines(string(raw)) {
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &own)
		_, _ = fmt.Sscanf(line, "RssFile: %d kB", &shared)
	}
	t.Logf("the guard has %d kB of its own, and %d kB of the program's file", own, shared)
	if own == 0 || own > 8<<10 {
		t.Errorf("the guard has %d kB of its own", own)
	}
}
