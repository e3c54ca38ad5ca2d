package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/slots"
)

// slotKeeping is what the loop remembers of slots. Every member keeps the slots of all others and the permanent ones: the
// leader for who uses them, standbys as copies that follow the leader's positions, as /status tells them, so that a reader
// finds after a failover what it needs. Slots that are neither a member's nor permanent are nobody's business here.
type slotKeeping struct {
	present   map[string]time.Time // slot of a member → when it was last wanted
	permanent map[string]bool      // slots that were permanent at some time of this agent's life
	inherited bool                 // what the former leader retained was taken over
	office    string               // the leadership under which copies were judged
	copies    map[string]safety    // logical slots on this standby
	doubtful  map[string]safety    // those that were not known to be safe when this member was promoted
	orphans   []string             // permanent logical slots of a former leader of which there is no copy here, in sentences
	failure   string
	copyable  []string // missing copies that can be made now
	waiting   []string // and why others cannot, in sentences
	copying   copyPace
	copied    []string // the slots of this standby that follow the leader's; nobody uses them, and that is as it should be
}

// slotCase is what the plan for the slots follows from.
type slotCase struct {
	me               string
	standby, mayLead bool
	dynamic          config.Dynamic
	snap             cluster.Snapshot
	here             []postgres.Slot
	now              time.Time
}

func (a *Agent) slotCase(standby bool) slotCase {
	c := slotCase{me: a.opt.Node.Name, standby: standby, dynamic: a.st.dynamic, snap: a.st.snap, now: time.Now()}
	c.mayLead = cluster.Member{Tags: a.node.Load().Tags}.MayLead()
	if p := a.st.seen.probe; p != nil {
		c.here = p.Slots
	}
	return c
}

// positions are those of the leader's slots; nil where they are not known.
func (c slotCase) positions() map[string]cluster.LSN {
	if c.snap.Status == nil {
		return nil
	}
	return c.snap.Status.Slots
}

func (c slotCase) find(name string) (postgres.Slot, bool) {
	n := slices.IndexFunc(c.here, func(s postgres.Slot) bool { return s.Name == name })
	if n < 0 {
		return postgres.Slot{}, false
	}
	return c.here[n], true
}

// members are the slots of the other members; none where use_slots is off.
func (c slotCase) members() []string {
	if !c.dynamic.UseSlots {
		return nil
	}
	return memberSlots(c.snap, c.me)
}

// cascaded are the slots of members that replicate from another standby, with their positions: nobody reads from these here,
// and they would hold back WAL for ever. A member that has come back to the leader uses its slot, which is then left alone.
func (c slotCase) cascaded() map[string]cluster.LSN {
	out := map[string]cluster.LSN{}
	for _, m := range c.snap.Members {
		from := ha.ReplicateFrom(m.Tags)
		if _, there := c.snap.Member(from); there && from != c.me && m.Name != c.me && m.Position() > 0 {
			out[cluster.SlotName(m.Name)] = m.Position()
		}
	}
	return out
}

// feeds tells that the slot is of a member that is tagged to replicate from this one.
func (c slotCase) feeds(slot string) bool {
	return slices.ContainsFunc(c.snap.Members, func(m cluster.Member) bool {
		return ha.ReplicateFrom(m.Tags) == c.me && cluster.SlotName(m.Name) == slot
	})
}

// wanted are the permanent slots of a type. The one that bears this member's own name is not for this server, and one that
// bears a member's name is that member's, which is physical.
func (c slotCase) wanted(kind config.SlotType) []config.Slot {
	if !c.dynamic.UseSlots {
		return nil
	}
	members := c.members()
	if _, far := c.dynamic.Standby(); far && kind == config.SlotLogical { // a standby cluster has none
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.dynamic.Slots), func(s config.Slot) bool {
		return s.Type != kind || s.Name == cluster.SlotName(c.me) || kind == config.SlotLogical && slices.Contains(members, s.Name)
	})
}

func (c slotCase) isPermanent(name string) bool {
	return slices.ContainsFunc(c.dynamic.Slots, func(s config.Slot) bool { return s.Name == name })
}

