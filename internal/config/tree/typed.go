package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/havenha/haven/internal/config/notation"
)

// Any gives a value the type that YAML 1.1 gives it: on and off are booleans, whole numbers are int. A number that JSON
// could not hold as it was written (0700, .inf) stays text.
func (v *Value) Any() any {
	switch v.Shape {
	case Null:
		return nil
	case List:
		out := []any{}
		for _, item := range v.Items {
			out = append(out, item.Any())
		}
		return out
	case Mapping:
		out := map[string]any{}
		for _, f := range v.Fields {
			out[f.Name] = f.Value.Any()
		}
		return out
	}
	if v.Quoted {
		return v.Text
	}
	if b, ok := notation.YAMLBool(v.Text); ok {
		return b
	}
	if regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`).MatchString(v.Text) {
		if n, err := strconv.Atoi(v.Text); err == nil {
			return n
		}
	}
	if regexp.MustCompile(`^-?(0|[1-9][0-9]*)\.[0-9]+$`).MatchString(v.Text) {
		if f, err := strconv.ParseFloat(v.Text, 64); err == nil {
			return f
		}
	}
	return v.Text
}

// JSON renders a mapping, without its nulls, as the store holds it; {} for nothing.
func (v *Value) JSON() json.RawMessage {
	if v == nil || v.Shape != Mapping {
		return json.RawMessage("{}")
	}
	out, err := Encode(WithoutNulls(v.Any()))
	if err != nil { // only text, numbers and booleans come out of any
		return json.RawMessage("{}")
	}
	return out
}

// Encode renders JSON on one line, without escapes for HTML.
func Encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// WithoutNulls takes the nulls out of a mapping, at every depth.
func WithoutNulls(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, child := range m {
		if child == nil {
			delete(m, name)
		} else {
			m[name] = WithoutNulls(child)
		}
	}
	return m
}

// FromJSON reads an object of the store.
func FromJSON(raw json.RawMessage, at Place) (*Value, error) {
	m, err := Object(raw)
	if err != nil {
		return nil, err
	}
	return fromAny(m, at), nil
}

// Object decodes a JSON object and keeps its numbers as they are written. Nothing at all is an empty object.
func Object(raw json.RawMessage) (map[string]any, error) {
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

func fromAny(v any, at Place) *Value {
	switch v := v.(type) {
	case map[string]any:
		out := &Value{Shape: Mapping, At: at}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			out.Fields = append(out.Fields, Field{Name: name, At: at, Value: fromAny(v[name], at)})
		}
		return out
	case []any:
		out := &Value{Shape: List, At: at}
		for _, item := range v {
			out.Items = append(out.Items, fromAny(item, at))
		}
		return out
	case nil:
		return &Value{At: at}
	case string:
		return &Value{Shape: Scalar, Text: v, Quoted: true, At: at}
	default: // bool and json.Number
		return &Value{Shape: Scalar, Text: fmt.Sprint(v), At: at}
	}
}
