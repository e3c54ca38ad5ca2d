package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// input is what an action knows of the state when it begins. It is a copy: an action never touches the state.
type input struct {
	action  ha.Action
	snap    cluster.Snapshot
	dynamic config.Dynamic
	node    *config.Node
	lease   dcs.Lease
	holder  *dcs.Holder
	process *postgres.Server
	seen    seen
	story   story
	lost    bool // leadership is
	// startTimeout bounds the start of a server that an operator has restarted; 0: as configured.
	startTimeout time.Duration
	// fromLeader: an operator wants a copy of the leader itself.
	fromLeader bool
	// inForce is the dynamic configuration as it was read last; nil: never.
	inForce json.RawMessage
	// former is closed when the task that this one displaced has ended; nil: there was none.
	former <-chan struct{}
}

// effects are what an action changed; the loop takes them into its state. An action that failed half way tells what
// it did all the same.
type effects struct {
	led       *dcs.Holder // leadership begun, or its term moved on
	deadline  cluster.Instant
	unled     bool
	process   *postgres.Server // a server was started
	upstream  *string
	survey    *ha.Survey
	compare   *ha.Compare
	applied   *string
	promoted  bool
	reloaded  bool // the server was told to read its configuration again
	refreshed bool // the action has read the store again: snap is newer
	snap      cluster.Snapshot
	notes     []cluster.Evidence
}

func (e *effects) note(format string, args ...any) {
	e.notes = append(e.notes, cluster.Evidence{At: time.Now(), Text: fmt.Sprintf(format, args...)})
}

type taskResult struct {
	kind    ha.Kind
	with    string
	request int64
	err     error
	effects effects
	seen    seen
}

// performer carries out one kind of action.
type performer func(ctx context.Context, in input, e *effects) error

func (a *Agent) performer(k ha.Kind) performer {
	switch k {
	case ha.Bootstrap:
		return a.bootstrap
	case ha.Unclaim:
		return a.unclaim
	case ha.Clone:
		return a.clone
	case ha.MoveAside:
		return a.moveAside
	case ha.Start:
		return a.start
	case ha.Kill:
		return a.kill
	case ha.StopFast:
		return a.stopFast
	case ha.Follow:
		return a.follow
	case ha.CompareTo:
		return a.compare
	case ha.Rewind:
		return a.rewind
	case ha.Ask:
		return a.ask
	case ha.Acquire:
		return a.acquire
	case ha.Resume:
		return a.resume
	case ha.Promote:
		return a.promote
	case ha.Open:
		return a.open
	case ha.SetSync:
		return a.setSync
	case ha.Switch:
		return a.switchover
	case ha.HandOver:
		return a.handOver
	case ha.Release:
		return a.release
	case ha.DropAsk:
		return a.dropRequest
	case ha.Repair:
		return a.repair
	case ha.RestartServer:
		return a.restartServer
	}
	if k == copySlots {
		return a.copySlots
	}
	return a.reconfigure
}

// begin starts an action beside the loop. A kill does not wait for the task that it cancels before it ends the server,
// but it is not over before that task is: one that was about to start a server may have done so after the first blow.
func (a *Agent) begin(ctx context.Context, d ha.Decision) {
	st := &a.st
	if st.task != nil && st.task.Kind == ha.Kill {
		return
	}
	act := d.Action
	st.generation++
	a.ordered.Store(act.Kind.EndsServer() && act.Kind != ha.Switch || act.Kind == copySlots) // a switchover says so when it comes to that
	var former <-chan struct{}
	if st.task != nil {
		former = st.ended
	}
	ended := make(chan struct{})
	st.ended = ended
	st.task = &ha.Task{Kind: act.Kind, With: act.Member, Since: bootclock.Now()}
	in := input{
		action: act, snap: st.snap, dynamic: st.dynamic, node: a.node.Load(), lease: st.lease,
		process: st.process, seen: st.seen, story: st.story.copy(), lost: st.lost, former: former, startTimeout: st.orders.begun(act.Kind),
		fromLeader: st.orders.reinit != nil && st.orders.reinit.FromLeader, inForce: st.inForce,
	}
	if st.holder != nil {
		h := *st.holder
		in.holder = &h
	}
	ctx, cancel := context.WithCancel(ctx)
	st.cancel = cancel
	perform := a.performer(act.Kind)
	a.beside(ctx, func(ctx context.Context) {
		defer cancel()
		defer close(ended)
		r := taskResult{kind: act.Kind, with: act.Member, request: act.Request}
		if err := a.stillTrue(ctx, in); err != nil {
			r.err = unbegun{err}
		} else {
			r.err = perform(ctx, in, &r.effects)
		}
		p := in.process
		if r.effects.process != nil {
			p = r.effects.process
		}
		r.seen = a.see(context.WithoutCancel(ctx), p, in.seen.probe == nil || act.Kind == ha.RestartServer || act.Kind == copySlots, false)
		a.done <- r
	})
}

// unbegun is why an action failed before it had changed data: it may be done later.
type unbegun struct{ error }

func (e unbegun) Unwrap() error { return e.error }

// nothingDone tells whether an action failed before it had changed data, or a server that was only to be started had come to them.
func nothingDone(kind ha.Kind, err error) bool {
	if kind == ha.Start {
		return !errors.Is(err, postgres.ErrRead) && !errors.Is(err, postgres.ErrNotReady)
	}
	var e unbegun
	return errors.As(err, &e) || errors.Is(err, dcs.ErrConflict) || errors.Is(err, errNotReserved) || errors.Is(err, errMayBeFounded) ||
		errors.Is(err, postgres.ErrNoAnswer) || errors.Is(err, postgres.ErrNoCheckpoint)
}

