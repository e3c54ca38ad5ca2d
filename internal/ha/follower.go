package ha

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// followerRules are those of a member while another one holds the leader key.
func followerRules(v View, m *Memory) (Decision, bool) {
	l := v.Store.Leader
	if l == nil || l.Name == v.Me.Name {
		return Decision{}, false
	}
	switch {
	case v.Server.MayWrite(): // guard: not-leader
		return kill(ReasonNotLeader, "demoting self because I do not have the lock and I was a leader"), true
	case m.mustWait(v):
		return wait(v, ReasonFollowing, "waiting a moment after a failure"), true
	case hung(v):
		return endHung(v, m), true
	case m.stuckStart(v):
		return endStuckStart(v, m), true
	case v.Server.Process == ProcessDown:
		return followWithoutServer(v, m, l), true
	case v.Server.RunningStandby():
		return followRunning(v, m, l), true
	}
	d := wait(v, ReasonWaitProbe, "waiting for PostgreSQL to answer")
	d.Again = 500 * time.Millisecond
	return d, true
}

// followWithoutServer starts the server as a standby. What was a primary, or would not stream, is first held against
// the leader's history.
func followWithoutServer(v View, m *Memory, l *cluster.Leader) Decision {
	if v.Server.Torn && leaderReady(v) { // guard: torn@1,2
		return replace(v, m, l, "a rewind was interrupted")
	}
	if m.Replacing == l.ModRev && leaderReady(v) && !v.Server.WasPrimary { // guard: replacing@1,3
		return replace(v, m, l, m.ReplacesFor)
	}
	if m.StuckStarts > 0 && leaderReady(v) && !v.Server.WasPrimary { // guard: mend-start@1,3
		return mendStart(v, m, l)
	}
	if c := v.Compare; leaderReady(v) && c != nil && c.With == l.Name && c.LeaderRev == l.ModRev && c.Diverged { // guard: stopped-diverged@5
		return rejoin(v, m, l) // it was stopped for that: started again, it would only be stopped again
	}
	if !v.Server.WasPrimary && !v.Server.Promoted && !v.Server.Torn && m.StartFailures < maxStartFailures && m.RewindFailed != l.ModRev { // guard: start-standby@1,2,3,4,5
		return act(Action{Kind: Start, Member: whom(v, m, l)}, ReasonStartStandby, "starting as a secondary")
	}
	if d, ok := compareFirst(v, l); !ok {
		return d
	}
	if m.StartFailures >= maxStartFailures && v.Server.Room.Full() { // guard: start-full@2
		return startFull(v, m, l)
	}
	if m.dataAtFault() { // guard: start-gives-up
		return rejoin(v, m, l)
	}
	return act(Action{Kind: Start, Member: whom(v, m, l)}, ReasonStartStandby, "starting as a secondary")
}

// compareFirst asks for a comparison with the present leadership unless there is one; ok tells that there is.
func compareFirst(v View, l *cluster.Leader) (Decision, bool) {
	if !leaderReady(v) { // guard: compare-leader-ready
		return wait(v, ReasonNotPromotedYet, "waiting until %s accepts writes", l.Name), false
	}
	if c := v.Compare; c != nil && c.With == l.Name && c.LeaderRev == l.ModRev { // guard: compare@2,3
		return Decision{}, true
	}
	return act(Action{Kind: CompareTo, Member: l.Name}, ReasonCompare, "comparing the own history with that of %s", l.Name), false
}

