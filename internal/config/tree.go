package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// place is where a value was written: in a file, or (note) in a variable, by default, by derivation.
type place struct {
	file         string
	line, column int
	note         string
}

func (p place) String() string {
	if p.file == "" {
		return p.note
	}
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// written tells whether a person wrote it there: in a file, a variable or a flag.
func (p place) written() bool {
	return p.file != "" || strings.HasPrefix(p.note, "PATRONI_") || strings.HasPrefix(p.note, "--")
}

type shape int

const (
	null shape = iota
	scalar
	list
	mapping
)

// value is a YAML value that remembers its place. Scalars keep their text, so that 0700 stays 0700.
type value struct {
	shape  shape
	text   string
	quoted bool // a quoted scalar is a string, whatever it looks like
	empty  bool // a null for which nothing at all was written
	items  []*value
	fields []field
	at     place
}

type field struct {
	name  string
	at    place
	value *value
}

func text(s, note string) *value { return &value{shape: scalar, text: s, at: place{note: note}} }

// field returns the value of that name, and nil where there is none.
func (v *value) field(name string) *value {
	if f := v.entry(name); f != nil {
		return f.value
	}
	return nil
}

func (v *value) entry(name string) *field {
	if v == nil {
		return nil
	}
	for i := range v.fields {
		if v.fields[i].name == name {
			return &v.fields[i]
		}
	}
	return nil
}

func (v *value) put(name string, child *value) {
	if f := v.entry(name); f != nil {
		f.value, f.at = child, child.at
		return
	}
	v.shape = mapping
	v.fields = append(v.fields, field{name: name, at: child.at, value: child})
}

func (v *value) drop(name string) {
	v.fields = slices.DeleteFunc(v.fields, func(f field) bool { return f.name == name })
}

// find follows a path such as proxy.listeners[0].mode; nil where it leads nowhere.
func (v *value) find(path string) *value {
	for step := range strings.SplitSeq(path, ".") {
		name, index, indexed := cutIndex(step)
		v = v.field(name)
		if indexed {
			if v == nil || index >= len(v.items) {
				return nil
			}
			v = v.items[index]
		}
		if v == nil {
			return nil
		}
	}
	return v
}

func cutIndex(step string) (name string, index int, ok bool) {
	name, rest, ok := strings.Cut(step, "[")
	if !ok {
		return step, 0, false
	}
	index, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	return name, index, err == nil && index >= 0
}

// set puts a value at a path, making the mappings on the way to it.
func (v *value) set(path string, child *value) {
	dir, last, nested := cutLast(path)
	if !nested {
		v.put(last, child)
		return
	}
	parent := v.find(dir)
	if parent == nil || parent.shape == null {
		parent = &value{shape: mapping, at: child.at}
		v.set(dir, parent)
	}
	if parent.shape == mapping {
		parent.put(last, child)
	}
}

func cutLast(path string) (dir, last string, nested bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// nearest is the place of the longest part of the path that exists: where something missing should be written.
func (v *value) nearest(path string) place {
	at := v.at
	for step := range strings.SplitSeq(path, ".") {
		name, index, indexed := cutIndex(step)
		f := v.entry(name)
		if f == nil {
			return at
		}
		if f.at.written() {
			at = f.at
		}
		v = f.value
		if indexed && index < len(v.items) {
			v = v.items[index]
			if v.at.written() {
				at = v.at
			}
		}
	}
	return at
}

// merge lays over on top of base, as Patroni does with several files: mappings deeply, anything else replaces. A null
// stays as a null, which readers treat as absent.
func merge(base, over *value) *value {
	if base == nil || over == nil || base.shape != mapping || over.shape != mapping {
		if over == nil {
			return base
		}
		return over
	}
	out := &value{shape: mapping, at: base.at, fields: slices.Clone(base.fields)}
	for _, f := range over.fields {
		if old := out.entry(f.name); old != nil {
			merged := merge(old.value, f.value)
			if merged == f.value {
				old.at = f.at
			}
			old.value = merged
			continue
		}
		out.fields = append(out.fields, f)
	}
	return out
}

func (v *value) clone() *value {
	if v == nil {
		return nil
	}
	c := *v
	c.items = make([]*value, len(v.items))
	for i, item := range v.items {
		c.items[i] = item.clone()
	}
	c.fields = make([]field, len(v.fields))
	for i, f := range v.fields {
		c.fields[i] = field{f.name, f.at, f.value.clone()}
	}
	return &c
}

// leaves calls visit for each scalar, null and empty list or mapping below v.
func (v *value) leaves(path string, visit func(path string, v *value)) {
	switch {
	case v.shape == mapping && len(v.fields) > 0:
		for _, f := range v.fields {
			f.value.leaves(strings.TrimPrefix(path+"."+f.name, "."), visit)
		}
	case v.shape == list && len(v.items) > 0:
		for i, item := range v.items {
			item.leaves(fmt.Sprintf("%s[%d]", path, i), visit)
		}
	default:
		visit(path, v)
	}
}
