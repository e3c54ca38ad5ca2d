package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// login begins the address of a member's server.
const login = "postgres://postgres:one-two-three@"

// dsn leads to whichever of these members accepts writes.
func (w *world) dsn(names ...string) string {
	var hosts []string
	for _, n := range names {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", w.members[n].node.Postgres.Port))
	}
	return login + strings.Join(hosts, ",") + "/postgres?target_session_attrs=read-write&connect_timeout=1"
}

// Limits of time for a session and what is done in it: where it may fail, and where it has to succeed on a loaded machine too.
const (
	prompt  = 3 * time.Second
	patient = 30 * time.Second
)

// session does something in a session on a member's server, whatever its role.
func (w *world) session(name string, limit time.Duration, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := w.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	return do(ctx, c)
}

// connect opens a session on a member's server, whatever its role.
func (w *world) connect(ctx context.Context, name string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf(login+"127.0.0.1:%d/postgres", w.members[name].node.Postgres.Port))
}

// execWithin runs one statement on a member's server.
func (w *world) execWithin(name, sql string, limit time.Duration) error {
	return w.session(name, limit, func(ctx context.Context, c *pgx.Conn) error { _, err := c.Exec(ctx, sql); return err })
}

// exec runs a statement that may fail.
func (w *world) exec(name, sql string) error { return w.execWithin(name, sql, prompt) }

func (w *world) mustExec(name, sql string) {
	w.t.Helper()
	if err := w.execWithin(name, sql, patient); err != nil {
		w.t.Fatalf("%s: %s: %v", name, sql, err)
	}
}

// number reads the one number that a query gives on a member.
func (w *world) number(name, sql string) (n int, err error) {
	err = w.session(name, patient, func(ctx context.Context, c *pgx.Conn) error { return c.QueryRow(ctx, sql).Scan(&n) })
	return n, err
}

// counts tells whether a query can be answered by a member, and gives that number.
func (w *world) counts(name, sql string, want int) bool {
	n, err := w.number(name, sql)
	return err == nil && n == want
}

// count is the one number that a query gives on a member.
func (w *world) count(name, sql string) int {
	w.t.Helper()
	n, err := w.number(name, sql)
	if err != nil {
		w.t.Fatalf("%s: %s: %v", name, sql, err)
	}
	return n
}

// eventually waits for a condition outside of the store.
func (w *world) eventually(what string, within time.Duration, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
	}
	w.t.Fatalf("%s: not within %s", what, within)
}

func (w *world) raw() *clientv3.Client {
	w.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + w.etcd}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func synced(n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool { return whole(n)(s) && s.Sync != nil && len(s.Sync.Standbys) > 0 }
}

func other(s cluster.Snapshot) string {
	if s.Leader.Name == "a" {
		return "b"
	}
	return "a"
}

// stopEtcd returns when nothing of it is left.
func (w *world) stopEtcd() {
	w.server.Stop()
	<-w.server.Stopped()
}

// TestRestartedAgentAdopts: an agent that is killed and started again within its lease finds its server and its
// leadership where they were.
func TestRestartedAgentAdopts(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 20}", "a", "b")
	s := w.await("two members", whole(2))
	first := s.Leader.Name
	pid := postmaster(t, w.leader(s))
	w.crash(first)
	m := w.start(first)
	w.eventually("the agent leads again", patient, func() bool { return m.agent.Status().Leads() })
	now := w.await("two members again", whole(2))
	if now.Term.Number != s.Term.Number || now.Leader.ModRev != s.Leader.ModRev || now.Leader.Lease != s.Leader.Lease {
		t.Errorf("leadership was %+v in term %d, is %+v in term %d", s.Leader, s.Term.Number, now.Leader, now.Term.Number)
	}
	if got := postmaster(t, m); got != pid {
		t.Errorf("the server was restarted: pid %d, was %d", got, pid)
	}
	w.mustExec(first, "CREATE TABLE still_writable()")
}

