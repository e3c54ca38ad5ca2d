package agent_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// feeds tells whether that member streams from this one.
func (m *testMember) feeds(name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p, err := m.server.Probe(ctx)
	if err != nil {
		return false
	}
	for _, s := range p.Standbys {
		if s.Name == name && s.State == "streaming" {
			return true
		}
	}
	return false
}

// retag changes the tags of a member, as a reload of its configuration does.
func (w *world) retag(name, from, to string) {
	w.t.Helper()
	text, err := os.ReadFile(w.file)
	if err == nil {
		err = os.WriteFile(w.file, []byte(strings.Replace(string(text), "  "+name+": {"+from, "  "+name+": {"+to, 1)), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if m := w.members[name]; m != nil {
		node, report := config.Load(config.Source{Path: w.file, Name: name, Hostname: "h", Root: os.Geteuid() == 0})
		if !report.OK() {
			w.t.Fatal(report.String())
		}
		m.agent.Reload(node)
	}
}

// TestReplicateFrom: c streams from b as its tag says, from the leader while b is away, and from b again; the slot that the
// leader keeps for c follows c all the while. With nostream it streams from nobody, and no slot is kept for it.
func TestReplicateFrom(t *testing.T) {
	w := newWorld(t, "{ttl: 10, loop_wait: 1}", "a", "b", "c")
	const from = "tags: {replicatefrom: b}, "
	w.retag("c", "", from)
	w.start("a")
	w.await("bootstrap", whole(1))
	w.start("b")
	w.start("c")
	cascades := func(cluster.Snapshot) bool {
		return w.members["b"].feeds("c") && w.members["a"].feeds("b") && !w.members["a"].feeds("c")
	}
	w.await("c streams from b", cascades)

	w.mustExec("a", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
	p, err := w.members["a"].server.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end := p.WalLSN
	w.await("the slot on the leader follows c", func(cluster.Snapshot) bool {
		s := w.members["a"].slot("c")
		return s != nil && !s.Active && s.RestartLSN >= end
	})
	w.await("its slot on b is in use", func(cluster.Snapshot) bool {
		s := w.members["b"].slot("c")
		return s != nil && s.Active
	})

	w.end("b")
	w.await("c streams from the leader", func(cluster.Snapshot) bool { return w.members["a"].feeds("c") })
	w.start("b")
	w.await("c streams from b again", cascades)

	w.retag("c", from, "tags: {nostream: true}, ")
	s := w.await("c does not stream", func(s cluster.Snapshot) bool {
		c, ok := s.Member("c")
		return ok && c.Tag("nostream") && c.State == cluster.StateRunning && c.ReplicationState != "streaming" && !w.members["a"].feeds("c") && !w.members["b"].feeds("c")
	})
	if !slices.ContainsFunc(s.Members, func(m cluster.Member) bool { return m.Name == "b" && m.ReplicationState == "streaming" }) {
		t.Errorf("b does not stream: %s", describe(s))
	}
}
