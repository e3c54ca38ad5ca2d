package ha

import (
	"errors"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Restart is an operator's order to restart the server, and under which conditions.
type Restart struct {
	Role    string        `json:"role,omitempty"`    // primary, replica or standby_leader; empty: whichever
	Version string        `json:"version,omitempty"` // only a server that is older than it, for instance 15.6
	Below   int           `json:"below,omitempty"`   // the same in PostgreSQL's own way, 150006; 0: any
	Pending bool          `json:"pending,omitempty"` // only one with parameters that wait for a restart
	Timeout time.Duration `json:"timeout,omitempty"` // how long the start may take; 0: as configured
}

// Reinit is an operator's order to replace the data of a standby by a new copy.
type Reinit struct {
	FromLeader bool `json:"from_leader,omitempty"` // not from a member that is tagged clonefrom
}

// Refusal is why an order is not carried out: nothing has changed.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// NotMet is the refusal of a restart whose conditions do not hold (Patroni's words).
const NotMet Refusal = "restart conditions are not satisfied"

// ErrStillStarting says that a server that was restarted lives, but accepted no connections in time.
var ErrStillStarting = errors.New("postgres is still starting")

// ErrAlreadyScheduled says that a restart waits for its time already.
var ErrAlreadyScheduled = errors.New("another restart is already scheduled")

// RefuseRestart says why the server may not be restarted now; empty: it may. A leader needs its proof. In the middle of a
// promotion nothing is restarted: it would leave nobody to finish it, or nobody to confirm commits. A standby needs a leader, since without
// one it may be the next.
func RefuseRestart(v View, r Restart) Refusal {
	l, t := v.Store.Leader, v.Store.Term
	leads := l != nil && l.Name == v.Me.Name
	switch {
	case v.Task != nil:
		return Refusal(fmt.Sprintf("%s already in progress", v.Task.Kind))
	case !v.Store.Known: // guard: restart-store-known
		return "DCS is not accessible"
	case v.Server.Process != ProcessUp: // guard: restart-running
		return "PostgreSQL is not running"
	case !v.Server.Probed: // guard: restart-answers
		return "PostgreSQL does not answer"
	case !r.met(v):
		return NotMet
	case v.Server.InRecovery && l == nil: // guard: restart-without-leader@2
		return "the cluster has no leader at the moment"
	case !v.Policy.standby() && (leads && v.Server.InRecovery || t != nil && t.Binds && t.State == cluster.TermClaimed): // guard: restart-promotion@1,2,3,5,6
		return "a promotion is in progress"
	case !v.Server.InRecovery && (!leads || !v.Lease.Proven(v.Now)): // guard: restart-unproven@2,3
		return "leadership is not proven at the moment"
	}
	return ""
}

// met tells whether the conditions of the order hold.
func (r Restart) met(v View) bool {
	switch {
	case r.Role == "primary" && v.Server.InRecovery, r.Role == "replica" && (!v.Server.InRecovery || v.standbyLeader()), r.Role == "standby_leader" && !v.standbyLeader():
		return false
	case r.Below != 0 && v.Server.Version >= r.Below:
		return false
	}
	return !r.Pending || v.Server.PendingRestart
}

// restartOrder carries out an operator's restart. A leader keeps its key and its term, as after a crash that is mended in
// place.
func restartOrder(v View, m *Memory) (Decision, bool) {
	if v.Restart == nil || RefuseRestart(v, *v.Restart) != "" { // guard: restart-refused@2
		return Decision{}, false
	}
	if !v.Server.InRecovery {
		return act(Action{Kind: RestartServer, AsPrimary: true}, ReasonRestart, "restarting the primary in place: an operator asked for it"), true
	}
	if v.standbyLeader() {
		return act(Action{Kind: RestartServer, Member: v.Policy.Remote}, ReasonRestart, "restarting the standby leader in place: an operator asked for it"), true
	}
	return act(Action{Kind: RestartServer, Member: whom(v, m, v.Store.Leader)}, ReasonRestart, "restarting the standby: an operator asked for it"), true
}

// RefuseReinit says why the data may not be replaced now; empty: it may. A task of the member's own is in the way as well;
// one that is Interruptible may be ended for it.
func RefuseReinit(v View) Refusal {
	l := v.Store.Leader
	switch {
	case !v.Store.Known:
		return "DCS is not accessible"
	case l == nil:
		return "Cluster has no leader, can not reinitialize"
	case l.Name == v.Me.Name || v.Lease.Held: // guard: reinit-leader@1,2
		return "I am the leader, can not reinitialize"
	case v.Policy.Pause:
		return "can not reinitialize in maintenance mode"
	case !leaderReady(v): // guard: reinit-leader-ready
		return Refusal(fmt.Sprintf("%s does not accept writes yet, can not reinitialize", l.Name))
	case v.Task != nil:
		return Refusal(fmt.Sprintf("%s already in progress", v.Task.Kind))
	}
	return ""
}

// Passing tells whether the action is over in a moment and leaves the server as it is, so that an order waits for its end.
func (t Task) Passing() bool {
	switch t.Kind {
	case Ask, Resume, Open, SetSync, DropAsk, Repair, Unclaim:
		return true
	}
	return false
}

// Interruptible tells whether the action is one of a standby that may be ended in favour of a new copy. A start with
// another member is a standby's.
func (t Task) Interruptible() bool {
	switch t.Kind {
	case Clone, Rewind, CompareTo, Follow, Ask:
		return true
	}
	return t.Kind == Start && t.With != "" // guard: interruptible-standby
}

// counted tells that /sync records this member, so that a promotion may need its data or its vote, and that the leader will
// come to do without it. In the strict mode it does not do without the last one, so one whose fellows are all down or gone
// waits for nobody; of several that are down, one after the other goes.
func counted(v View) bool {
	s := v.Store.Sync
	if !s.Has(v.Me.Name) || !v.Policy.Strict { // guard: counted-strict@2
		return s.Has(v.Me.Name)
	}
	for _, name := range s.Standbys {
		c, ok := v.Store.Member(name)
		if ok && name != v.Me.Name && c.Lease != 0 && (c.State == cluster.StateRunning || name < v.Me.Name) { // guard: counted-fellow@2,3,4,5
			return true
		}
	}
	return false
}

// reinitOrder has the data of a standby copied anew, because an operator asked for it: it stops the server, waits until
// nobody counts on the data, and moves it aside. In the strict mode the last synchronous standby stays recorded, and commits
// wait for it; then the copy comes from the leader, which has them all. Limits on copies do not apply.
func reinitOrder(v View, m *Memory) (Decision, bool) {
	if v.Reinit == nil || RefuseReinit(v) != "" || v.Server.MayWrite() { // guard: reinit-refused@2,3
		return Decision{}, false
	}
	l := v.Store.Leader
	switch {
	case v.Server.Process == ProcessOrphans || v.Server.Process == ProcessUnknown: // guard: reinit-processes@1
		return Decision{}, false
	case m.mustWait(v):
		return wait(v, ReasonReinit, "waiting a moment after a failure"), true
	case v.Server.Process == ProcessUp:
		return act(Action{Kind: StopFast}, ReasonReinit, "stopping, to be copied anew: an operator asked for it"), true
	case v.Server.Disk == DiskData && counted(v): // guard: reinit-still-counted@2
		return again(wait(v, ReasonReinitWait, "waiting until %s does not count on the data here any more", l.Name), 200*time.Millisecond), true
	case v.Server.Disk == DiskData:
		return act(Action{Kind: MoveAside, Member: l.Name}, ReasonReinit, "moving the data directory aside, to be copied anew: an operator asked for it"), true
	case v.Reinit.FromLeader && v.Lease.ID != 0 && (v.Server.Disk == DiskEmpty || v.Server.Disk == DiskUnfinished):
		return act(Action{Kind: Clone, Member: l.Name}, ReasonClone, "trying to bootstrap from leader '%s'", l.Name), true
	}
	return Decision{}, false
}
