package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
)

// TestRollingRestartUnderLoad changes a parameter that waits for a restart, and brings it into force on all members under
// writers: while the replicas restart, no write fails; the leader costs what a switchover costs.
func TestRollingRestartUnderLoad(t *testing.T) {
	for _, mode := range []string{"on", "quorum"} {
		t.Run(mode, func(t *testing.T) { rollUnderLoad(t, startCluster(t, 3, mode)) })
	}
}

func rollUnderLoad(t *testing.T, c *testCluster) {
	s := c.await("a synchronous standby", c.synchronous)
	mustHaven(c, "edit-config", "--pg", "max_connections=140", "--yes")
	c.await("all members wait for a restart", func(s cluster.Snapshot) bool { return pending(s) == 3 })
	t.Log("\n" + mustHaven(c, "restart", "--rolling", "--pending", "--plan"))

	load := c.traffic("replicas")
	time.Sleep(before)
	t.Log("\n" + mustHaven(c, "restart", "--rolling", "--pending", "--role", "replica", "--yes"))
	time.Sleep(2 * time.Second)
	if rows, _ := c.judge(load).Find(check.Ledger, "proxy"); rows.Failed+rows.Unknown > 0 {
		t.Errorf("%d writes failed and %d are unknown, while replicas restarted: %v", rows.Failed, rows.Unknown, rows.Errors)
	}
	now := c.await("only the leader waits", func(s cluster.Snapshot) bool { return c.synchronous(s) && pending(s) == 1 })
	if now.Leader.Name != s.Leader.Name || now.Term.Number != s.Term.Number {
		t.Errorf("the restart of replicas moved leadership from %s to %s", s.Leader.Name, now.Leader.Name)
	}

	load = c.traffic("leader")
	time.Sleep(before)
	out := mustHaven(c, "restart", "--rolling", "--pending", "--yes")
	t.Log("\n" + out)
	contains(t, out, "switchover from "+s.Leader.Name+" to ")
	time.Sleep(2 * time.Second)
	rows, _ := c.judge(load).Find(check.Ledger, "proxy")
	t.Logf("the switchover cost %d failed writes, %d unknown, a gap of %s", rows.Failed, rows.Unknown, rows.Gap)
	now = c.await("nothing waits", func(s cluster.Snapshot) bool { return c.synchronous(s) && pending(s) == 0 })
	if now.Leader.Name == s.Leader.Name || now.Term.Number != s.Term.Number+1 {
		t.Errorf("leader %s, term %d: want one switchover from %s, term %d", now.Leader.Name, now.Term.Number, s.Leader.Name, s.Term.Number)
	}
	if got := askThrough(c, c.plan.Write, "show max_connections"); !strings.Contains(got, "140") {
		t.Errorf("max_connections is %s", got)
	}
}

// TestOperatorsOrders goes through what an operator does to a whole cluster: maintenance mode, a new copy, restarts in
// place and at a time, and taking back what is scheduled.
func TestOperatorsOrders(t *testing.T) {
	c := startCluster(t, 3, "on")
	s := c.await("a synchronous standby", c.synchronous)
	leader := s.Leader.Name
	standby := other(c.plan.Members, leader)

	contains(t, mustHaven(c, "pause", "--wait"), "Success: cluster management is paused")
	contains(t, mustHaven(c, "resume", "--wait"), "Success: cluster management is resumed")
	contains(t, mustHaven(c, "reload", "--yes"), "Reload request received for member "+leader)

	out, err := c.haven("reinit", leader, "--yes")
	if err == nil {
		t.Errorf("the leader's data is replaced: %s", out)
	}
	contains(t, out, "I am the leader, can not reinitialize")
	contains(t, mustHaven(c, "reinit", standby, "--yes", "--wait"), "Reinitialize is completed on: "+standby)

	pid := c.postmaster(leader)
	load := c.traffic("in_place")
	time.Sleep(before)
	contains(t, mustHaven(c, "restart", leader, "--yes"), "Success: restart on member "+leader)
	time.Sleep(2 * time.Second)
	rows, _ := c.judge(load).Find(check.Ledger, "proxy")
	t.Logf("a restart in place cost %d failed writes, %d unknown, a gap of %s", rows.Failed, rows.Unknown, rows.Gap)
	now := c.await("a synchronous standby after the restart", c.synchronous)
	if c.postmaster(leader) == pid || now.Leader.ModRev != s.Leader.ModRev || now.Term.Number != s.Term.Number {
		t.Errorf("a restart in place: leader %+v, term %d, was %+v, %d", now.Leader, now.Term.Number, s.Leader, s.Term.Number)
	}

	contains(t, mustHaven(c, "restart", standby, "--scheduled", time.Now().Add(time.Hour).Format(time.RFC3339), "--yes"), "Success: restart scheduled on member "+standby)
	c.await("the schedule is in the member key", func(s cluster.Snapshot) bool {
		m, _ := s.Member(standby)
		return len(m.ScheduledRestart) > 0
	})
	contains(t, mustHaven(c, "list"), "Scheduled restart")
	contains(t, mustHaven(c, "flush", standby, "restart", "--yes"), "Success: flush scheduled restart for member "+standby)
	contains(t, mustHaven(c, "switchover", "--scheduled", time.Now().Add(time.Hour).Format(time.RFC3339), "--candidate", now.Sync.Standbys[0], "--yes"), "scheduled")
	contains(t, mustHaven(c, "flush", "switchover", "--yes"), "Success: scheduled switchover deleted")
}

func mustHaven(c *testCluster, args ...string) string {
	c.t.Helper()
	out, err := c.haven(args...)
	if err != nil {
		c.t.Fatalf("haven %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func pending(s cluster.Snapshot) int {
	n := 0
	for _, m := range s.Members {
		if m.PendingRestart {
			n++
		}
	}
	return n
}
