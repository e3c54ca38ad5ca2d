package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/slots"
)

// chores keeps slots in order and makes the checkpoint after a promotion, beside the loop, one at a time.
type chores struct {
	busy    bool
	cancel  context.CancelFunc
	last    time.Time
	standby bool
	key     string
	keep    slotKeeping
	result  chan choresDone
}

type choresDone struct {
	checkpoint bool
	err        error
	safety     map[string]safety
	copyable   []string
	waiting    []string
}

func (c *chores) start(ctx context.Context, a *Agent, standby bool) {
	select {
	case r := <-c.result:
		c.busy = false
		a.st.checkpoint = a.st.checkpoint || r.checkpoint
		c.keep.learn(r, a.log)
	default:
	}
	if c.busy && standby != c.standby {
		c.cancel() // what a standby's slots were moved for is no matter to a primary
	}
	now := a.slotCase(standby)
	plan := c.keep.plan(now)
	key := planKey(plan, standby)
	if c.busy || key == c.key && time.Since(c.last) < a.st.dynamic.LoopWait && a.st.checkpoint {
		return
	}
	c.busy, c.last, c.key, c.standby = true, time.Now(), key, standby
	needCheckpoint := !standby && !a.st.checkpoint
	intruders := a.intruders(a.st.seen.probe)
	ask := c.keep.unsettled()
	up, _ := a.leaderUpstream()
	var missing []string
	if standby && now.mayLead {
		missing = missingCopies(now)
	}
	ctx, c.cancel = context.WithCancel(ctx)
	cancel := c.cancel
	a.beside(ctx, func(ctx context.Context) {
		defer cancel()
		var r choresDone
		if err := a.server.KeepSlots(ctx, plan); err != nil && ctx.Err() == nil {
			a.log.Warn("replication slots could not be brought in order", "error", err)
			r.err = err
		}
		if len(ask) > 0 && up != nil {
			r.safety = a.judgeCopies(ctx, *up, ask)
		}
		if len(missing) > 0 && up != nil {
			var states []slots.State
			states, r.waiting = a.usableStates(ctx, *up, missing)
			for _, s := range states {
				r.copyable = append(r.copyable, s.Name)
			}
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

func planKey(p slots.Plan, standby bool) string {
	return fmt.Sprint(standby, p.Physical, p.Logical)
}
