package config

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// DefaultDCS is the dynamic configuration that a bootstrap stores: bootstrap.dcs, in Haven format with
// synchronous_mode on where it says nothing of it.
func DefaultDCS(format Format, b *Bootstrap) json.RawMessage {
	var written json.RawMessage
	if b != nil {
		written = b.DCS
	}
	m, err := tree.Object(written)
	if err != nil {
		m = map[string]any{}
	}
	if _, ok := m["synchronous_mode"]; !ok && format == Haven {
		m["synchronous_mode"] = true
	}
	out, err := tree.Encode(m)
	if err != nil { // what was decoded can be encoded
		return json.RawMessage("{}")
	}
	return out
}

// tags reads the section tags and warns of contradictions, in Patroni's words.
func (l *loader) tags() map[string]any {
	v := l.given("tags")
	if v == nil || v.Shape != tree.Mapping {
		if v != nil {
			l.report.errorf(v.At, "`tags` is %s: write `name: value` lines", schema.Described(v))
		}
		return map[string]any{}
	}
	tags := tree.WithoutNulls(v.Any()).(map[string]any)
	for _, pair := range [][2]string{{"nofailover", "failover_priority"}, {"nosync", "sync_priority"}} {
		no, isBool := tags[pair[0]].(bool)
		priority, isInt := tags[pair[1]].(int)
		if isBool && isInt && no == (priority > 0) {
			python := strings.ToUpper(fmt.Sprint(no)[:1]) + fmt.Sprint(no)[1:]
			l.report.warnf(l.doc.Nearest("tags."+pair[0]), "Conflicting configuration between %s: %s and %s: %d. Defaulting to %s: %s", pair[0], python, pair[1], priority, pair[0], python)
		}
	}
	return tags
}

// PublishedTags are the tags as a member key holds them: false values of the known ones are left out, except where
// the priority that goes with them is given.
func (n *Node) PublishedTags() map[string]any {
	out := map[string]any{}
	for name, v := range n.Tags {
		off := v == false
		switch name {
		case "clonefrom", "noloadbalance", "nostream":
		case "nofailover":
			off = off && n.Tags["failover_priority"] == nil
		case "nosync":
			off = off && n.Tags["sync_priority"] == nil
		default:
			off = false
		}
		if !off {
			out[name] = v
		}
	}
	return out
}
