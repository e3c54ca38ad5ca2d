package agent_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// recycle has a leader keep none of the WAL that it had: other members' slots are dropped, and segments are filled.
func (w *world) recycle(leader string) {
	w.t.Helper()
	w.mustExec(leader, "ALTER SYSTEM SET wal_keep_size = 0")
	w.mustExec(leader, "SELECT pg_reload_conf()")
	for range 3 {
		w.mustExec(leader, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
		w.mustExec(leader, "INSERT INTO kept SELECT n FROM generate_series(1, 1000) n")
		w.mustExec(leader, "SELECT pg_switch_wal()")
		w.mustExec(leader, "CHECKPOINT")
	}
}

// asides are the data directories of a member that were moved aside.
func (w *world) asides(name string) []string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, name, "*.aside"))
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// comesBack starts a member again that cannot follow as it is, and waits until it streams, on a new copy.
func (w *world) comesBack(name string) {
	w.t.Helper()
	m := w.start(name)
	w.t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Join(w.dir, name+".pg.log")); err == nil && w.t.Failed() {
			w.t.Logf("server log of %s:\n%s", name, b[max(0, len(b)-3000):])
		}
	})
	var said []string
	w.eventually(name+" is copied anew", awaitFor, func() bool {
		if r := m.agent.Status().Reason; len(said) == 0 || said[len(said)-1] != r.Text {
			said = append(said, r.Text)
		}
		return len(w.asides(name)) == 1
	})
	w.t.Logf("%s said:\n%s", name, strings.Join(said, "\n"))
	w.await(name+" follows", whole(2))
	w.eventually("it has everything", 30*time.Second, func() bool {
		s, err := w.store.Snapshot(w.t.Context())
		if err != nil || s.Leader == nil {
			return false
		}
		n, err := w.number(s.Leader.Name, "SELECT count(*) FROM kept")
		return err == nil && w.counts(name, "SELECT count(*) FROM kept", n)
	})
}

const keepNothing = "{ttl: 10, synchronous_mode: off, postgresql: {parameters: {wal_keep_size: 0, max_wal_size: 32MB, min_wal_size: 32MB}}}"