// TestStoreIsLost: without etcd the primary ends at its deadline, nobody promotes, and everything heals once etcd is back.
func TestStoreIsLost(t *testing.T) {
	const ttl = 10 * time.Second
	w := startCluster(t, "{ttl: 10, synchronous_mode: on}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")
	w.stopEtcd()
	gone := time.Now()
	var last time.Time // when a statement began that was acknowledged
	w.eventually("the primary is not writable", patient, func() bool {
		began := time.Now()
		if w.exec(leader, "INSERT INTO kept VALUES (2)") != nil {
			return true
		}
		last = began
		return false
	})
	if took := last.Sub(gone); took > ttl {
		t.Errorf("the primary was writable for %s after etcd was lost; its lease lasts %s", took, ttl)
	}
	if n := w.count(standby, "SELECT pg_is_in_recovery()::int"); n != 1 {
		t.Error("the standby promoted itself though nothing is known of the store")
	}
	w.startEtcd()
	w.eventually("it is whole and writable again", 40*time.Second, func() bool {
		s = w.await("the cluster is whole again", synced(2)) // what etcd remembers may be of before, and leadership may move on
		return w.exec(s.Leader.Name, "INSERT INTO kept VALUES (3)") == nil
	})
	if n := w.count(s.Leader.Name, "SELECT count(*) FROM kept WHERE n = 1"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
}

// TestLeaderKeyIsDeleted: a person deletes the leader key. Its holder creates it again, or another takes over; nothing
// that was acknowledged is lost.
func TestLeaderKeyIsDeleted(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	pid := postmaster(t, w.leader(s))
	w.mustExec(s.Leader.Name, "CREATE TABLE kept AS SELECT 1 AS n")
	if _, err := w.raw().Delete(t.Context(), "/service/test/leader"); err != nil {
		t.Fatal(err)
	}
	now := w.await("a leader again", func(now cluster.Snapshot) bool { return synced(2)(now) && now.Term.Number > s.Term.Number })
	if n := w.count(now.Leader.Name, "SELECT count(*) FROM kept"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
	if now.Leader.Name == s.Leader.Name && now.Term.Cause.Code == "key_vanished" && postmaster(t, w.leader(now)) != pid {
		t.Error("the leader created its key again, and restarted its server nevertheless")
	}
}

// TestSyncKeyIsTamperedWith: what somebody else writes into /sync is not believed.
func TestSyncKeyIsTamperedWith(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on}", "a", "b", "c")
	s := w.await("a synchronous standby", synced(3))
	liar := "a"
	for _, m := range s.Members {
		if m.Name != s.Leader.Name && m.Name != s.Sync.Standbys[0] {
			liar = m.Name
		}
	}
	false_ := fmt.Sprintf(`{"leader":%q,"sync_standby":%q,"quorum":0}`, s.Leader.Name, liar)
	if _, err := w.raw().Put(t.Context(), "/service/test/sync", false_); err != nil {
		t.Fatal(err)
	}
	w.await("the record is put right", func(now cluster.Snapshot) bool {
		return synced(3)(now) && now.Sync.Standbys[0] != liar
	})
	if _, err := w.raw().Delete(t.Context(), "/service/test/sync"); err != nil {
		t.Fatal(err)
	}
	w.await("the record is made again", synced(3))
}

// TestQuorumModeLosesNothing: the primary's postmaster is killed under load.
func TestQuorumModeLosesNothing(t *testing.T) {
	w := startCluster(t, "{ttl: 10, synchronous_mode: quorum, synchronous_node_count: 1}", "a", "b", "c")
	s := w.await("two voters", func(s cluster.Snapshot) bool { return synced(3)(s) && len(s.Sync.Standbys) == 2 && s.Sync.Quorum == 1 })
	traffic, err := drill.Begin(t.Context(), drill.Load{
		Routes: map[string]string{"any": w.dsn("a", "b", "c")}, Clients: drill.Mix{Ledger: 4, Registers: 1}, Pause: time.Millisecond, Timeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("rows before the fault", 20*time.Second, func() bool { return traffic.Acknowledged() > 200 })
	if err := syscall.Kill(postmaster(t, w.leader(s)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := traffic.Acknowledged()
	w.await("another leader", func(now cluster.Snapshot) bool { return now.Term.Number > s.Term.Number && whole(3)(now) })
	w.eventually("rows after the fault", 20*time.Second, func() bool { return traffic.Acknowledged() > before+200 })
	w.judge(traffic)
}

// judge ends the traffic and compares.
func (w *world) judge(traffic *drill.Run) {
	w.t.Helper()
	history := traffic.Stop()
	if err := traffic.Final(w.t.Context(), w.dsn("a", "b", "c")); err != nil {
		w.t.Fatal(err)
	}
	r := check.Judge(history)
	w.t.Log(r.Text())
	if r.Verdict != check.Pass {
		w.t.Errorf("verdict %s", r.Verdict)
	}
}

// TestStrictModeWaits: without a standby commits wait in strict mode, and are acknowledged once there is one.
func TestStrictModeWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "{ttl: 10, synchronous_mode: on, synchronous_mode_strict: true}", "a", "b")
	w.start("a")
	w.await("one member", whole(1))
	w.eventually("commits wait", patient, func() bool {
		return w.counts("a", "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''", 1)
	})
	done := make(chan error, 1)
	go func() {
		c, err := w.connect(t.Context(), "a")
		if err == nil {
			defer c.Close(context.Background())
			_, err = c.Exec(t.Context(), "CREATE TABLE waited()")
		}
		done <- err
	}()
	w.eventually("the commit waits", patient, func() bool {
		return w.counts("a", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 1)
	})
	w.start("b")
	w.await("a synchronous standby", synced(2))
	if err := <-done; err != nil {
		t.Errorf("the commit that waited: %v", err)
	}
}

// TestCandidateThatNeverPromotes: the agent of the candidate dies at the very moment of the switchover. The old leader gets
// the leadership back, and nothing is lost.
func TestCandidateThatNeverPromotes(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 20, synchronous_mode: on}", "a", "b") // the candidate's lease has to last until it is handed over to
	s := w.await("a synchronous standby", synced(2))
	leader, candidate := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept AS SELECT 1 AS n")
	m := w.members[candidate]
	m.stop(agent.ErrAbandon) // its server streams on, and its REST API still answers
	<-m.done
	m.done <- nil
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: leader, Candidate: candidate}, -1); err != nil {
		t.Fatal(err)
	}
	w.await("the handover", func(now cluster.Snapshot) bool { return now.Term.Number > s.Term.Number })
	now := w.await("the old leader is back", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == leader && now.Term.State == cluster.TermPromoted
	})
	if now.Term.Number < s.Term.Number+2 {
		t.Errorf("term %d after %d: was anything handed over?", now.Term.Number, s.Term.Number)
	}
	if n := w.count(leader, "SELECT count(*) FROM kept"); n != 1 {
		t.Error("an acknowledged row is missing")
	}
	m.end()
	w.start(candidate)
	w.await("two members", synced(2))
}

