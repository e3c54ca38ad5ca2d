package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestPermanentSlots(t *testing.T) {
	for raw, want := range map[string]string{
		`{"slots": {"b": {"type": "physical"}, "a": {"type": "logical", "database": "shop", "plugin": "pgoutput"}}}`:                 "[{a logical shop pgoutput} {b physical  }]",
		`{"slots": {"a": {"database": "shop", "plugin": "pgoutput"}, "b": {}, "c": null}}`:                                           "[{a logical shop pgoutput} {b physical  } {c physical  }]",
		`{"slots": {"a": {"cluster_type": "standby"}, "b": {"cluster_type": "primary"}}}`:                                            "[{b physical  }]",
		`{"standby_cluster": {"host": "x"}, "slots": {"a": {"cluster_type": "standby"}, "b": {"cluster_type": "primary"}, "c": {}}}`: "[{a physical  } {c physical  }]",
		`{"slots": {}, "permanent_slots": {"old": {}}}`:                                                                              "[]",
		`{"permanent_replication_slots": {"old": {}}}`:                                                                               "[{old physical  }]",
		`{"slots": {"Big": {}}}`:                                          "[] a name has lower-case letters",
		`{"slots": {"` + strings.Repeat("x", 64) + `": {}}}`:              "[] a name has lower-case letters",
		`{"slots": {"a": {"type": "logical", "database": "shop"}}}`:       "[] a logical slot needs a database and a plugin",
		`{"slots": {"a": {"type": "physical", "plugin": "x"}, "ok": {}}}`: "[{ok physical  }] a physical slot has neither",
		`{"slots": {"a": {"type": "temporary"}}}`:                         "[] its type is `temporary`",
		`{"slots": {"a": {"cluster_type": "both"}}}`:                      "[] its cluster_type is `both`",
		`{"slots": {"a": {"typ": "physical"}}}`:                           "[] `typ` is not known here",
		`{"slots": {"a": "physical"}}`:                                    "[] write {type: physical}",
		`{"slots": ["a"]}`:                                                "[] `slots` is not a mapping",
		`{"slots": {"a": {"type": "logical", "database": "d", "plugin": "p"}}, "postgresql": {"use_slots": false}}`: "[{a logical d p}]",
	} {
		d, warnings, err := ParseDynamic(json.RawMessage(raw), true)
		if err != nil {
			t.Fatal(err)
		}
		list, fault, faulty := strings.Cut(want, "] ")
		if faulty {
			list += "]"
		}
		if got := fmt.Sprint(d.Slots); got != list || len(warnings) > 0 != faulty || !strings.Contains(strings.Join(warnings, "\n"), fault) {
			t.Errorf("%s\ngot  %s %q\nwant %s", raw, got, warnings, want)
		}
		if r := CheckDynamic(json.RawMessage(raw)); r.OK() == faulty {
			t.Errorf("%s: before it is stored: %s", raw, r)
		}
	}
}

func TestIgnoredSlots(t *testing.T) {
	d, warnings, err := ParseDynamic(json.RawMessage(`{"ignore_slots": [{"name": "mine"}, {"type": "logical", "plugin": "wal2json"}, {}, 3]}`), true)
	if err != nil || len(warnings) != 2 {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	for _, c := range []struct {
		slot Slot
		want bool
	}{
		{Slot{"mine", SlotPhysical, "", ""}, true}, {Slot{"mine", SlotLogical, "d", "p"}, true}, {Slot{"other", SlotLogical, "d", "wal2json"}, true},
		{Slot{"other", SlotLogical, "d", "pgoutput"}, false}, {Slot{"other", SlotPhysical, "", ""}, false},
	} {
		if got := d.Ignores(c.slot.Name, c.slot.Type, c.slot.Database, c.slot.Plugin); got != c.want {
			t.Errorf("%+v is left alone: %v", c.slot, got)
		}
	}
}

// A standby's copies of logical slots are of no use unless the leader keeps the catalog rows that decoding from them needs.
func TestLogicalSlotsNeedFeedback(t *testing.T) {
	n, _ := mustLoad(t, host(write(t, databaseNode)))
	for slots, want := range map[string]string{
		`{"a": {"database": "d", "plugin": "p"}}`: "on", `{"a": {}}`: "", `{"a": {"database": "d", "plugin": "p", "cluster_type": "standby"}}`: "",
	} {
		d, _, err := ParseDynamic(json.RawMessage(`{"slots": `+slots+`}`), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, params, _, _, _, _ := n.ServerSettings(d, "replica"); params["hot_standby_feedback"] != want {
			t.Errorf("%s: hot_standby_feedback is %q", slots, params["hot_standby_feedback"])
		}
	}
}
