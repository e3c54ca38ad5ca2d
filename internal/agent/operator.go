package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// errEnding: the agent ends, and carries no orders out any more.
var errEnding = errors.New("haven is being stopped on this member")

// orders are what an operator has asked of this member. They live in memory, and end with the agent.
type orders struct {
	restart *restartOrder
	reinit  *reinitOrder
	planned *plannedRestart
}

type restartOrder struct {
	ha.Restart
	begun bool
	reply chan error // nil: nobody waits
}

type reinitOrder struct {
	ha.Reinit
	force    bool
	accepted bool
	reply    chan error
	former   *reinitOrder // one that was accepted, and goes on if this is refused
}

// plannedRestart waits for its time.
type plannedRestart struct {
	ha.Restart
	at      time.Time
	started time.Time // when the server started that it was meant for; another one needs it no more
}

// onLoop runs f on the loop.
func (a *Agent) onLoop(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.calls <- func() { f(); close(done) }:
	case <-a.keeper.ended:
		return errEnding
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done // the loop has taken it, and does not wait for anything
	return nil
}

func (a *Agent) await(ctx context.Context, reply <-chan error) error {
	select {
	case err := <-reply:
		return err
	case <-a.keeper.ended:
		return errEnding
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitOr waits for the answer to an order; when ctx ends before, forget takes the order back, on the loop.
func (a *Agent) awaitOr(ctx context.Context, reply <-chan error, forget func(*orders)) error {
	err := a.await(ctx, reply)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, a.onLoop(context.WithoutCancel(ctx), func() { forget(&a.st.orders) }))
	}
	return err
}

// Restart restarts the server and returns when that is over. An ha.Refusal says why nothing was done; ErrStillStarting
// that the server was not ready in time. When ctx ends, a restart that has begun goes on; one that has not is forgotten.
func (a *Agent) Restart(ctx context.Context, r ha.Restart) error {
	reply := make(chan error, 1)
	order := &restartOrder{Restart: r, reply: reply}
	err := a.onLoop(ctx, func() {
		if a.st.orders.restart != nil {
			reply <- ha.Refusal("restart already in progress")
			return
		}
		a.st.orders.restart = order
	})
	if err != nil {
		return err
	}
	return a.awaitOr(ctx, reply, func(o *orders) {
		if o.restart == order && !order.begun {
			o.restart = nil
		}
	})
}

// ScheduleRestart has the server restarted at that time; ha.ErrAlreadyScheduled if another restart waits.
func (a *Agent) ScheduleRestart(ctx context.Context, r ha.Restart, at time.Time) error {
	reply := make(chan error, 1)
	err := a.onLoop(ctx, func() {
		if a.st.orders.planned != nil {
			reply <- ha.ErrAlreadyScheduled
			return
		}
		p := &plannedRestart{Restart: r, at: at}
		if probe := a.st.seen.probe; probe != nil {
			p.started = probe.StartTime
		}
		a.st.orders.planned = p
		a.log.Info("restart scheduled", "at", at)
		reply <- nil
	})
	if err != nil {
		return err
	}
	return a.await(ctx, reply)
}

// UnscheduleRestart takes a scheduled restart back; false: there was none.
func (a *Agent) UnscheduleRestart(ctx context.Context) (bool, error) {
	there := make(chan bool, 1)
	err := a.onLoop(ctx, func() {
		there <- a.st.orders.planned != nil
		a.st.orders.planned = nil
	})
	if err != nil {
		return false, err
	}
	return <-there, nil
}

// Reinitialize has the data replaced by a new copy, and returns when that is begun; an ha.Refusal says why it is not. With
// force, a copy or comparison that runs is ended for it. When ctx ends before that, the order is forgotten.
func (a *Agent) Reinitialize(ctx context.Context, r ha.Reinit, force bool) error {
	reply := make(chan error, 1)
	order := &reinitOrder{Reinit: r, force: force, reply: reply}
	err := a.onLoop(ctx, func() {
		if o := a.st.orders.reinit; o != nil && !force {
			reply <- ha.Refusal("reinitialize already in progress")
			return
		} else if o != nil && !o.accepted {
			o.reply <- ha.Refusal("another order to reinitialize has taken its place")
			order.former = o.former
		} else {
			order.former = o
		}
		a.st.orders.reinit = order
	})
	if err != nil {
		return err
	}
	return a.awaitOr(ctx, reply, func(o *orders) {
		if o.reinit == order && !order.accepted {
			o.reinit = order.former
		}
	})
}

