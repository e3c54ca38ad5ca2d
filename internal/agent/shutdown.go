package agent

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// Bounds of an agent's orderly end: all of it; one question about leadership to a store that may be ending too; and one write that may
// as well fail. stopTick is how often the loop shows meanwhile that it turns.
const (
	stopTimeout = 60 * time.Second
	farewell    = 3 * time.Second
	passingNote = time.Second
	stopTick    = time.Second
)

// shutdown ends the agent in an orderly way: a leader hands over to a synchronous standby that streams, or stops and
// gives the key up; a standby stops. In pause everything is left as it is. Leadership is renewed meanwhile, and should
// that fail, the server is ended at the deadline as ever.
func (a *Agent) shutdown(ctx context.Context) error {
	st := &a.st
	if st.dynamic.Pause {
		a.finishOrder(ctx)
		a.releaseNow()
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
	short, done := context.WithTimeout(ctx, passingNote)
	defer done()
	a.writer.flush(short, m, st.lease.ID)
	return nil
}

// finishOrder waits for a switchover or a restart that is under way: in a pause nobody else would bring the server up again.
func (a *Agent) finishOrder(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for a.st.task != nil && (a.st.task.Kind == ha.Switch || a.st.task.Kind == ha.RestartServer) {
		a.lastTurn.Store(int64(bootclock.Now()))
		select {
		case <-ctx.Done():
			return
		case r := <-a.renewals:
			a.takeRenewal(r)
		case r := <-a.done:
			a.takeOutcome(ctx, r)
		case <-time.After(stopTick):
		}
	}
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
		case <-time.After(stopTick):
		case <-due:
			if a.takeProofs(); !a.st.lost && bootclock.Now().Before(a.st.deadline) {
				continue
			}
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
		half, cancel := context.WithTimeout(ctx, stopTimeout/2) // the rest is for a stop without a handover
		err := a.switchover(half, in, &e)
		cancel()
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
	return ha.Successor(a.view(bootclock.Now()))
}

func (a *Agent) stopAndRelease(ctx context.Context, in input) {
	mode := postgres.StopFast
	if p := in.seen.probe; in.holder == nil && (p == nil || !p.InRecovery) {
		mode = postgres.StopImmediate // it may be writable, and nothing proves that it may
	}
	if mode == postgres.StopFast {
		a.beforeStop(ctx, in)
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
