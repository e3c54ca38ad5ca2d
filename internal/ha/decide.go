package ha

import (
	"fmt"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// rule is one step of Decide: it decides, or leaves the decision to the rules after it.
type rule func(v View, m *Memory) (Decision, bool)

// Decide says what to do next. It is total: every view has a decision.
func Decide(v View, m Memory) (Decision, Memory) {
	if v.Policy.standby() { // which has no synchronous mode (Patroni)
		v.Policy.Sync = SyncOff
	}
	m.note(v)
	for _, r := range []rule{
		protect, waitForTask, waitForStore, checkSystemID, adoptedPrimary, restartOrder, pausedRule,
		readDisk, reinitOrder, fillDisk, clearOrphans, leaderRules, resume, followerRules, raceRules,
	} {
		if d, ok := r(v, &m); ok {
			return finish(v, d), m
		}
	}
	return finish(v, wait(v, ReasonWaitProbe, "waiting for the server's state to become known")), m
}

// note brings the memory up to date with what the view shows, before any rule looks at it.
func (m *Memory) note(v View) {
	if v.Store.Known {
		if l := v.Store.Leader; l != nil {
			m.LastLeader, m.LeaderGone = l.Name, 0
		} else if m.LeaderGone == 0 { // guard: leader-gone-since
			m.LeaderGone = v.Now
		}
	}
	m.noteStream(v)
	m.noteParent(v)
	m.noteStarting(v)
	if v.Server.Probed {
		m.Stopped = false
		m.forgetStarts()
	}
	if t := v.Store.Term; t != nil && t.Cause != nil && FaultCause(t.Cause.Code) && t.Number != m.CrashTerm { // guard: crash-term-new@4
		m.CrashTerm, m.LastCrashHandover = t.Number, v.Now
	}
	m.noteDown(v)
	m.noteBootstrap(v)
	m.noteOutcome(v)
	m.noteEnded(v)
	m.noteRoom(v)
	m.Sync.note(v)
}

// noteBootstrap notes since when a bootstrap stands still: initialize is empty, and no member says that it is at it.
func (m *Memory) noteBootstrap(v View) {
	i := v.Store.Initialize
	if !v.Store.Known || i == nil || i.SystemID != "" || v.Store.Leader != nil || v.Task != nil {
		m.Unclaimed = 0
		return
	}
	for _, c := range v.Store.Members {
		if c.State == cluster.StateInitdb || c.State == cluster.StateBootstrap {
			m.Unclaimed = 0
			return
		}
	}
	if m.Unclaimed == 0 {
		m.Unclaimed = v.Now
	}
}

func (m *Memory) noteOutcome(v View) {
	o := v.Outcome
	if o == nil {
		return
	}
	failed := o.Error != ""
	switch o.Kind {
	case Bootstrap, Clone, MoveAside, Rewind:
		if !failed {
			m.forgetStarts() // they were the old data's
		}
	}
	switch o.Kind {
	case Start:
		m.noteStart(v, failed, o.Unbegun)
	case Clone, Unclaim, Follow, CompareTo, Kill, Repair, Open, SetSync, Resume, Acquire, Release, StopFast, DropAsk:
		m.retryAfter(v, failed)
	case Bootstrap:
		if failed && !o.Unbegun {
			m.BootstrapFailed = o.Error
		}
		m.retryAfter(v, failed)
	case RestartServer:
		m.Stopped = !v.Server.Probed // in maintenance mode it would not be started otherwise
		if failed && m.Stopped {
			m.StartFailures++
		}
		m.retryAfter(v, failed)
	case MoveAside:
		if !failed && v.Reinit == nil { // what an operator asked for does not count
			m.Replaced = append(slices.Clone(m.Replaced), v.Now)
			m.Nudged, m.StuckStarts, m.Replacing, m.ReplacesFor = 0, 0, 0, ""
		}
		m.retryAfter(v, failed)
	case Promote:
		m.PromoteFailed = 0
		if failed && !o.Unbegun {
			m.PromoteFailed = v.Now
		}
		m.retryAfter(v, failed && o.Unbegun)
	case Rewind:
		m.RewindFailed = 0
		if failed && !o.Unbegun && v.Store.Leader != nil {
			m.RewindFailed = v.Store.Leader.ModRev
		}
		m.retryAfter(v, failed && o.Unbegun)
	case Switch:
		m.Stopped = !v.Server.Probed
		if failed {
			m.SwitchFailed = o.Request
		}
	case HandOver:
		m.retryAfter(v, failed)
	}
}

// unreadRetry is how long a standby pauses between starts that end before the server comes to its data: a person has to mend that, or
// somebody has to leave its port.
const unreadRetry = 5 * time.Second

func (m *Memory) noteStart(v View, failed, unread bool) {
	m.retryAfter(v, failed)
	if !failed {
		m.forgetStarts()
		return
	}
	m.StartFailures++
	l := v.Store.Leader
	switch {
	case !unread:
		m.ReadFailures++
	case m.StartFailures >= maxStartFailures && l != nil && l.Name != v.Me.Name: // guard: unread-retry@1,3
		m.Retry = v.Now.Add(unreadRetry)
	}
}

func (m *Memory) forgetStarts() { m.StartFailures, m.ReadFailures = 0, 0 }

// dataAtFault tells that so many starts have failed at the data that they must be to blame.
func (m *Memory) dataAtFault() bool {
	return m.ReadFailures >= maxStartFailures // guard: data-at-fault
}

// retryAfter makes an action that failed wait a second before anything is tried again.
func (m *Memory) retryAfter(v View, failed bool) {
	m.Retry = 0
	if failed {
		m.Retry = v.Now.Add(time.Second)
	}
}

func (m *Memory) mustWait(v View) bool { return v.Now.Before(m.Retry) }

func finish(v View, d Decision) Decision {
	d.Action.Basis = basis(v)
	if d.Again == 0 {
		d.Again = v.Policy.LoopWait
	}
	return d
}

func basis(v View) Basis {
	b := Basis{Timeline: v.Server.Timeline, WAL: v.Server.WAL}
	if l := v.Store.Leader; l != nil {
		b.Leader, b.LeaderRev = l.Name, l.ModRev
	}
	if t := v.Store.Term; t != nil {
		b.Term = t.Number
	}
	if s := v.Store.Sync; s != nil {
		b.SyncRev = s.ModRev
	}
	if f := v.Store.Failover; f != nil {
		b.FailoverRev = f.ModRev
	}
	return b
}

func wait(v View, code Code, format string, args ...any) Decision {
	return Decision{Action: Action{Kind: None}, Reason: Reason{Code: code, Text: fmt.Sprintf(format, args...)}}
}

func act(a Action, code Code, format string, args ...any) Decision {
	return Decision{Action: a, Reason: Reason{Code: code, Text: fmt.Sprintf(format, args...)}, Again: time.Second}
}

// protect stops a server that may be writable without a proven leadership. It comes before everything else: neither a
// running task nor an unreadable store keeps it from acting. Pause is the named exception.
func protect(v View, m *Memory) (Decision, bool) {
	if v.Policy.Pause || !v.Lease.Held || !mayWrite(v) { // guard: protect@1,2,3
		return Decision{}, false
	}
	if v.Task != nil && v.Task.Kind == Kill { // guard: kill-under-way@2
		return Decision{}, false
	}
	switch {
	case v.Lease.Lost: // guard: lease-lost
		return kill(ReasonLeaseLost, "demoting self because the store says that leadership is lost"), true
	case !v.Now.Before(v.Lease.Deadline): // guard: deadline-passed
		return kill(ReasonDeadline, "demoted self because leadership was not proven again before its deadline"), true
	}
	return Decision{}, false
}

// mayWrite counts a leader's server as writable unless it is certain that it is not: it is down, or has just said that
// it is in recovery. A server whose data directory cannot be read is no standby for that, and one that an action makes
// writable at this moment is none either.
func mayWrite(v View) bool {
	if t := v.Task; t != nil && (t.Kind == Promote || t.Kind == Start || t.Kind == Bootstrap || t.Kind == RestartServer) { // guard: becoming-writable@2,3,4,5
		return true
	}
	return v.Server.Process != ProcessDown && !v.Server.RunningStandby() // guard: writable@1,2
}

// kill ends the server at once; a task that is running is cancelled for it.
func kill(code Code, format string, args ...any) Decision {
	d := act(Action{Kind: Kill}, code, format, args...)
	d.Cancel = true
	return d
}

func waitForTask(v View, m *Memory) (Decision, bool) {
	t := v.Task
	if t == nil {
		return Decision{}, false
	}
	if t.Kind == Start && overdue(v, m) { // guard: start-overdue@1
		return kill(ReasonStartTimeout, "stopped PostgreSQL because of startup timeout"), true
	}
	d := wait(v, ReasonBusy, "%s in progress", t.Kind)
	d.Cancel = pointless(v, m)
	if t.Kind == Start && v.Now.Sub(t.Since) > longStart {
		d.Again = time.Second // whether its replay comes on
	}
	return d, true
}

// pointless tells that the running task serves a leader that leads no more, or copies from a member that is gone: a
// frozen host would never end it. A standby that is being started is waited for only while its replay comes on. An orderly stop waits
// for a checkpoint, which a server that hangs never ends: without the order it would be ended for that.
func pointless(v View, m *Memory) bool {
	switch {
	case !v.Store.Known: // guard: pointless-unknown-store
		return false
	case v.Task.Kind == Switch || v.Task.Kind == RestartServer:
		return hung(v) && !stalled(v, m) // guard: order-hung@1,2
	case v.Task.With == "":
		return false
	}
	l := v.Store.Leader
	switch v.Task.Kind {
	case Clone:
		_, alive := v.Store.Member(v.Task.With)
		return !alive || l != nil && l.Name == v.Me.Name // guard: clone-source-gone@1
	case Start:
		return m.stuckStart(v)
	case Rewind, CompareTo:
		return l == nil || l.Name != v.Task.With // guard: task-leader-changed@2
	}
	return false
}

func waitForStore(v View, m *Memory) (Decision, bool) {
	if v.Store.Known { // guard: store-known
		return Decision{}, false
	}
	if v.Server.MayWrite() && !v.Lease.Held && !v.Policy.Pause && v.Now.Sub(v.Me.Started) > unprovenGrace { // guard: unproven@1,2,3,4
		return kill(ReasonNoProof, "stopping a primary that was found running: its leadership could not be proven within %s", unprovenGrace), true
	}
	if v.Lease.Failsafe && v.Lease.Proven(v.Now) {
		return again(wait(v, ReasonFailsafe, "continue to run as a leader because failsafe mode is enabled and all members are accessible"), time.Second), true
	}
	d := wait(v, ReasonStoreUnknown, "DCS is not accessible")
	d.Again = time.Second
	return d, true
}

// unprovenGrace is how long an agent that finds a running primary may look for proof that it leads.
const unprovenGrace = 5 * time.Second

func checkSystemID(v View, m *Memory) (Decision, bool) {
	s, i := v.Server, v.Store.Initialize
	if s.Disk == DiskForeign { // guard: foreign-data
		return act(Action{Kind: Exit}, ReasonForeignData, "the data directory holds something that is no PostgreSQL data of this cluster"), true
	}
	if s.Disk != DiskData || s.SystemID == "" || !i.Valid() || s.SystemID == i.SystemID || v.Policy.Pause { // guard: system@3,4,5
		return Decision{}, false
	}
	return act(Action{Kind: Exit}, ReasonSystemID,
		"system ID mismatch, node %s belongs to a different cluster: %s != %s", v.Me.Name, i.SystemID, s.SystemID), true
}

// adoptedPrimary looks after a primary that was found running: either the store says that it leads, and that is
// proven now, or it is stopped.
func adoptedPrimary(v View, m *Memory) (Decision, bool) {
	l := v.Store.Leader
	if v.Lease.Held || !v.Server.MayWrite() || v.Policy.Pause || l == nil || l.Name != v.Me.Name { // guard: adopt@1,2,5
		return Decision{}, false
	}
	if v.Now.Sub(v.Me.Started) > unprovenGrace && m.mustWait(v) { // guard: adopt-kill@1,2
		return kill(ReasonNoProof, "stopping a primary whose leadership could not be proven"), true
	}
	return resume(v, m)
}

// pausedRule leaves everything as it is in maintenance mode, apart from leadership that is already ours.
func pausedRule(v View, m *Memory) (Decision, bool) {
	if !v.Policy.Pause { // guard: paused
		return Decision{}, false
	}
	d, ok := pausedAction(v, m)
	if !ok || m.mustWait(v) {
		d = wait(v, ReasonPaused, "%s", idle(v))
	}
	d.Reason.Text = "PAUSE: " + d.Reason.Text // Patroni's mark of a paused cluster
	return d, true
}

// idle says what is left as it is in maintenance mode (Patroni's words).
func idle(v View) string {
	l, s := v.Store.Leader, v.Server
	switch {
	case s.Disk == DiskEmpty:
		return "running with empty data directory"
	case s.Process == ProcessDown:
		return "postgres is not running"
	case s.Primary() && l != nil && l.Name != v.Me.Name:
		return "continue to run as primary without lock"
	case s.Primary() && l != nil:
		return fmt.Sprintf("no action. I am (%s), the leader with the lock", v.Me.Name)
	case s.RunningStandby() && l != nil && l.Name != v.Me.Name:
		return v.following()
	}
	return fmt.Sprintf("no action. I am (%s)", v.Me.Name)
}

// following says that all is as it should be with a follower (Patroni's words).
func (v View) following() string {
	kind := "leader"
	if v.Policy.standby() {
		kind = "standby leader"
	}
	return fmt.Sprintf("no action. I am (%s), a secondary, and following a %s (%s)", v.Me.Name, kind, v.Store.Leader.Name)
}

// pausedAction is what goes on in maintenance mode: a leader's own work, and both ends of a switchover that an operator
// asked for, which would otherwise leave nobody writable until the pause ends.
func pausedAction(v View, m *Memory) (Decision, bool) {
	l, t := v.Store.Leader, v.Store.Term
	switch {
	case l == nil:
		if v.Server.Primary() && v.Lease.ID != 0 && t != nil && t.Holder == v.Me.Name { // guard: pause-recreate@1,2,4
			cause := &cluster.Cause{Code: CauseVanished, Certainty: cluster.Observed, At: v.Wall, Text: "the leader key vanished during a pause; nobody has begun another term since"}
			return act(Action{Kind: Acquire, Fence: cluster.FenceStopped, Cause: cause}, ReasonReacquire, "the leader key vanished: creating it again"), true
		}
		if f := v.Store.Failover; f != nil && !f.Scheduled && f.Leader == "" && f.Candidate == v.Me.Name && v.Server.RunningStandby() { // guard: pause-candidate@2,3,4,5
			return race(v, m), true
		}
	case l.Name != v.Me.Name:
		if m.Stopped && !v.Server.MayWrite() { // guard: pause-follow@1,2
			return followerRules(v, m)
		}
	case !v.Lease.Held:
		return resume(v, m)
	case !v.Lease.Proven(v.Now): // guard: pause-unproven
	case v.Server.Primary():
		return leadPrimary(v, m)
	case v.Server.RunningStandby() && t != nil && t.Binds && t.Holder == v.Me.Name && t.State == cluster.TermClaimed: // guard: pause-promote-claimed@5
		return leadStandby(v, m), true
	case v.Server.Process == ProcessDown && m.Stopped: // guard: pause-start-stopped@2
		return leadWithoutServer(v, m), true
	}
	return Decision{}, false
}

// clearOrphans ends what a postmaster left behind when it died: nothing is started, released or removed before every
// process of the server is gone.
func clearOrphans(v View, m *Memory) (Decision, bool) {
	if v.Server.Process != ProcessOrphans || m.mustWait(v) { // guard: orphans@1
		return Decision{}, false
	}
	return act(Action{Kind: Kill}, ReasonOrphans, "the postmaster is gone and left processes behind: ending them"), true
}

// readDisk does nothing about a server that is down while its data directory cannot be read: whether it was a primary
// is not known then.
func readDisk(v View, m *Memory) (Decision, bool) {
	if v.Server.Process != ProcessDown || v.Server.Disk != DiskUnknown { // guard: disk-unknown@2
		return Decision{}, false
	}
	return again(wait(v, ReasonWaitProbe, "waiting until the data directory can be read"), time.Second), true
}

// fillDisk gives a member without data its first copy.
func fillDisk(v View, m *Memory) (Decision, bool) {
	if v.Server.Disk != DiskEmpty && v.Server.Disk != DiskUnfinished { // guard: fill@1,2
		return Decision{}, false
	}
	l, i := v.Store.Leader, v.Store.Initialize
	switch {
	case m.BootstrapFailed != "": // guard: bootstrap-failed
		return act(Action{Kind: Exit}, ReasonBootstrapFailed, "Failed to bootstrap cluster: %s", m.BootstrapFailed), true
	case v.Server.Process != ProcessDown: // guard: fill-server-down
		return kill(ReasonOrphans, "a server runs on a data directory that is empty: ending it"), true
	case v.Lease.Held: // guard: fill-leader
		return act(Action{Kind: Release}, ReasonEmptyLeader, "releasing the leader key: the data directory is empty"), true
	case m.mustWait(v):
		return wait(v, ReasonCloneLater, "waiting a moment after a failure"), true
	case v.Lease.ID == 0:
		return again(wait(v, ReasonNoLease, "waiting for a lease in etcd"), 200*time.Millisecond), true
	case l != nil && l.Name == v.Me.Name: // guard: empty-leader@2
		return resume(v, m) // so that it can be released: nobody else can lead while the key is this member's
	case l == nil && i == nil && (v.Store.Term != nil || v.Store.Sync.Active()): // guard: remembered-cluster@3,4
		return wait(v, ReasonWaitLeader, "waiting for a member that has the data: the store remembers a cluster, though its identifier is gone"), true
	case l == nil && i == nil && v.Me.MayBootstrap && v.Me.MayLead: // guard: bootstrap@1,2,3
		what := "cluster"
		if v.Policy.standby() {
			what = "standby leader"
		}
		return act(Action{Kind: Bootstrap}, ReasonBootstrap, "trying to bootstrap a new %s", what), true
	case m.Unclaimed != 0 && v.Me.MayBootstrap && v.Now.Sub(m.Unclaimed) > v.Policy.TTL: // guard: unclaim@1,3
		return act(Action{Kind: Unclaim}, ReasonAbandoned, "whoever began to bootstrap is gone: clearing the way for another try"), true
	case l == nil && v.Store.Sync.Active() && (v.Store.Sync.Has(v.Me.Name) || v.Store.Sync.Leader == v.Me.Name): // guard: copy-alone-recorded@2,3,4
		return wait(v, ReasonWaitLeader, "waiting for a leader to copy from: this member is recorded as having every commit, which a backup has not"), true
	case l == nil && i.Valid() && v.Policy.CopiesAlone && !v.Server.Room.Full(): // guard: copy-alone@1,2,3,4
		return act(Action{Kind: Clone}, ReasonClone, "trying to bootstrap (without leader)"), true
	case l == nil || l.Name == v.Me.Name || !i.Valid(): // guard: clone-cluster-valid@3
		return wait(v, ReasonWaitLeader, "waiting for leader to bootstrap"), true
	}
	if !leaderReady(v) { // guard: clone-leader-ready
		return wait(v, ReasonNotPromotedYet, "waiting until %s accepts writes", l.Name), true
	}
	if v.Server.Room.Full() { // guard: clone-full
		return again(wait(v, ReasonDiskFull, "the disk is full (%s): there is no room for a copy", v.Server.Room), time.Second), true
	}
	from := cloneSource(v)
	kind := "leader"
	if from != l.Name {
		kind = "replica"
	}
	return act(Action{Kind: Clone, Member: from}, ReasonClone, "trying to bootstrap from %s '%s'", kind, from), true
}

// cloneSource prefers a running member that is tagged clonefrom, so that the leader is spared. Who is recorded as having
// every commit copies from the leader: another may lack some.
func cloneSource(v View) string {
	if v.Store.Sync.Has(v.Me.Name) { // guard: clone-recorded
		return v.Store.Leader.Name
	}
	for _, c := range v.Store.Members {
		if c.CloneFrom && c.Name != v.Me.Name && c.Name != v.Store.Leader.Name && c.State == "running" {
			return c.Name
		}
	}
	return v.Store.Leader.Name
}

// leaderReady tells whether the leader is known to run as a primary: its term is promoted, or, for a member that
// writes no terms, its member key says so.
func leaderReady(v View) bool {
	if leadsStandbys(v) { // guard: ready-standbys
		return true
	}
	if t := v.Store.Term; t != nil && t.Binds { // guard: ready-term-binds@2
		return t.State == "promoted" // guard: ready-promoted
	}
	c, ok := v.Store.Member(v.Store.Leader.Name)
	return ok && (c.Role == "primary" || c.Role == "master") && c.State == "running"
}
