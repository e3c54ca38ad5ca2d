package ha

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// maxStartFailures is how often a leader tries to start its server in place before it gives the leader key up.
const maxStartFailures = 3

// leaderRules are those of the member that holds the leader key.
func leaderRules(v View, m *Memory) (Decision, bool) {
	l := v.Store.Leader
	if !v.Lease.Held || l == nil || l.Name != v.Me.Name { // guard: lead@1,3
		return Decision{}, false
	}
	switch {
	case !v.Lease.Proven(v.Now): // guard: lead-unproven
		d := wait(v, ReasonNoProof, "leadership is not proven at the moment: renewing before anything else")
		d.Again = 200 * time.Millisecond
		return d, true
	case hung(v) && !stalled(v, m):
		return endHung(v, m), true
	case m.stuckStart(v) && !v.Server.WasPrimary: // guard: lead-stuck-start@2
		return endStuckStart(v, m), true
	case recoversSlowly(v, m):
		return endRecovery(v, m), true
	case v.Server.Process == ProcessUp && !v.Server.Probed && overdue(v, m): // guard: lead-overdue@1,2
		return kill(ReasonStartTimeout, "stopped PostgreSQL because of startup timeout"), true
	case v.Server.Process == ProcessDown:
		return leadWithoutServer(v, m), true
	case v.Server.RunningStandby():
		return leadStandby(v, m), true
	case v.Server.Primary():
		return leadPrimary(v, m)
	}
	d := wait(v, ReasonWaitProbe, "waiting for PostgreSQL to answer")
	d.Again = 500 * time.Millisecond
	return d, true
}

// resume proves a leadership that the store says is ours: after a restart of the agent, or when another leader has
// just handed over.
func resume(v View, m *Memory) (Decision, bool) {
	l := v.Store.Leader
	if v.Lease.Held || l == nil || l.Name != v.Me.Name { // guard: resume-named@3
		return Decision{}, false
	}
	if m.mustWait(v) {
		d := wait(v, ReasonResume, "could not prove that leadership is ours: trying again in a moment")
		d.Again = 200 * time.Millisecond
		return d, true
	}
	return act(Action{Kind: Resume}, ReasonResume, "the leader key names this member: proving it"), true
}

// leadWithoutServer decides for a leader whose server is verified stopped. In a synchronous mode a standby that
// provably has every acknowledged commit takes over; otherwise the server is started where it is.
func leadWithoutServer(v View, m *Memory) Decision {
	if m.mustWait(v) {
		return wait(v, ReasonStartFailed, "waiting a moment after a failure")
	}
	if m.StuckStarts > 0 && !v.Server.WasPrimary { // guard: lead-stuck-release@1,2
		return act(Action{Kind: Release, Cause: startFailure(v)}, ReasonStartFailed,
			"removed leader key: the replay of this standby stands still before it can answer, and never will be promoted")
	}
	if d, ok := crashHandover(v, m); ok {
		return d
	}
	if d, ok := giveUpStart(v, m); ok {
		return d
	}
	if m.StartFailures >= maxStartFailures {
		if d, ok := stayFull(v, m); ok {
			return d
		}
	}
	if m.StartFailures >= maxStartFailures { // guard: start-in-place-failures
		return act(Action{Kind: Release, Cause: startFailure(v)}, ReasonStartFailed,
			"removed leader key after trying and failing to start postgres")
	}
	if v.Policy.standby() { // guard: start-remote
		return startRemote(v)
	}
	if v.Server.WasPrimary { // guard: start-in-place-primary
		return act(Action{Kind: Start, AsPrimary: true}, ReasonStartInPlace, "starting primary after failure")
	}
	return act(Action{Kind: Start}, ReasonStartInPlace, "starting as readonly because i had the session lock")
}

func startFailure(v View) *cluster.Cause {
	return &cluster.Cause{
		Code: CauseStart, Certainty: cluster.Observed, At: v.Wall,
		Text: fmt.Sprintf("PostgreSQL on %s could not be started again", v.Me.Name),
	}
}

