package agent_test

import (
	"context"
	"github.com/havenha/haven/internal/freeze"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/ha"
)

// TestHungServerIsReplaced: the postmaster of the primary is stopped. Its sessions live on, the agent's among them, and
// yet leadership goes to the synchronous standby; the one that hung comes back as a standby.
func TestHungServerIsReplaced(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on, haven: {hung_after: 3s}}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")
	freeze.Process(t, postmaster(t, w.leader(s)))
	s = w.await("a handover", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == standby && whole(2)(s) })
	if c := s.Term.Cause; c == nil || c.Code != ha.CauseHung || s.Term.Fence != cluster.FenceStopped {
		t.Errorf("term says %+v, want a handover for a hang", s.Term)
	}
	if n := w.count(standby, "SELECT count(*) FROM kept"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
}

// TestHungServerIsStartedAgain: where nobody may take over, the server that hangs is started again where it is, once; when
// it hangs again it is left as it is, with a reason. A standby that hangs is started again too.
func TestHungServerIsStartedAgain(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off, haven: {hung_after: 3s}}", "a", "b")
	s := w.await("two members", whole(2))
	leader, term := s.Leader.Name, s.Term.Number
	for _, name := range []string{leader, other(s)} {
		stopped := postmaster(t, w.members[name])
		w.freezeServer(name)
		w.eventually(name+" runs again", awaitFor, func() bool { return w.exec(name, "SELECT 1") == nil && postmaster(t, w.members[name]) != stopped })
	}
	s = w.await("two members again", whole(2))
	if s.Leader.Name != leader || s.Term.Number != term {
		t.Errorf("term %d of %s, was %d of %s: an asynchronous standby may lack commits", s.Term.Number, s.Leader.Name, term, leader)
	}
	pid := postmaster(t, w.members[leader])
	freeze.Process(t, pid)
	w.eventually("it says that it hangs again", awaitFor, func() bool {
		return w.members[leader].agent.Status().Reason.Code == ha.ReasonHungStays
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is well again", awaitFor, func() bool {
		return w.members[leader].agent.Status().Reason.Code == ha.ReasonLeading
	})
}

// freezeServer stops every process of a member's server.
func (w *world) freezeServer(name string) {
	w.t.Helper()
	freeze.Processes(w.t, w.processes(name))
}

// TestBusyServerIsNoHungServer: all connections are taken for longer than a server may be silent, and the agent's own
// session has to be opened anew meanwhile. Nothing is ended.
func TestBusyServerIsNoHungServer(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, haven: {hung_after: 3s}, postgresql: {parameters: {max_connections: 25, superuser_reserved_connections: 1}}}", "a", "b")
	s := w.await("two members", whole(2))
	leader := s.Leader.Name
	pid := postmaster(t, w.leader(s))
	refused := 0
	for until := time.Now().Add(awaitFor); time.Now().Before(until); {
		ctx, cancel := context.WithTimeout(t.Context(), prompt)
		c, err := w.connect(ctx, leader)
		cancel()
		if err == nil {
			t.Cleanup(func() { _ = c.Close(context.Background()) })
			continue
		}
		if refused++; refused == 1 { // from now on all are taken
			until = time.Now().Add(9 * time.Second)
		}
	}
	now := w.await("nothing happened", whole(2))
	if postmaster(t, w.members[leader]) != pid || now.Term.Number != s.Term.Number {
		t.Errorf("a server without a free connection was ended: %+v", now.Term)
	}
	if refused < 10 {
		t.Errorf("%d refusals in nine seconds: the test shows nothing", refused)
	}
}

// processes are those of a member's server.
func (w *world) processes(name string) []int {
	w.t.Helper()
	pids, err := w.members[name].server.Processes()
	if err != nil || len(pids) == 0 {
		w.t.Fatalf("%s: processes %v, %v", name, pids, err)
	}
	return pids
}

