package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill"
)

// TestMixedCluster has a Haven member join two of Debian's Patroni, and moves leadership over every ordered pair of them
// under writers, without synchronous mode and with it; then it kills each leader. Nothing that was acknowledged may be
// lost or be there twice. HAVEN_MIXED_ROUNDS says how often each pair is gone through (once).
func TestMixedCluster(t *testing.T) {
	m := prepareMixed(t, "p1", "p2", "h3")
	mixedBeginning(t, m, withPatroni)
	t.Run("synchronous mode", func(t *testing.T) {
		m.t = t
		m.patronictl("p1", "edit-config", "mixed", "-s", "synchronous_mode=true", "--force")
		m.await("a synchronous standby", m.synchronousTo)
	})
	if os.Getenv(mixedRounds) != "" { // else mixedKills hands over to each
		t.Run("each synchronous standby takes over", func(t *testing.T) { mixedSwitchovers(t, m, "synchronous", m.synchronousTo) })
	}
	t.Run("each leader is killed", func(t *testing.T) { mixedKills(t, m, "synchronous", m.synchronousTo) })
	m.t = t
	m.writePage("Patroni 3.0.2, of Debian 12", false)
}

// mixedBeginning has a Haven member join two that Patroni runs; both answer alike, and each hands over to each.
func mixedBeginning(t *testing.T, m *mixedCluster, patroni string) {
	m.run("p1", patroni)
	m.await("Patroni leads", m.led("p1", 0))
	m.run("p2", patroni)
	m.await("a Patroni follows", m.led("p1", 1))
	m.run("h3", withHaven)
	m.await("a Haven follows", m.settled)

	t.Run("both answer alike", func(t *testing.T) {
		m.t = t
		restAlike(t, m, "p2", "h3")
	})
	t.Run("each hands over to each", func(t *testing.T) { mixedSwitchovers(t, m, "asynchronous", m.settled) })
}

// mixedRounds names the variable that says how often each ordered pair is gone through.
const mixedRounds = "HAVEN_MIXED_ROUNDS"

// circuit goes over each ordered pair of three once: 1→2, 2→1, 1→3, 3→2, 2→3, 3→1.
func circuit(names []string) []string {
	a, b, c := names[0], names[1], names[2]
	return []string{b, a, c, b, c, a}
}

func rounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv(mixedRounds)
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HAVEN_MIXED_ROUNDS=%s is no number of rounds", text)
	}
	return n
}

func mixedSwitchovers(t *testing.T, m *mixedCluster, mode string, ready func(cluster.Snapshot) bool) {
	m.t = t
	if s := m.await("all follow", ready); s.Leader.Name != m.plan.Members[0] {
		m.handOver(m.plan.Members[0], ready)
	}
	m.changes = nil
	load := m.writers(mode)
	for range rounds(t) {
		for _, to := range circuit(m.plan.Members) {
			m.handOver(to, ready)
			m.more(load, 200)
		}
	}
	m.verdict("switchovers, "+mode, load)
}

// handOver lets Debian's patronictl switch over, in synchronous mode once the candidate is synchronous.
func (m *mixedCluster) handOver(to string, ready func(cluster.Snapshot) bool) {
	m.t.Helper()
	s := m.await("ready", ready)
	from := s.Leader.Name
	begun := time.Now()
	if s.Sync.Active() && !s.Sync.Has(to) {
		m.makeSynchronous(to)
	}
	out := m.patronictl(to, "switchover", "mixed", "--leader", from, "--candidate", to, "--force")
	contains(m.t, out, `Successfully switched over to "`+to+`"`)
	m.await(from+" → "+to, func(s cluster.Snapshot) bool { return m.led(to, len(m.plan.Members)-1)(s) })
	m.changed(from, to, time.Since(begun))
}

// makeSynchronous ends the WAL receiver of the synchronous standby until the leader has taken that other one.
func (m *mixedCluster) makeSynchronous(name string) {
	m.t.Helper()
	m.await(name+" is synchronous", func(s cluster.Snapshot) bool {
		if s.Leader == nil || !s.Sync.Active() || s.Sync.Has(name) {
			return s.Sync.Active() && s.Sync.Has(name)
		}
		for _, standby := range s.Sync.Standbys {
			m.endReceiver(standby)
		}
		return false
	})
}

func (m *mixedCluster) endReceiver(name string) {
	for _, pid := range m.serverProcesses(name) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(line), "walreceiver") {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
}

// more waits for acknowledged writes.
func (m *mixedCluster) more(load *drill.Run, writes int) {
	m.t.Helper()
	if err := load.AwaitWrites(m.t.Context(), writes, awaitFor); err != nil {
		m.t.Fatal(err)
	}
}

// mixedKills kills agent and server of three leaders, one after the other, each of which comes back.
func mixedKills(t *testing.T, m *mixedCluster, mode string, ready func(cluster.Snapshot) bool) {
	m.t = t
	load := m.writers("killed")
	for _, name := range m.plan.Members {
		if s := m.await("ready", ready); s.Leader.Name != name {
			m.handOver(name, ready)
			m.await("ready", ready)
		}
		m.more(load, 200)
		begun := time.Now()
		m.killMember(name)
		<-m.ends[name]
		s := m.await("another leads", func(s cluster.Snapshot) bool {
			return s.Leader != nil && s.Leader.Name != name && m.led(s.Leader.Name, 1)(s)
		})
		m.changed(name+" killed", s.Leader.Name, time.Since(begun))
		m.run(name, m.programs[name])
		m.await(name+" follows", ready)
	}
	m.verdict("each leader killed, "+mode, load)
}

// TestMembersAreReplaced moves a running cluster from Patroni to Haven and back, one member at a time, each on the data
// directory and file that it had, under writers: no database is copied anew, nothing is lost.
func TestMembersAreReplaced(t *testing.T) {
	m := prepareMixed(t, "n1", "n2", "n3")
	m.run("n1", withPatroni)
	m.await("Patroni leads", m.led("n1", 0))
	m.run("n2", withPatroni)
	m.run("n3", withPatroni)
	m.await("two follow", m.settled)
	load := m.writers("replaced")
	inodes := map[string]uint64{}
	for _, name := range m.plan.Members {
		inodes[name] = inode(t, m, name)
	}
	for _, program := range []string{withHaven, withPatroni} {
		for _, name := range []string{"n2", "n3", "n1"} {
			if s := m.await("all follow", m.settled); s.Leader.Name == name {
				m.handOver(other(m.plan.Members, name), m.settled)
			}
			m.stop(name)
			m.more(load, 100)
			m.run(name, program)
			m.await(name+" follows, run by "+program, m.settled)
			if inode(t, m, name) != inodes[name] {
				t.Errorf("the data directory of %s is another one: it was copied anew", name)
			}
		}
	}
	m.verdict("each member replaced", load)
}

// inode identifies a member's data directory by the file that initdb or the base backup made.
func inode(t *testing.T, m *mixedCluster, name string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(m.plan.Dir+"/"+name+"/PG_VERSION", &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