// TestScheduledSwitchover: a switchover happens at its time, by itself.
func TestScheduledSwitchover(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10}", "a", "b")
	s := w.await("two members", whole(2))
	at := time.Now().Add(2 * time.Second)
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: s.Leader.Name, Candidate: other(s), ScheduledAt: &at}, -1); err != nil {
		t.Fatal(err)
	}
	w.await("the switchover", func(now cluster.Snapshot) bool { return now.Term.Number > s.Term.Number })
	if time.Now().Before(at) {
		t.Error("it came before its time")
	}
	now := w.await("two members", whole(2))
	if now.Leader.Name == s.Leader.Name || !now.Failover.Empty() {
		t.Errorf("leader %s, request %+v", now.Leader.Name, now.Failover)
	}
}

// TestPause: in maintenance mode a switchover by hand is finished by both sides, and a primary outlives the loss of etcd.
func TestPause(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	if err := w.store.PutConfig(t.Context(), []byte(`{"ttl": 5, "pause": true, "synchronous_mode": true}`), -1); err != nil {
		t.Fatal(err)
	}
	w.await("both know of the pause", func(s cluster.Snapshot) bool {
		return len(s.Members) == 2 && s.Members[0].Pause && s.Members[1].Pause
	})
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: s.Leader.Name, Candidate: other(s)}, -1); err != nil {
		t.Fatal(err)
	}
	now := w.await("the switchover", func(now cluster.Snapshot) bool {
		return now.Term.Number > s.Term.Number && whole(2)(now)
	})
	pid := postmaster(t, w.leader(now))
	w.stopEtcd()
	w.eventually("the deadline is over", patient, func() bool { return !w.leader(now).agent.Status().Leads() })
	w.mustExec(now.Leader.Name, "CREATE TABLE written_in_pause()")
	w.startEtcd()
	after := w.await("the cluster is whole", whole(2))
	if after.Leader.Name != now.Leader.Name || postmaster(t, w.leader(after)) != pid {
		t.Errorf("leader %s, was %s; the server was touched in a pause", after.Leader.Name, now.Leader.Name)
	}
}