// takeOrders shows Decide the orders that may be carried out, and answers those that may not.
func (a *Agent) takeOrders(v *ha.View) {
	o := &a.st.orders
	o.due(a)
	if r := o.restart; r != nil && !r.begun && !passing(v.Task) {
		if why := ha.RefuseRestart(*v, r.Restart); why != "" {
			a.refuse("restart", why, r.reply)
			o.restart = nil
		}
	}
	if o.restart != nil {
		v.Restart = &o.restart.Restart
	}
	a.takeReinit(v)
}

// passing tells whether orders wait for the end of what is under way; the loop turns then.
func passing(t *ha.Task) bool { return t != nil && (t.Passing() || t.Kind == reconfigure) }

func (a *Agent) refuse(what string, why ha.Refusal, reply chan<- error) {
	a.log.Warn("an order of an operator is not carried out", "order", what, "why", string(why))
	if reply != nil {
		reply <- why
	}
}

func (a *Agent) takeReinit(v *ha.View) {
	o := &a.st.orders
	r := o.reinit
	if r == nil {
		return
	}
	why := ha.RefuseReinit(*v)
	switch t := v.Task; {
	case r.accepted && (v.Lease.Held || v.Store.Leader != nil && v.Store.Leader.Name == v.Me.Name):
		a.log.Warn("this member leads now: its data is not replaced")
		o.reinit = nil
	case r.accepted:
	case t != nil && r.force && t.Interruptible():
		a.st.cancel() // it is asked again when that has ended
		return
	case passing(t):
		return
	case why != "":
		a.refuse("reinitialize", why, r.reply)
		o.reinit = r.former
	default:
		r.accepted = true
		r.reply <- nil
	}
	if o.reinit != nil {
		v.Reinit = &o.reinit.Reinit
	}
}

// begun notes that the order to restart is being carried out, and tells how long the start may take.
func (o *orders) begun(k ha.Kind) time.Duration {
	if k != ha.RestartServer || o.restart == nil {
		return 0
	}
	o.restart.begun = true
	return o.restart.Timeout
}

// settleOrder answers whoever waits for the outcome of a task.
func (a *Agent) settleOrder(r taskResult) {
	o := &a.st.orders
	switch {
	case r.kind == ha.RestartServer && o.restart != nil:
		if o.restart.reply != nil {
			o.restart.reply <- r.err
		}
		o.restart = nil
	case r.kind == ha.Clone && r.err == nil && o.reinit != nil:
		if o.reinit.former = nil; o.reinit.accepted {
			o.reinit = nil
		}
	}
}

// due puts a scheduled restart into effect when its time has come. One whose time is long over, or whose server was
// restarted since, is dropped.
func (o *orders) due(a *Agent) {
	p := o.planned
	if p == nil || time.Now().Before(p.at) {
		return
	}
	o.planned = nil
	probe := a.st.seen.probe
	limit := max(time.Duration(staleAfter*float64(a.st.dynamic.LoopWait)), staleAtLeast)
	switch {
	case time.Since(p.at) > limit:
		a.log.Warn("a scheduled restart is dropped: its time is long over", "at", p.at)
	case a.st.dynamic.Pause:
		a.log.Warn("a scheduled restart is dropped: maintenance mode is on", "at", p.at)
	case probe != nil && !p.started.IsZero() && !probe.StartTime.Equal(p.started):
		a.log.Info("a scheduled restart is dropped: the server was restarted since", "at", p.at)
	case o.restart == nil:
		o.restart = &restartOrder{Restart: p.Restart}
	}
}

// atMost is the time to the next turn, so that a scheduled restart is not late.
func (p *plannedRestart) atMost(again time.Duration) time.Duration {
	if p == nil {
		return again
	}
	return min(again, max(time.Until(p.at), 10*time.Millisecond))
}

