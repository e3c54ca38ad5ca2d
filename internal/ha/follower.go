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
	case v.Server.MayWrite():
		return kill(ReasonNotLeader, "demoting self because I do not have the lock and I was a leader"), true
	case m.mustWait(v):
		return wait(v, ReasonFollowing, "waiting a moment after a failure"), true
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
	if v.Server.Torn && leaderReady(v) {
		return replace(v, m, l, "a rewind was interrupted")
	}
	if c := v.Compare; leaderReady(v) && c != nil && c.With == l.Name && c.LeaderRev == l.ModRev && c.Diverged {
		return rejoin(v, m, l) // it was stopped for that: started again, it would only be stopped again
	}
	if !v.Server.WasPrimary && !v.Server.Torn && m.StartFailures < maxStartFailures && m.RewindFailed != l.ModRev {
		return act(Action{Kind: Start, Member: l.Name}, ReasonStartStandby, "starting as a secondary")
	}
	if d, ok := compareFirst(v, l); !ok {
		return d
	}
	if v.Compare.Diverged || m.StartFailures >= maxStartFailures {
		return rejoin(v, m, l)
	}
	return act(Action{Kind: Start, Member: l.Name}, ReasonStartStandby, "starting as a secondary")
}

// compareFirst asks for a comparison with the present leadership unless there is one; ok tells that there is.
func compareFirst(v View, l *cluster.Leader) (Decision, bool) {
	if !leaderReady(v) {
		return wait(v, ReasonNotPromotedYet, "waiting until %s accepts writes", l.Name), false
	}
	if c := v.Compare; c != nil && c.With == l.Name && c.LeaderRev == l.ModRev {
		return Decision{}, true
	}
	return act(Action{Kind: CompareTo, Member: l.Name}, ReasonCompare, "comparing the own history with that of %s", l.Name), false
}

// rejoin brings a diverged data directory back: by rewinding, and where that failed or is not wanted, by a new copy;
// the old data is moved aside first, never deleted.
func rejoin(v View, m *Memory, l *cluster.Leader) Decision {
	if v.Policy.UseRewind && m.RewindFailed != l.ModRev && m.StartFailures < maxStartFailures {
		if c, ok := v.Store.Member(l.Name); ok && !c.Checkpoint {
			return again(wait(v, ReasonNotPromotedYet, "Waiting for checkpoint on %s before rewind", l.Name), time.Second)
		}
		return act(Action{Kind: Rewind, Member: l.Name}, ReasonRewind, "running pg_rewind from %s: %s", l.Name, v.Compare.Text)
	}
	return replace(v, m, l, v.Compare.Text)
}

// replace has the data copied anew. What cannot follow again and again would fill the disk with its remains: beyond the
// limit a person is waited for.
func replace(v View, m *Memory, l *cluster.Leader, why string) Decision {
	recent := 0
	for _, at := range m.Replaced {
		if v.Now.Sub(at) < v.Policy.CloneWindow {
			recent++
		}
	}
	if recent >= v.Policy.CloneLimit {
		return wait(v, ReasonCloneLimit, "the data was replaced %d times within %s already: waiting for a person (%s)", recent, v.Policy.CloneWindow, why)
	}
	if v.Server.Process != ProcessDown {
		return act(Action{Kind: StopFast}, ReasonReclone, "stopping, to be copied anew from %s: %s", l.Name, why)
	}
	return act(Action{Kind: MoveAside, Member: l.Name}, ReasonReclone, "moving the data directory aside, to be copied anew from %s: %s", l.Name, why)
}

// followRunning keeps a running standby on the right leader.
func followRunning(v View, m *Memory, l *cluster.Leader) Decision {
	stuck := m.NotStreaming != 0 && v.Now.Sub(m.NotStreaming) > v.Policy.NotStreaming
	if v.Server.Upstream == l.Name && !stuck {
		d := wait(v, ReasonFollowing, "no action. I am (%s), a secondary, and following a leader (%s)", v.Me.Name, l.Name)
		if !v.Server.Streaming {
			d.Again = time.Second
		}
		return d
	}
	if d, ok := compareFirst(v, l); !ok {
		return d
	}
	switch {
	case v.Compare.Diverged:
		return rejoin(v, m, l)
	case v.Server.Upstream != l.Name:
		return act(Action{Kind: Follow, Member: l.Name}, ReasonFollow, "following %s", l.Name)
	case v.Compare.At.Before(m.NotStreaming):
		return act(Action{Kind: CompareTo, Member: l.Name}, ReasonCompare, "not streaming: comparing the own history with that of %s again", l.Name)
	}
	d := wait(v, ReasonStandbyStuck, "not streaming from %s for %s, though the histories agree", l.Name, v.Now.Sub(m.NotStreaming).Round(time.Second))
	d.Again = time.Second
	return d
}
