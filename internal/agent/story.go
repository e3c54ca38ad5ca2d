package agent

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// storyLength bounds the notes of one change of leadership.
const storyLength = 60

// story gathers what this member saw and did about the present change of leadership; the new leader writes it into the
// store. Its times are wall times, for people.
type story struct {
	oldLeader  *cluster.Member // as last seen, so that it can be asked when its key is gone
	lastStream time.Time       // when the standby last heard from it
	gone       time.Time       // when its key was seen gone
	notes      []cluster.Evidence
	position   cluster.LSN // of this member when the change began
	optime     cluster.LSN // of the old leader, by the status key
}

func (s *story) copy() story {
	c := *s
	c.notes = append([]cluster.Evidence(nil), s.notes...)
	return c
}

func (s *story) note(at time.Time, member, text string) {
	if len(s.notes) < storyLength {
		s.notes = append(s.notes, cluster.Evidence{At: at, Member: member, Text: text})
	}
}

// streamed remembers when replication last worked.
func (s *story) streamed(l *cluster.Leader, seen seen) {
	p := seen.probe
	if p.InRecovery {
		s.position = max(p.ReceiveLSN, p.ReplayLSN)
	}
	if p.InRecovery && p.ReceiverStatus == "streaming" && l != nil {
		s.lastStream = p.ReceiverHeard
	}
}

// leaderKey follows the leader key: a new story begins where a leader is in office.
func (s *story) leaderKey(before, after *cluster.Leader, me string) {
	switch {
	case before != nil && after == nil:
		s.gone = time.Now()
		s.note(s.gone, me, fmt.Sprintf("the leader key of %s is gone", before.Name))
	case before != nil && after != nil && before.Name != after.Name:
		s.gone = time.Now()
		s.note(s.gone, me, fmt.Sprintf("the leader key went from %s to %s", before.Name, after.Name))
	}
}

// office remembers the member in office, and ends the story of its coming.
func (s *story) office(m cluster.Member, optime cluster.LSN) {
	if s.oldLeader == nil || s.oldLeader.Name != m.Name {
		s.notes, s.gone = nil, time.Time{}
	}
	s.oldLeader, s.optime = &m, optime
}

// event tells the change of leadership that ended with this promotion.
func (s *story) event(in input, t cluster.Term, p postgres.Probe) cluster.Event {
	e := cluster.Event{
		Term: t.Number, Kind: kindOf(t), OldLeader: t.OldLeader, NewLeader: t.Holder, Fence: t.Fence,
		Timeline: t.Timeline, LSN: p.WalLSN,
		Cause: cluster.Cause{Code: "unknown", Text: "no cause was recorded", Certainty: cluster.Unknown, At: t.Since},
	}
	if t.Cause != nil {
		e.Cause = *t.Cause
	}
	e.Log = s.since(s.begin(t, e.Cause))
	e.Chosen, e.Rejected = s.choice(in, t)
	e.Loss = s.loss(in, t)
	e.Phases = s.phases(t, e.Cause)
	return e
}

func kindOf(t cluster.Term) string {
	switch {
	case t.Fence == cluster.FenceBootstrap:
		return "bootstrap"
	case t.Cause != nil && (t.Cause.Code == ha.CauseSwitchover || t.Cause.Code == ha.CauseStopped):
		return "switchover"
	case t.OldLeader == t.Holder:
		return "recovery"
	}
	return "failover"
}

func (s *story) choice(in input, t cluster.Term) (string, []string) {
	chosen := fmt.Sprintf("%s: WAL up to %s", t.Holder, s.position)
	if sy := in.snap.Sync; sy.Active() && sy.Has(t.Holder) {
		chosen += ", a synchronous standby in /sync"
	}
	var rejected []string
	for _, m := range in.snap.Members {
		switch {
		case m.Name == t.Holder || m.Name == t.OldLeader:
		case !m.MayLead():
			rejected = append(rejected, m.Name+": tagged nofailover")
		case in.snap.Sync.Active() && !in.snap.Sync.Has(m.Name):
			rejected = append(rejected, m.Name+": not a synchronous standby")
		default:
			rejected = append(rejected, fmt.Sprintf("%s: WAL up to %s", m.Name, m.Position()))
		}
	}
	return chosen, rejected
}

func (s *story) loss(in input, t cluster.Term) string {
	switch {
	case t.OldLeader == "" || t.OldLeader == t.Holder:
		return "none: the same data goes on"
	case t.Fence == cluster.FenceStopped && t.Cause != nil && orderly(in, t.Cause.Code):
		return fmt.Sprintf("none: %s had all of %s's WAL before it took over", t.Holder, t.OldLeader)
	case in.snap.Sync.Active() && (in.snap.Sync.Has(t.Holder) || in.snap.Sync.Quorum > 0):
		return fmt.Sprintf("none: %s has every commit that waited for the synchronous set", t.Holder)
	case in.dynamic.SynchronousMode == config.SyncOff && s.optime > s.position:
		return fmt.Sprintf("replication was asynchronous: at least %d bytes of WAL of %s are missing", s.optime-s.position, t.OldLeader)
	case in.dynamic.SynchronousMode == config.SyncOff:
		return fmt.Sprintf("replication was asynchronous: what %s wrote after %s is missing, if anything", t.OldLeader, s.position)
	}
	return "not known"
}

// orderly tells whether a server that was stopped for that cause was shut down, its standbys with all of its WAL.
func orderly(in input, code string) bool {
	return !ha.FaultCause(code) && code != ha.CauseDeadline || code == ha.CauseDiskFull && !in.snap.Sync.Active()
}

// begin is when the change began: when its cause was seen, or after a lease had to end, when replication last worked.
func (s *story) begin(t cluster.Term, c cluster.Cause) time.Time {
	if t.Fence == cluster.FenceLease && !s.lastStream.IsZero() && s.lastStream.Before(c.At) {
		return s.lastStream
	}
	return c.At
}

// since are the notes from that time on.
func (s *story) since(begin time.Time) []cluster.Evidence {
	var out []cluster.Evidence
	for _, n := range s.notes {
		if !n.At.Before(begin) {
			out = append(out, n)
		}
	}
	return out
}

// phases cuts the time of the change into parts, by what was noted.
func (s *story) phases(t cluster.Term, c cluster.Cause) []cluster.Phase {
	begin := s.begin(t, c)
	marks := []struct {
		name string
		end  time.Time
	}{
		{"detection", s.gone}, {"election", s.when("promoting")},
		{"promotion", s.when("the server accepts writes")}, {"opening", time.Now()},
	}
	if c.Code == ha.CauseSwitchover || c.Code == ha.CauseFailover || c.Code == ha.CauseStopped {
		marks[0].name = "shutdown"
	}
	var out []cluster.Phase
	for _, m := range marks {
		if m.end.IsZero() || m.end.Before(begin) {
			continue
		}
		out = append(out, cluster.Phase{Name: m.name, From: begin, Took: m.end.Sub(begin)})
		begin = m.end
	}
	return out
}

func (s *story) when(text string) time.Time {
	for _, n := range s.notes {
		if n.Text == text {
			return n.At
		}
	}
	return time.Time{}
}
