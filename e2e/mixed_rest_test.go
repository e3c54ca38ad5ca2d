package e2e

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
)

// restAlike asks two standbys of one cluster, one of Patroni's and one of Haven's, the same: codes have to be the same, and
// in the documents every field that Patroni has.
func restAlike(t *testing.T, m *mixedCluster, patroni, haven string) {
	t.Helper()
	base := map[string]string{}
	s := m.await("all follow", m.settled)
	for _, name := range []string{patroni, haven} {
		k, _ := s.Member(name)
		base[name] = k.APIBase()
	}
	for _, path := range []string{
		"/", "/primary", "/master", "/leader", "/replica", "/read-only", "/read-write", "/standby_leader", "/standby-leader", "/health", "/sync", "/synchronous", "/async",
		"/asynchronous", "/read-only-sync", "/read-only-synchronous", "/liveness", "/readiness", "/patroni", "/cluster", "/history", "/config", "/metrics", "/failsafe", "/nothing",
		"/replica?lag=1MB", "/replica?lag=nonsense", "/replica?tag_x=y", "/asynchronous?lag=16kB",
	} {
		var theirs, ours int
		m.await("the same code of "+path, func(cluster.Snapshot) bool { // a standby that has just come learns a moment later what it is
			theirs, _ = get(t, base[patroni]+path)
			ours, _ = get(t, base[haven]+path)
			return theirs == ours
		})
	}
	for _, path := range []string{"/config", "/history"} {
		if d := cmp.Diff(jsonOf(t, base[patroni]+path), jsonOf(t, base[haven]+path)); d != "" {
			t.Errorf("GET %s (-patroni +haven):\n%s", path, d)
		}
	}
	for _, path := range []string{"/patroni", "/replica"} {
		lacksNothing(t, path, jsonOf(t, base[patroni]+path), jsonOf(t, base[haven]+path))
	}
	theirs, _ := jsonOf(t, base[patroni]+"/cluster").(map[string]any)
	ours, _ := jsonOf(t, base[haven]+"/cluster").(map[string]any)
	for i, member := range theirs["members"].([]any) {
		lacksNothing(t, "/cluster", member, ours["members"].([]any)[i])
	}
}

func jsonOf(t *testing.T, url string) any {
	t.Helper()
	_, body := get(t, url)
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v: %s", url, err, body)
	}
	return v
}

// lacksNothing wants each field of Patroni's in Haven's document, of the same JSON type.
func lacksNothing(t *testing.T, what string, theirs, ours any) {
	t.Helper()
	have, _ := ours.(map[string]any)
	want, _ := theirs.(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		v, there := have[key]
		if !there || reflect.TypeOf(v) != reflect.TypeOf(want[key]) {
			t.Errorf("GET %s: %q is %v with Patroni, %v with Haven", what, key, want[key], v)
		}
		if _, nested := want[key].(map[string]any); nested {
			lacksNothing(t, what+" "+key, want[key], v)
		}
	}
}
