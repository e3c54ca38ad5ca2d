package agent_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
	"github.com/jackc/pgx/v5"
)

const slotsDCS = `{ttl: 10, loop_wait: 1, synchronous_mode: on, postgresql: {parameters: {wal_level: logical, wal_receiver_status_interval: 1}},
  slots: {cdc: {type: logical, database: postgres, plugin: test_decoding}, archive: {type: physical}}}`

// slot is a slot of a member's server; nil where it has none of that name, or does not answer.
func (m *testMember) slot(name string) *postgres.Slot {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p, err := m.server.Probe(ctx)
	if err != nil {
		return nil
	}
	for _, s := range p.Slots {
		if s.Name == name {
			return &s
		}
	}
	return nil
}

// numbers reads on from the logical slot of a member's server; confirm says whether its reader remembers what it has read.
func (w *world) numbers(name string, confirm bool) []string {
	w.t.Helper()
	c, err := w.connect(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close(context.Background())
	function := "pg_logical_slot_peek_changes"
	if confirm {
		function = "pg_logical_slot_get_changes"
	}
	rows, err := c.Query(w.t.Context(), "SELECT data FROM "+function+"('cdc', NULL, NULL)")
	if err != nil {
		w.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatalf("%s: read the slot: %v", name, err)
	}
	var out []string
	for _, l := range lines {
		if n, ok := strings.CutPrefix(l, "table public.t: INSERT: n[integer]:"); ok {
			out = append(out, n)
		}
	}
	return out
}

// readOn is a reader that confirms what it has read (nothing new): with it the slot's need of old WAL goes.
func (w *world) readOn(leader string) {
	w.t.Helper()
	w.mustExec(leader, "CHECKPOINT")
	if got := w.numbers(leader, true); len(got) > 0 {
		w.t.Fatalf("read without having been written: %v", got)
	}
}

// settled waits until no agent is in the middle of something.
func (w *world) settled() {
	w.eventually("agents at rest", time.Minute, func() bool {
		for _, m := range w.members {
			if s := m.agent.Fresh(w.t.Context()); s.Task != nil || s.Probe == nil {
				return false
			}
		}
		return true
	})
}

// copied tells whether every member has both permanent slots, the logical one where the leader's reader is.
func (w *world) copied(s cluster.Snapshot) bool {
	if s.Leader == nil {
		return false
	}
	leader := w.leader(s).slot("cdc")
	for _, m := range w.members {
		cdc, archive := m.slot("cdc"), m.slot("archive")
		if leader == nil || cdc == nil || archive == nil || archive.RestartLSN == 0 || cdc.ConfirmedFlushLSN != leader.ConfirmedFlushLSN {
			return false
		}
	}
	return true
}

// TestPermanentSlotsOutliveTheirLeader reads changes from a logical slot through a switchover and a crash of the primary: none
// is missing, and what was confirmed and is known to all is not read again.
func TestPermanentSlotsOutliveTheirLeader(t *testing.T) {
	w := startCluster(t, slotsDCS, "a", "b")
	s := w.await("bootstrap", func(s cluster.Snapshot) bool { return whole(2)(s) && len(s.Sync.Standbys) == 1 })
	first := s.Leader.Name
	w.await("the slot of the leader", func(s cluster.Snapshot) bool { return w.leader(s).slot("cdc") != nil })
	w.mustExec(first, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	if got := fmt.Sprint(w.numbers(first, true)); got != "[1]" {
		t.Fatalf("from the leader: %s", got)
	}
	w.await("a copy on the standby", func(s cluster.Snapshot) bool { w.readOn(first); return w.members[other(s)].slot("cdc") != nil })
	w.await("the copies to be where the leader's slots are", w.copied)
	w.settled()
	s = w.await("the pair again", func(s cluster.Snapshot) bool { return whole(2)(s) && len(s.Sync.Standbys) == 1 })
	if s.Status.Slots["archive"] == 0 || s.Status.Slots["cdc"] == 0 || len(s.Status.RetainSlots) == 0 {
		t.Errorf("the status key tells %+v", s.Status)
	}
	w.mustExec(first, "INSERT INTO t VALUES (2)")

	second := s.Sync.Standbys[0]
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: first, Candidate: second}, -1); err != nil {
		t.Fatal(err)
	}
	w.await("switchover", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == second && whole(2)(s) })
	w.mustExec(second, "INSERT INTO t VALUES (3)")
	if got := fmt.Sprint(w.numbers(second, true)); got != "[2 3]" {
		t.Fatalf("after the switchover: %s", got)
	}
	w.await("copies that have come as far", w.copied)
	w.settled()
	s = w.await("the pair again", func(s cluster.Snapshot) bool { return whole(2)(s) && len(s.Sync.Standbys) == 1 })

	w.mustExec(second, "INSERT INTO t VALUES (4)")
	w.numbers(second, true) // confirmed on the leader, and perhaps not told to the standby yet
	w.mustExec(second, "INSERT INTO t VALUES (5)")
	if err := syscall.Kill(postmaster(t, w.members[second]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.await("handover after the crash", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == first && whole(2)(s) })
	w.mustExec(first, "INSERT INTO t VALUES (6)")
	if got := w.numbers(first, false); !slices.Equal(got, []string{"5", "6"}) && !slices.Equal(got, []string{"4", "5", "6"}) {
		t.Errorf("after the crash: %v", got)
	}
	for name, m := range w.members { // a round that met a server on its way up is followed by another
		w.eventually(name+" tells no problem of slots", 30*time.Second, func() bool {
			return !slices.ContainsFunc(m.agent.Status().Problems, func(p string) bool { return strings.Contains(p, "slot") })
		})
	}
}

// TestALeaderWithoutTheSlotDoesNotSkip makes a standby leader that could never get a copy. The slot is not made anew behind
// its reader's back; a person decides.
func TestALeaderWithoutTheSlotDoesNotSkip(t *testing.T) {
	w := newWorld(t, slotsDCS, "a", "b")
	w.start("a")
	w.await("bootstrap", func(s cluster.Snapshot) bool { return whole(1)(s) && s.Status != nil && s.Status.Slots["cdc"] > 0 })
	w.mustExec("a", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	w.start("b") // its WAL begins after what the slot needs, which nobody reads
	w.await("the pair", synced(2))
	told := func() string { return strings.Join(w.members["b"].agent.Status().Problems, "\n") }
	w.await("the missing copy to be told", func(cluster.Snapshot) bool {
		return strings.Contains(told(), "slot cdc is not copied yet: it needs WAL")
	})
	if err := w.store.PutFailover(t.Context(), cluster.Failover{Leader: "a", Candidate: "b"}, -1); err != nil {
		t.Fatal(err)
	}
	w.await("switchover", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == "b" && whole(2)(s) })
	s := w.await("the new leader's status", func(s cluster.Snapshot) bool { return s.Status != nil && s.Status.Slots["b"] > 0 })
	if s.Status.Slots["cdc"] == 0 || w.members["b"].slot("cdc") != nil {
		t.Errorf("status %+v, slot %+v", s.Status, w.members["b"].slot("cdc"))
	}
	w.await("the problem to be told", func(cluster.Snapshot) bool { return strings.Contains(told(), "permanent logical slot cdc") })
	w.mustExec("b", "SELECT pg_create_logical_replication_slot('cdc', 'test_decoding')")
	w.await("the problem to be gone", func(cluster.Snapshot) bool { return !strings.Contains(told(), "permanent logical slot cdc") })
}
