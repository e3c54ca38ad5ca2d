package sim

import (
	"errors"
	"fmt"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

var errCancelled = errors.New("cancelled")

// step is one step of an action. It ends by calling its task's next, once, at once or later.
type step func(t *task)

// task is one action that is being carried out beside the loop (agent.begin). Its input is a copy of the state; what it
// changed is told when it ends.
type task struct {
	a     *agent
	kind  ha.Kind
	with  string
	since cluster.Instant

	action     ha.Action
	snap       cluster.Snapshot
	leaseID    int64
	holder     *holder
	postmaster *server
	seen       seen
	dynamic    int
	former     *task // which this one displaced

	steps     []step
	position  int
	awaited   int // which answer is waited for
	cancelled bool
	over      bool
	refused   bool  // before it had done anything
	failure   error // of a bootstrap that is being undone
	asked     bool  // the store was asked to record the new cluster
	ended     func()
	onFail    func() // of the orderly end of the agent
	e         effects
}

// effects are what an action changed.
type effects struct {
	led       *holder
	deadline  cluster.Instant
	unled     bool
	started   *server
	upstream  *string
	survey    *ha.Survey
	compare   *ha.Compare
	promoted  bool
	refreshed bool
	snap      cluster.Snapshot
}

// act begins an action. A kill does not wait for the task that it cancels before it ends the server, but is not over
// before that task is.
func (a *agent) act(d ha.Decision) {
	if a.task != nil && a.task.kind == ha.Kill {
		return
	}
	a.generation++
	a.ordered = d.Action.Kind.EndsServer() && d.Action.Kind != ha.Switch // which says so when it comes to that
	t := &task{
		a: a, kind: d.Action.Kind, with: d.Action.Member, since: a.now(), action: d.Action, snap: a.snap, leaseID: a.leaseID,
		postmaster: a.postmaster, seen: a.seen, dynamic: a.dynamic, former: a.task,
	}
	if a.holder != nil {
		h := *a.holder
		t.holder = &h
	}
	a.task = t
	t.steps = append([]step{stillTrue}, a.plan(t)...)
	a.after(0, func() { t.next(nil) })
}

// next goes on with the task after a step ended; between two steps anything may happen.
func (t *task) next(err error) {
	if t.over {
		return
	}
	t.awaited++
	if err == nil && t.cancelled && t.kind != ha.Kill {
		err = errCancelled
	}
	if err != nil && t.kind == ha.Bootstrap && t.failure == nil && t.position > 2 {
		t.steps, t.position = undoSteps(), 0
		if t.mayBeFounded(err) {
			t.steps = []step{afterwards}
		}
		t.failure, t.cancelled, err = err, false, nil
	}
	if err != nil || t.position == len(t.steps) {
		if err == nil {
			err = t.failure
		}
		t.finish(err)
		return
	}
	if t.position > 0 {
		t.a.w.boundary(t)
		if t.over || t.a.frozen > 0 && t.waitForThaw() {
			return
		}
	}
	t.position++
	t.steps[t.position-1](t)
}

// waitForThaw puts the next step off: the boundary has frozen the agent.
func (t *task) waitForThaw() bool {
	n := t.awaited
	t.a.after(0, func() {
		if n == t.awaited && !t.over {
			t.position++
			t.steps[t.position-1](t)
		}
	})
	return true
}

// answer makes a callback that goes on with the task, unless it has gone on already (cancelled, or timed out).
func (t *task) answer() func(error) {
	n := t.awaited
	return func(err error) {
		if n == t.awaited {
			t.next(err)
		}
	}
}

// cancel ends the context of the task: what it waits for returns at once.
func (t *task) cancel() {
	if t.cancelled || t.over {
		return
	}
	t.cancelled = true
	if t.kind != ha.Kill {
		resume := t.answer()
		t.a.after(0, func() { resume(errCancelled) })
	}
}

// abandon is the end of the agent in the middle of the task.
func (t *task) abandon() {
	t.over = true
	if t.former != nil {
		t.former.abandon()
	}
}

// finish looks at the server once more, and reports.
func (t *task) finish(err error) {
	t.over = true
	a := t.a
	if err != nil && t.onFail != nil {
		t.onFail()
		return
	}
	p := t.postmaster
	if t.e.started != nil {
		p = t.e.started
	}
	a.see(p, t.seen.probe == nil || t.kind == ha.RestartServer, func(s seen) {
		if t.ended != nil {
			t.ended()
		}
		a.takeOutcome(t, err, s)
		a.turn()
	})
}

// nothingDone is agent.nothingDone.
func (t *task) nothingDone(err error) bool {
	if t.kind == ha.Start {
		return !errors.Is(err, errStart)
	}
	return t.refused || errors.Is(err, errConflict) || errors.Is(err, errNotReserved) || errors.Is(err, errNoCheckpoint) || t.mayBeFounded(err)
}

// takeOutcome takes what a task did into the state (agent.takeOutcome).
func (a *agent) takeOutcome(t *task, err error, s seen) {
	a.settleOrder(t.kind, err)
	if a.task != t {
		t.e.led = nil
		a.takeEffects(t.e)
		return
	}
	a.generation++
	a.outcome = &ha.Outcome{Kind: t.kind, With: t.with, Request: t.action.Request}
	if err != nil {
		a.outcome.Error, a.outcome.Unbegun = err.Error(), t.nothingDone(err)
		a.w.note(a.m.name, "%s failed: %v", t.kind, err)
	}
	a.w.ended(t, err)
	a.task, a.ordered = nil, false
	if t.kind.ChangesData() {
		if !a.outcome.Unbegun {
			a.compare = nil
		}
		if t.kind != ha.Promote {
			a.reach, a.grounded = reach{}, false
		}
	}
	a.takeEffects(t.e)
	if t.kind == ha.Kill && err == nil {
		if p := a.postmaster; p != nil && (p.phase == dead || p.phase == orphaned) {
			a.postmaster = nil
		}
		if a.lost || a.holder != nil && a.now() >= a.deadline {
			a.unlead()
		}
	}
	a.takeSeen(s)
}

func (a *agent) takeEffects(e effects) {
	if e.unled {
		a.unlead()
	}
	if e.led != nil {
		a.lead(*e.led, e.deadline)
	}
	if e.started != nil {
		a.postmaster, a.crash = e.started, nil
		if p := e.started; p.phase == orphaned || p.phase == dead {
			a.after(0, func() { a.takeExit(p, a.now()) })
		}
	}
	if e.upstream != nil {
		a.upstream = *e.upstream
	}
	if e.survey != nil {
		a.survey = e.survey
	}
	if e.compare != nil {
		a.compare = e.compare
	}
	if e.promoted {
		a.checkpoint = false
	}
	if e.refreshed {
		a.takeSnapshot(e.snap)
	}
}

// stillTrue reads the evidence of a destructive action again, and refuses it if that has moved (agent.stillTrue).
func stillTrue(t *task) {
	k := t.kind
	if !k.Destructive() || k == ha.Kill {
		t.next(nil)
		return
	}
	resume := t.answer()
	t.a.snapshot(func(s cluster.Snapshot, err error) {
		b := t.action.Basis
		var leader string
		var rev int64
		if s.Leader != nil {
			leader, rev = s.Leader.Name, s.Leader.ModRev
		}
		switch {
		case err != nil:
		case leader != b.Leader || rev != b.LeaderRev:
			err = fmt.Errorf("the leader key has changed since %s was decided", k)
		case k == ha.MoveAside && s.Sync != nil && s.Sync.ModRev != b.SyncRev:
			err = fmt.Errorf("it has changed meanwhile who is synchronous")
		case s.Term != nil && s.Term.Number != b.Term:
			err = fmt.Errorf("a term has begun since %s was decided", k)
		case s.Initialize.Valid() && t.seen.disk.kind == ha.DiskData && t.seen.disk.system != s.Initialize.SystemID:
			err = fmt.Errorf("the data directory belongs to another system")
		}
		t.refused = err != nil
		resume(err)
	})
}

// refresh reads the store after a write of our own, and then goes on with what that ended with.
func (t *task) refresh(outcome error) {
	resume := t.answer()
	t.a.snapshot(func(s cluster.Snapshot, err error) {
		if err == nil {
			t.e.snap, t.e.refreshed = s, true
		}
		resume(outcome)
	})
}

// ask makes a store call; a refreshed snapshot follows where wanted.
func (t *task) ask(op operation, refresh bool, then func(err error)) {
	resume := t.answer()
	n := t.awaited
	t.a.call(op, func(err error) {
		if n != t.awaited {
			return
		}
		if then != nil {
			then(err)
		}
		if refresh {
			t.refresh(err)
			return
		}
		resume(err)
	})
}
