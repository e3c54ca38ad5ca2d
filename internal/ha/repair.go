package ha

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// repairAfter is how long a standby may wait for WAL, with none coming from anywhere, before something is done about it; a
// server that does not begin to answer may replay nothing for as long. PostgreSQL tries its sources every five seconds.
const repairAfter = 20 * time.Second

// longStart is how long most starts do not take.
const longStart = 5 * time.Second

// Replay is how far a standby's WAL and its replay are.
type Replay struct {
	WAL      cluster.LSN `json:"wal,omitempty"`
	Replayed cluster.LSN `json:"replayed,omitempty"`
}

// noteStream follows whether a standby streams, or at least comes on. A receiver that is tried in vain shows as streaming for
// some milliseconds; so it takes two probes.
func (m *Memory) noteStream(v View) {
	s := v.Server
	at := Replay{s.WAL, s.Replayed}
	if s.Busy {
		m.Busy = v.Now
	}
	switch {
	case !s.RunningStandby():
		m.NotStreaming, m.Streamed = 0, 0
	case s.Streaming && m.Streamed != 0 && m.Streamed != s.ProbedAt: // guard: streams-twice@2,3
		m.NotStreaming, m.Nudged, m.Replacing, m.ReplacesFor = 0, 0, 0, ""
	case s.Streaming:
		m.Streamed = s.ProbedAt
	case m.NotStreaming == 0 || m.StuckAt != at: // guard: comes-on@2
		m.NotStreaming, m.StuckAt, m.Streamed = v.Now, at, 0
	default:
		m.Streamed = 0
	}
}

// noteStarting follows a server that does not answer yet: since when its replay does not come on. What it does must be
// known for that; a server that cannot be looked into may just be slow.
func (m *Memory) noteStarting(v View) {
	s := v.Server
	switch {
	case s.Probed:
		m.Starting, m.StartingAt, m.StuckStarts = 0, "", 0
	case s.Recovery == "" || s.Busy || s.Process == ProcessDown: // guard: starting-known@1,2
		m.Starting, m.StartingAt = 0, ""
	case m.Starting == 0 || m.StartingAt != s.Recovery: // guard: starting-moves@2
		m.Starting, m.StartingAt = v.Now, s.Recovery
	}
}

// stuckStart tells that the server's replay stands still before it has come far enough to answer anybody.
func (m *Memory) stuckStart(v View) bool {
	return m.Starting != 0 && v.Now.Sub(m.Starting) > repairAfter // guard: stuck-start@1,2
}

// endStuckStart ends such a standby, so that its data can be held against the leader's.
func endStuckStart(v View, m *Memory) Decision {
	m.StuckStarts++
	m.Starting = v.Now
	return kill(ReasonStandbyRestart, "the server has not begun to answer, and its replay stands still (%s): ending it, to look at its data", m.StartingAt)
}

// mendStart decides about a standby that stood still before it answered: its data is compared, started once more, and copied
// anew if that does not help.
func mendStart(v View, m *Memory, l *cluster.Leader) Decision {
	if d, ok := compareClosely(v, l, m.Starting); !ok {
		return d
	}
	switch c := v.Compare; {
	case c.Diverged: // guard: mend-diverged
		return rejoin(v, m, l)
	case c.Gone: // guard: mend-gone
		return replace(v, m, l, c.Text)
	case m.StuckStarts > 1: // guard: mend-again
		return replace(v, m, l, "its replay stands still before it can answer, twice in a row")
	}
	return act(Action{Kind: Start, Member: whom(v, m, l)}, ReasonStartStandby, "starting as a secondary, once more")
}

// compareClosely asks for a comparison of the WAL itself that is not older than since, unless there is one.
func compareClosely(v View, l *cluster.Leader, since cluster.Instant) (Decision, bool) {
	if d, ok := compareFirst(v, l); !ok && d.Action.Kind == None {
		return d, false
	}
	c := v.Compare
	if c == nil || c.With != l.Name || c.LeaderRev != l.ModRev || !c.Close || c.At.Before(since) || v.Now.Sub(c.At) > compareAgain { // guard: compare-since-stuck@4,5,6
		return act(Action{Kind: CompareTo, Member: l.Name, Close: true}, ReasonCompare, "no WAL comes: comparing the own history and WAL with that of %s", l.Name), false
	}
	return Decision{}, true
}

// mendStuck decides about a running standby that gets no WAL although its history is part of the leader's: what the leader
// has no longer, and no archive gave in the meantime, only a new copy brings; otherwise it is started again, once, and if
// that does not help, copied anew.
func mendStuck(v View, m *Memory, l *cluster.Leader) Decision {
	stuck := v.Now.Sub(m.NotStreaming).Round(time.Second)
	switch {
	case !v.Server.Waiting || v.Now.Sub(max(m.NotStreaming, m.Busy)) < repairAfter: // guard: mend-waiting@1,2
	case v.Compare.Gone: // guard: mend-stuck-gone
		return replace(v, m, l, v.Compare.Text)
	case m.Nudged == 0: // guard: mend-nudge
		m.Nudged = v.Now
		return act(Action{Kind: StopFast}, ReasonStandbyRestart, "no WAL has come from %s for %s, though the histories agree: starting the server again", l.Name, stuck)
	case len(m.Replaced) == 0: // guard: mend-copy
		return replace(v, m, l, "no WAL comes though the histories agree, and a restart did not help")
	}
	return again(wait(v, ReasonStandbyStuck, "not streaming from %s for %s: %s", l.Name, stuck, v.Compare.Text), time.Second)
}