// crashHandover gives leadership away after a crash of the server. It needs synchronous mode, a candidate that holds
// every acknowledged commit by the rule of /sync, and five minutes since the last time, because a query that crashes
// servers must not visit them all.
func crashHandover(v View, m *Memory) (Decision, bool) {
	code, c := fault(v, m)
	if c == nil || !v.Store.Sync.Active() || len(v.Store.Sync.Standbys) == 0 { // guard: handover@1,2,3
		return Decision{}, false
	}
	if FaultCause(code) && movedLately(v, m) { // guard: handover-again@1,2
		return Decision{}, false
	}
	// An answer counts only if it was asked for after the last process of the server was gone: what a standby flushed
	// before that may not be the last of it.
	if v.Survey == nil || v.Survey.At.Before(c.At) { // guard: handover-survey-age@2
		return act(Action{Kind: Ask}, ReasonCrashAsk, "the server is down: asking the synchronous standbys how far they are"), true
	}
	best, ok := mostAdvanced(v)
	if !ok {
		return askAgain(v, code, c)
	}
	what := c.Text
	switch code {
	case CauseCrash:
		what = fmt.Sprintf("PostgreSQL on %s ended by itself: %s", v.Me.Name, c.Text)
	case CauseDeadline:
		what = fmt.Sprintf("PostgreSQL on %s was ended, for it could not prove its leadership before its deadline", v.Me.Name)
	}
	cause := &cluster.Cause{
		Code: code, Certainty: cluster.Observed, At: c.Wall, Text: what,
		Evidence: []cluster.Evidence{
			{At: c.Wall, Member: v.Me.Name, Text: what},
			{At: v.Wall, Member: v.Me.Name, Text: "every process of the server is verified gone"},
			{At: v.Wall, Member: v.Me.Name, Text: fmt.Sprintf("%s holds every acknowledged commit, its WAL ends at %s", best.Name, best.Position)},
		},
	}
	return act(Action{Kind: HandOver, Member: best.Name, Fence: cluster.FenceStopped, Cause: cause}, ReasonCrashHandover,
		"%s: handing leadership over to %s", what, best.Name), true
}

// movedLately tells that leadership has moved for a fault so short a time ago that it must not do so again.
func movedLately(v View, m *Memory) bool {
	return m.LastCrashHandover != 0 && v.Now.Sub(m.LastCrashHandover) < v.Policy.CrashHandovers // guard: moved-lately@2
}

// fleeFor is how long a standby that had room is asked again after the server was ended for it to take over; one that is started on
// a full disk may come neither up nor down.
const fleeFor = 30 * time.Second

// askAgain asks the standbys once more where the server was ended because of a full disk, and nobody could be found at once.
func askAgain(v View, code string, c *Crash) (Decision, bool) {
	if code != CauseDiskFull || !v.Server.Room.Full() || v.Now.Sub(c.At) >= fleeFor { // guard: flee-again@1,2,3
		return Decision{}, false
	}
	if v.Now.Sub(v.Survey.At) < time.Second {
		return again(wait(v, ReasonCrashAsk, "the disk is full (%s), and no synchronous standby that has room has answered yet", v.Server.Room), time.Second), true
	}
	return act(Action{Kind: Ask}, ReasonCrashAsk, "asking the synchronous standbys once more how far they are"), true
}

// mostAdvanced picks, among the surveyed standbys of /sync, the one with the most WAL. In priority mode every recorded
// standby has every acknowledged commit; in quorum mode any quorum+1 voters have it among them, so that many must have
// answered and the most advanced of them is taken.
func mostAdvanced(v View) (Answer, bool) {
	var best Answer
	answered := 0
	for _, name := range v.Store.Sync.Standbys {
		a, ok := v.Survey.Answer(name)
		k, known := v.Store.Member(name)
		if !ok || !a.Reachable || a.Primary || name == v.Me.Name { // guard: handover-answer@2,3
			continue
		}
		answered++
		if !a.MayLead || !known || k.Lease == 0 || !fits(v, k) { // guard: handover-member@1,3,4
			continue
		}
		if best.Name == "" || a.Position > best.Position || a.Position == best.Position && a.Priority > best.Priority { // guard: handover-most-wal@2
			best = a
		}
	}
	if best.Name == "" || answered < v.Store.Sync.Quorum+1 || (v.Store.Sync.Quorum > 0 && anyAhead(v, best)) { // guard: handover-sure@1,2,4
		return Answer{}, false
	}
	return best, true
}

