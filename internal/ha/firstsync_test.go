package ha

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
)

// TestFirstSync: a new leader b takes over what a recorded, as far as its members are there.
func TestFirstSync(t *testing.T) {
	record := func(leader string, quorum int, standbys ...string) *cluster.Sync {
		return &cluster.Sync{Leader: leader, Standbys: standbys, Quorum: quorum}
	}
	for _, c := range []struct {
		name    string
		policy  Policy
		old     *cluster.Sync
		members string
		want    *cluster.Sync
	}{
		{"off", Policy{Sync: SyncOff, Strict: true}, record("a", 0, "b"), "abc", nil},
		{"not strict: alone", Policy{Sync: SyncPriority}, record("a", 0, "b"), "abc", record("b", 0)},
		{"strict without a record: alone", Policy{Sync: SyncPriority, Strict: true}, nil, "abc", record("b", 0)},
		{"strict: the former leader and the other standbys stay", Policy{Sync: SyncPriority, Strict: true}, record("c", 0, "b", "a"), "abc", record("b", 0, "a", "c")},
		{"strict: who is gone does not", Policy{Sync: SyncPriority, Strict: true}, record("a", 0, "b", "c"), "bc", record("b", 0, "c")},
		{"strict quorum: the quorum stays", Policy{Sync: SyncQuorum, Strict: true}, record("a", 1, "b", "c"), "abc", record("b", 1, "a", "c")},
		{"strict quorum: all that are left may lack commits", Policy{Sync: SyncQuorum, Strict: true}, record("a", 1, "b", "c"), "bc", record("b", 0)},
	} {
		s := cluster.Snapshot{Sync: c.old}
		for _, name := range c.members {
			s.Members = append(s.Members, cluster.Member{Name: string(name)})
		}
		if diff := cmp.Diff(c.want, FirstSync(c.policy, s, "b")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
