package agent_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const failsafeOn = "{ttl: 10, loop_wait: 1, synchronous_mode: on, failsafe_mode: true}"

func listed(n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool { return synchronous(n)(s) && len(s.Failsafe) == n }
}

// writable holds that every write is acknowledged for that long.
func (w *world) writable(name string, lasts time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := w.execWithin(name, "INSERT INTO kept VALUES (2)", patient); err != nil {
			w.t.Fatalf("the leader is not writable, %s before the end: %v", time.Until(end), err)
		}
	}
}

// TestFailsafe: without etcd, and with every member's word, the leader goes on for many times its lease; it keeps its place
// when etcd comes back, also when its lease has ended there.
func TestFailsafe(t *testing.T) {
	w := startCluster(t, failsafeOn, "a", "b", "c")
	s := w.await("all members are listed", listed(3))
	leader := w.leader(s)
	pid := postmaster(t, leader)
	w.mustExec(leader.name, "CREATE TABLE kept (n int)")
	w.stopEtcd()
	w.writable(leader.name, 25*time.Second)
	for name, m := range w.members {
		if st := m.agent.Status(); !st.Failsafe {
			t.Errorf("%s does not say that failsafe mode is active", name)
		}
		if name == leader.name {
			continue
		}
		if _, err := m.agent.Pledge("another", time.Second); !errors.Is(err, ha.ErrPledgeRefused) {
			t.Errorf("%s gave its word to a member that it does not follow: %v", name, err)
		}
	}
	w.startEtcd()
	w.revoke(s.Leader.Lease)
	now := w.await("the cluster is whole again", listed(3))
	w.writable(leader.name, 5*time.Second)
	if now.Leader.Name != leader.name || postmaster(t, leader) != pid {
		t.Errorf("%s led with process %d, now %s does with %d", leader.name, pid, now.Leader.Name, postmaster(t, leader))
	}
	w.eventually("the store proves it again", patient, func() bool { return leader.agent.Status().Leads() && !leader.agent.Status().Failsafe })
}

// revoke ends a lease behind the agents' backs.
func (w *world) revoke(lease int64) {
	w.t.Helper()
	c := w.raw()
	defer c.Close()
	w.eventually("the lease is revoked", 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := c.Revoke(ctx, clientv3.LeaseID(lease))
		return err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) // it may have ended by itself
	})
}

// TestFailsafeNeedsEveryMember: with one member silent the leader stops at its deadline; the word that was given keeps the
// others from leading until it has run out, also one whose agent was started again.
func TestFailsafeNeedsEveryMember(t *testing.T) {
	w := startCluster(t, failsafeOn, "a", "b", "c")
	s := w.await("all members are listed", listed(3))
	leader := w.leader(s)
	silent := w.members[other(s)]
	w.mustExec(leader.name, "CREATE TABLE kept (n int)")
	w.stopEtcd()
	w.eventually("failsafe mode holds", patient, func() bool { return leader.agent.Status().Failsafe && leader.agent.Status().Leads() })
	w.eventually("its word is given", patient, func() bool { return silent.agent.Status().Failsafe })
	w.crash(silent.name)
	w.eventually("the primary is not writable", patient, func() bool { return w.exec(leader.name, "INSERT INTO kept VALUES (3)") != nil })
	w.startEtcd()
	w.start(silent.name)
	w.await("the cluster is whole again", listed(3))
}
