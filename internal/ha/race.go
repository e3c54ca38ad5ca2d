package ha

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// surveyAge is how old a survey may be that a race rests on, from its beginning. It is longer than a survey of silent
// hosts lasts (2 s): else such a one would be too old when it ends, and begun anew for ever.
const surveyAge = 5 * time.Second

// candidateGrace is how long the others leave the leader key to the member that an operator asked for.
const candidateGrace = 5 * time.Second

// gaveUpPause is how long a member that gave the leader key up because of primary_start_timeout leaves the race to others:
// started at once it would often win, since it has the most WAL, and nothing would have been gained (Patroni: 2 s). It is longer than
// another one takes to notice, ask, look and acquire on a busy host.
const gaveUpPause = 8 * time.Second

// raceRules are those of every member while nobody holds the leader key (Patroni, leader race).
func raceRules(v View, m *Memory) (Decision, bool) {
	if v.Store.Leader != nil {
		return Decision{}, false
	}
	switch {
	case v.Server.MayWrite(): // guard: race-primary
		return primaryWithoutKey(v, m), true
	case m.mustWait(v):
		return wait(v, ReasonWaitLeader, "waiting a moment after a failure"), true
	case v.Server.Process == ProcessDown && m.GaveUp != 0 && v.Now.Sub(m.GaveUp) < gaveUpPause:
		return again(wait(v, ReasonWaitLeader, "leaving the leader key to the others for a moment, since the server here was down for too long"), 500*time.Millisecond), true
	case hung(v): // guard: race-hung
		return endHung(v, m), true
	case v.Server.Process == ProcessDown:
		return act(Action{Kind: Start}, ReasonStartStandby, "starting as a secondary, no leader is known"), true
	case v.Server.RunningStandby():
		return race(v, m), true
	}
	d := wait(v, ReasonWaitProbe, "waiting for PostgreSQL to answer")
	d.Again = 500 * time.Millisecond
	return d, true
}

// primaryWithoutKey: a leader whose key vanished creates it again, within its own deadline and only if nobody has begun
// another term. Any other primary stops.
func primaryWithoutKey(v View, m *Memory) Decision {
	t := v.Store.Term
	if v.Lease.Proven(v.Now) && (t == nil || t.Holder == v.Me.Name && t.ModRev == v.Lease.TermRev) { // guard: reacquire@1,3,4
		if m.mustWait(v) { // its lease may have ended too, and the next is not granted yet
			return again(wait(v, ReasonReacquire, "the leader key vanished: waiting a moment after a failure to create it again"), 200*time.Millisecond)
		}
		cause := &cluster.Cause{Code: CauseVanished, Certainty: cluster.Observed, At: v.Wall, Text: "the leader key vanished while its holder could still prove its leadership"}
		return act(Action{Kind: Acquire, Fence: cluster.FenceStopped, Cause: cause}, ReasonReacquire, "the leader key vanished: creating it again")
	}
	return kill(ReasonNoProof, "stopping a primary that has no leader key and no proof of leadership")
}

// race decides whether this standby tries to become leader.
func race(v View, m *Memory) Decision {
	if v.Lease.ID == 0 { // guard: race-lease
		return again(wait(v, ReasonNoLease, "waiting for a lease in etcd"), 200*time.Millisecond)
	}
	if d, ok := backoff(v, m); ok {
		return d
	}
	if code, why := barred(v, m); code != "" { // guard: race-barred
		return again(wait(v, code, "%s", why), time.Second)
	}
	if v.Survey == nil || v.Survey.At.Before(m.LeaderGone) || v.Now.Sub(v.Survey.At) > surveyAge { // guard: survey-age@2,3
		return act(Action{Kind: Ask}, ReasonSurvey, "there is no leader: asking the other members")
	}
	if code, why := outrun(v, m); code != "" { // guard: race-outrun
		return again(wait(v, code, "%s", why), time.Second)
	}
	text := "promoted self to leader by acquiring session lock"
	if v.Policy.standby() {
		text = "promoted self to a standby leader by acquiring session lock"
	}
	return act(Action{Kind: Acquire, Fence: raceFence(v), Cause: inferCause(v, m)}, ReasonAcquire, "%s", text)
}

