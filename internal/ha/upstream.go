package ha

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// parentAgain is how long a member that gave no WAL is left alone before it is followed again.
const parentAgain = time.Minute

// whom tells whom a standby replicates from while l leads: the member that its tag replicatefrom names, if that is well, and
// otherwise the leader; nobody (empty) where the tag nostream has it read the archive only.
func whom(v View, m *Memory, l *cluster.Leader) string {
	from := v.Me.ReplicateFrom
	switch {
	case v.Me.NoStream: // guard: whom-nostream
		return ""
	case from == "" || from == v.Me.Name || turnsBack(v, from): // guard: whom-turns-back@3
		return l.Name
	case m.ParentFailed != 0 && v.Now.Sub(m.ParentFailed) < parentAgain: // guard: whom-failed@2
		return l.Name
	}
	p, there := v.Store.Member(from)
	switch {
	case !there || p.Lease == 0 || p.State != cluster.StateRunning: // guard: whom-gone@2,3
		return l.Name
	case p.Streaming || p.NoStream || !p.Haven: // guard: whom-streams@1,2,3
		return from
	case v.Server.Upstream == from && v.Now.Sub(m.ParentLost) < v.Policy.NotStreaming: // guard: whom-for-a-moment@1,2
		return from
	}
	return l.Name
}

// turnsBack tells that a chain of replicatefrom that begins at that member comes back to this one, or never ends: its members
// would feed each other, and nobody them.
func turnsBack(v View, from string) bool {
	for range len(v.Store.Members) {
		if v.Store.Leader != nil && from == v.Store.Leader.Name { // guard: turns-back-leader@2
			return false
		}
		p, ok := v.Store.Member(from)
		if !ok || p.ReplicateFrom == "" {
			return false
		}
		from = p.ReplicateFrom
		if from == v.Me.Name { // guard: turns-back
			return true
		}
	}
	return true
}

// noteParent follows since when the member to replicate from does not stream itself. A short loss, as by a change of
// leadership, is no reason to leave it.
func (m *Memory) noteParent(v View) {
	p, ok := v.Store.Member(v.Me.ReplicateFrom)
	switch {
	case !v.Store.Known:
	case !ok || p.Streaming:
		m.ParentLost = 0
	case m.ParentLost == 0:
		m.ParentLost = v.Now
	}
}

// leaveParent turns a standby that gets no WAL from another standby to the leader, before anything is thought of its data.
func (m *Memory) leaveParent(v View, l *cluster.Leader) {
	if up := v.Server.Upstream; up != "" && up != l.Name && up == v.Me.ReplicateFrom { // guard: leave-parent@2,3
		m.ParentFailed = v.Now
	}
}
