package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// The time that writers run before and after what is done to the cluster.
const (
	before = 5 * time.Second
	after  = 10 * time.Second
)

// scenario is something that happens to a cluster under load.
type scenario struct {
	name string
	// strike does it, and returns when it is done.
	strike func(c *testCluster, leader string, s cluster.Snapshot)
	// mend undoes what does not undo itself.
	mend func(c *testCluster, leader string)
	// stays: the leader may be the same afterwards.
	stays bool
	// explained are words that haven explain must find for it.
	explained []string
}

func scenarios() []scenario {
	return []scenario{
		{
			name: "postmaster killed",
			strike: func(c *testCluster, leader string, _ cluster.Snapshot) {
				c.killPostmaster(leader)
			},
			explained: []string{"FAILOVER", "OBSERVED", "signal: killed", "stopped"},
		},
		{
			name:      "agent and server killed together",
			strike:    func(c *testCluster, leader string, _ cluster.Snapshot) { c.killMember(leader) },
			mend:      func(c *testCluster, leader string) { c.start(leader) },
			explained: []string{"FAILOVER", "INFERRED", "refuses connections", "lease"},
		},
		{
			name: "member frozen for a minute",
			strike: func(c *testCluster, leader string, _ cluster.Snapshot) {
				c.signalMember(leader, syscall.SIGSTOP)
				time.Sleep(60 * time.Second)
			},
			mend:      func(c *testCluster, leader string) { c.signalMember(leader, syscall.SIGCONT) },
			explained: []string{"FAILOVER", "INFERRED", "does not answer"},
		},
		{
			name: "switchover",
			strike: func(c *testCluster, leader string, s cluster.Snapshot) {
				out, err := c.haven("switchover", "--leader", leader, "--candidate", s.Sync.Standbys[0], "--yes")
				if err != nil {
					c.t.Fatalf("%v: %s", err, out)
				}
				c.t.Log(out)
			},
			explained: []string{"SWITCHOVER", "requested", "none"},
		},
		{
			name: "failover to a named member",
			strike: func(c *testCluster, leader string, s cluster.Snapshot) {
				out, err := c.haven("failover", "--candidate", s.Sync.Standbys[0], "--yes")
				if err != nil {
					c.t.Fatalf("%v: %s", err, out)
				}
				c.t.Log(out)
			},
			explained: []string{"requested", "manual failover"},
		},
	}
}

// TestNothingAcknowledgedIsLost strikes the primary of a synchronous cluster under eight writers, one scenario after
// another on the same cluster, and reads every acknowledged row back through the new primary.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	eachServer(t, func(t *testing.T, bin string) {
		c := startClusterOn(t, bin, 3, "on")
		for _, sc := range scenarios() {
			t.Run(sc.name, func(t *testing.T) {
				c.t = t
				strikeAndJudge(c, sc)
			})
			c.t = t
		}
	})
}

func strikeAndJudge(c *testCluster, sc scenario) {
	s := c.await("a synchronous standby", c.synchronous)
	leader, term := s.Leader.Name, s.Term.Number
	tr := c.traffic(fmt.Sprintf("ledger_%d", term))
	time.Sleep(before)
	c.t.Logf("striking %s, synchronous %v", leader, s.Sync.Standbys)
	sc.strike(c, leader, s)
	c.await("a new term", func(s cluster.Snapshot) bool {
		return s.Leader != nil && s.Term.Number > term && s.Term.State == cluster.TermPromoted && s.Term.Binds(s.Leader)
	})
	time.Sleep(after)
	if sc.mend != nil {
		sc.mend(c, leader)
	}
	c.judge(tr)
	s = c.await("three streaming members", c.healthy)
	if !sc.stays && s.Leader.Name == leader {
		c.t.Errorf("%s still leads", leader)
	}
	out, err := c.haven("explain")
	if err != nil {
		c.t.Fatalf("explain: %v: %s", err, out)
	}
	c.t.Log("\n" + out)
	contains(c.t, out, sc.explained...)
	contains(c.t, out, leader)
}

// TestAsynchronousClusterRestartsInPlace shows the mode without synchronous standbys: the crash of a postmaster is repaired in
// place, since nobody is known to have every commit.
func TestAsynchronousClusterRestartsInPlace(t *testing.T) {
	c := startCluster(t, 3, "off")
	s := c.await("healthy", c.healthy)
	tr := c.traffic("ledger")
	time.Sleep(before)
	c.killPostmaster(s.Leader.Name)
	time.Sleep(after)
	c.judge(tr)
	now := c.await("three streaming members", c.healthy)
	if now.Leader.Name != s.Leader.Name || now.Term.Number != s.Term.Number {
		t.Errorf("leadership went from %s to %s", s.Leader.Name, now.Leader.Name)
	}
}