func again(d Decision, after time.Duration) Decision {
	d.Again = after
	return d
}

func raceFence(v View) cluster.Fence {
	if v.Store.Term == nil {
		return cluster.FenceBootstrap
	}
	return cluster.FenceLease
}

// barred tells why this member does not even ask: the rules that need nobody's answer.
func barred(v View, m *Memory) (Code, string) {
	t, s, f := v.Store.Term, v.Store.Sync, v.Store.Failover
	if code, why := pledged(v); code != "" {
		return code, why
	}
	switch {
	case t != nil && t.State == cluster.TermClaimed && t.Fence == cluster.FenceVoters: // guard: voters-claim@2,3
		return ReasonTermClaimed, fmt.Sprintf("term %d is claimed by %s and neither promoted nor void: nobody promotes by the ordinary rules", t.Number, t.Holder)
	case leaveToHealthy(v, m): // guard: race-sick
		return ReasonLeaveToHealthy, fmt.Sprintf("not racing: the disk is full here (%s), and another member that may lead is well", v.Server.Room)
	case !v.Me.MayLead: // guard: race-may-lead
		return ReasonNoFailover, "following a different leader because I am not allowed to promote"
	case m.PromoteFailed != 0 && v.Now.Sub(m.PromoteFailed) < v.Policy.TTL: // guard: race-promote-failed@2
		return ReasonRecentlyFailed, "not racing: a promotion of this member failed a short time ago"
	case s.Active() && !manualFailoverTo(f, v.Me.Name) && s.Quorum == 0 && s.Leader != v.Me.Name && !s.Has(v.Me.Name): // guard: race-sync@1,2,3,4,5
		return ReasonNotSynchronous, fmt.Sprintf("not racing: synchronous mode is on, and only %s may have every commit", namesOf(s))
	case v.Server.WAL.Behind(v.Store.Optime) > v.Policy.MaxLag: // guard: race-lag
		return ReasonLag, fmt.Sprintf("My wal position exceeds maximum replication lag: %d bytes behind", v.Server.WAL.Behind(v.Store.Optime))
	case v.Policy.CheckTimeline && v.Store.Timeline != 0 && v.Server.Timeline < v.Store.Timeline: // guard: race-timeline@3
		return ReasonOldTimeline, fmt.Sprintf("not racing: timeline %d is older than the cluster's %d", v.Server.Timeline, v.Store.Timeline)
	}
	return "", ""
}

func manualFailoverTo(f *Request, name string) bool {
	return f != nil && f.Leader == "" && f.Candidate == name
}

func namesOf(s *cluster.Sync) string {
	text := s.Leader
	for _, n := range s.Standbys {
		text += ", " + n
	}
	return text
}

// outrun tells why another member should lead, by what the others answered.
func outrun(v View, m *Memory) (Code, string) {
	if leaveToCandidate(v, m) { // guard: leave-to-candidate
		return ReasonLeaveToCandidate, fmt.Sprintf("leaving the leader key to %s, which was asked for", v.Store.Failover.Candidate)
	}
	s := v.Store.Sync
	votes := 0
	if s.Active() && s.Leader != v.Me.Name && !s.Has(v.Me.Name) { // guard: no-voter@3
		votes = -1
	}
	for _, a := range v.Survey.Answers {
		seen := a
		seen.MayLead = a.MayLead && !passOver(v, m, a) && !unlisted(v, a.Name) // guard: race-pass-over@2,3
		code, why := ahead(v, seen)
		if code != "" {
			return code, why
		}
		if a.Reachable && voter(s, a.Name) && a.Position > 0 && notAhead(v, a) { // guard: vote@2,4
			votes++
		}
	}
	if s.Active() && s.Quorum > 0 && s.Leader != v.Me.Name && votes < s.Quorum { // guard: race-votes@4
		return ReasonNoQuorum, fmt.Sprintf("not racing: %d of the %d votes that the synchronous quorum needs", max(votes, 0), s.Quorum)
	}
	return "", ""
}