// document is the field scheduled_restart of the member key, as Patroni writes it.
func (p *plannedRestart) document() json.RawMessage {
	if p == nil {
		return nil
	}
	d := struct {
		Schedule string `json:"schedule"`
		Started  string `json:"postmaster_start_time,omitempty"`
		Role     string `json:"role,omitempty"`
		Version  string `json:"postgres_version,omitempty"`
		Pending  bool   `json:"restart_pending,omitempty"`
		Timeout  int    `json:"timeout,omitempty"`
	}{Schedule: p.at.Format(cluster.TimeFormat), Role: p.Role, Version: p.Version, Pending: p.Pending, Timeout: int(p.Timeout / time.Second)}
	if !p.started.IsZero() {
		d.Started = p.started.UTC().Format("2006-01-02 15:04:05.000000-07:00")
	}
	text, _ := json.Marshal(d) // strings and numbers: cannot fail
	return text
}

// copied is how far a copy is, in bytes; a total of 0 is not known.
type copied struct{ done, total int64 }

func (c *copied) text() string {
	switch {
	case c == nil:
		return ""
	case c.total > 0:
		return fmt.Sprintf("%d %% of %d MB", min(100, 100*c.done/c.total), c.total>>20)
	}
	return fmt.Sprintf("%d MB", c.done>>20)
}

// restartServer stops the server and starts it in the role that it has. A leader keeps its key: its lease is renewed
// meanwhile, and should that fail, the server is ended at the deadline as ever.
func (a *Agent) restartServer(ctx context.Context, in input, e *effects) error {
	if in.action.AsPrimary {
		return a.restartPrimary(ctx, in, e)
	}
	e.note("restarting the standby")
	if err := a.stopBounded(ctx, in); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	ctx, cancel := in.limitStart(ctx, 0)
	defer cancel()
	return restarted(a.start(ctx, in, e))
}

func (a *Agent) restartPrimary(ctx context.Context, in input, e *effects) error {
	if in.holder == nil {
		return errors.New("restart: no leadership is held")
	}
	if _, _, err := a.prove(ctx, *in.holder); err != nil {
		return fmt.Errorf("restart: leadership could not be proven: %w", err)
	}
	if err := a.server.Checkpoint(ctx); err != nil { // so that the one of the shutdown is short
		return fmt.Errorf("restart: %w", err)
	}
	e.note("restarting the primary")
	if err := a.stopBounded(ctx, in); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	limited, cancel := in.limitStart(ctx, in.dynamic.PrimaryStartTimeout)
	defer cancel()
	err := a.startPrimary(limited, in, e)
	if errors.Is(err, postgres.ErrNotReady) && ctx.Err() == nil && len(standbysOf(in.snap)) > 0 {
		// A synchronous standby has every commit, and can take over sooner than this one recovers.
		return errors.Join(restarted(err), a.server.Kill(ctx))
	}
	return restarted(err)
}

// standbysOf are those that hold every acknowledged commit.
func standbysOf(s cluster.Snapshot) []string {
	if !s.Sync.Active() {
		return nil
	}
	return s.Sync.Standbys
}

// limitStart bounds a start by what the order says, or else by the configuration's limit; 0: none.
func (in input) limitStart(ctx context.Context, configured time.Duration) (context.Context, context.CancelFunc) {
	limit := in.startTimeout
	if limit == 0 {
		limit = configured
	}
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func restarted(err error) error {
	if errors.Is(err, postgres.ErrNotReady) {
		return fmt.Errorf("%w: %w", ha.ErrStillStarting, err)
	}
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return nil
}

// stopBounded stops the server in order; one that does not stop within pg_ctl_timeout is ended: half stopped it would
// serve nobody.
func (a *Agent) stopBounded(ctx context.Context, in input) error {
	down := make(chan postgres.Control, 1)
	stopped := make(chan error, 1)
	a.beforeStop(ctx, in)
	limited, cancel := context.WithTimeout(ctx, in.node.Postgres.PgCtlTimeout)
	defer cancel()
	a.beside(limited, func(ctx context.Context) {
		stopped <- a.server.Stop(ctx, postgres.StopFast, func(c postgres.Control) { down <- c })
	})
	err := a.awaitStop(ctx, down, stopped, func(ctx context.Context) { pause(ctx, shutDownGrace) })
	if err == nil || ctx.Err() != nil {
		return err
	}
	a.log.Warn("the server did not stop in time: ending it", "error", err)
	return a.server.Kill(ctx)
}
