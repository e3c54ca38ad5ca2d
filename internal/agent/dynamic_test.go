package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestDynamicConfigurationIsKept: what the store says stands in the data directory too, whole, and anew in one that was made anew.
func TestDynamicConfigurationIsKept(t *testing.T) {
	w := startCluster(t, "{ttl: 10, loop_wait: 1}", "a", "b")
	s := w.await("two members", whole(2))
	keeps := func(name, text string) {
		t.Helper()
		path := filepath.Join(w.members[name].node.Postgres.DataDir, "patroni.dynamic.json")
		pgtest.Eventually(t, path+" has "+text, func() error {
			b, err := os.ReadFile(path)
			if err == nil && !strings.Contains(string(b), text) {
				return os.ErrNotExist
			}
			return err
		})
	}
	keeps(s.Leader.Name, `"loop_wait":1`)
	w.configure(`{"ttl": 10, "loop_wait": 2}`)
	for _, name := range []string{"a", "b"} {
		keeps(name, `"loop_wait":2`)
	}
	w.await("both go on", func(s cluster.Snapshot) bool { return whole(2)(s) })
}