// notAhead tells whether a voter has nothing acknowledged that this member lacks. On an older timeline it may have more
// WAL: a tail that nobody acknowledged, since what was acknowledged there is in the history of the newer one.
func notAhead(v View, a Answer) bool {
	if a.Timeline != 0 && a.Timeline < v.Server.Timeline { // guard: older-votes@2
		return true
	}
	return a.Position <= v.Server.WAL && a.Timeline <= v.Server.Timeline // guard: vote-position@1,2
}

// leaveToCandidate tells whether the member that a request names shall have the leader key. It has a few seconds for
// it, if its time has come and it may lead by the rule of /sync: nobody may wait for ever for one that is barred itself.
func leaveToCandidate(v View, m *Memory) bool {
	f, s := v.Store.Failover, v.Store.Sync
	if f == nil || !f.Due || f.Stale || f.Candidate == "" || f.Candidate == v.Me.Name || v.Now.Sub(m.LeaderGone) > candidateGrace { // guard: candidate-grace@6
		return false
	}
	if f.Leader != "" && s.Active() && !voter(s, f.Candidate) { // guard: candidate-voter@3
		return false
	}
	a, ok := v.Survey.Answer(f.Candidate)
	return ok && a.Reachable && a.MayLead // guard: candidate-reachable@2
}

func voter(s *cluster.Sync, name string) bool {
	return s.Active() && (s.Has(name) || s.Leader == name)
}

// ahead tells whether that member must be left to lead. Positions compare on one timeline only: a member of an older
// one may have more WAL, yet none of what was committed since it was left.
func ahead(v View, a Answer) (Code, string) {
	s := v.Store.Sync
	switch {
	case !a.Reachable:
		return "", ""
	case a.Primary: // guard: primary-alive
		return ReasonPrimaryAlive, fmt.Sprintf("Primary (%s) is still alive", a.Name)
	case a.Timeline > v.Server.Timeline && v.Server.Timeline != 0 && (a.MayLead || voter(s, a.Name)): // guard: newer-timeline@1
		return ReasonOldTimeline, fmt.Sprintf("not racing: %s is on timeline %d, this member on %d", a.Name, a.Timeline, v.Server.Timeline)
	case a.Timeline < v.Server.Timeline && a.Timeline != 0: // guard: older-timeline@1
		return "", ""
	case !a.MayLead && !(s.Active() && s.Quorum > 0 && voter(s, a.Name)): // guard: ahead-eligible@1,2
		return "", ""
	case s.Active() && s.Quorum == 0 && !voter(s, a.Name): // guard: ahead-unrecorded@3
		return "", "" // in priority mode only the recorded members are asked
	case s.Active() && s.Leader == a.Name: // guard: ahead-old-leader@2
		return "", "" // the former leader may have commits that it never acknowledged
	case a.Position > v.Server.WAL: // guard: ahead-wal-position
		return ReasonBehind, fmt.Sprintf("Wal position of %s is ahead of my wal position", a.Name)
	case a.Position == v.Server.WAL && a.MayLead && a.Priority > priority(v): // guard: ahead-priority@3
		return ReasonPriority, fmt.Sprintf("%s has equally tolerable WAL position and priority %d, while this node has priority %d", a.Name, a.Priority, priority(v))
	}
	return "", ""
}

func priority(v View) int { return v.Store.priority(v.Me.Name) }

// priority is the failover_priority of a member; that of one without a key is the usual one.
func (s Store) priority(name string) int {
	if m, ok := s.Member(name); ok {
		return m.Priority
	}
	return 1
}