// TestDivergedPrimaryRejoins: a primary without agent and guard went on writing while another took over. It is rewound, or where
// that is not wanted, set aside and copied anew.
func TestDivergedPrimaryRejoins(t *testing.T) {
	t.Parallel()
	for _, rewind := range []bool{true, false} {
		t.Run(fmt.Sprintf("rewind=%v", rewind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf("{ttl: 10, synchronous_mode: off, postgresql: {use_pg_rewind: %v}}", rewind), "a", "b")
			w.alone = true
			w.start("a")
			w.start("b")
			s := w.await("two members", whole(2))
			old, next := s.Leader.Name, other(s)
			w.mustExec(old, "CREATE TABLE kept AS SELECT 1 AS n")
			w.crash(old)
			w.await("the other leads", func(now cluster.Snapshot) bool {
				return now.Leader != nil && now.Leader.Name == next && now.Term.State == cluster.TermPromoted
			})
			w.mustExec(old, "INSERT INTO kept VALUES (2)") // nobody ends it: its agent is gone
			w.start(old)
			w.await("it has rejoined", whole(2))
			w.eventually("its own branch is gone", patient, func() bool { return w.counts(old, "SELECT count(*) FROM kept", 1) })
			aside, _ := filepath.Glob(w.members[old].node.Postgres.DataDir + ".*.aside")
			if (len(aside) == 1) == rewind {
				t.Errorf("set aside: %v", aside)
			}
		})
	}
}

// TestTwinsAreToldApart: two members were promoted to timeline 2 one after the other, at the same position, the second
// without knowing of the first. Their histories look the same; the first must not follow the second with its own WAL.
func TestTwinsAreToldApart(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off}", "a", "b", "c")
	s := w.await("three members", whole(3))
	old := s.Leader.Name
	first, second := "a", "b"
	if old == "a" {
		first, second = "b", "c"
	} else if old == "b" {
		second = "c"
	}
	w.crash(second) // its server goes on as a standby of nobody
	w.end(old)
	w.await("the first leads", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == first && now.Term.State == cluster.TermPromoted
	})
	w.mustExec(first, "CREATE TABLE of_the_first()")
	w.end(first)
	w.start(second)
	now := w.await("the second leads", func(now cluster.Snapshot) bool {
		return now.Leader != nil && now.Leader.Name == second && now.Term.State == cluster.TermPromoted
	})
	if now.Term.Timeline != 2 {
		t.Skipf("the second was promoted to timeline %d: these are no twins", now.Term.Timeline)
	}
	// As a restart as a standby leaves it, when nobody led: it does not look like a primary's any more.
	data := w.members[first].node.Postgres.DataDir
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(first)
	w.await("the first has rejoined", whole(2))
	w.eventually("its own branch is gone", patient, func() bool {
		return w.counts(first, "SELECT count(*) FROM pg_class WHERE relname = 'of_the_first'", 0)
	})
	if aside, _ := filepath.Glob(data + ".*.aside"); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// end ends a member's agent and its server.
func (w *world) end(name string) {
	w.t.Helper()
	m := w.members[name]
	pid := postmaster(w.t, m)
	w.crash(name)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) { // its guard may have come to its deadline
		w.t.Fatal(err)
	}
}

// TestBootstrapThatDied: a member died between initdb and the founding. It sets its work aside and begins again.
func TestBootstrapThatDied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "{ttl: 10}", "a", "b")
	held, script := filepath.Join(w.dir, "held"), filepath.Join(w.dir, "post_init.sh")
	pgtest.Must(t, os.WriteFile(held, nil, 0o644))
	pgtest.Must(t, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nwhile [ -e %s ]; do sleep 0.05; done\n", held), 0o755))
	w.rewrite("bootstrap: {", fmt.Sprintf("bootstrap: {post_init: %s, ", script))
	a := w.start("a")
	mark := filepath.Join(a.node.Postgres.DataDir, "haven.founding")
	w.eventually("initdb is done", awaitFor, func() bool { _, err := os.Lstat(mark); return err == nil })

	a.stop(agent.ErrAbandon) // in its own process it cleans up after itself; what a dead one leaves is put there by hand
	a.end()
	pgtest.Must(t, os.Remove(held))

	w.leaveHalf(a)
	w.start("a")
	w.start("b")
	w.await("the cluster is made all the same", whole(2))
	if _, err := os.Lstat(mark); err == nil {
		t.Error("what the dead one left is in use")
	}
}

