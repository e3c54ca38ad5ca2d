package ha

import (
	"fmt"
	"slices"
)

// quorumState is the pair of facts that must overlap: who may acknowledge a commit (any k of names, in PostgreSQL) and
// who may be promoted (whoever has the votes of quorum others among the voters, in /sync). The leader is in neither.
type quorumState struct {
	voters []string
	quorum int
	names  []string
	k      int
}

// overlaps is the invariant: every set of names that can acknowledge meets every set of voters that can promote. The
// condition |V ∪ S| ≤ quorum + k with one of the sets inside the other is Patroni's (quorum commit).
func (q quorumState) overlaps() bool {
	if len(q.voters) == 0 {
		return true
	}
	union := len(q.voters) + len(minus(q.names, q.voters))
	inside := len(minus(q.names, q.voters)) == 0 || len(minus(q.voters, q.names)) == 0 // guard: overlap-inside
	return inside && union <= q.quorum+q.k                                             // guard: overlap-sum@2
}

// quorumStep is a change of one side.
type quorumStep struct {
	names  bool // of the names, with k; otherwise of the voters, with the quorum
	set    []string
	number int
}

// next is one step towards "any count of the active members", or ok false when that is reached. A step of the voters may
// be taken only once enough of them have what was acknowledged under older names (nextQuorum sees to that).
func (q quorumState) next(active []string, count int) (quorumStep, bool) {
	target := slices.Sorted(slices.Values(active))
	if len(target) == 0 {
		return q.dropAll()
	}
	want := min(max(1, count), len(target))
	gone := minus(q.names, target)
	switch {
	case len(gone) > 0 && len(gone) == len(q.names): // begin anew
		if len(q.voters) > 0 || q.quorum > 0 { // guard: anew-voters-first@1
			return quorumStep{}, true
		}
		return quorumStep{names: true, set: target, number: want}, true
	case len(gone) > 0:
		return q.remove(gone, target, want), true
	}
	if gone := minus(q.voters, q.names); len(gone) > 0 {
		kept := intersect(q.voters, q.names)
		return quorumStep{set: kept, number: max(0, len(kept)-q.k)}, true
	}
	if added := minus(target, q.names); len(added) > 0 {
		set := slices.Sorted(slices.Values(append(slices.Clone(q.names), added...)))
		return quorumStep{names: true, set: set, number: max(min(want, len(set)), len(set)-q.quorum)}, true
	}
	return q.settle(want)
}

// dropAll leaves quorum replication: the voters first.
func (q quorumState) dropAll() (quorumStep, bool) {
	if len(q.voters) > 0 || q.quorum > 0 { // guard: drop-voters-first@1
		return quorumStep{}, true
	}
	return quorumStep{names: true}, len(q.names) > 0
}

// remove takes gone members out. With a quorum above zero some may leave the names first; without, they leave the
// voters first, and k shrinks with them afterwards.
func (q quorumState) remove(gone, target []string, want int) quorumStep {
	voters := minus(q.voters, gone)
	if extra := minus(gone, q.voters); len(extra) > 0 { // those that are no voters only leave the names
		left := minus(q.names, extra)
		k := max(min(max(want, q.k), len(left)), len(union(q.voters, left))-q.quorum)
		return quorumStep{names: true, set: left, number: min(k, len(left))}
	}
	if q.quorum > 0 && len(minus(q.names, q.voters)) == 0 { // guard: remove-names-first@1
		some := minus(q.names, gone[:min(q.quorum, len(gone))])
		k := max(min(q.k, len(some)), len(union(q.voters, some))-q.quorum)
		if k <= len(some) {
			return quorumStep{names: true, set: some, number: k}
		}
	}
	// Voters that had left the names and are back come in again first: without them, one that is gone would have to confirm.
	if back := intersect(minus(q.voters, q.names), target); len(back) > 0 && len(minus(q.names, q.voters)) == 0 { // guard: remove-back-first@2
		set := slices.Sorted(slices.Values(union(q.names, back)))
		return quorumStep{names: true, set: set, number: max(min(q.k, len(set)), len(q.voters)-q.quorum)}
	}
	if len(minus(q.voters, q.names)) > 0 { // first those that left the names, and with them who is gone: he could not confirm
		voters = intersect(q.voters, q.names)
		if here := minus(voters, gone); len(here) > max(0, len(q.names)-q.k) { // guard: remove-gone-too
			voters = here
		}
	}
	quorum := max(0, len(q.names)-q.k)
	if quorum > 0 && quorum >= len(voters) { // guard: remove-votable@2
		return quorumStep{} // no quorum of those that are left would do
	}
	return quorumStep{set: voters, number: quorum}
}

// settle brings k and quorum to their targets once the names are right.
func (q quorumState) settle(want int) (quorumStep, bool) {
	same := len(q.voters) == len(q.names)
	switch {
	case same && q.k == want && q.quorum == len(q.names)-want:
		return quorumStep{}, false
	case same && q.k < want: // guard: settle-stricter-first@2
		return quorumStep{names: true, set: q.names, number: want}, true // the stricter names first
	case !same:
		return quorumStep{set: q.names, number: len(q.names) - min(q.k, want)}, true
	case q.quorum != len(q.names)-want:
		return quorumStep{set: q.names, number: len(q.names) - want}, true
	}
	return quorumStep{names: true, set: q.names, number: want}, true
}

func union(a, b []string) []string { return append(slices.Clone(a), minus(b, a)...) }

// nextQuorum translates between the view and quorumState.
func nextQuorum(v View, m *Memory, active []string) *SyncStep {
	names := ParseNames(v.Server.SyncNames)
	q := quorumState{voters: v.Store.Sync.Standbys, quorum: v.Store.Sync.Quorum, names: minus(names.Names, []string{Placeholder}), k: names.Count}
	if len(q.names) == 0 {
		q.k = 0
	}
	// Without the overlap somebody else has changed one of the two, or the names are closed.
	if !q.overlaps() { // guard: quorum-overlap
		return record(nil, 0, v.Me.Name)
	}
	step, ok := q.next(active, v.Policy.SyncCount)
	switch {
	case !ok && len(q.names) > 0 && !names.Any:
		return setNames(Names{Names: q.names, Count: q.k, Any: true}.String())
	case !ok:
		return nil
	case step.names:
		return setNames(Names{Names: step.set, Count: step.number, Any: true}.String())
	}
	if !enoughCaughtUp(v, m, step) { // guard: quorum-caught-up
		return nil
	}
	s := record(step.set, step.number, v.Me.Name)
	s.Text = fmt.Sprintf("Setting leader to %s, quorum to %d of %v", v.Me.Name, step.number, step.set)
	return s
}

// enoughCaughtUp tells whether among the new voters at most number lack what was acknowledged under older names. The
// overlap speaks of the names in force only: one that has just left them may be the one that had acknowledged.
func enoughCaughtUp(v View, m *Memory, step quorumStep) bool {
	have := 0
	for _, n := range step.set {
		if caughtUp(v, m, n) {
			have++
		}
	}
	return have >= len(step.set)-step.number // guard: enough-caught-up
}
