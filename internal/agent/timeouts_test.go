package agent_test

import (
	"github.com/havenha/haven/internal/freeze"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// TestTimeoutsOfThePrimary: a primary that does not stop in time is ended, and the switchover goes on; one that has crashed is not
// started again in place where primary_start_timeout is 0.
func TestTimeoutsOfThePrimary(t *testing.T) {
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: on, primary_stop_timeout: 2}", "a", "b", "c")
	s := w.await("bootstrap", func(s cluster.Snapshot) bool { return whole(3)(s) && len(s.Sync.Standbys) == 1 })
	from, to := s.Leader.Name, s.Sync.Standbys[0]
	w.mustExec(from, "CREATE TABLE t AS SELECT 1 AS n")

	c, err := w.connect(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	stuck := int(c.PgConn().PID())
	freeze.Process(t, stuck) // its processes cannot end by themselves
	began := time.Now()
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: from, Candidate: to}, -1); err != nil {
		t.Fatal(err)
	}
	s = w.await("switchover", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == to && whole(3)(s) })
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("the switchover took %s", took)
	}
	if n := w.count(to, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows", n)
	}

	w.configure(`{"ttl": 10, "loop_wait": 1, "synchronous_mode": "off", "primary_start_timeout": 0}`)
	s = w.await("asynchronous mode", func(s cluster.Snapshot) bool { return s.Sync == nil && whole(3)(s) })
	old := s.Leader.Name
	if err := syscall.Kill(postmaster(t, w.members[old]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = w.await("another leader", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name != old && whole(3)(s) })
	if n := w.count(s.Leader.Name, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows", n)
	}
}