// plan says how the slots of this server are to be.
func (k *slotKeeping) plan(c slotCase) slots.Plan {
	k.see(c)
	k.copied = nil
	if c.standby {
		p := k.standbyPlan(c)
		k.copied = slices.Sorted(maps.Keys(p.Advance))
		return p
	}
	p := slots.Plan{Physical: c.members(), Advance: c.cascaded()}
	k.copied = slices.Sorted(maps.Keys(p.Advance))
	for _, s := range c.wanted(config.SlotPhysical) {
		p.Physical = append(p.Physical, s.Name)
	}
	k.orphans = nil
	for _, s := range c.wanted(config.SlotLogical) {
		at, had := c.positions()[s.Name]
		if _, here := c.find(s.Name); had && !here {
			k.orphans = append(k.orphans, fmt.Sprintf("the permanent logical slot %s was at %s, but this leader has no copy of it: a new one would skip what was written since, so none is made; set its reader up anew, and in database %s: SELECT pg_create_logical_replication_slot('%s', '%s')",
				s.Name, at, s.Database, s.Name, s.Plugin))
			continue
		}
		p.Logical = append(p.Logical, slots.Logical{Name: s.Name, Database: s.Database, Plugin: s.Plugin})
	}
	departed := k.departed(c)
	p.Drop = k.sparing(c, func(s slots.Slot) bool { return s.Type == "physical" && slices.Contains(departed, s.Name) })
	return p
}

// standbyPlan keeps copies of those slots that the leader has. A member that may not lead keeps none.
func (k *slotKeeping) standbyPlan(c slotCase) slots.Plan {
	k.orphans = nil
	positions := c.positions()
	p := slots.Plan{Advance: map[string]cluster.LSN{}}
	keep := func(name string, make bool) {
		at, there := positions[name]
		if feeds := c.feeds(name); !feeds && (!there || !c.mayLead) {
			return
		}
		if there {
			p.Advance[name] = at
		}
		if make {
			p.Physical = append(p.Physical, name)
		}
	}
	for _, name := range c.members() {
		keep(name, true)
	}
	for _, s := range c.wanted(config.SlotPhysical) {
		keep(s.Name, true)
	}
	for _, s := range c.wanted(config.SlotLogical) {
		keep(s.Name, false)
	}
	gone := func(name string) bool { _, there := positions[name]; return !there && len(positions) > 0 }
	present, permanent := maps.Clone(k.present), maps.Clone(k.permanent) // the plan outlives this turn of the loop
	p.Drop = k.sparing(c, func(s slots.Slot) bool {
		_, members := present[s.Name]
		copied := permanent[s.Name]
		switch {
		case s.Type == "physical" && s.Name == cluster.SlotName(c.me):
			return true
		case !members && !copied:
			return false
		case !c.mayLead || !c.dynamic.UseSlots:
			return true
		case s.Type == "logical":
			return s.Lost || !c.isPermanent(s.Name)
		case slices.Contains(c.members(), s.Name):
			return false
		}
		return !c.isPermanent(s.Name) && (gone(s.Name) || copied && !members)
	})
	return p
}

// sparing leaves alone what ignore_slots names and what PostgreSQL keeps itself, and everything in a pause.
func (k *slotKeeping) sparing(c slotCase, drop func(slots.Slot) bool) func(slots.Slot) bool {
	return func(s slots.Slot) bool {
		return !c.dynamic.Pause && !s.Native && !c.dynamic.Ignores(s.Name, config.SlotType(s.Type), s.Database, s.Plugin) && drop(s)
	}
}

// see remembers the slots of the members that are there now, and those that the leader retains for others.
func (k *slotKeeping) see(c slotCase) {
	if k.present == nil {
		k.present, k.permanent = map[string]time.Time{}, map[string]bool{}
	}
	names := c.members()
	if s := c.snap.Status; s != nil && (c.standby || !k.inherited) {
		names = append(names, s.RetainSlots...)
		k.inherited = true
	}
	for _, name := range names {
		k.present[name] = c.now
	}
	for _, s := range c.dynamic.Slots {
		k.permanent[s.Name] = true
	}
}