// inferCause says why there is no leader, from what the old leader's key, member key and address show.
func inferCause(v View, m *Memory) *cluster.Cause {
	c := &cluster.Cause{At: v.Wall, Certainty: cluster.Unknown, Code: CauseNoLeader, Text: "no leader was known"}
	old := m.LastLeader
	if old == "" {
		return c
	}
	if old == v.Me.Name {
		c.Code, c.Text = CauseOwnLease, "this member's own leadership had ended"
		return c
	}
	_, keyLeft := v.Store.Member(old)
	a, asked := v.Survey.Answer(old)
	switch {
	case keyLeft:
		c.Code, c.Certainty = CauseReleased, cluster.Observed
		c.Text = fmt.Sprintf("%s gave the leader key up; its member key is still there", old)
	case asked && a.Refused:
		c.Code, c.Certainty = CauseAgentGone, cluster.Inferred
		c.Text = fmt.Sprintf("the agent of %s is gone: its lease ended, and its host refuses connections to its address", old)
	case asked && a.Reachable:
		c.Code, c.Certainty = CauseNotRenewed, cluster.Inferred
		c.Text = fmt.Sprintf("%s did not renew its lease in time, though its agent answers (it was hung, or cut off from etcd)", old)
	default:
		c.Code, c.Certainty = CauseSilent, cluster.Inferred
		c.Text = fmt.Sprintf("%s does not answer at all: its host is lost, cut off or frozen, and its lease ended", old)
	}
	c.Evidence = causeEvidence(v, old, keyLeft, a)
	return c
}

func causeEvidence(v View, old string, keyLeft bool, a Answer) []cluster.Evidence {
	say := func(format string, args ...any) cluster.Evidence {
		return cluster.Evidence{At: v.Wall, Member: v.Me.Name, Text: fmt.Sprintf(format, args...)}
	}
	out := []cluster.Evidence{say("the leader key of %s is gone from etcd", old)}
	if !keyLeft {
		out = append(out, say("the member key of %s, on the same lease, is gone too", old))
	}
	if a.Error != "" {
		out = append(out, say("asking %s directly: %s", old, a.Error))
	}
	if a.Reachable {
		out = append(out, say("%s answers; in recovery: %v; WAL position %s", old, !a.Primary, a.Position))
	}
	return out
}

// Awaited tells whether a survey waits for that member, since its answer may decide who leads; leads: the asker holds the leader key.
// It is alive, since its key is there, and may have what others lack, unless its server has stopped in order. The last leader has not,
// unless it is a standby by now; but it may still write where nothing ends its server with its lease, and while that lease lasts: somebody
// has deleted its key. A leader hands over to a synchronous standby only.
func Awaited(m cluster.Member, s cluster.Snapshot, lastLeader string, leads, pause bool) bool {
	_, alive := s.Member(m.Name)
	switch {
	case leads:
		return alive && s.Sync.Has(m.Name)
	case m.Name != lastLeader:
		return alive && m.State != cluster.StateStopped && (m.MayLead() || s.Sync.Has(m.Name))
	case Unfenced(m, pause):
		return true
	}
	return alive && m.State == cluster.StateRunning && (m.Role != cluster.RoleReplica || m.MayLead() || s.Sync.Has(m.Name))
}

// Unfenced tells whether nothing ends that member's server with its lease: in pause, which it may know of though the asker knows already
// of its end, and if it is Patroni's.
func Unfenced(m cluster.Member, pause bool) bool { return pause || m.Pause || m.Haven == nil }

// Sufficient tells whether a leader may hand over by these answers (mostAdvanced): for those who are late it waits only a little longer then.
// If only a sick one may lead they are awaited.
func Sufficient(s cluster.Snapshot, answers []Answer) bool {
	n, fit := 0, false
	for _, a := range answers {
		if a.Reachable && s.Sync.Has(a.Name) {
			n++
			m, alive := s.Member(a.Name)
			fit = fit || a.MayLead && alive && (m.Haven == nil || well(m.Haven.Health))
		}
	}
	return fit && n > s.Sync.Quorum
}
