package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// patroni4Folder names the variable with the folder of Patroni 4's Python package; scripts/patroni4.sh prints it.
const patroni4Folder = "HAVEN_PATRONI4"

// TestMixedClusterWithPatroni4 is TestMixedCluster with members of Patroni 4, in asynchronous and in quorum mode, and has etcd fail for longer
// than a lease under a leader of each kind in failsafe mode.
func TestMixedClusterWithPatroni4(t *testing.T) {
	folder := os.Getenv(patroni4Folder)
	if folder == "" {
		t.Skip("no Patroni 4: make mixed fetches it, or name the folder of its Python package in " + patroni4Folder)
	}
	m := prepareMixed(t, "p1", "p2", "h3")
	m.patroni4 = filepath.Join(openDir(t), "python") // where the account of the members can read it
	if err := os.CopyFS(m.patroni4, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	mixedBeginning(t, m, withPatroni4)
	t.Run("quorum mode", func(t *testing.T) {
		m.t = t
		m.patronictl("p1", "edit-config", "mixed", "-s", "synchronous_mode=quorum", "--force")
		m.await("two voters", m.quorumOfTwo)
	})
	t.Run("each voter takes over", func(t *testing.T) { mixedSwitchovers(t, m, "quorum", m.quorumOfTwo) })
	t.Run("each leader is killed", func(t *testing.T) { mixedKills(t, m, "quorum", m.quorumOfTwo) })
	t.Run("failsafe mode", func(t *testing.T) { mixedFailsafe(t, m) })
	m.t = t
	m.writePage("Patroni 4.0.7, from Debian 13", true)
}

// quorumOfTwo tells whether both standbys vote, in /sync and in the server.
func (m *mixedCluster) quorumOfTwo(s cluster.Snapshot) bool {
	return m.settled(s) && s.Sync.Active() && s.Sync.Leader == s.Leader.Name && len(s.Sync.Standbys) == 2 &&
		m.ask(s.Leader.Name, "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'quorum'") == "2"
}

// etcdAway is longer than the ttl of mixedFile.
const etcdAway = 35 * time.Second

// mixedFailsafe stops etcd under a leader of each kind: it goes on writing, since every member gives its word.
func mixedFailsafe(t *testing.T, m *mixedCluster) {
	m.t = t
	m.patronictl("p1", "edit-config", "mixed", "-s", "failsafe_mode=true", "--force")
	load := m.writers("failsafe")
	for _, leader := range []string{"h3", "p1"} {
		if s := m.await("ready", m.quorumOfTwo); s.Leader.Name != leader {
			m.handOver(leader, m.quorumOfTwo)
			m.await("ready", m.quorumOfTwo)
		}
		m.await("all are in /failsafe", func(s cluster.Snapshot) bool { return len(s.Failsafe) == len(m.plan.Members) })
		time.Sleep(5 * time.Second) // two loops: every member has seen the key
		m.etcd.Freeze(t)
		for frozen := time.Now(); time.Since(frozen) < etcdAway; {
			m.more(load, 100)
		}
		m.etcd.Thaw(t)
		if now := m.await("all follow", m.quorumOfTwo); now.Leader.Name != leader {
			t.Errorf("%s led while etcd was away, and %s does after it came back", leader, now.Leader.Name)
		}
		time.Sleep(22 * time.Second) // Patroni takes the word that it gave for a leader, for a ttl, and races for nothing meanwhile
		m.changed(leader+", etcd away", leader, etcdAway)
	}
	m.verdict("etcd away for 35 s, failsafe mode, twice", load)
}