// anyAhead tells whether a voter that answered is ahead of the candidate, because it may not lead itself.
func anyAhead(v View, best Answer) bool {
	for _, name := range v.Store.Sync.Standbys {
		if a, ok := v.Survey.Answer(name); ok && a.Reachable && name != v.Me.Name && a.Position > best.Position { // guard: ahead-wal@4
			return true
		}
	}
	return false
}

// leadStandby promotes: the leader key is ours, and the server is still a standby. It promotes for a term that was
// claimed for it, never for one that is promoted already: its holder was a primary, so a standby in its place is not
// what the store remembers (a store restored from a backup, a data directory exchanged by hand), and the race decides
// who has the data.
func leadStandby(v View, m *Memory) Decision {
	t := v.Store.Term
	if m.mustWait(v) {
		return again(wait(v, ReasonReleaseNotPrimary, "waiting a moment after a failure"), time.Second)
	}
	if m.PromoteFailed != 0 && v.Now.Sub(m.PromoteFailed) < v.Policy.TTL { // guard: promote-failed@2
		return act(Action{Kind: Release}, ReasonPromoteFailed, "releasing the leader key: the promotion failed, another member shall try")
	}
	if t == nil || !t.Binds || t.Holder != v.Me.Name || t.State != cluster.TermClaimed { // guard: promote@2,3,4
		return act(Action{Kind: Release}, ReasonReleaseNotPrimary, "releasing the leader key: it belongs to no term that was claimed for this standby")
	}
	if v.Pledge.Binds(v.Now) && t.Fence != cluster.FenceStopped { // guard: promote-pledge@1,2
		return again(wait(v, ReasonPledged, "waiting: %s leads without the store (failsafe mode), and has this member's word", v.Pledge.To), time.Second)
	}
	if v.Policy.standby() { // guard: never-promote
		return keepRemote(v, m)
	}
	return act(Action{Kind: Promote}, ReasonPromote, "promoted self to leader because I had the session lock")
}

// leadPrimary looks after a running primary.
func leadPrimary(v View, m *Memory) (Decision, bool) {
	if m.mustWait(v) {
		return again(wait(v, ReasonLeading, "waiting a moment after a failure"), time.Second), true
	}
	if t := v.Store.Term; t != nil && t.Binds && t.State == cluster.TermClaimed { // guard: open@2,3
		return act(Action{Kind: Open}, ReasonOpen, "promoted: recording it and opening for writes"), true
	}
	if !v.Store.Initialize.Valid() || !v.Store.HasConfig { // guard: repair-initialize@1
		return act(Action{Kind: Repair}, ReasonRepair, "the store lacks the cluster's identifier or configuration: writing it again"), true
	}
	if d, ok := demoteCluster(v, m); ok {
		return d, true
	}
	if d, ok := switchRequest(v, m); ok {
		return d, true
	}
	if d, ok := leaveFullDisk(v, m); ok {
		return d, true
	}
	if step := nextSync(v, m); step != nil {
		return act(Action{Kind: SetSync, Sync: step}, ReasonSync, "%s", step.Text), true
	}
	d := wait(v, ReasonLeading, "no action. I am (%s), the leader with the lock", v.Me.Name)
	switch {
	case stalled(v, m):
		d = wait(v, ReasonStalled, "%s, and nobody can take over: it is not ended, since it would be started on the same disk", hangs(v))
	case v.Server.Room.Full():
		d = wait(v, ReasonDiskFull, "the disk is full (%s); leadership moves only to a member that may lead and is known to have room", v.Server.Room)
	}
	d.Again = time.Second
	return d, true
}