func (a *Agent) takeOutcome(ctx context.Context, r taskResult) {
	st := &a.st
	a.settleOrder(r)
	if st.task == nil || st.task.Kind != r.kind {
		// cancelled in favour of a kill: what it did counts, its outcome does not; a leadership that it began is proven
		// anew before anything rests on it
		r.effects.led = nil
		a.takeEffects(r.effects)
		return
	}
	st.generation++
	st.outcome = &ha.Outcome{Kind: r.kind, With: r.with, Request: r.request}
	a.figures.acted(r.kind, bootclock.Now().Sub(st.task.Since), r.err)
	if r.kind.ChangesData() {
		a.keep.kept = nil
	}
	if r.kind == ha.Start || r.kind == ha.RestartServer {
		st.startError = r.err
	}
	if r.err != nil {
		st.outcome.Error, st.outcome.Unbegun = r.err.Error(), nothingDone(r.kind, r.err)
		a.log.Warn("action failed", "action", r.kind, "error", r.err)
		if st.outcome.Unbegun {
			r.effects.notes = nil // it is tried again and again
		} else {
			st.story.note(time.Now(), a.opt.Node.Name, fmt.Sprintf("%s failed: %v", r.kind, r.err))
		}
	}
	if a.ordered.Swap(false) && st.process != nil && !alive(st.process) {
		st.process = nil // as ordered: it is no crash, though its report comes later
	}
	st.task, st.cancel = nil, nil
	if r.kind == reconfigure && r.err != nil {
		st.applyAfter = time.Now().Add(st.dynamic.LoopWait)
	}
	if r.kind.ChangesData() {
		if !st.outcome.Unbegun {
			st.compare = nil
		}
		if r.kind != ha.Promote {
			st.reach, st.grounded = reach{}, false
		}
	}
	a.takeEffects(r.effects)
	if r.kind == ha.Kill && r.err == nil {
		a.afterKill()
	}
	// A look that began later may have been faster; but it knows neither of a server that was started, nor of other data.
	if r.seen.at >= st.seen.at || r.effects.process != nil || r.kind.ChangesData() {
		a.takeSeen(ctx, r.seen)
	}
	a.recordOutcome(st.outcome)
}

// afterKill drops what only a running server can hold up: a leadership that is lost or past its deadline is forgotten,
// to be proven anew before anything rests on it.
func (a *Agent) afterKill() {
	st := &a.st
	if st.process != nil && !alive(st.process) {
		st.process = nil
	}
	if st.lost || st.holder != nil && !bootclock.Now().Before(st.deadline) {
		a.unlead()
	}
}

func (a *Agent) takeEffects(e effects) {
	st := &a.st
	if e.unled {
		a.unlead()
	}
	if e.led != nil {
		a.lead(*e.led, e.deadline)
	}
	if e.process != nil {
		st.process, st.crash = e.process, nil
		st.survey = nil // what the others have is asked again when this one has ended
		a.watchExit(e.process)
	}
	if e.upstream != nil {
		st.upstream, st.retryUntil = *e.upstream, time.Now().Add(retryFor)
	}
	if e.survey != nil {
		st.survey = e.survey
	}
	if e.compare != nil {
		st.compare = e.compare
	}
	if e.applied != nil {
		st.applied = *e.applied
	}
	a.callbacks.reloaded = a.callbacks.reloaded || e.reloaded
	if e.promoted {
		st.checkpoint = false
	}
	if e.refreshed {
		a.takeSnapshot(e.snap)
	}
	for _, n := range e.notes {
		st.story.note(n.At, a.opt.Node.Name, n.Text)
	}
}

// refresh reads the store after a write of our own, so that the next decision does not rest on what was there before.
func (a *Agent) refresh(ctx context.Context, e *effects) {
	s, err := a.store.Snapshot(ctx)
	if err == nil {
		e.snap, e.refreshed = s, true
	}
}

// stillTrue reads the evidence of a destructive action again, and refuses it if that has moved. A kill needs none: it
// is what is done when evidence is missing.
func (a *Agent) stillTrue(ctx context.Context, in input) error {
	k := in.action.Kind
	if !k.Destructive() || k == ha.Kill {
		return nil
	}
	s, err := a.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("read the evidence again: %w", err)
	}
	b := in.action.Basis
	var leader string
	var rev int64
	if s.Leader != nil {
		leader, rev = s.Leader.Name, s.Leader.ModRev
	}
	if leader != b.Leader || rev != b.LeaderRev {
		return fmt.Errorf("the leader key has changed since %s was decided (was %q at %d, is %q at %d)", k, b.Leader, b.LeaderRev, leader, rev)
	}
	if k == ha.MoveAside && s.Sync != nil && s.Sync.ModRev != b.SyncRev {
		return errors.New("it has changed meanwhile who is synchronous: the data may be counted on")
	}
	if s.Term != nil && s.Term.Number != b.Term {
		return fmt.Errorf("term %d has begun since %s was decided in term %d", s.Term.Number, k, b.Term)
	}
	if s.Initialize.Valid() && in.seen.disk.Kind == postgres.DiskData && in.seen.disk.Control.SystemID != s.Initialize.SystemID {
		return fmt.Errorf("the data directory belongs to system %s, the cluster is %s", in.seen.disk.Control.SystemID, s.Initialize.SystemID)
	}
	return nil
}
