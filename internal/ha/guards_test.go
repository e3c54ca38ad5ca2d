package ha

import (
	"slices"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// meets tells whether every k of names have a member in common with every quorum+1 of voters, by trying all.
func meets(q quorumState) bool {
	for _, acknowledging := range subsets(q.names) {
		for _, promoting := range subsets(q.voters) {
			if len(acknowledging) == q.k && len(promoting) == q.quorum+1 && len(intersect(acknowledging, promoting)) == 0 {
				return false
			}
		}
	}
	return true
}

// TestOverlapIsWhatItSays holds the condition on sizes against trying all sets.
func TestOverlapIsWhatItSays(t *testing.T) {
	members := []string{"a", "b", "c", "d"}
	safe := 0
	for _, voters := range subsets(members) {
		for _, names := range subsets(members) {
			for quorum := range len(voters) + 1 {
				for k := range len(names) + 1 {
					q := quorumState{voters: voters, quorum: quorum, names: names, k: k}
					if q.overlaps() && !meets(q) {
						t.Errorf("%+v counts as safe, and a commit could miss the next leader", q)
					}
					if q.overlaps() {
						safe++
					}
				}
			}
		}
	}
	if safe < 100 {
		t.Errorf("only %d states count as safe", safe)
	}
}

// TestOnlyAStandbysWorkIsInterrupted: what a leader does is never ended for a new copy.
func TestOnlyAStandbysWorkIsInterrupted(t *testing.T) {
	for _, c := range []struct {
		task Task
		want bool
	}{
		{Task{Kind: Clone, With: "a"}, true}, {Task{Kind: Start, With: "a"}, true}, {Task{Kind: Start}, false},
		{Task{Kind: Promote}, false}, {Task{Kind: Switch, With: "b"}, false}, {Task{Kind: RestartServer}, false}, {Task{Kind: MoveAside, With: "a"}, false},
	} {
		if got := c.task.Interruptible(); got != c.want {
			t.Errorf("%+v: %v", c.task, got)
		}
	}
}

func TestLeadershipIsProven(t *testing.T) {
	now := cluster.Instant(10 * time.Second)
	for _, c := range []struct {
		name  string
		lease Lease
		want  bool
	}{
		{"held, within the deadline", Lease{Held: true, Deadline: now.Add(time.Second)}, true},
		{"at the deadline", Lease{Held: true, Deadline: now}, false},
		{"past the deadline", Lease{Held: true, Deadline: now.Add(-time.Second)}, false},
		{"denied by the store", Lease{Held: true, Lost: true, Deadline: now.Add(time.Second)}, false},
		{"not held", Lease{Deadline: now.Add(time.Second)}, false},
	} {
		if got := c.lease.Proven(now); got != c.want {
			t.Errorf("%s: proven %v", c.name, got)
		}
	}
}

// TestNamesThatAServerStartsWith sees that a leader never starts with names weaker than what /sync records.
func TestNamesThatAServerStartsWith(t *testing.T) {
	record := func(leader string, quorum int, standbys ...string) *cluster.Sync {
		return &cluster.Sync{Leader: leader, Standbys: standbys, Quorum: quorum}
	}
	for _, c := range []struct {
		name   string
		policy Policy
		sync   *cluster.Sync
		want   string
	}{
		{"asynchronous", Policy{Sync: SyncOff}, nil, ""},
		{"no record yet", Policy{Sync: SyncPriority}, nil, Placeholder},
		{"the record is another's", Policy{Sync: SyncPriority}, record("b", 0, "c"), Placeholder},
		{"the record of another, after the mode was switched off", Policy{Sync: SyncOff}, record("b", 0, "c"), Placeholder},
		{"one standby", Policy{Sync: SyncPriority}, record("a", 0, "b"), "b"},
		{"two standbys", Policy{Sync: SyncPriority}, record("a", 0, "b", "c"), "2 (b,c)"},
		{"quorum", Policy{Sync: SyncQuorum}, record("a", 1, "b", "c"), "ANY 1 (b,c)"},
		{"nobody is recorded", Policy{Sync: SyncPriority}, record("a", 0), ""},
		{"nobody is recorded, strict", Policy{Sync: SyncPriority, Strict: true}, record("a", 0), Placeholder},
		{"quorum, nobody is recorded, strict", Policy{Sync: SyncQuorum, Strict: true}, record("a", 0), "ANY 1 (" + Placeholder + ")"},
	} {
		if got := NamesFor(c.policy, c.sync, "a"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestOpeningFromThePlaceholder: nothing is acknowledged under it, so in priority mode the recorded standbys have every
// commit, and stay recorded. Names under which others could acknowledge are another matter.
func TestOpeningFromThePlaceholder(t *testing.T) {
	for _, c := range []struct {
		mode    SyncMode
		record  string
		streams string
		names   string
		want    string // of the names; empty: the record is begun anew
	}{
		{SyncPriority, "a:b", "b:1000", Placeholder, "b"},
		{SyncQuorum, "a:b,c:1", "b:1000,c:1000", Placeholder, ""},
		{SyncPriority, "a:b", "b:1000", `ANY 1 (b,"` + Placeholder + `",c)`, ""},
		{SyncQuorum, "a:b,c:1", "b:1000,c:1000", `ANY 1 (b,c,d)`, ""},
	} {
		v, m := usual(), Memory{}
		v.Me.Name = "a"
		setServer(&v, "primary")
		setLease(&v, "10s")
		setSyncKey(&v, c.record)
		setStandbys(&v, c.streams)
		v.Policy.Sync, v.Server.SyncNames = c.mode, c.names
		d, _ := Decide(v, m)
		s := d.Action.Sync
		switch {
		case s == nil:
			t.Errorf("%s from %q: %s", c.mode, c.names, tell(d))
		case c.want == "" && (s.Record == nil || len(s.Record.Standbys) > 0):
			t.Errorf("%s from %q: %s; the record should be begun anew", c.mode, c.names, tell(d))
		case c.want != "" && (s.Names == nil || *s.Names != c.want):
			t.Errorf("%s from %q: %s, want names %q", c.mode, c.names, tell(d), c.want)
		}
	}
}

// TestClosedNames: the placeholder closes only where no other standby's word would do.
func TestClosedNames(t *testing.T) {
	for value, want := range map[string]bool{
		Placeholder: true, "ANY 1 (" + Placeholder + ")": true, "2 (b," + Placeholder + ")": true,
		"ANY 1 (b," + Placeholder + ")": false, "b": false, "": false,
	} {
		if got := ParseNames(value).closed(); got != want {
			t.Errorf("%q: closed %v", value, got)
		}
	}
	if got := covered(&cluster.Sync{Standbys: []string{"b"}}, "ANY 1 (b,"+Placeholder+")"); slices.Contains(got, "b") {
		t.Error("b counts as having all that was acknowledged, though another one's word was enough")
	}
}

// TestOneThatGoesBeforeAnotherIsRecorded: c leaves while d is named and not recorded yet; a and b stay recorded.
func TestOneThatGoesBeforeAnotherIsRecorded(t *testing.T) {
	q := quorumState{voters: []string{"a", "b", "c"}, quorum: 1, names: []string{"a", "b", "c", "d"}, k: 3}
	step, ok := q.next([]string{"a", "b", "d"}, 1)
	if got := apply(q, step); !ok || !slices.Equal(got.voters, []string{"a", "b"}) || got.quorum != 1 || !got.overlaps() {
		t.Errorf("the step from %+v leads to %+v", q, got)
	}
}

// TestOneThatGoesDoesNotCostTheRecord: while one of three or four leaves, the others stay recorded at every step, so that
// one of them may take over at any time.
func TestOneThatGoesDoesNotCostTheRecord(t *testing.T) {
	for _, all := range [][]string{{"a", "b", "c"}, {"a", "b", "c", "d"}} {
		for k := 1; k <= len(all); k++ {
			for count := 1; count <= len(all); count++ {
				q := quorumState{voters: all, quorum: len(all) - k, names: all, k: k}
				for range 20 { // the walk ends: TestQuorumTransitionsKeepTheOverlap
					step, ok := q.next(all[1:], count)
					if !ok {
						break
					}
					if q = apply(q, step); len(q.voters) == 0 {
						t.Errorf("any %d of %d, to any %d without a: nobody is recorded", k, len(all), count)
						break
					}
				}
			}
		}
	}
}