// switchRequest handles the key failover on the leader.
func switchRequest(v View, m *Memory) (Decision, bool) {
	f := v.Store.Failover
	if f == nil || !f.Due || v.Policy.Pause && (f.Candidate == "" || f.Scheduled) { // guard: switch@2,3
		return Decision{}, false
	}
	if why := refuseRequest(v, m, f); why != "" {
		return act(Action{Kind: DropAsk}, ReasonSwitchoverNo, "%s", why), true
	}
	candidate, why := switchCandidate(v, f)
	if candidate == "" {
		return act(Action{Kind: DropAsk}, ReasonSwitchoverNo, "no switchover: %s", why), true
	}
	what, code := "switchover", CauseSwitchover
	if f.Leader == "" {
		what, code = "manual failover", CauseFailover
	}
	cause := &cluster.Cause{
		Code: code, Certainty: cluster.Observed, At: v.Wall, Text: what + " was requested by an operator",
		Evidence: []cluster.Evidence{{At: v.Wall, Member: v.Me.Name, Text: "the key failover asks for it"}},
	}
	return act(Action{Kind: Switch, Member: candidate, Fence: cluster.FenceStopped, Cause: cause, Request: f.ModRev}, ReasonSwitchover,
		"%s: demoting myself in favour of %s", what, candidate), true
}

func refuseRequest(v View, m *Memory, f *Request) string {
	switch {
	case f.Leader != "" && f.Leader != v.Me.Name: // guard: switch-other-leader@2
		return fmt.Sprintf("dropping a switchover request: it names %s as leader, which is %s", f.Leader, v.Me.Name)
	case f.Stale: // guard: switch-stale
		return "dropping a scheduled switchover: its time is long over, and nobody may be there to watch it now"
	case f.Candidate == v.Me.Name:
		return "dropping a switchover request: this member is the leader already"
	case m.SwitchFailed != 0 && m.SwitchFailed == f.ModRev: // guard: switch-failed@2
		return "dropping a switchover request that failed"
	}
	return ""
}

// switchCandidate is the requested member if it is fit, else the fittest: the one with the most WAL, then the highest
// failover_priority.
func switchCandidate(v View, f *Request) (name, why string) {
	var best Standby
	why = "no standby is streaming"
	for _, s := range v.Server.Standbys {
		if f.Candidate != "" && s.Name != f.Candidate { // guard: switch-named@2
			continue
		}
		if w := unfit(v, f, s); w != "" {
			why = w
			continue
		}
		if name == "" || s.Flush > best.Flush || s.Flush == best.Flush && v.Store.priority(s.Name) > v.Store.priority(name) {
			name, best = s.Name, s
		}
	}
	if name == "" && f.Candidate != "" && why == "no standby is streaming" {
		why = fmt.Sprintf("%s is not streaming from this member", f.Candidate)
	}
	return name, why
}

// Successor is the standby that leadership goes to where nobody has named one; empty: none is fit.
func Successor(v View) string {
	to, _ := switchCandidate(v, &Request{Leader: v.Me.Name})
	return to
}

// reached is how far a standby that streams from here is. One that has just connected has not told its walsender yet, but its key
// says it; before leadership is given to it, it is asked.
func reached(s Standby, c Member) cluster.LSN { return max(s.Flush, c.Position) }

func unfit(v View, f *Request, s Standby) string {
	c, ok := v.Store.Member(s.Name)
	switch {
	case !ok || c.Lease == 0: // guard: switch-live@2
		return fmt.Sprintf("%s has no live member key", s.Name)
	case !c.MayLead: // guard: switch-may-lead
		return fmt.Sprintf("%s is tagged nofailover", s.Name)
	case !fits(v, c): // guard: switch-fits
		return fmt.Sprintf("%s is not known to be well (health %q)", s.Name, c.Health)
	case s.State != "streaming": // guard: switch-streaming
		return fmt.Sprintf("%s is not streaming (%s)", s.Name, s.State)
	case reached(s, c).Behind(v.Server.WAL) > v.Policy.MaxLag: // guard: switch-lag
		return fmt.Sprintf("%s is %d bytes behind, maximum_lag_on_failover is %d", s.Name, reached(s, c).Behind(v.Server.WAL), v.Policy.MaxLag)
	case f.Leader != "" && v.Store.Sync.Active() && !v.Store.Sync.Has(s.Name): // guard: switch-synchronous@3
		return fmt.Sprintf("%s is not a synchronous standby; haven failover --candidate %s would use it all the same", s.Name, s.Name)
	}
	return ""
}
