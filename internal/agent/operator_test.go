package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/jackc/pgx/v5"
)

func synchronous(n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool { return whole(n)(s) && len(s.Sync.Standbys) == 1 }
}

func order(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// configure changes the dynamic configuration.
func (w *world) configure(text string) {
	w.t.Helper()
	if err := w.store.PutConfig(w.t.Context(), json.RawMessage(text), -1); err != nil {
		w.t.Fatal(err)
	}
}

// TestStandbyReturnsAtOnce restarts the leader's server. PostgreSQL alone would leave the standby without a stream for an hour, and
// after half a minute without one its member would mend it.
func TestStandbyReturnsAtOnce(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: on, postgresql: {parameters: {wal_retrieve_retry_interval: 1h}}}", "a", "b")
	s := w.await("bootstrap", synchronous(2))
	leader, standby := w.leader(s), s.Sync.Standbys[0]
	pid := postmaster(t, w.members[standby])
	if err := w.restart(leader, ha.Restart{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the standby streams again", 20*time.Second, func() bool { return leader.feeds(standby) })
	if now := postmaster(t, w.members[standby]); now != pid {
		t.Errorf("the standby was started anew: process %d was %d", now, pid)
	}
}

// TestAStandbyKeepsItsUpstreamInPause: an agent that is restarted while the primary is down for maintenance does not know whom its standby
// follows, and in pause nobody would tell the standby again.
func TestAStandbyKeepsItsUpstreamInPause(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, loop_wait: 1}", "a", "b")
	s := w.await("two members", whole(2))
	leader, standby := s.Leader.Name, other(s)
	w.configure(`{"ttl": 10, "loop_wait": 1, "pause": true}`)
	paused := func(s cluster.Snapshot) bool { m, ok := s.Member(standby); return ok && m.Pause }
	w.await("the standby knows of the pause", paused)
	conninfo := func() (text string) {
		t.Helper()
		err := w.session(standby, patient, func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, "SHOW primary_conninfo").Scan(&text)
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := conninfo()
	w.end(leader)
	w.crash(standby)
	w.start(standby)
	time.Sleep(5 * time.Second) // turns in which it would be told otherwise
	w.await("the standby is back", paused)
	if now := conninfo(); now != before || before == "" {
		t.Errorf("the standby follows %q, and followed %q", now, before)
	}
}

// restart orders a restart, and again while the agent is busy otherwise.
func (w *world) restart(m *testMember, r ha.Restart) error {
	for ctx := order(w.t); ; time.Sleep(20 * time.Millisecond) {
		err := m.agent.Restart(ctx, r)
		var refused ha.Refusal
		if !errors.As(err, &refused) || !strings.HasSuffix(string(refused), "already in progress") {
			return err
		}
	}
}

// TestRestartOnDemand restarts a synchronous standby, then the leader for a parameter that waits for it, then at a
// scheduled time: leader, term and timeline stay, and what was pending is in force.
func TestRestartOnDemand(t *testing.T) {
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: on}", "a", "b")
	s := w.await("bootstrap", synchronous(2))
	leader, standby := w.leader(s), w.members[s.Sync.Standbys[0]]

	pid := postmaster(t, standby)
	if err := w.restart(standby, ha.Restart{Role: "replica"}); err != nil {
		t.Fatal(err)
	}
	if postmaster(t, standby) == pid {
		t.Error("the standby runs on")
	}
	w.await("the standby is synchronous again", synchronous(2))

	if err := w.restart(leader, ha.Restart{Pending: true}); !errors.Is(err, ha.NotMet) {
		t.Errorf("nothing is pending: %v", err)
	}
	w.configure(`{"ttl": 10, "loop_wait": 1, "synchronous_mode": true, "postgresql": {"parameters": {"max_connections": 77}}}`)
	w.await("a pending restart", func(s cluster.Snapshot) bool {
		m, _ := s.Member(leader.name)
		return m.PendingRestart && m.PendingRestartReason["max_connections"] == cluster.PendingChange{Old: "100", New: "77"}
	})
	pid = postmaster(t, leader)
	if err := w.restart(leader, ha.Restart{Pending: true, Role: "primary"}); err != nil {
		t.Fatal(err)
	}
	after := w.await("nothing is pending on the leader", func(s cluster.Snapshot) bool {
		m, _ := s.Member(leader.name)
		return !m.PendingRestart && synchronous(2)(s)
	})
	if postmaster(t, leader) == pid {
		t.Error("the leader runs on")
	}
	if m, _ := after.Member(leader.name); after.Leader.ModRev != s.Leader.ModRev || after.Term.Number != s.Term.Number || m.Timeline != 1 {
		t.Errorf("leader %+v, term %+v: a restart in place moves neither", after.Leader, after.Term)
	}

	pid = postmaster(t, standby)
	at := time.Now().Add(10 * time.Second) // it is shown until then
	if err := standby.agent.ScheduleRestart(order(t), ha.Restart{Version: "99.1", Below: 990001}, at); err != nil {
		t.Fatal(err)
	}
	if err := standby.agent.ScheduleRestart(order(t), ha.Restart{}, at); !errors.Is(err, ha.ErrAlreadyScheduled) {
		t.Errorf("a second schedule: %v", err)
	}
	shown := w.await("the schedule is shown", func(s cluster.Snapshot) bool {
		m, _ := s.Member(standby.name)
		return len(m.ScheduledRestart) > 0
	})
	if m, _ := shown.Member(standby.name); !strings.Contains(string(m.ScheduledRestart), `"schedule":"`+at.Format(cluster.TimeFormat)) || !strings.Contains(string(m.ScheduledRestart), `"postgres_version":"99.1"`) {
		t.Errorf("the member key shows %s", m.ScheduledRestart)
	}
	w.await("the scheduled restart", func(s cluster.Snapshot) bool {
		m, _ := s.Member(standby.name)
		return len(m.ScheduledRestart) == 0 && synchronous(2)(s) && postmaster(t, standby) != pid
	})
	if err := standby.agent.ScheduleRestart(order(t), ha.Restart{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if was, err := standby.agent.UnscheduleRestart(order(t)); was != want || err != nil {
			t.Errorf("taking it back: %v, %v, want %v", was, err, want)
		}
	}
}

// TestLeaderThatDoesNotStartAgain: where a synchronous standby has every commit, a restart that fails ends as a crash does.
func TestLeaderThatDoesNotStartAgain(t *testing.T) {
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: on}", "a", "b")
	s := w.await("bootstrap", synchronous(2))
	leader := w.leader(s)
	w.configure(`{"ttl": 10, "loop_wait": 1, "synchronous_mode": true, "postgresql": {"parameters": {"shared_preload_libraries": "there_is_none"}}}`)
	w.await("a pending restart", func(s cluster.Snapshot) bool {
		m, _ := s.Member(leader.name)
		return m.PendingRestart
	})
	if err := w.restart(leader, ha.Restart{}); err == nil || !strings.Contains(err.Error(), "there_is_none") {
		t.Errorf("the order ends with %v", err)
	}
	standby := s.Sync.Standbys[0]
	s = w.await("the standby leads", func(s cluster.Snapshot) bool {
		return s.Leader != nil && s.Leader.Name == standby && s.Term.State == cluster.TermPromoted
	})
	if s.Term.Fence != cluster.FenceStopped || s.Term.Cause == nil || s.Term.Cause.Code != ha.CauseCrash {
		t.Errorf("term says %+v", s.Term)
	}
	w.configure(`{"ttl": 10, "loop_wait": 1, "synchronous_mode": true}`)
	w.await("both are back", synchronous(2))
}

// TestReinitializeOnDemand has a standby copied anew; what it had is moved aside. On the leader it is refused.
func TestReinitializeOnDemand(t *testing.T) {
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: on}", "a", "b")
	s := w.await("bootstrap", synchronous(2))
	leader, standby := w.leader(s), w.members[s.Sync.Standbys[0]]
	var why ha.Refusal
	if err := leader.agent.Reinitialize(order(t), ha.Reinit{}, true); !errors.As(err, &why) || why != "I am the leader, can not reinitialize" {
		t.Errorf("on the leader: %v", err)
	}
	pid := postmaster(t, standby)
	if err := standby.agent.Reinitialize(order(t), ha.Reinit{FromLeader: true}, false); err != nil {
		t.Fatal(err)
	}
	if err := standby.agent.Reinitialize(order(t), ha.Reinit{}, false); !errors.As(err, &why) || why != "reinitialize already in progress" {
		t.Errorf("a second time: %v", err)
	}
	w.await("a new copy is made", func(s cluster.Snapshot) bool {
		m, _ := s.Member(standby.name)
		return m.State == cluster.StateCreatingReplica
	})
	w.await("the new copy streams", func(s cluster.Snapshot) bool { return synchronous(2)(s) && postmaster(t, standby) != pid })
	aside, err := filepath.Glob(standby.node.Postgres.DataDir + ".*.aside/PG_VERSION")
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}
