package agent

import (
	"context"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres"
)

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
	c.see(slots)
	want, unwanted := slots, c.departed(a.st.dynamic.MemberSlotsTTL)
	if standby {
		want, unwanted = nil, c.known(a.opt.Node.Name)
	}
	a.beside(ctx, func(ctx context.Context) {
		var r choresDone
		if err := a.keepSlots(ctx, want, unwanted); err != nil && ctx.Err() == nil {
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

// see remembers the slots of the members that are there now.
func (c *chores) see(slots []string) {
	if c.present == nil {
		c.present = map[string]time.Time{}
	}
	for _, name := range slots {
		c.present[name] = time.Now()
	}
}

// departed are the slots of members that this agent has seen and that have been gone for member_slots_ttl: kept longer,
// they would hold back WAL until the disk is full. Slots that were never a member's are nobody's business here.
func (c *chores) departed(ttl time.Duration) []string {
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
