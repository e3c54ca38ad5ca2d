package ha

import (
	"fmt"
	"slices"
	"testing"
)

// subsets lists all subsets of names.
func subsets(names []string) [][]string {
	out := [][]string{nil}
	for _, n := range names {
		for _, s := range slices.Clone(out) {
			out = append(out, append(slices.Clone(s), n))
		}
	}
	return out
}

// everyQuorumState lists every pair of names and voters over three standbys that keeps the overlap, with every number.
func everyQuorumState() []quorumState {
	members := []string{"a", "b", "c"}
	var out []quorumState
	for _, voters := range subsets(members) {
		for _, names := range subsets(members) {
			for quorum := 0; quorum <= max(0, len(voters)-1); quorum++ {
				for k := min(1, len(names)); k <= len(names); k++ {
					q := quorumState{voters: voters, quorum: quorum, names: names, k: k}
					if q.overlaps() {
						out = append(out, q)
					}
				}
			}
		}
	}
	return out
}

func apply(q quorumState, s quorumStep) quorumState {
	if s.names {
		q.names, q.k = s.set, s.number
		return q
	}
	q.voters, q.quorum = s.set, s.number
	return q
}

// TestQuorumTransitionsKeepTheOverlap walks from every state to every target: after each single step the sets that can
// acknowledge must still meet the sets that can promote, and the target is reached.
func TestQuorumTransitionsKeepTheOverlap(t *testing.T) {
	states := everyQuorumState()
	walks := 0
	for _, start := range states {
		for _, active := range subsets([]string{"a", "b", "c"}) {
			for count := 1; count <= 3; count++ {
				walks++
				walk(t, start, active, count)
			}
		}
	}
	if walks < 1000 {
		t.Fatalf("only %d walks", walks)
	}
}

func walk(t *testing.T, q quorumState, active []string, count int) {
	t.Helper()
	trace := fmt.Sprintf("to %d of %v:\n  %+v", count, active, q)
	for range 20 {
		step, ok := q.next(active, count)
		if !ok {
			want := min(count, len(active))
			if !sameSet(q.names, active) || !sameSet(q.voters, active) || q.k != want || q.quorum != max(0, len(active)-want) {
				t.Fatalf("stopped short of the target: %s", trace)
			}
			return
		}
		q = apply(q, step)
		trace += fmt.Sprintf("\n  %+v", q)
		switch {
		case !q.overlaps():
			t.Fatalf("an acknowledged commit could miss the next leader: %s", trace)
		case q.k > len(q.names) || len(q.names) > 0 && q.k < 1:
			t.Fatalf("commits would wait for ever, or for nobody: %s", trace)
		case q.quorum < 0 || q.quorum > 0 && q.quorum >= len(q.voters):
			t.Fatalf("nobody could ever be promoted: %s", trace)
		}
	}
	t.Fatalf("no end: %s", trace)
}

func sameSet(a, b []string) bool { return len(minus(a, b)) == 0 && len(minus(b, a)) == 0 }

func TestNamesAreReadAsTheyAreWritten(t *testing.T) {
	for _, n := range []Names{
		{}, {Names: []string{"db1"}, Count: 1}, {Names: []string{"a", "b"}, Count: 2},
		{Names: []string{"a", "b", "c"}, Count: 2, Any: true}, {Names: []string{"db-1", `q"x`, "Any", "1st"}, Count: 1, Any: true},
	} {
		got := ParseNames(n.String())
		if !slices.Equal(got.Names, n.Names) || got.Any != n.Any || len(n.Names) > 0 && got.Count != n.Count {
			t.Errorf("%q was read as %+v, want %+v", n.String(), got, n)
		}
	}
}

// TestOneThatIsGoneNeedNotConfirm: with b and e in the names while c and d are back, the loss of e must not make the next
// step wait for e to confirm anything; commits would wait with it.
func TestOneThatIsGoneNeedNotConfirm(t *testing.T) {
	q := quorumState{voters: []string{"b", "c", "d", "e"}, quorum: 2, names: []string{"b", "e"}, k: 2}
	step, ok := q.next([]string{"b", "c", "d"}, 2)
	if !ok || !step.names || !slices.Equal(step.set, []string{"b", "c", "d", "e"}) || step.number != 2 {
		t.Errorf("the next step is %+v, want c and d among the names again", step)
	}
}
