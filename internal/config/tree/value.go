package tree

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
)

// Place is where a value was written: in a file, or (Note) in a variable, by default, by derivation.
type Place struct {
	File         string
	Line, Column int
	Note         string
}

// String is file:line, or the note.
func (p Place) String() string {
	if p.File == "" {
		return p.Note
	}
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Written tells whether a person wrote it there: in a file, a variable or a flag.
func (p Place) Written() bool {
	return p.File != "" || strings.HasPrefix(p.Note, "PATRONI_") || strings.HasPrefix(p.Note, "--")
}

// Shape is what a value is made of.
type Shape int

// The shapes.
const (
	Null Shape = iota
	Scalar
	List
	Mapping
)

// Value is a YAML value that remembers its place. Scalars keep their text, so that 0700 stays 0700.
type Value struct {
	Shape  Shape
	Text   string
	Quoted bool // a quoted scalar is a string, whatever it looks like
	Empty  bool // a null for which nothing at all was written
	Items  []*Value
	Fields []Field
	At     Place
}

// Field is one key of a mapping, with the place of the key itself.
type Field struct {
	Name  string
	At    Place
	Value *Value
}

// Text is a scalar that nobody wrote; note says where it comes from.
func Text(s, note string) *Value { return &Value{Shape: Scalar, Text: s, At: Place{Note: note}} }

// Field returns the value of that name, and nil where there is none.
func (v *Value) Field(name string) *Value {
	if f := v.Entry(name); f != nil {
		return f.Value
	}
	return nil
}

// Entry returns the field of that name, and nil where there is none; v may be nil.
func (v *Value) Entry(name string) *Field {
	if v == nil {
		return nil
	}
	for i := range v.Fields {
		if v.Fields[i].Name == name {
			return &v.Fields[i]
		}
	}
	return nil
}

// Put sets a field of a mapping.
func (v *Value) Put(name string, child *Value) {
	if f := v.Entry(name); f != nil {
		f.Value, f.At = child, child.At
		return
	}
	v.Shape = Mapping
	v.Fields = append(v.Fields, Field{Name: name, At: child.At, Value: child})
}

// Drop removes a field.
func (v *Value) Drop(name string) {
	v.Fields = slices.DeleteFunc(v.Fields, func(f Field) bool { return f.Name == name })
}

// Find follows a path such as proxy.listeners[0].mode; nil where it leads nowhere.
func (v *Value) Find(path string) *Value {
	for step := range strings.SplitSeq(path, ".") {
		name, index, indexed := CutIndex(step)
		v = v.Field(name)
		if indexed {
			if v == nil || index >= len(v.Items) {
				return nil
			}
			v = v.Items[index]
		}
		if v == nil {
			return nil
		}
	}
	return v
}

// CutIndex takes a step of a path such as listeners[0] apart.
func CutIndex(step string) (name string, index int, ok bool) {
	name, rest, ok := strings.Cut(step, "[")
	if !ok {
		return step, 0, false
	}
	index, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	return name, index, err == nil && index >= 0
}

// Set puts a value at a path, making the mappings on the way to it.
func (v *Value) Set(path string, child *Value) {
	dir, last, nested := CutLast(path)
	if !nested {
		v.Put(last, child)
		return
	}
	parent := v.Find(dir)
	if parent == nil || parent.Shape == Null {
		parent = &Value{Shape: Mapping, At: child.At}
		v.Set(dir, parent)
	}
	if parent.Shape == Mapping {
		parent.Put(last, child)
	}
}

// CutLast takes the last step off a path; nested tells whether anything is left.
func CutLast(path string) (dir, last string, nested bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// Nearest is the place of the longest part of the path that exists: where something missing should be written.
func (v *Value) Nearest(path string) Place {
	at := v.At
	for step := range strings.SplitSeq(path, ".") {
		name, index, indexed := CutIndex(step)
		f := v.Entry(name)
		if f == nil {
			return at
		}
		if f.At.Written() {
			at = f.At
		}
		v = f.Value
		if indexed && index < len(v.Items) {
			v = v.Items[index]
			if v.At.Written() {
				at = v.At
			}
		}
	}
	return at
}

// Merge lays over on top of base, as Patroni does with several files: mappings deeply, anything else replaces. A null
// stays as a null, which readers treat as absent.
func Merge(base, over *Value) *Value {
	if base == nil || over == nil || base.Shape != Mapping || over.Shape != Mapping {
		if over == nil {
			return base
		}
		return over
	}
	out := &Value{Shape: Mapping, At: base.At, Fields: slices.Clone(base.Fields)}
	for _, f := range over.Fields {
		if old := out.Entry(f.Name); old != nil {
			merged := Merge(old.Value, f.Value)
			if merged == f.Value {
				old.At = f.At
			}
			old.Value = merged
			continue
		}
		out.Fields = append(out.Fields, f)
	}
	return out
}

// Clone is a copy that shares nothing.
func (v *Value) Clone() *Value {
	if v == nil {
		return nil
	}
	c := *v
	c.Items = make([]*Value, len(v.Items))
	for i, item := range v.Items {
		c.Items[i] = item.Clone()
	}
	c.Fields = make([]Field, len(v.Fields))
	for i, f := range v.Fields {
		c.Fields[i] = Field{f.Name, f.At, f.Value.Clone()}
	}
	return &c
}

// Leaves calls visit for each scalar, null and empty list or mapping below v.
func (v *Value) Leaves(path string, visit func(path string, v *Value)) {
	switch {
	case v.Shape == Mapping && len(v.Fields) > 0:
		for _, f := range v.Fields {
			f.Value.Leaves(strings.TrimPrefix(path+"."+f.Name, "."), visit)
		}
	case v.Shape == List && len(v.Items) > 0:
		for i, item := range v.Items {
			item.Leaves(fmt.Sprintf("%s[%d]", path, i), visit)
		}
	default:
		visit(path, v)
	}
}

// TextOr is the text of a scalar, or otherwise.
func (v *Value) TextOr(otherwise string) string {
	if v == nil || v.Shape != Scalar {
		return otherwise
	}
	return v.Text
}

// Stamp puts a value and all below it at one place.
func (v *Value) Stamp(at Place) {
	v.At = at
	for _, item := range v.Items {
		item.Stamp(at)
	}
	for i := range v.Fields {
		v.Fields[i].At = at
		v.Fields[i].Value.Stamp(at)
	}
}

// Setting is the text of a scalar, with booleans as PostgreSQL spells them: on and off.
func (v *Value) Setting() string {
	if b, ok := notation.YAMLBool(v.Text); ok && !v.Quoted {
		if b {
			return "on"
		}
		return "off"
	}
	return v.Text
}
