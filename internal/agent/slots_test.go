package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/slots"
)

// threeSlots is a case of a cluster of a, b and c with two permanent slots, seen by a.
func threeSlots(t *testing.T, standby bool, dynamic string) slotCase {
	t.Helper()
	d, warnings, err := config.ParseDynamic([]byte(dynamic), true)
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	return slotCase{me: "a", standby: standby, mayLead: true, dynamic: d, now: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC),
		snap: cluster.Snapshot{Members: []cluster.Member{{Name: "a"}, {Name: "b"}, {Name: "c"}}}}
}

const twoSlots = `{"slots": {"kept": {}, "cdc": {"database": "d", "plugin": "p"}, "a": {}, "b": {}}, "ignore_slots": [{"name": "c"}]}`

func dropped(p slots.Plan, list ...slots.Slot) string {
	var out []string
	for _, s := range list {
		if s.Type == "" {
			s.Type = "physical"
		}
		if p.Drop(s) {
			out = append(out, s.Name)
		}
	}
	return strings.Join(out, " ")
}

func TestSlotsOfALeader(t *testing.T) {
	var k slotKeeping
	c := threeSlots(t, false, twoSlots)
	c.snap.Members = append(c.snap.Members, cluster.Member{Name: "gone"})
	k.plan(c)
	c.snap.Members = c.snap.Members[:3]
	p := k.plan(c)
	want := slots.Plan{Physical: []string{"b", "c", "b", "kept"}, Advance: map[string]cluster.LSN{}, Logical: []slots.Logical{{Name: "cdc", Database: "d", Plugin: "p"}}}
	drop := p.Drop
	p.Drop = nil
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	p.Drop = drop
	list := []slots.Slot{{Name: "gone"}, {Name: "c"}, {Name: "foreign"}, {Name: "b"}, {Name: "gone", Type: "logical"}}
	if got := dropped(p, list...); got != "" {
		t.Errorf("within member_slots_ttl dropped: %s", got)
	}
	c.snap.Members = c.snap.Members[:1]
	c.now = c.now.Add(31 * time.Minute)
	if got := dropped(k.plan(c), list...); got != "gone" {
		t.Errorf("after member_slots_ttl dropped: %s; c is ignored, b permanent, foreign nobody's", got)
	}
	c.dynamic.Pause = true
	if got := dropped(k.plan(c), list...); got != "" {
		t.Errorf("in a pause dropped: %s", got)
	}
}

// A leader that has no copy of its predecessor's logical slot would skip, with a new one, what was written since.
func TestLogicalSlotOfAFormerLeaderIsNotMadeAnew(t *testing.T) {
	var k slotKeeping
	c := threeSlots(t, false, twoSlots)
	c.snap.Status = &cluster.Status{Optime: 900, Slots: map[string]cluster.LSN{"cdc": 0x500, "b": 1}}
	if p := k.plan(c); len(p.Logical) > 0 {
		t.Errorf("made: %+v", p.Logical)
	}
	told := strings.Join(k.problems(&postgres.Probe{}), "\n")
	if !strings.Contains(told, "slot cdc was at 0/500") || !strings.Contains(told, "pg_create_logical_replication_slot('cdc', 'p')") {
		t.Errorf("told: %s", told)
	}
	// The position stays in the store, for the next leader; until the slot is there.
	s := k.status(&postgres.Probe{WalLSN: 0x1000}, c)
	if s.Slots["cdc"] != 0x500 {
		t.Errorf("status: %+v", s)
	}
	here := []postgres.Slot{{Name: "cdc", Type: "logical", RestartLSN: 0x800, ConfirmedFlushLSN: 0x900}}
	c.here = here
	if p := k.plan(c); len(p.Logical) != 1 || len(k.problems(&postgres.Probe{})) > 0 {
		t.Errorf("with the slot: %+v", p.Logical)
	}
	if s := k.status(&postgres.Probe{WalLSN: 0x1000, Slots: here}, c); s.Slots["cdc"] != 0x900 {
		t.Errorf("status: %+v", s)
	}
}

func TestStatusTellsSlotsAsPatroniDoes(t *testing.T) {
	var k slotKeeping
	c := threeSlots(t, false, twoSlots)
	k.plan(c)
	p := &postgres.Probe{WalLSN: 0x1000, Slots: []postgres.Slot{
		{Name: "b", Type: "physical", RestartLSN: 0x700}, {Name: "cdc", Type: "logical", RestartLSN: 0x600, ConfirmedFlushLSN: 0x800},
		{Name: "copying", Type: "physical", Temporary: true, RestartLSN: 1}, {Name: "unborn", Type: "physical"}, {Name: "other", Type: "physical", RestartLSN: 0x10},
	}}
	want := &cluster.Status{Optime: 0x1000, Slots: map[string]cluster.LSN{"a": 0x1000, "b": 0x700, "cdc": 0x800, "other": 0x10}, RetainSlots: []string{"c"}}
	if d := cmp.Diff(want, k.status(p, c)); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
	c.dynamic.MemberSlotsTTL = 0
	want = &cluster.Status{Optime: 0x1000, Slots: map[string]cluster.LSN{"a": 0x1000, "b": 0x700, "cdc": 0x800}}
	if d := cmp.Diff(want, k.status(p, c)); d != "" {
		t.Errorf("without member_slots_ttl (-want +got):\n%s", d)
	}
}

