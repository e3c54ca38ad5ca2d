package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/ha"
)

// Counts is what a run, or many runs, went through.
type Counts struct {
	Runs        int
	Steps       int // events of the queue, timers included
	Acting      int // decisions that act
	Faults      int // faults, their undoing, and requests of operators
	Deliveries  int // states of the store and batches of WAL that arrived
	Commits     int
	Acked       int
	Promised    int
	Waived      int
	Thawed      int // commits acknowledged in quorum mode between a thaw past the deadline and the end of the server
	Twins       int // comparisons that told two promotions to one timeline apart
	Needless    int // of those, of members that had nothing of their own
	Words       int // given to leaders without the store
	Rounds      int // in which all members gave theirs
	Promotions  int
	Partitions  int
	StepCrashes int // crashes and freezes between two steps of an action
	Rewinds     int
	SyncWrites  int
	SyncHit     int // changes of the synchronous set in flight when a fault hit
	Kinds       map[ha.Kind]int
	Reasons     map[ha.Code]int
}

func newCounts() Counts {
	return Counts{Runs: 1, Kinds: map[ha.Kind]int{}, Reasons: map[ha.Code]int{}}
}

func (c *Counts) decide(d ha.Decision) {
	c.Reasons[d.Reason.Code]++
	c.Kinds[d.Action.Kind]++
	if d.Action.Kind != ha.None {
		c.Acting++
	}
}

// Events is the number of events by which a schedule's size is told: decisions that act, faults with their undoing and
// requests, and deliveries. Timers, probes and renewals are not counted.
func (c *Counts) Events() int { return c.Acting + c.Faults + c.Deliveries }

// Add sums up.
func (c *Counts) Add(o Counts) {
	c.Runs += o.Runs
	c.Steps += o.Steps
	c.Acting += o.Acting
	c.Faults += o.Faults
	c.Deliveries += o.Deliveries
	c.Commits += o.Commits
	c.Acked += o.Acked
	c.Promised += o.Promised
	c.Waived += o.Waived
	c.Thawed += o.Thawed
	c.Twins += o.Twins
	c.Needless += o.Needless
	c.Words += o.Words
	c.Rounds += o.Rounds
	c.Promotions += o.Promotions
	c.Partitions += o.Partitions
	c.StepCrashes += o.StepCrashes
	c.Rewinds += o.Rewinds
	c.SyncWrites += o.SyncWrites
	c.SyncHit += o.SyncHit
	if c.Kinds == nil {
		c.Kinds, c.Reasons = map[ha.Kind]int{}, map[ha.Code]int{}
	}
	for k, n := range o.Kinds {
		c.Kinds[k] += n
	}
	for k, n := range o.Reasons {
		c.Reasons[k] += n
	}
}

// Counts is what this world went through so far.
func (w *World) Counts() Counts { return w.counts }

// Kinds are all actions that there are.
func Kinds() []ha.Kind {
	return []ha.Kind{
		ha.None, ha.Exit, ha.Bootstrap, ha.Unclaim, ha.Clone, ha.MoveAside, ha.Start, ha.Kill, ha.StopFast, ha.Follow, ha.CompareTo,
		ha.Rewind, ha.Ask, ha.Acquire, ha.Resume, ha.Promote, ha.Open, ha.SetSync, ha.Switch, ha.HandOver, ha.Release, ha.DropAsk, ha.Repair, ha.RestartServer,
	}
}

// Table is the counts, for people.
func (c *Counts) Table() string {
	var b strings.Builder
	per := func(n int) float64 { return float64(n) / float64(max(1, c.Runs)) }
	for _, row := range []struct {
		name string
		n    int
	}{
		{"schedules", c.Runs}, {"events", c.Events()}, {"  decisions that act", c.Acting}, {"  faults and requests", c.Faults}, {"  deliveries", c.Deliveries},
		{"steps of the queue", c.Steps}, {"commits", c.Commits}, {"  acknowledged", c.Acked}, {"  promised", c.Promised}, {"  waived by operators", c.Waived},
		{"  acked after a thaw", c.Thawed}, {"twins told apart", c.Twins}, {"  needlessly", c.Needless}, {"words given", c.Words}, {"rounds of words", c.Rounds}, {"promotions", c.Promotions}, {"partitions", c.Partitions}, {"crashes between steps", c.StepCrashes}, {"rewinds", c.Rewinds},
		{"writes of /sync", c.SyncWrites}, {"changes of the set hit", c.SyncHit},
	} {
		fmt.Fprintf(&b, "%-24s %10d  %8.2f a schedule\n", row.name, row.n, per(row.n))
	}
	for _, k := range slices.Sorted(maps.Keys(c.Kinds)) {
		fmt.Fprintf(&b, "action %-24s %d\n", k, c.Kinds[k])
	}
	for _, k := range slices.Sorted(maps.Keys(c.Reasons)) {
		fmt.Fprintf(&b, "reason %-24s %d\n", k, c.Reasons[k])
	}
	return b.String()
}
