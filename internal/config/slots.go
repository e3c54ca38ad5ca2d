package config

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/havenha/haven/internal/config/tree"
)

// SlotType is what a replication slot is for, as pg_replication_slots names it.
type SlotType string

// The types of slots.
const (
	SlotPhysical SlotType = "physical"
	SlotLogical  SlotType = "logical"
)

// Slot describes a permanent replication slot, or in ignore_slots those that it is compared with: there what is empty
// fits everything.
type Slot struct {
	Name             string
	Type             SlotType
	Database, Plugin string // of a logical one
}

// Fits tells whether a slot is one of those that an element of ignore_slots describes: all that it names must be equal.
func (s Slot) Fits(name string, kind SlotType, database, plugin string) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(s.Name, name) && same(string(s.Type), string(kind)) && same(s.Database, database) && same(s.Plugin, plugin)
}

// Ignores tells whether ignore_slots says that a slot is to be left alone.
func (d Dynamic) Ignores(name string, kind SlotType, database, plugin string) bool {
	return slices.ContainsFunc(d.IgnoreSlots, func(s Slot) bool { return s.Fits(name, kind, database, plugin) })
}

// LogicalSlots tells whether there are permanent logical slots that members keep: then standbys need
// hot_standby_feedback, so that the leader keeps what decoding from their copies needs.
func (d Dynamic) LogicalSlots() bool {
	return d.UseSlots && slices.ContainsFunc(d.Slots, func(s Slot) bool { return s.Type == SlotLogical })
}

// slotNames are the keys under which permanent slots are written, the newest first.
func slotNames() []string { return []string{"slots", "permanent_slots", "permanent_replication_slots"} }

// The types of clusters that a slot may be for.
const (
	primaryCluster = "primary"
	standbyCluster = "standby"
)

// permanentSlots reads slots, sorted by name, those for clusters of that type. What is wrong is reported, and not taken.
func permanentSlots(doc *tree.Value, clusterType string, wrong tree.Report) []Slot {
	var out []Slot
	for _, key := range slotNames() {
		v := doc.Find(key)
		if v == nil || v.Shape == tree.Null {
			continue
		}
		if v.Shape != tree.Mapping {
			wrong(v.At, "`%s` is not a mapping: write `name: {type: physical}` lines", key)
			return nil
		}
		for _, f := range v.Fields {
			s, cluster, err := slotOf(f)
			if err != nil {
				wrong(f.At, "`%s.%s` is not a slot that can be made: %v", key, f.Name, err)
			} else if cluster == "" || cluster == clusterType {
				out = append(out, s)
			}
		}
		break
	}
	slices.SortFunc(out, func(a, b Slot) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// slotName is what PostgreSQL takes as the name of a slot (manual, "Replication Slots"); its names have at most 63 bytes.
func slotName(s string) bool { return regexp.MustCompile(`^[a-z0-9_]{1,63}$`).MatchString(s) }

// slotOf reads one slot; without a type it is logical where it has a database and a plugin, as Patroni reads it.
func slotOf(f tree.Field) (s Slot, cluster string, err error) {
	v := f.Value
	if !slotName(f.Name) {
		return s, "", fmt.Errorf("a name has lower-case letters, digits and underscores only, and at most 63 of them")
	}
	if v.Shape != tree.Mapping && v.Shape != tree.Null {
		return s, "", fmt.Errorf("write {type: physical}, or {type: logical, database: …, plugin: …}")
	}
	for _, e := range v.Fields {
		if !slices.Contains([]string{"type", "database", "plugin", "cluster_type"}, e.Name) {
			return s, "", fmt.Errorf("`%s` is not known here: type, database, plugin and cluster_type are", e.Name)
		}
	}
	text := func(name string) string { return v.Field(name).TextOr("") }
	s = Slot{Name: f.Name, Type: SlotType(text("type")), Database: text("database"), Plugin: text("plugin")}
	if s.Type == "" {
		s.Type = SlotPhysical
		if s.Database != "" && s.Plugin != "" {
			s.Type = SlotLogical
		}
	}
	cluster = text("cluster_type")
	switch {
	case s.Type != SlotPhysical && s.Type != SlotLogical:
		err = fmt.Errorf("its type is `%s`: write physical or logical", s.Type)
	case s.Type == SlotLogical && (s.Database == "" || s.Plugin == ""):
		err = fmt.Errorf("a logical slot needs a database and a plugin")
	case s.Type == SlotPhysical && (s.Database != "" || s.Plugin != ""):
		err = fmt.Errorf("a physical slot has neither database nor plugin: write type: logical")
	case cluster != "" && cluster != primaryCluster && cluster != standbyCluster:
		err = fmt.Errorf("its cluster_type is `%s`: write primary or standby", cluster)
	}
	return s, cluster, err
}

// ignoredSlots reads ignore_slots.
func ignoredSlots(doc *tree.Value, wrong tree.Report) []Slot {
	v := doc.Find("ignore_slots")
	if v == nil || v.Shape == tree.Null {
		return nil
	}
	if v.Shape != tree.List {
		wrong(v.At, "`ignore_slots` is not a list: write elements such as {name: x, type: logical}")
		return nil
	}
	var out []Slot
	for _, item := range v.Items {
		text := func(name string) string { return item.Field(name).TextOr("") }
		s := Slot{Name: text("name"), Type: SlotType(text("type")), Database: text("database"), Plugin: text("plugin")}
		if s == (Slot{}) {
			wrong(item.At, "an element of `ignore_slots` says nothing of a slot: write at least one of name, type, database, plugin")
			continue
		}
		out = append(out, s)
	}
	return out
}