func TestSlotsOfAStandby(t *testing.T) {
	var k slotKeeping
	c := threeSlots(t, true, twoSlots)
	c.snap.Status = &cluster.Status{Slots: map[string]cluster.LSN{"a": 1, "b": 2, "c": 3, "kept": 4, "cdc": 5, "foreign": 6}, RetainSlots: []string{"gone"}}
	p := k.plan(c)
	if want := map[string]cluster.LSN{"b": 2, "c": 3, "kept": 4, "cdc": 5}; !cmp.Equal(want, p.Advance) || len(p.Logical) > 0 {
		t.Errorf("advanced: %v, made: %v", p.Advance, p.Logical)
	}
	if slices.Sort(p.Physical); strings.Join(slices.Compact(p.Physical), " ") != "b c kept" {
		t.Errorf("kept: %v", p.Physical)
	}
	list := []slots.Slot{{Name: "a"}, {Name: "b"}, {Name: "kept"}, {Name: "gone"}, {Name: "foreign"}, {Name: "cdc", Type: "logical"}, {Name: "theirs", Type: "logical"}}
	if got := dropped(p, list...); got != "a gone" {
		t.Errorf("dropped: %s", got)
	}
	if got := dropped(p, slots.Slot{Name: "cdc", Type: "logical", Lost: true}, slots.Slot{Name: "cdc", Type: "logical", Lost: true, Native: true}); got != "cdc" {
		t.Errorf("of the copies that are no use dropped: %q; they are copied anew", got)
	}
	c.dynamic.Slots = nil // the operator has taken them out
	if got := dropped(k.plan(c), list...); got != "a kept gone cdc" {
		t.Errorf("no longer permanent, dropped: %s", got)
	}
	c = threeSlots(t, true, twoSlots)
	c.mayLead, c.snap.Status = false, &cluster.Status{Slots: map[string]cluster.LSN{"b": 2, "kept": 4}}
	if p := k.plan(c); len(p.Physical)+len(p.Advance) > 0 || dropped(p, list...) != "a b kept gone cdc" {
		t.Errorf("a member that may not lead keeps %v, %v, drops %s", p.Physical, p.Advance, dropped(p, list...))
	}
	c = threeSlots(t, true, twoSlots)
	if p := k.plan(c); len(p.Physical)+len(p.Advance) > 0 || dropped(p, list...) != "a" {
		t.Errorf("while positions are not known it keeps %v, %v, drops %s", p.Physical, p.Advance, dropped(p, list...))
	}
}

func TestCopiesOfLogicalSlotsAreJudged(t *testing.T) {
	for _, c := range []struct {
		name              string
		leader, own, feed uint32
		remembered        uint32
		want              string
	}{
		{"no feedback yet", 700, 700, 0, 0, "map[]"},
		{"an idle reader", 700, 700, 700, 0, "map[cdc:{700 700 true}]"},
		{"the leader's was ahead", 705, 700, 700, 0, "map[cdc:{705 700 false}]"},
		{"it has come as far as the leader's was", 900, 706, 706, 705, "map[cdc:{705 706 true}]"},
		{"the leader's slot for us is ahead", 705, 706, 800, 705, "map[cdc:{705 706 false}]"},
		{"over the end of the numbers", 5, 7, 4294967290, 5, "map[cdc:{5 7 true}]"},
		{"the leader has none", 0, 700, 700, 0, "map[cdc:{0 700 false}]"},
	} {
		got := judged(map[string]safety{"cdc": {leaderXmin: c.remembered, ownXmin: c.own}}, map[string]uint32{"cdc": c.leader}, c.feed)
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// A slot that cannot be copied does not have its standby restarted again and again, and not all standbys restart at once.
func TestCopiesAreTriedWithPauses(t *testing.T) {
	var p copyPace
	begin := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	var tries []string
	for s := range 700 {
		if p.due(true, s >= 3, 1, begin.Add(time.Duration(s)*time.Second)) {
			tries = append(tries, fmt.Sprint(s))
		}
	}
	if got := strings.Join(tries, " "); got != "5 35 95 215 455" {
		t.Errorf("tried at second %s", got)
	}
	if p.due(false, true, 1, begin) || p != (copyPace{}) {
		t.Error("what is there is copied")
	}
}