// leaveHalf puts a database in the member's place that a bootstrap had made and not finished.
func (w *world) leaveHalf(m *testMember) {
	w.t.Helper()
	if err := m.server.InitDB(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.node.Postgres.DataDir, "haven.founding"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.BeginInitialize(context.Background()); err != nil {
		w.t.Log("initialize stands already:", err)
	}
}

// TestCloneThatBroke: the primary crashes while a new member copies from it.
func TestCloneThatBroke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "{ttl: 10}", "a", "b")
	w.start("a")
	s := w.await("one member", whole(1))
	w.mustExec("a", "CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 60000)")
	w.start("b")
	w.await("the copy has begun", func(s cluster.Snapshot) bool { m, _ := s.Member("b"); return m.State == cluster.StateCreatingReplica })
	if err := syscall.Kill(postmaster(t, w.leader(s)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.await("the copy was taken up again", whole(2))
	if n := w.count("b", "SELECT count(*) FROM big"); n != 60000 {
		t.Errorf("%d of 60000 rows in the copy", n)
	}
}

// TestTTLChangesAtRuntime: a member that does not lead moves to a lease of the new length, so that the next leader has it.
func TestTTLChangesAtRuntime(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10}", "a", "b")
	s := w.await("a synchronous standby", synced(2))
	if err := w.store.PutConfig(t.Context(), []byte(`{"ttl": 21, "synchronous_mode": true}`), -1); err != nil {
		t.Fatal(err)
	}
	raw := w.raw()
	w.eventually("a lease of 21 s", 20*time.Second, func() bool {
		now, err := w.store.Snapshot(t.Context())
		if err != nil {
			return false
		}
		m, _ := now.Member(other(s))
		l, err := raw.TimeToLive(t.Context(), clientv3.LeaseID(m.Lease))
		return err == nil && l.GrantedTTL == 21
	})
	now := w.await("two members", synced(2))
	if now.Leader.ModRev != s.Leader.ModRev {
		t.Error("the change of the ttl moved the leader key")
	}
}

// TestLongerTTLAtRuntime: the leader's lease stays as short as it was, so it is renewed as often as before: a server that was ended
// because the next renewal came after the deadline would be started and ended again, for as long as its member leads.
func TestLongerTTLAtRuntime(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a")
	s := w.await("one member", whole(1))
	pid := postmaster(t, w.leader(s))
	if err := w.store.PutConfig(t.Context(), []byte(`{"ttl": 120, "loop_wait": 30, "retry_timeout": 10, "synchronous_mode": false}`), -1); err != nil {
		t.Fatal(err)
	}
	w.eventually("the leader knows of it", patient, func() bool { return w.members["a"].agent.Status().Dynamic.TTL == 2*time.Minute })
	w.renewedFor("a", 25*time.Second)
	now := w.await("one member", whole(1))
	if now.Leader.ModRev != s.Leader.ModRev || postmaster(t, w.leader(now)) != pid {
		t.Error("the change of the ttl ended the server")
	}
}

// TestDeletedMemberKeyIsWritten: a member key that somebody has deleted comes back, though nothing in it has changed.
func TestDeletedMemberKeyIsWritten(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	_, err := w.raw().Delete(t.Context(), "/service/test/members/"+other(s))
	pgtest.Must(t, err)
	w.await("two members", whole(2))
}

// TestCandidateThatReceivesSlowly: what the candidate lacks when the primary has shut down is sent to it as long as it comes
// on.
func TestCandidateThatReceivesSlowly(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 20, synchronous_mode: off, maximum_lag_on_failover: 1000000000}", "a", "b")
	s := w.await("two members", whole(2))
	leader, candidate := s.Leader.Name, other(s)
	mend := w.undo(hosts.SlowSync([]int{w.count(candidate, "SELECT pid FROM pg_stat_wal_receiver")}, 500*time.Millisecond)) // one for each segment
	w.mustExec(leader, "CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 120000)")
	pgtest.Must(t, w.store.PutFailover(t.Context(), cluster.Failover{Leader: leader, Candidate: candidate}, -1))
	now := w.await("the switchover", func(now cluster.Snapshot) bool { return now.Leader != nil && now.Leader.Name == candidate })
	mend()
	if now.Term.Number != s.Term.Number+1 {
		t.Errorf("term %d after %d", now.Term.Number, s.Term.Number)
	}
	w.await("two members", whole(2))
	if n := w.count(candidate, "SELECT count(*) FROM big"); n != 120000 {
		t.Errorf("%d of 120000 rows", n)
	}
}
