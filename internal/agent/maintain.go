package agent

import (
	"context"
	"slices"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// reconfigure is the one action that Decide does not know: bringing changed settings into force has no part in who
// leads.
const reconfigure ha.Kind = "reconfigure"

// maintain does what is due while there is nothing to decide: settings that changed, slots of members, the checkpoint
// after a promotion.
func (a *Agent) maintain(ctx context.Context) {
	st := &a.st
	a.keeper.timing(st.dynamic.TTL, st.dynamic.LoopWait)
	p := st.seen.probe
	if p == nil || !st.known || !st.snap.Initialize.Valid() {
		return
	}
	if time.Now().After(st.applyAfter) && a.settingsChanged(p.InRecovery) {
		a.begin(ctx, ha.Decision{Action: ha.Action{Kind: reconfigure, Member: st.upstream}})
		return
	}
	a.chores.start(ctx, a, p.InRecovery)
}

func (a *Agent) settingsChanged(standby bool) bool {
	role := "primary"
	if standby {
		role = "replica"
	}
	s, _ := settings(input{node: a.node.Load(), dynamic: a.st.dynamic, snap: a.st.snap}, role, "")
	return fingerprint(s) != a.st.applied
}

// chores keeps slots in order and makes the checkpoint after a promotion, beside the loop, one at a time.
type chores struct {
	busy    bool
	last    time.Time
	members string
	present map[string]time.Time // slot of a member → when it was last a member; owned by the loop
	result  chan choresDone
}

type choresDone struct{ checkpoint bool }

func (c *chores) start(ctx context.Context, a *Agent, standby bool) {
	select {
	case r := <-c.result:
		c.busy = false
		a.st.checkpoint = a.st.checkpoint || r.checkpoint
	default:
	}
	slots := a.slotsNow()
	key := joined(slots, standby)
	if c.busy || key == c.members && time.Since(c.last) < a.st.dynamic.LoopWait && a.st.checkpoint {
		return
	}
	c.busy, c.last, c.members = true, time.Now(), key
	needCheckpoint := !standby && !a.st.checkpoint
	intruders := a.intruders(a.st.seen.probe)
	departed := c.departed(slots, a.st.dynamic.MemberSlotsTTL)
	if standby {
		slots, departed = nil, c.known(a.opt.Node.Name)
	}
	a.beside(ctx, func(ctx context.Context) {
		var r choresDone
		if err := a.keepSlots(ctx, slots, departed); err != nil && ctx.Err() == nil {
			a.log.Warn("replication slots could not be brought in order", "error", err)
		}
		a.dropIntruders(ctx, intruders)
		if needCheckpoint {
			err := a.server.Checkpoint(ctx)
			r.checkpoint = err == nil
		}
		c.result <- r
		a.Wake()
	})
}

// dropIntruders ends connections that would acknowledge commits in a member's name.
func (a *Agent) dropIntruders(ctx context.Context, list []postgres.Walsender) {
	for _, w := range list {
		a.log.Warn("dropping a replication connection that bears a member's name but does not hold its slot", "name", w.Name, "address", w.Addr, "pid", w.PID)
		if err := a.server.TerminateWalsender(ctx, w.PID); err != nil {
			a.log.Warn("the replication connection could not be dropped", "pid", w.PID, "error", err)
		}
	}
}

// slotsNow are the slots that members need; none where use_slots is off.
func (a *Agent) slotsNow() []string {
	if !a.st.dynamic.UseSlots {
		return nil
	}
	return memberSlots(a.st.snap, a.opt.Node.Name)
}

// departed are the slots of members that this agent has seen and that have been gone for member_slots_ttl: kept longer,
// they would hold back WAL until the disk is full. Slots that were never a member's are nobody's business here.
func (c *chores) departed(now []string, ttl time.Duration) []string {
	if c.present == nil {
		c.present = map[string]time.Time{}
	}
	for _, name := range now {
		c.present[name] = time.Now()
	}
	var out []string
	for name, last := range c.present {
		if time.Since(last) > ttl {
			out = append(out, name)
		}
	}
	return out
}

// known are the slots of all members that this agent has seen, its own included.
func (c *chores) known(me string) []string {
	out := []string{cluster.SlotName(me)}
	for name := range c.present {
		out = append(out, name)
	}
	return out
}

// keepSlots gives each member its slot on the leader, and takes those away that are not wanted any more: of departed
// members; on a standby those of all members, which would hold back WAL for ever since its time as primary. Slots that
// were never a member's stay.
func (a *Agent) keepSlots(ctx context.Context, want, unwanted []string) error {
	return a.server.EnsureSlots(ctx, want, func(name string) bool { return slices.Contains(unwanted, name) })
}

func joined(names []string, standby bool) string {
	key := "primary"
	if standby {
		key = "standby"
	}
	for _, n := range names {
		key += " " + n
	}
	return key
}

// Bounds of an agent's orderly end: all of it, and one question to a store that may be ending too.
const (
	stopTimeout = 60 * time.Second
	farewell    = time.Second
)

// shutdown ends the agent in an orderly way: a leader hands over to a synchronous standby that streams, or stops and
// gives the key up; a standby stops. In pause everything is left as it is. Leadership is renewed meanwhile, and should
// that fail, the server is ended at the deadline as ever.
func (a *Agent) shutdown(ctx context.Context) error {
	st := &a.st
	if st.dynamic.Pause {
		a.log.Info("paused: the server is left running")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	a.endTask(ctx)
	in := input{snap: st.snap, dynamic: st.dynamic, node: a.node.Load(), lease: st.lease, holder: st.holder, process: st.process, seen: st.seen, story: st.story.copy()}
	to := a.successor()
	ended := make(chan struct{})
	a.beside(ctx, func(ctx context.Context) {
		defer close(ended)
		a.stopServing(ctx, in, to)
	})
	a.awaitEnd(ctx, ended)
	m := a.member()
	m.State = cluster.StateStopped
	short, done := context.WithTimeout(ctx, farewell)
	defer done()
	a.writer.flush(short, m, st.lease.ID)
	return nil
}

// awaitEnd keeps the promise of the deadline while the server is being stopped.
func (a *Agent) awaitEnd(ctx context.Context, ended <-chan struct{}) {
	killed := false
	for {
		a.lastTurn.Store(int64(bootclock.Now()))
		var due <-chan time.Time
		if a.st.holder != nil && !killed {
			left := a.st.deadline.Sub(bootclock.Now())
			if a.st.lost {
				left = 0
			}
			due = time.After(left)
		}
		select {
		case <-ended:
			return
		case r := <-a.renewals:
			a.takeRenewal(r)
		case <-time.After(farewell):
		case <-due:
			killed = true
			a.log.Error("the server did not stop before the deadline of its leadership: ending it")
			a.beside(ctx, func(ctx context.Context) {
				if err := a.server.Kill(ctx); err != nil {
					a.log.Error("the server could not be ended", "error", err)
				}
			})
		}
	}
}

// stopServing hands over to the given member, or stops the server where it is.
func (a *Agent) stopServing(ctx context.Context, in input, to string) {
	if to != "" && a.proven(ctx, in) {
		in.action = ha.Action{Kind: ha.Switch, Member: to, Cause: stopCause(in.node.Name)}
		var e effects
		err := a.switchover(ctx, in, &e)
		if err == nil {
			return
		}
		a.log.Warn("leadership could not be handed over before the end", "to", to, "error", err)
	}
	a.stopAndRelease(ctx, in)
}

// proven asks the store briefly: where all members end together, it may be gone.
func (a *Agent) proven(ctx context.Context, in input) bool {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	_, err := a.store.Renew(ctx, *in.holder)
	return err == nil
}

func stopCause(me string) *cluster.Cause {
	now := time.Now()
	return &cluster.Cause{
		Code: ha.CauseStopped, Certainty: cluster.Observed, At: now, Text: "Haven on " + me + " was told to stop",
		Evidence: []cluster.Evidence{{At: now, Member: me, Text: "the agent was asked to end, and handed leadership over first"}},
	}
}

func (a *Agent) endTask(ctx context.Context) {
	if a.st.task == nil {
		return
	}
	a.st.cancel()
	select {
	case r := <-a.done:
		a.takeOutcome(ctx, r)
	case <-ctx.Done():
	}
}

// successor is a standby that leadership may go to when this agent ends; empty: none.
func (a *Agent) successor() string {
	st := &a.st
	if st.holder == nil || st.lost || !st.known || st.seen.probe == nil || st.seen.probe.InRecovery {
		return ""
	}
	for _, s := range a.serverView().Standbys {
		m, ok := st.snap.Member(s.Name)
		inSync := !st.snap.Sync.Active() || st.snap.Sync.Has(s.Name)
		if ok && m.Lease != 0 && m.MayLead() && inSync && s.State == "streaming" {
			return s.Name
		}
	}
	return ""
}

func (a *Agent) stopAndRelease(ctx context.Context, in input) {
	mode := postgres.StopFast
	if p := in.seen.probe; in.holder == nil && (p == nil || !p.InRecovery) {
		mode = postgres.StopImmediate // it may be writable, and nothing proves that it may
	}
	if err := a.server.Stop(ctx, mode, nil); err != nil {
		a.log.Error("the server could not be stopped; the leader key stays until its lease ends", "error", err)
		return
	}
	if in.holder == nil {
		return
	}
	var status *cluster.Status
	if end, err := a.server.EndOfWAL(); err == nil {
		status = &cluster.Status{Optime: end}
	}
	short, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if err := a.store.Release(short, *in.holder, status); err != nil {
		a.log.Warn("the leader key could not be released; it ends with its lease", "error", err)
	}
}