// departed are the slots of members that have been gone for member_slots_ttl: kept longer, they would hold back WAL until
// the disk is full.
func (k *slotKeeping) departed(c slotCase) []string {
	var out []string
	for name, last := range k.present {
		if c.now.Sub(last) > c.dynamic.MemberSlotsTTL && !c.isPermanent(name) {
			out = append(out, name)
		}
	}
	return out
}

// status is the leader's status key, as Patroni writes it: the position of a physical slot is what it reserves, that of a
// logical one what its reader has confirmed. The own slot's name stands for the leader's position. A logical slot of which
// there is no copy here keeps its last position, so that no later leader takes it for a new one.
func (k *slotKeeping) status(p *postgres.Probe, c slotCase) *cluster.Status {
	s := &cluster.Status{Optime: reached(p), Slots: map[string]cluster.LSN{}}
	for _, w := range c.wanted(config.SlotLogical) {
		if at := c.positions()[w.Name]; at > 0 {
			s.Slots[w.Name] = at
		}
	}
	for name, at := range slotPositions(p, c.me) {
		if c.dynamic.MemberSlotsTTL > 0 || name == cluster.SlotName(c.me) || c.isPermanent(name) {
			s.Slots[name] = at
		}
	}
	if c.dynamic.MemberSlotsTTL > 0 && c.dynamic.UseSlots {
		departed := k.departed(c)
		for _, name := range slices.Sorted(maps.Keys(k.present)) {
			if !slices.Contains(departed, name) && !c.isPermanent(name) {
				s.RetainSlots = append(s.RetainSlots, name)
			}
		}
	}
	return s
}

// slotPositions are those of a leader's slots; see status.
func slotPositions(p *postgres.Probe, me string) map[string]cluster.LSN {
	out := map[string]cluster.LSN{cluster.SlotName(me): reached(p)}
	for _, s := range p.Slots {
		at := s.RestartLSN
		if s.Type == "logical" {
			at = s.ConfirmedFlushLSN
		}
		if at > 0 && !s.Temporary {
			out[s.Name] = at
		}
	}
	return out
}

// lastStatus is the status of a leader that hands over: its last positions of slots stay known.
func lastStatus(in input, end cluster.LSN) *cluster.Status {
	s := &cluster.Status{Optime: end}
	if old := in.snap.Status; old != nil {
		s.Slots, s.RetainSlots = old.Slots, old.RetainSlots
	}
	return s
}

func sameStatus(a, b cluster.Status) bool {
	return a.Optime == b.Optime && maps.Equal(a.Slots, b.Slots) && slices.Equal(a.RetainSlots, b.RetainSlots)
}

// slotNames tells which slots a status names: a new one is written at once, since a leader that did not know of it would
// make it anew.
func slotNames(s *cluster.Status) string {
	if s == nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(s.Slots)), " ")
}

// learn takes in what the last round has found.
func (k *slotKeeping) learn(r choresDone, log *slog.Logger) {
	k.failure = ""
	if r.err != nil {
		k.failure = r.err.Error()
	}
	k.copyable, k.waiting = r.copyable, r.waiting
	for name, s := range r.safety {
		if old, ok := k.copies[name]; ok && s.safe && !old.safe {
			log.Info("the copy of a logical slot is safe to be used after a failover", "slot", name)
		}
		if _, ok := k.copies[name]; ok {
			k.copies[name] = s
		}
	}
}

// problems are what an operator has to know of slots.
func (k *slotKeeping) problems(p *postgres.Probe) []string {
	out := slices.Concat(k.orphans, k.waiting)
	if k.failure != "" {
		out = append(out, "replication slots could not be brought in order: "+k.failure)
	}
	for _, name := range slices.Sorted(maps.Keys(k.doubtful)) {
		if d := k.doubtful[name]; !p.InRecovery && d.needs(p.Slots, name) {
			out = append(out, fmt.Sprintf("the logical slot %s may lack catalog rows that the former leader had removed: if its reader fails or tells of tables that are not there, set it up anew", name))
		}
	}
	return out
}
