package agent_test

import (
	"fmt"
	"testing"

	"github.com/havenha/haven/internal/cluster"
)

// standing tells that all members run in a standby cluster: one leads as a standby, the others stream from it.
func (w *world) standing(n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool {
		if s.Leader == nil {
			return false
		}
		follows := 0
		for _, m := range s.Members {
			switch {
			case m.State != cluster.StateRunning:
			case m.Name == s.Leader.Name:
				if m.Role != cluster.RoleStandbyLeader {
					return false
				}
			case m.Role == cluster.RoleReplica && w.members[s.Leader.Name].feeds(m.Name):
				follows++
			}
		}
		return follows == n-1
	}
}

// TestStandbyCluster: a cluster is made as a standby of another one, follows it with one member and that with the others, goes on
// when its leader is lost, is promoted when standby_cluster is removed, and stands by again when it is put back.
func TestStandbyCluster(t *testing.T) {
	far := startCluster(t, "{ttl: 10}", "r")
	far.await("the remote cluster", whole(1))
	far.mustExec("r", "CREATE TABLE t AS SELECT 1 AS n")

	const plain = `"ttl": 10, "loop_wait": 1, "synchronous_mode": true`
	standby := fmt.Sprintf(`{%s, "standby_cluster": {"host": "127.0.0.1", "port": %d}}`, plain, far.members["r"].node.Postgres.Port)
	w := startCluster(t, standby, "a", "b")
	s := w.await("a standby cluster", w.standing(2))
	if s.Sync.Active() || s.Term.State != cluster.TermClaimed {
		t.Errorf("sync %+v, term %+v", s.Sync, s.Term)
	}
	both := func(n int) func(cluster.Snapshot) bool {
		return func(cluster.Snapshot) bool {
			const rows = "SELECT count(*) FROM t WHERE pg_is_in_recovery()"
			return w.counts("a", rows, n) && w.counts("b", rows, n)
		}
	}
	w.await("the remote rows", both(1))
	far.mustExec("r", "INSERT INTO t VALUES (2)")
	s = w.await("more remote rows", both(2))

	first := s.Leader.Name
	w.end(first)
	s = w.await("another standby leader", func(s cluster.Snapshot) bool {
		return s.Leader != nil && s.Leader.Name != first && w.standing(1)(s)
	})
	w.start(first)
	w.await("it follows", w.standing(2))
	far.mustExec("r", "INSERT INTO t VALUES (3)")
	w.await("rows still come", both(3))

	w.configure(`{` + plain + `}`)
	s = w.await("promoted", func(s cluster.Snapshot) bool { // and said so, for what a leader is said to be is awaited again below
		if !whole(2)(s) {
			return false
		}
		l, ok := s.Member(s.Leader.Name)
		return ok && l.Role == cluster.RolePrimary
	})
	w.mustExec(s.Leader.Name, "INSERT INTO t VALUES (4)")
	w.await("synchronous", func(s cluster.Snapshot) bool { return s.Sync.Active() && len(s.Sync.Standbys) == 1 })

	w.configure(standby)
	w.await("a standby cluster again, without synchronous standbys", func(s cluster.Snapshot) bool { return w.standing(2)(s) && s.Sync == nil })
	w.await("nobody writes, and nothing is lost", both(4))
}
