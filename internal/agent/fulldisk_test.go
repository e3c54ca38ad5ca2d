package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// smallDisks puts each member's data on a file system of its own.
func (w *world) smallDisks(size int64, names ...string) {
	w.t.Helper()
	for _, n := range names {
		dir := filepath.Join(w.dir, n)
		undo, err := hosts.SmallDisk(dir, size)
		if err != nil {
			w.t.Skipf("this needs to mount file systems: %v", err)
		}
		w.t.Cleanup(func() {
			if err := undo(context.Background()); err != nil {
				w.t.Error(err)
			}
		})
		if acct := pgtest.Account(w.t); acct != nil {
			if err := os.Chown(dir, acct.UID, acct.GID); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *world) fill(name string) (empty func()) {
	w.t.Helper()
	undo, err := hosts.Fill(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := undo(context.Background()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) reason(name string) ha.Code { return w.members[name].agent.Status().Reason.Code }

func health(s cluster.Snapshot, name string) string {
	m, ok := s.Member(name)
	if !ok || m.Haven == nil {
		return ""
	}
	return m.Haven.Health
}

// TestFullDisk: while both disks are full the leader stays and says so, also after its server has ended for want of room; as
// soon as the standby has room again leadership goes there, and the old leader follows once it has some.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "{ttl: 10, synchronous_mode: on, haven: {hung_after: 3s}, postgresql: {parameters: {max_wal_size: 64MB, min_wal_size: 32MB}}}", "a", "b")
	w.smallDisks(256<<20, "a", "b")
	w.start("a")
	w.start("b")
	s := w.await("both are well", func(s cluster.Snapshot) bool {
		return synced(2)(s) && health(s, "a") == ha.HealthOK && health(s, "b") == ha.HealthOK
	})
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")

	roomForStandby := w.fill(standby)
	w.await("the standby says that its disk is full", func(s cluster.Snapshot) bool { return health(s, standby) == ha.HealthFull })
	roomForLeader := w.fill(leader)
	w.eventually("the leader says that its disk is full", 20*time.Second, func() bool { return w.reason(leader) == ha.ReasonDiskFull })
	_ = w.exec(leader, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 200000)") // fails, one way or another
	until := time.Now().Add(6 * time.Second)
	w.eventually("longer than a move takes", 20*time.Second, func() bool { return time.Now().After(until) })
	if now := w.await("a leader", func(s cluster.Snapshot) bool { return s.Leader != nil }); now.Leader.Name != leader || now.Term.Number != s.Term.Number {
		t.Errorf("leadership has gone to a full disk: %+v", now.Term)
	}

	roomForStandby()
	s = w.await("leadership goes to who has room", func(s cluster.Snapshot) bool {
		return s.Leader != nil && s.Leader.Name == standby && s.Term.Binds(s.Leader) && s.Term.State == cluster.TermPromoted
	})
	t.Logf("cause: %+v", s.Term.Cause)
	roomForLeader()
	w.await("the old leader follows", whole(2))
	if n := w.count(standby, "SELECT count(*) FROM kept"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
}
