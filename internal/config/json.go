package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

// any gives a value the type that YAML 1.1 gives it: on and off are booleans, whole numbers are int. A number that JSON
// could not hold as it was written (0700, .inf) stays text.
func (v *value) any() any {
	switch v.shape {
	case null:
		return nil
	case list:
		out := []any{}
		for _, item := range v.items {
			out = append(out, item.any())
		}
		return out
	case mapping:
		out := map[string]any{}
		for _, f := range v.fields {
			out[f.name] = f.value.any()
		}
		return out
	}
	if v.quoted {
		return v.text
	}
	if b, ok := yamlBool(v.text); ok {
		return b
	}
	if regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`).MatchString(v.text) {
		if n, err := strconv.Atoi(v.text); err == nil {
			return n
		}
	}
	if regexp.MustCompile(`^-?(0|[1-9][0-9]*)\.[0-9]+$`).MatchString(v.text) {
		if f, err := strconv.ParseFloat(v.text, 64); err == nil {
			return f
		}
	}
	return v.text
}

// json renders a mapping, without its nulls, as the store holds it; {} for nothing.
func (v *value) json() json.RawMessage {
	if v == nil || v.shape != mapping {
		return json.RawMessage("{}")
	}
	out, err := encode(withoutNulls(v.any()))
	if err != nil { // only text, numbers and booleans come out of any
		return json.RawMessage("{}")
	}
	return out
}

func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func withoutNulls(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, child := range m {
		if child == nil {
			delete(m, name)
		} else {
			m[name] = withoutNulls(child)
		}
	}
	return m
}

// fromJSON reads an object of the store.
func fromJSON(raw json.RawMessage, at place) (*value, error) {
	m, err := object(raw)
	if err != nil {
		return nil, err
	}
	return fromAny(m, at), nil
}

// object decodes a JSON object and keeps its numbers as they are written. Nothing at all is an empty object.
func object(raw json.RawMessage) (map[string]any, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return map[string]any{}, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("this is not JSON: %w", err)
	}
	if dec.More() {
		return nil, errors.New("this is not JSON: something follows the object")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("this is not a JSON object: write {\"key\": value, …}")
	}
	return m, nil
}

func fromAny(v any, at place) *value {
	switch v := v.(type) {
	case map[string]any:
		out := &value{shape: mapping, at: at}
		for _, name := range sortedKeys(v) {
			out.fields = append(out.fields, field{name: name, at: at, value: fromAny(v[name], at)})
		}
		return out
	case []any:
		out := &value{shape: list, at: at}
		for _, item := range v {
			out.items = append(out.items, fromAny(item, at))
		}
		return out
	case nil:
		return &value{at: at}
	case string:
		return &value{shape: scalar, text: v, quoted: true, at: at}
	default: // bool and json.Number
		return &value{shape: scalar, text: fmt.Sprint(v), at: at}
	}
}

// MergePatch lays a patch over a document, as PATCH /config does and RFC 7396 describes: null deletes, objects merge,
// anything else replaces. Both must be JSON objects; the result has sorted keys.
func MergePatch(doc, patch json.RawMessage) (json.RawMessage, error) {
	base, err := object(doc)
	if err != nil {
		return nil, fmt.Errorf("merge: document: %w", err)
	}
	over, err := object(patch)
	if err != nil {
		return nil, fmt.Errorf("merge: patch: %w", err)
	}
	return encode(mergePatch(base, over))
}

func mergePatch(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for name, v := range over {
		child, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, name)
		case isObject:
			old, ok := out[name].(map[string]any)
			if !ok {
				old = map[string]any{}
			}
			out[name] = mergePatch(old, child)
		default:
			out[name] = v
		}
	}
	return out
}

// DefaultDCS is the dynamic configuration that a bootstrap stores: bootstrap.dcs, in Haven format with
// synchronous_mode on where it says nothing of it.
func DefaultDCS(format Format, b *Bootstrap) json.RawMessage {
	var written json.RawMessage
	if b != nil {
		written = b.DCS
	}
	m, err := object(written)
	if err != nil {
		m = map[string]any{}
	}
	if _, ok := m["synchronous_mode"]; !ok && format == Haven {
		m["synchronous_mode"] = true
	}
	out, err := encode(m)
	if err != nil { // what was decoded can be encoded
		return json.RawMessage("{}")
	}
	return out
}

// tags reads the section tags and warns of contradictions, in Patroni's words.
func (l *loader) tags() map[string]any {
	v := l.given("tags")
	if v == nil || v.shape != mapping {
		if v != nil {
			l.report.errorf(v.at, "`tags` is %s: write `name: value` lines", described(v))
		}
		return map[string]any{}
	}
	tags := withoutNulls(v.any()).(map[string]any)
	for _, pair := range [][2]string{{"nofailover", "failover_priority"}, {"nosync", "sync_priority"}} {
		no, isBool := tags[pair[0]].(bool)
		priority, isInt := tags[pair[1]].(int)
		if isBool && isInt && no == (priority > 0) {
			python := strings.ToUpper(fmt.Sprint(no)[:1]) + fmt.Sprint(no)[1:]
			l.report.warnf(l.doc.nearest("tags."+pair[0]), "Conflicting configuration between %s: %s and %s: %d. Defaulting to %s: %s", pair[0], python, pair[1], priority, pair[0], python)
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
