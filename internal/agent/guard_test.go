package agent_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/guard"
)

func (m *testMember) guardState(t *testing.T) guard.State {
	t.Helper()
	s, err := m.guard.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// denyGuard kills a member's guard and keeps another from being made, until the returned function is called.
func (w *world) denyGuard(m *testMember) (allow func()) {
	w.t.Helper()
	lock, err := os.OpenFile(filepath.Join(m.node.Dir(), "guard.lock"), os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the lock of its guard is ours", patient, func() bool { // or the agent has made another one first
		if s, err := m.guard.State(); err == nil {
			_ = syscall.Kill(s.PID, syscall.SIGKILL)
		}
		return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	})
	return func() { lock.Close() }
}

// TestGuardEndsTheServerOfADeadAgent: the agent ends as if killed, and nobody starts it again. Its server is gone before
// another member leads.
func TestGuardEndsTheServerOfADeadAgent(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	old, next := w.leader(s), other(s)
	armed := old.guardState(t)
	if armed.Deadline == 0 || armed.Server == nil || armed.Server.PID != postmaster(t, old) {
		t.Fatalf("the guard of the leader knows %+v", armed)
	}
	if st := w.members[next].guardState(t); st.Deadline != 0 {
		t.Errorf("the guard of a standby has a deadline: %+v", st)
	}
	w.crash(old.name)
	w.eventually("its server is gone", patient, func() bool {
		now, unread := w.store.Snapshot(t.Context()) // first, for the end of the server comes shortly before the next term
		left, err := old.server.Processes()
		if unread == nil && len(left) > 0 && now.Term.Number != s.Term.Number {
			t.Fatalf("term %d began while processes %v of the old server ran", now.Term.Number, left)
		}
		return err == nil && len(left) == 0
	})
	w.await("the other leads", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == next && now.Term.State == cluster.TermPromoted
	})
	w.start(old.name)
	w.await("it has rejoined", whole(2))
}

// TestPauseDisarmsTheGuard: in maintenance mode nothing is ended; afterwards the guard gets a deadline again.
func TestPauseDisarmsTheGuard(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	m := w.leader(s)
	pid := postmaster(t, m)
	if err := w.store.PutConfig(t.Context(), []byte(`{"ttl": 10, "pause": true}`), -1); err != nil {
		t.Fatal(err)
	}
	var since time.Time // a renewal that was under way when the pause began may arm it once more
	w.eventually("the guard is disarmed, and stays so", patient, func() bool {
		if m.guardState(t).Deadline != 0 {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > time.Second
	})
	w.crash(m.name)
	time.Sleep(12 * time.Second) // the lease ends, and with it what would have been the deadline
	w.mustExec(m.name, "CREATE TABLE written_in_pause()")
	m = w.start(m.name)
	w.await("both know of the pause", func(s cluster.Snapshot) bool {
		return len(s.Members) == 2 && s.Members[0].Pause && s.Members[1].Pause && s.Leader != nil && s.Leader.Name == m.name
	})
	resumed := bootclock.Now()
	if err := w.store.PutConfig(t.Context(), []byte(`{"ttl": 10, "pause": false}`), -1); err != nil {
		t.Fatal(err)
	}
	w.eventually("the guard is armed again", patient, func() bool {
		d := m.guardState(t).Deadline
		return d != 0 && d.Sub(resumed) > 6*time.Second
	})
	w.await("two members", whole(2))
	if got := postmaster(t, m); got != pid {
		t.Errorf("the server was restarted: pid %d, was %d", got, pid)
	}
}

// TestNoLeadershipWithoutGuard: a leader whose guard is gone for good ends its server by its deadline and lets its lease
// end, so that another leads; a standby without a guard does not become writable.
func TestNoLeadershipWithoutGuard(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	old, next := w.leader(s), w.members[other(s)]
	allow := w.denyGuard(old)
	defer func() { allow() }()
	w.eventually("its server is gone", patient, func() bool {
		left, err := old.server.Processes()
		return err == nil && len(left) == 0
	})
	w.await("the other leads", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == next.name && now.Term.State == cluster.TermPromoted
	})
	allow()
	w.await("it has rejoined, with a guard", whole(2))

	allow = w.denyGuard(old) // a standby now
	w.crash(next.name)
	w.eventually("the leader's server is gone", patient, func() bool {
		left, err := next.server.Processes()
		return err == nil && len(left) == 0
	})
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if w.exec(old.name, "CREATE TABLE unguarded()") == nil {
			t.Fatal("a server became writable that has no guard")
		}
	}
	allow()
	w.await("it leads once it has a guard", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == old.name && now.Term.State == cluster.TermPromoted
	})
}