// TestStandbyLacksWAL: what a standby needs was removed on the leader while it was away, and there is no archive.
func TestStandbyLacksWAL(t *testing.T) {
	t.Parallel()
	w := startCluster(t, keepNothing, "a", "b")
	s := w.await("two members", whole(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept(n int)")
	w.members[standby].end()
	w.recycle(leader)
	w.comesBack(standby)
}

// TestStandbyNeverAnswers: WAL that a standby needs to become consistent is garbled, and removed on the leader. Its server
// would say "starting up" for ever.
func TestStandbyNeverAnswers(t *testing.T) {
	t.Parallel()
	w := startCluster(t, keepNothing, "a", "b")
	s := w.await("two members", whole(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept(n int)")
	w.mustExec(leader, "CHECKPOINT")
	w.mustExec(standby, "CHECKPOINT")
	w.mustExec(leader, "INSERT INTO kept SELECT n FROM generate_series(1, 20000) n")
	w.eventually("the standby has it", 30*time.Second, func() bool { return w.counts(standby, "SELECT count(*) FROM kept", 20000) })
	w.mustExec(standby, "CHECKPOINT") // no checkpoint has come: it only notes how far it has to replay at least
	w.crash(standby)
	server := w.instance(w.members[standby].node)
	defer server.Close()
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := server.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	w.garble(standby, d.Control)
	w.recycle(leader)
	w.comesBack(standby)
}

// TestPortThatIsTaken: while something else holds a standby's port, even another member's server with the same password, the standby
// is started again and again, tells nobody what that server says, and has its data left alone.
func TestPortThatIsTaken(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	standby := other(s)
	w.members[standby].end()
	server := w.instance(w.members[standby].node)
	defer server.Close()
	leave := forward(t, w.members[standby].node.Postgres.ConnectAddress, w.leader(s).node.Postgres.ConnectAddress)
	if p, err := server.Probe(t.Context()); err == nil {
		t.Errorf("the server of %s was taken for that of %s: %+v", s.Leader.Name, standby, p)
	}
	m := w.start(standby)
	w.eventually("five starts fail", awaitFor, func() bool {
		if f := m.agent.Fresh(t.Context()); f.Probe != nil {
			t.Fatalf("%s tells what the server of %s says: %+v", standby, s.Leader.Name, f.Probe)
		}
		return m.agent.Status().Figures.Actions["start"].Failed >= 5
	})
	if told := strings.Join(m.agent.Status().Problems, "\n"); !strings.Contains(told, "the server does not start") || !strings.Contains(told, "Address already in use") {
		t.Errorf("it does not tell why: %q", told)
	}
	leave()
	w.await("it streams", whole(2))
	if found := w.asides(standby); len(found) != 0 {
		t.Errorf("its data were moved aside: %v", found)
	}
}

// forward listens at from and brings whoever comes to to, until leave is called.
func forward(t *testing.T, from, to string) (leave func()) {
	t.Helper()
	l, err := net.Listen("tcp4", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp4", to)
				if err != nil {
					return
				}
				go func() { defer in.Close(); _, _ = io.Copy(in, out) }()
				_, _ = io.Copy(out, in)
				out.Close()
			}()
		}
	}()
	return func() { l.Close() }
}

// garble overwrites a standby's WAL from 64 kB after its last checkpoint on.
func (w *world) garble(name string, c postgres.Control) {
	w.t.Helper()
	dir := filepath.Join(w.members[name].node.Postgres.DataDir, "pg_wal")
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	segment := uint64(c.SegmentSize)
	first := uint64(c.Checkpoint) / segment
	for _, e := range entries {
		if len(e.Name()) != 24 || strings.Contains(e.Name(), ".") {
			continue
		}
		var no uint64
		for _, h := range e.Name()[16:] {
			no = no*16 + uint64(strings.IndexRune("0123456789ABCDEF", h))
		}
		from := uint64(0)
		switch {
		case no < first:
			continue
		case no == first:
			from = min(uint64(c.Checkpoint)%segment+64<<10, segment-8192)
		}
		f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_WRONLY, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		_, err = f.WriteAt(slices.Repeat([]byte{0xa5}, int(segment-from)), int64(from))
		if err := f.Close(); err != nil {
			w.t.Fatal(err)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestStandbyHasOtherWAL: a standby's data was started by hand as a primary of its own, without a promotion, and made a standby
// again. Its timeline is the leader's, and so is its history; its WAL is not.
func TestStandbyHasOtherWAL(t *testing.T) {
	t.Parallel()
	w := startCluster(t, "{ttl: 10, synchronous_mode: off}", "a", "b")
	s := w.await("two members", whole(2))
	leader, standby := s.Leader.Name, other(s)
	w.mustExec(leader, "CREATE TABLE kept(n int)")
	w.await("it is there", func(s cluster.Snapshot) bool { return w.exec(standby, "TABLE kept") == nil })
	w.members[standby].end()
	w.byHand(standby)
	w.mustExec(leader, "INSERT INTO kept VALUES (2)")
	w.comesBack(standby)
	if n := w.count(standby, "SELECT count(*) FROM kept WHERE n = 3"); n != 0 {
		t.Error("the standby still has its own rows")
	}
}

// byHand starts a standby's data as a primary, lets it write, and makes a standby of it again.
func (w *world) byHand(name string) {
	w.t.Helper()
	dir := w.members[name].node.Postgres.DataDir
	signal := filepath.Join(dir, "standby.signal")
	if err := os.Remove(signal); err != nil {
		w.t.Fatal(err)
	}
	server := w.instance(w.members[name].node)
	defer server.Close()
	ctx := pgtest.Context(w.t)
	if _, err := server.Start(ctx, postgres.Settings{}); err != nil {
		w.t.Fatal(err)
	}
	w.mustExec(name, "INSERT INTO kept SELECT 3 FROM generate_series(1, 1000)")
	pgtest.Must(w.t, server.Stop(ctx, postgres.StopFast, nil))
	pgtest.Must(w.t, os.WriteFile(signal, nil, 0o600))
	if acct := pgtest.Account(w.t); acct != nil {
		pgtest.Must(w.t, os.Chown(signal, acct.UID, acct.GID))
	}
}