// undo ends a fault, at the latest with the test.
func (w *world) undo(u hosts.Undo, err error) func() {
	w.t.Helper()
	if err != nil {
		w.t.Skip(err)
	}
	end := sync.OnceFunc(func() {
		if err := u(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(end)
	return end
}

// TestDiskThatDoesNotWriteIsLeft: no sync of the leader's WAL comes back, and none of it fails. Connections are answered, and
// yet leadership moves: by a handover, or by the end of the lease where the fault holds the killed processes for longer than a ttl.
func TestDiskThatDoesNotWriteIsLeft(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on, haven: {hung_after: 3s}}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")
	mend := w.undo(hosts.SlowSync(w.processes(leader), time.Minute))
	if err := w.exec(leader, "INSERT INTO kept VALUES (2)"); err == nil {
		t.Fatal("a commit was acknowledged that is not on the disk")
	}
	s = w.await("a new leader", func(s cluster.Snapshot) bool { // the old one cannot follow yet if its processes do not end
		return s.Leader != nil && s.Leader.Name == standby && s.Term.Binds(s.Leader) && s.Term.State == cluster.TermPromoted
	})
	mend()
	w.await("the old one follows", whole(2))
	if c := s.Term.Cause; c == nil || c.Code != ha.CauseHung && s.Term.Fence != cluster.FenceLease {
		t.Errorf("term says %+v, want a handover for a hang", s.Term)
	}
	if n := w.count(standby, "SELECT count(*) FROM kept WHERE n = 1"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
}

// TestStalledDiskIsNoOutage: the same where nobody can take over without losing commits. The server is not ended, and goes on when
// the disk does.
func TestStalledDiskIsNoOutage(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off, haven: {hung_after: 3s}}", "a", "b")
	s := w.await("two members", whole(2))
	leader := s.Leader.Name
	w.mustExec(leader, "CREATE TABLE kept(n int)")
	pid := postmaster(t, w.leader(s))
	mend := w.undo(hosts.SlowSync(w.processes(leader), time.Minute))
	if err := w.exec(leader, "INSERT INTO kept VALUES (1)"); err == nil {
		t.Fatal("a commit was acknowledged that is not on the disk")
	}
	w.eventually("it says that writes stall", awaitFor, func() bool {
		return w.members[leader].agent.Status().Reason.Code == ha.ReasonStalled
	})
	mend()
	w.eventually("it writes again", 90*time.Second, func() bool {
		return w.members[leader].agent.Status().Reason.Code == ha.ReasonLeading && w.exec(leader, "INSERT INTO kept VALUES (2)") == nil
	})
	now := w.await("two members still", whole(2))
	if postmaster(t, w.members[leader]) != pid || now.Term.Number != s.Term.Number {
		t.Errorf("the server was ended: %+v", now.Term)
	}
}

// TestSlowDiskIsNoHungServer: each sync takes two seconds, and there are always some: nothing changes.
func TestSlowDiskIsNoHungServer(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 15, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	leader := s.Leader.Name
	w.mustExec(leader, "CREATE TABLE t(n int)")
	pid := postmaster(t, w.leader(s))
	mend := w.undo(hosts.SlowSync(w.processes(leader), 2*time.Second))
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); {
		_ = w.exec(leader, "INSERT INTO t VALUES (1)")
	}
	mend()
	now := w.await("nothing happened", whole(2))
	if postmaster(t, w.members[leader]) != pid || now.Term.Number != s.Term.Number {
		t.Errorf("a slow server was ended: %+v", now.Term)
	}
}

// TestFailingWALDisk: every sync below pg_wal fails. PostgreSQL panics, the synchronous standby takes over, and the member of the
// failing disk does not come back as a leader until the disk works again and it streams.
func TestFailingWALDisk(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")
	mend := w.undo(hosts.FailSync(w.processes(leader), ""))
	_ = w.exec(leader, "INSERT INTO kept VALUES (2)")
	s = w.await("a handover", func(s cluster.Snapshot) bool {
		return s.Leader != nil && s.Leader.Name == standby && s.Term.Binds(s.Leader) && s.Term.State == cluster.TermPromoted
	})
	if c := s.Term.Cause; c == nil || c.Code != ha.CauseCrash {
		t.Errorf("term says %+v, want a handover for a crash", s.Term)
	}
	mend()
	s = w.await("the old leader follows", whole(2))
	if s.Leader.Name != standby {
		t.Errorf("%s leads again", s.Leader.Name)
	}
	if n := w.count(standby, "SELECT count(*) FROM kept WHERE n = 1"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
}