// rejoin brings a diverged data directory back: by rewinding, and where that failed or is not wanted, by a new copy;
// the old data is moved aside first, never deleted.
func rejoin(v View, m *Memory, l *cluster.Leader) Decision {
	twin := v.Compare != nil && v.Compare.Twin
	if v.Policy.UseRewind && m.RewindFailed != l.ModRev && !m.dataAtFault() && !twin { // guard: rewind@1,2,3,4
		if c, ok := v.Store.Member(l.Name); ok && !c.Checkpoint { // guard: rewind-checkpoint@2
			return again(wait(v, ReasonNotPromotedYet, "Waiting for checkpoint on %s before rewind", l.Name), time.Second)
		}
		return act(Action{Kind: Rewind, Member: l.Name}, ReasonRewind, "running pg_rewind from %s: %s", l.Name, v.Compare.Text)
	}
	return replace(v, m, l, v.Compare.Text)
}

// replace has the data copied anew, once no promotion may need it or this member's vote; torn data gives neither. What cannot follow again and again would fill the disk with its remains: beyond the
// limit a person is waited for.
func replace(v View, m *Memory, l *cluster.Leader, why string) Decision {
	if v.Server.Room.Full() { // guard: replace-full
		return again(wait(v, ReasonDiskFull, "the disk is full (%s): there is no room for a new copy (%s)", v.Server.Room, why), time.Second)
	}
	recent := 0
	for _, at := range m.Replaced {
		if v.Now.Sub(at) < v.Policy.CloneWindow { // guard: clone-window
			recent++
		}
	}
	if recent >= v.Policy.CloneLimit { // guard: clone-limit
		return wait(v, ReasonCloneLimit, "the data was replaced %d times within %s already: waiting for a person (%s)", recent, v.Policy.CloneWindow, why)
	}
	if v.Server.Process != ProcessDown { // guard: replace-server-down
		m.Replacing, m.ReplacesFor = l.ModRev, why
		return act(Action{Kind: StopFast}, ReasonReclone, "stopping, to be copied anew from %s: %s", l.Name, why)
	}
	if counted(v) && !v.Server.Torn { // guard: replace-still-counted@1,2
		return again(wait(v, ReasonReclone, "waiting until %s does not count on the data here any more, to copy it anew: %s", l.Name, why), 200*time.Millisecond)
	}
	return act(Action{Kind: MoveAside, Member: l.Name}, ReasonReclone, "moving the data directory aside, to be copied anew from %s: %s", l.Name, why)
}

// compareAgain is how long a comparison holds for a standby that does not stream: its WAL may have been garbled, or
// replayed, since.
const compareAgain = 30 * time.Second

// followRunning keeps a running standby on the right leader.
func followRunning(v View, m *Memory, l *cluster.Leader) Decision {
	stuck := m.NotStreaming != 0 && !v.Server.Streaming && v.Now.Sub(m.NotStreaming) > v.Policy.NotStreaming && !v.Me.NoStream // guard: stuck-archive@4
	if v.Me.NoStream {                                                                                                         // no stream would tell that the histories differ
		if d, ok := compareFirst(v, l); !ok {
			return d
		}
		if v.Compare.Diverged { // guard: nostream-diverged
			return rejoin(v, m, l)
		}
	}
	if stuck {
		m.leaveParent(v, l)
	}
	to := whom(v, m, l)
	if v.Server.Upstream == to && !stuck { // guard: follow@1,2
		d := wait(v, ReasonFollowing, "%s", v.following())
		if to != "" && (!v.Server.Streaming || m.NotStreaming != 0) { // a stream that has just begun is looked at twice
			d.Again = time.Second
		}
		return d
	}
	if v.Server.Upstream != to || !stuck {
		if d, ok := compareFirst(v, l); !ok {
			return d
		}
	} else if d, ok := compareClosely(v, l, m.NotStreaming); !ok {
		return d
	}
	switch {
	case v.Compare.Diverged: // guard: running-diverged
		return rejoin(v, m, l)
	case to == "":
		return act(Action{Kind: Follow}, ReasonFollow, "following nobody: WAL comes from the archive only (tag nostream)")
	case v.Server.Upstream != to:
		return act(Action{Kind: Follow, Member: to}, ReasonFollow, "following %s", to)
	}
	return mendStuck(v, m, l)
}
